"""A board with the array on it, at the other end of a serial line: programs loaded, inputs run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from celosia.board_programs import BoardProgram, board_program
from celosia.program import Program, check_program
from celosia.results import (
    Notice,
    Progress,
    RunResult,
    Stages,
    Tensors,
    as_images,
    of_all_runs,
    once,
    result_of,
    stored_names,
    warned,
)
from celosia_boards.host.driver import Driver
from celosia_boards.host.job import Job, Record
from celosia_boards.host.link import Line
from celosia_boards.host.machine import Machine, Status
from celosia_boards.host.requests import BLOCK_BYTES
from celosia_boards.targets import Target, target, targets
from celosia_spec.errors import CelosiaError
from celosia_spec.isa.array import VERSION, Array, array_hash
from celosia_spec.isa.registers import COUNTER_BITS

if TYPE_CHECKING:
    from celosia.bands.session import SimResult
    from celosia.stepwise import Stream

__all__ = ["Board", "Loaded", "Repeated", "connect", "loaded"]

BAUD = Target.baud
"""Bits a second of a port whose board is not known: what most boards are built for."""

_BAUD_MAX = 100_000_000

_HALF = 1 << COUNTER_BITS - 1
_VERSIONS = 3       # versions of the gateware, from this one on, that are known by their hash


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """What loading a program took.

    bytes   : that were written, zeros around maps included.   frames : that carried them.
    seconds : in all, the machine's own known answers included.
    """

    bytes: int
    frames: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Repeated:
    """How the array was kept busy.

    runs : in ``seconds``.   busy : part of that time in which the array worked, at its target's
    clock; the rest went to the line, which starts each run.
    """

    runs: int
    seconds: float
    busy: float


class Board:
    """A board that was found at a serial port. A context manager: leaving it frees the port.

    name       : of the port.
    array_hash : of the array that is on the board.
    on_notice  : called with a line where something went wrong and was mended, such as a reset, and
                 once for a loaded program where inputs seem to be pixels as they are; without it
                 Python warns of these.
    """

    def __init__(self, line: Line, *, on_notice: Notice | None = None) -> None:
        self._line, self.name = line, line.name
        self._on_notice = on_notice or (lambda words: None)
        self._of_inputs = on_notice or warned
        self._notice = once(self._of_inputs)
        self._driver: Driver | None = None
        self._program: Program | None = None
        self._given: BoardProgram | None = None
        some = next(iter(targets().values()))       # what is asked before a load needs no array
        self._machine = Machine(line, some.array, some.clock_mhz * 1e6)
        self.array_hash = self._machine.greet()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *problem: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the port; the board keeps what it has."""
        close = getattr(self._line, "close", None)
        if close is not None:
            close()

    def load(self, program: Program, *, progress: Progress | None = None,
             insist: bool = True) -> Loaded:
        """Load a program, and make sure that the board computes with it.

        progress : called with (frames done, all frames).
        insist   : refuse a board that does not come to the answers of the golden model; without it
                   that is left to be seen, as `celosia.verify.verify` does.
        CelosiaError for such a board, and for one that holds another array than the program's.
        """
        check_program(program)
        self._check(program)
        machine = Machine(self._line, program.array, target(program.target).clock_mhz * 1e6)
        driver = Driver(machine, self._on_notice)
        given = board_program(program)
        setup, probe = given.setup, given.probe
        started = self._line.now()
        self._machine, self._driver, self._program = machine, None, None
        machine.greet()
        driver.load(setup, probe, progress, insist=insist)
        self._driver, self._program, self._given = driver, program, given
        self._notice = once(self._of_inputs)
        frames = machine.frames(setup[:, :2])
        return Loaded(bytes=BLOCK_BYTES * frames, frames=frames,
                      seconds=self._line.now() - started)

    def run(self, x: Any, *, tensors: Tensors = False,
            progress: Progress | None = None) -> RunResult:
        """Run N inputs of the loaded program; x, tensors : as `celosia.run` takes them.

        Every answer is of the program that was loaded and of the input given, or an error is
        raised. A board that lost its program meanwhile gets it again (``on_notice``). ``cycles``
        are counted by the board.
        """
        result = self.simulate(x, tensors=tensors, progress=progress)
        other = np.flatnonzero(result.cycles != self.program.predicted_cycles)
        if len(other):
            raise CelosiaError(
                f"{self.name}: the board counts {int(result.cycles[other[0]]):,} cycles for image "
                f"{other[0]}, time after time, where {self.program.predicted_cycles:,} were "
                f"predicted; see in which layer: celosia compare --port {self.name}")
        return result_of(self.program, result, stored_names(self.program, tensors))

    def simulate(self, x: Any, *, tensors: Tensors = False,
                 progress: Progress | None = None) -> SimResult:
        """Do what `celosia.backends.simulate` does, on the board; tensors : as `run` takes them."""
        from celosia_sim.golden import input_saturated

        program = self.program
        images, names = as_images(program, x, self._notice), stored_names(program, tensors)
        progress = of_all_runs(progress, program, names)
        assert self._given is not None

        def execute(job: Job, cycles: int, exact: bool) -> Record:
            return self._execute(job, cycles, progress, exact=exact)

        found = self._given.simulate(images, execute, tensors=names)
        return replace(found, cycles=_whole(found.cycles, program.predicted_cycles),
                       saturated=found.saturated | input_saturated(program.graph, images))

    def stream(self, *, tensors: Tensors = False) -> Stream:
        """Begin a stream of the loaded program, which was compiled with ``stream="time"``: the
        board keeps what steps need of those before. There is one at a time; tensors : as
        `celosia.stream` takes them.

        Every answer is of the program and of what was given to the stream, or an error is raised:
        a board that lost what it had kept is given again what the window reaches back to.
        """
        from celosia.bands.stepping import Stepping
        from celosia.stepwise import on_machine

        program, driver = self.program, self._driver
        if program.steps is None:
            raise CelosiaError(f"{self.name}: the program computes whole windows; give them to "
                               f"board.run, or compile the model with stream='time'")
        assert driver is not None

        def take(job: Job, step: int) -> Record:
            cycles = program.step_cycles[step]
            record = self._execute(job, cycles)
            counted = _whole(record.cycles, cycles)
            if (counted != cycles).any():
                raise CelosiaError(f"{self.name}: the board counts {int(counted[0]):,} cycles "
                                   f"for a step, time after time, where {cycles:,} were "
                                   f"predicted; build and flash the board again")
            return replace(record, cycles=counted)

        names = stored_names(program, tensors)
        return on_machine(program, Stepping(program.program, take, lambda: driver.overwritten,
                                            names), names)

    def count_to_each_end(self) -> np.ndarray:
        """Count the cycles from the start to each layer's end where nothing follows it, int64
        (layers,)."""
        program, given = self.program, self._given
        assert given is not None

        def execute(job: Job, cycles: int, exact: bool) -> Record:
            return self._execute(job, cycles, exact=exact)

        ends = np.cumsum([layer.predicted_cycles for layer in program.layers])
        return _whole(given.count_to_each_end(execute), ends)

    def counters(self) -> dict[str, int]:
        """Run an input of zeros, and return what the machine counts: "cycle". What its cycles are
        spent on is exact in ``lane_cycles`` of the program's layers."""
        shape = self.program.graph.tensors[self.program.graph.input].user_shape
        found = self.simulate(np.zeros((1, *shape), np.float32))
        return {"cycle": int(found.cycles[0])}

    def repeat(self, seconds: float) -> Repeated:
        """Keep the array busy for some seconds, for whoever measures what it draws.

        The program runs again and again on what the run before left; that takes as many cycles as
        an inference, and reads and writes as much.
        """
        program = self.program
        assert self._given is not None
        runs, took = self._machine.repeat(self._given.start, program.predicted_cycles, seconds)
        clock = target(program.target).clock_mhz * 1e6
        return Repeated(runs=runs, seconds=took,
                        busy=runs * program.predicted_cycles / clock / took)

    def status(self) -> Status:
        """Return the state of the machine."""
        return self._machine.status()

    def abort(self) -> None:
        """Stop the machine at once; what is loaded stays."""
        self._machine.abort()

    @property
    def program(self) -> Program:
        """The program that is loaded; CelosiaError where none is."""
        if self._program is None:
            raise CelosiaError(f"{self.name}: no program was loaded over this connection; load one "
                               f"first: board.load(program)")
        return self._program

    def _execute(self, job: Job, cycles: int, progress: Progress | None = None, *,
                 exact: bool = True) -> Record:
        assert self._driver is not None
        return self._driver.execute(job, cycles, progress, exact=exact)

    def _check(self, program: Program) -> None:
        """CelosiaError unless the board holds the program's array."""
        if self.array_hash == program.array.hash:
            return
        holds = _holder(self.array_hash)
        raise CelosiaError(
            f"{self.name}: the program is for the array of {program.target}, and the board holds "
            f"{holds}; build and flash the program's own, or compile it for what is there "
            f"(celosia compile --target)")


@contextmanager
def loaded(program: Program, port: str | None, *, baud: int | None = None,
           stages: Stages | None = None, notice: Notice | None = None,
           insist: bool = True) -> Iterator[Board]:
    """Connect to a board and load a program.

    port   : as `connect` takes it.
    stages : called as it is loaded.   notice : as `connect` takes it.   insist : as `Board.load`
    does.
    """
    def progress(done: int, of: int) -> None:
        if stages is not None:
            stages("loading the board", done, of)

    with connect(port, baud=baud, on_notice=notice) as board:
        board.load(program, progress=progress, insist=insist)
        yield board


def _holder(found: int) -> str:
    """Return, in words, the array of which gateware carries a hash."""
    names = [name for name, of in targets().items() if found in _hashes(of.array)]
    if not names:
        return (f"one that this Celosia does not know (0x{found:08x}): with parameters of its own, "
                f"or of another version")
    array = target(names[0]).array
    version, own = (_hashes(array)[hash] for hash in (found, array.hash))
    other = ("" if version == own else f" in version {version} of the gateware, where this Celosia "
             f"has version {own}")
    return f"that of {' or '.join(names)}{other}"


def _hashes(array: Array) -> dict[int, int]:
    """Return the versions of the gateware that are known, by the hash that each has for an
    array."""
    return {array_hash(array, version): version for version in range(VERSION + _VERSIONS)}


def _whole(counted: np.ndarray, about: np.ndarray | int) -> np.ndarray:
    """Return counts whose low bits the machine tells and that are nearest to a number."""
    return about + (counted - about + _HALF) % (2 * _HALF) - _HALF


def connect(port: str | None = "auto", *, baud: int | None = None,
            on_notice: Notice | None = None) -> Board:
    """Open the serial port of a board that was flashed, and find the array on it.

    port      : "auto" for the only board that is plugged in; a device such as "/dev/ttyUSB1"; a
                pseudo-terminal; "socket://host:port". None for what CELOSIA_PORT says, else "auto".
    baud      : bits a second; None is what the board's target was built for.
    on_notice : called with a line where something went wrong and was mended.

    CelosiaError where there is no such port, it may not be opened, another process has it, or no
    Celosia answers.
    """
    from celosia_boards.host.link import open_link
    from celosia_boards.host.ports import find

    if baud is not None and not (isinstance(baud, int) and 0 < baud <= _BAUD_MAX):
        raise CelosiaError(f"baud {str(baud)[:40]!r}: give a whole number of bits a second up to "
                           f"{_BAUD_MAX:,}, such as {BAUD}, or leave it out")
    found = find(port)
    line = open_link(found, baud or found.baud or BAUD)
    try:
        return Board(line, on_notice=on_notice)
    except BaseException:
        line.close()
        raise
