"""Where a program runs: the golden model, the simulated gateware, a board."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from celosia.extras import names_extra
from celosia.program import Program, check_program
from celosia.results import (
    Notice,
    Progress,
    RunResult,
    Stages,
    Tensors,
    as_images,
    from_parts,
    joined,
    of_all_runs,
    result_of,
    stored_names,
    warned,
)
from celosia_spec.errors import CelosiaError, refusals

if TYPE_CHECKING:
    from celosia.bands.session import SimResult
    from celosia.board import Board
    from celosia.stepwise import Stream

    Machine = Callable[..., SimResult]

GOLDEN, VERILATOR, ICARUS, BOARD = "golden", "verilator", "icarus", "board"

CHUNK = 250
"""Inputs that the golden model computes between two reports of progress."""


@dataclass(frozen=True, kw_only=True)
class Meanwhile:
    """What to call while a backend works, and the baud rate of a board's port, as `run` has them.
    """

    progress: Progress | None = None
    stages: Stages | None = None
    notice: Notice | None = None
    baud: int | None = None


class GoldenModel:
    """The golden model: NumPy, the reference of all others."""

    name, about = GOLDEN, "golden model"

    def run(self, program: Program, images: np.ndarray, meanwhile: Meanwhile,
            tensors: Collection[str] = ()) -> RunResult:
        """Return the results of inputs (N, ...), with the stored tensors of these names."""
        from celosia_sim.golden import run as run_golden

        output, parts = program.graph.output, []
        for start in range(0, len(images), CHUNK):
            with refusals():
                golden = run_golden(program.graph, images[start:start + CHUNK],
                                    keep_tensors=bool(tensors))
            parts.append(from_parts(
                program, golden.mantissas[output], golden.exponents[output], golden.saturated, None,
                {name: (golden.mantissas[name], golden.exponents[name]) for name in tensors}))
            if meanwhile.progress:
                meanwhile.progress(min(start + CHUNK, len(images)), len(images))
        return joined(parts)

    @contextmanager
    def stream(self, program: Program, meanwhile: Meanwhile,
               tensors: Collection[str] = ()) -> Iterator[Stream]:
        """Yield a stream of a program in steps of time, with the stored tensors of these names."""
        from celosia.stepwise import on_golden

        yield on_golden(program, tensors)


@dataclass(frozen=True)
class Simulator:
    """The gateware, simulated.   steps : whether a machine is kept from one step to the next."""

    name: str
    steps: bool = False

    @property
    def about(self) -> str:
        return f"{self.name}, the gateware simulated"

    def run(self, program: Program, images: np.ndarray, meanwhile: Meanwhile,
            tensors: Collection[str] = ()) -> RunResult:
        """Return the results of inputs (N, ...), with the stored tensors of these names."""
        return result_of(program, simulate(program, images, self.name, tensors=tensors,
                                           progress=meanwhile.progress,
                                           stages=meanwhile.stages), tensors)

    @contextmanager
    def stream(self, program: Program, meanwhile: Meanwhile,
               tensors: Collection[str] = ()) -> Iterator[Stream]:
        """Yield a stream of a program in steps of time, with the stored tensors of these names."""
        from celosia.bands.stepping import simulated_steps
        from celosia.stepwise import on_machine
        from celosia_boards.cache import unseen

        if not self.steps:
            raise CelosiaError(f"backend {self.name!r} keeps no machine between two steps; use "
                               f"{VERILATOR}, {GOLDEN} or {BOARD}:PORT")
        with refusals(), simulated_steps(program.program, tensors=tensors,
                                         stages=meanwhile.stages or unseen) as machine:
            yield on_machine(program, machine, tensors)

    @contextmanager
    def machine(self, program: Program, meanwhile: Meanwhile) -> Iterator[Machine]:
        """Yield what runs images as `celosia.board.Board.simulate` does."""
        def run(images: np.ndarray, *, tensors: Collection[str],
                progress: Progress | None) -> SimResult:
            return simulate(program, images, self.name, tensors=tensors, progress=progress,
                            stages=meanwhile.stages)

        yield run


@dataclass(frozen=True)
class BoardAt:
    """A flashed board.   port : as `celosia.connect` takes it; None where none is named."""

    port: str | None

    def run(self, program: Program, images: np.ndarray, meanwhile: Meanwhile,
            tensors: Collection[str] = ()) -> RunResult:
        """Return the results of inputs (N, ...), with the stored tensors of these names."""
        with self._loaded(program, meanwhile) as board:
            return board.run(images, tensors=tuple(tensors), progress=meanwhile.progress)

    @contextmanager
    def stream(self, program: Program, meanwhile: Meanwhile,
               tensors: Collection[str] = ()) -> Iterator[Stream]:
        """Yield a stream of a program in steps of time, with the stored tensors of these names."""
        with self._loaded(program, meanwhile) as board:
            yield board.stream(tensors=tuple(tensors))

    @contextmanager
    def machine(self, program: Program, meanwhile: Meanwhile) -> Iterator[Machine]:
        """Yield what runs images as `celosia.board.Board.simulate` does, whatever the board was
        built for."""
        with self._loaded(program, meanwhile, insist=False) as board:
            yield board.simulate

    def _loaded(self, program: Program, meanwhile: Meanwhile, *,
                insist: bool = True) -> AbstractContextManager[Board]:
        from celosia.board import loaded

        return loaded(program, self.port, baud=meanwhile.baud, stages=meanwhile.stages,
                      notice=meanwhile.notice, insist=insist)


Backend = GoldenModel | Simulator | BoardAt

_WITHOUT_PORT: dict[str, GoldenModel | Simulator] = {
    own.name: own for own in (GoldenModel(), Simulator(VERILATOR, steps=True), Simulator(ICARUS))}

SIMULATORS = tuple(name for name, own in _WITHOUT_PORT.items() if isinstance(own, Simulator))

NAMES = f"{', '.join(_WITHOUT_PORT)}, or {BOARD}:PORT"
"""All of them, in words."""


def named(backend: str) -> Backend:
    """Return the backend of a name, as `run` takes it; CelosiaError where there is none."""
    if backend in _WITHOUT_PORT:
        return _WITHOUT_PORT[backend]
    kind, _, port = backend.partition(":")
    if kind != BOARD:
        raise CelosiaError(f"unknown backend {backend!r}; use {NAMES} such as "
                           f"{BOARD}:auto")
    return BoardAt(port or None)


@names_extra
def run(program: Program, x: Any, backend: str = GOLDEN, *, tensors: Tensors = False,
        progress: Progress | None = None, stages: Stages | None = None,
        notice: Notice | None = None, baud: int | None = None) -> RunResult:
    """Run N inputs on a backend.

    x       : float32 (N, ...), shaped as the network's input. Of a program in steps of time N
              steps of one stream, of which those give results that end a whole window.
    backend : "golden" (NumPy), "verilator" or "icarus" (the simulated gateware), "board:PORT" (a
              flashed board, which gets the program first; see `celosia.connect` for PORT), "board"
              (the port that CELOSIA_PORT names, else "board:auto").
    tensors : True for all that the layers store, and the input, in the result's ``tensors``; or
              names of layers. A machine runs once more to the end of each, and is read there; of
              a program in steps those are read that are kept for the next ones, and the output.
    progress, stages : what to call meanwhile: as inputs are done, and as a simulator is built or a
              board loaded.
    notice  : called with a line where something went wrong on a board and was mended, and where
              the inputs seem to be pixels as they are; without it Python warns of these.
    baud    : of a board's port; None is what its target is built for.

    CelosiaError where the shape is wrong, a value is not finite, the backend is not there, or
    there are no such tensors.
    """
    check_program(program)
    names = stored_names(program, tensors)
    images, found = as_images(program, x, notice or warned), named(backend)
    meanwhile = Meanwhile(progress=progress, stages=stages, notice=notice, baud=baud)
    if program.steps is not None:
        return run_steps(program, images, found, meanwhile, names)
    return found.run(program, images, meanwhile, names)


@contextmanager
def stream(program: Program, backend: str = GOLDEN, *, tensors: Tensors = False,
           stages: Stages | None = None, notice: Notice | None = None,
           baud: int | None = None) -> Iterator[Stream]:
    """Yield a stream of a program that was compiled with ``stream="time"``: with ``run`` it takes
    one step, and keeps what the next ones need.

    backend, tensors, stages, notice, baud : as `run` takes them.

    CelosiaError where the program does not run in steps, the backend is not there, or there are no
    such tensors.
    """
    check_program(program)
    found = named(backend)
    if program.steps is None:
        raise CelosiaError("the program computes whole windows: run it with celosia.run, or "
                           "compile the model with stream='time'")
    with found.stream(program, Meanwhile(stages=stages, notice=notice, baud=baud),
                      stored_names(program, tensors)) as opened:
        yield opened


def run_steps(program: Program, images: np.ndarray, backend: Backend, meanwhile: Meanwhile,
              tensors: Collection[str]) -> RunResult:
    """Return the results of those of N steps that end a whole window, with the stored tensors of
    these names."""
    assert program.steps is not None
    if len(images) < program.steps.first:
        raise CelosiaError(f"input: {len(images)} steps of {program.steps.hop} lines, and the "
                           f"first window is whole with {program.steps.first}; give it more steps")
    parts = []
    with backend.stream(program, meanwhile, tensors) as opened:
        for number, x in enumerate(images, 1):
            if (found := opened.run(x)) is not None:
                parts.append(found)
            if meanwhile.progress:
                meanwhile.progress(number, len(images))
    return joined(parts)


def simulate(program: Program, images: np.ndarray, simulator: str, *,
             tensors: Collection[str] = (), progress: Progress | None = None,
             stages: Stages | None = None) -> SimResult:
    """Return the ``SimResult`` of images (N, ...), quantised as the host does.

    tensors : names of those to be read, too.
    ``saturated`` then also tells of the input, which the machine does not see.
    """
    from celosia.bands.session import run as run_stream
    from celosia.bands.simulate import simulated
    from celosia_boards.cache import unseen
    from celosia_sim.golden import input_saturated

    with refusals():
        execute = simulated(program.program, simulator=simulator, stages=stages or unseen,
                            progress=of_all_runs(progress, program, tensors))
        result = run_stream(program.program, images, execute, tensors=tensors)
    return replace(result, saturated=result.saturated | input_saturated(program.graph, images))
