"""Programs as a board is given them: what is written, what is run, and what comes back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property, singledispatch
from typing import TYPE_CHECKING, Protocol

import numpy as np

from celosia.bands.file import StreamFile
from celosia.board_memory import memory_words
from celosia.program import CoreProgram, Program
from celosia_boards.host.driver import Probe
from celosia_boards.host.job import Job, Record
from celosia_spec.errors import CelosiaError, refusals
from celosia_spec.floats import to_odd
from celosia_spec.qgraph import static_exponent
from celosia_spec.stream.array import ENTRY_WORDS

if TYPE_CHECKING:
    from celosia_boards.host.session import Session, SimResult

__all__ = ["BoardProgram", "Execute", "board_program", "session_of"]

Execute = Callable[[Job, np.ndarray, bool], Record]
"""Carries out a job whose runs take so many cycles, int64 (runs,), the first of them exactly that
or not."""

_PROBES = 4
"""Inputs whose answers the loaded machine must know; one of them where the line damaged nothing."""
_SEED = 20


class BoardProgram(Protocol):
    """One program.

    setup : what loads it, uint32 (words, 3): space, address, value.   start : the two bytes that
    start it, see `Job.runs`.   probe : known answers; None where there are none.
    """

    @property
    def setup(self) -> np.ndarray: ...

    @property
    def start(self) -> tuple[int, int]: ...

    @property
    def probe(self) -> Probe | None: ...

    def simulate(self, images: np.ndarray, execute: Execute, *, tensors: bool) -> SimResult:
        """Run float32 images (N, ...); tensors : also layer by layer, and read what is stored."""
        ...

    def count_to_each_end(self, execute: Execute) -> np.ndarray:
        """Count the cycles from the start to each layer's end where nothing follows it, int64
        (layers,), of which the last bits are right."""
        ...


@singledispatch
def board_program(program: Program) -> BoardProgram:
    """Return a program as a board is given it."""
    raise TypeError(f"no program: {program!r}")


def session_of(program: CoreProgram, images: np.ndarray, *, tensors: bool = False) -> Session:
    """Return what is to be done for float32 images (N, ...)."""
    from celosia_boards.host.session import Session
    from celosia_sim.golden import quantise_input

    with refusals():
        mantissa, exponent = quantise_input(program.graph, images)
        return Session(program, mantissa, exponent, tensors=tensors)


class _Core:
    """Of the first machine."""

    def __init__(self, program: CoreProgram) -> None:
        self._program = program
        self.start = 0, program.descriptors - 1

    @cached_property
    def setup(self) -> np.ndarray:
        return memory_words(self._program)

    @cached_property
    def probe(self) -> Probe:
        images = _images(self._program)
        plan = session_of(self._program, images)
        return _probe(self._program, images, plan.job, plan.decode)

    def simulate(self, images: np.ndarray, execute: Execute, *, tensors: bool) -> SimResult:
        program = self._program
        plan = session_of(program, images, tensors=tensors)
        ends = [layer.predicted_cycles for layer in program.layers] if tensors else []
        return plan.decode(execute(plan.job, np.array([program.predicted_cycles, *ends]), True))

    def count_to_each_end(self, execute: Execute) -> np.ndarray:
        from celosia_boards.host.session import job_to_each_end

        ends = np.cumsum([layer.predicted_cycles for layer in self._program.layers])
        record = execute(job_to_each_end(self._program), ends[::-1], True)
        return record.cycles[0][::-1]


class _Stream:
    """Of the second machine. The list of chunks, which runs to single layers cut short, is written
    again with the inputs of its probe."""

    def __init__(self, program: StreamFile) -> None:
        self._file, self._program = program, program.program
        self.start = self._program.list_at & 0xFF, self._program.list_at >> 8

    @cached_property
    def setup(self) -> np.ndarray:
        from celosia.bands.simulate import job_of

        return job_of(self._program, _images(self._file)[:1]).setup

    @cached_property
    def probe(self) -> Probe:
        from celosia.bands.simulate import job_of, results

        images = _images(self._file)
        job = job_of(self._program, images)
        chunks = job.setup[self._program.list_at * ENTRY_WORDS:]
        job = replace(job, input_at=np.concatenate([chunks[:, :2], job.input_at]),
                      input_values=np.concatenate(
                          [np.tile(chunks[:, 2], (len(images), 1)), job.input_values], axis=1))
        return _probe(self._file, images, job, lambda record: results(
            self._program, job, record))

    def simulate(self, images: np.ndarray, execute: Execute, *, tensors: bool) -> SimResult:
        from celosia.bands.session import run

        cycles, exact = np.array([self._file.predicted_cycles]), [True]

        def carry_out(job: Job) -> Record:
            return execute(job, cycles, bool(exact and exact.pop()))

        with refusals():
            found = run(self._program, images, carry_out, tensors=tensors)
        if tensors:
            execute(self.probe.job.first(1), cycles, True)
        return found

    def count_to_each_end(self, execute: Execute) -> np.ndarray:
        from celosia.bands.session import count_to_each_end

        whole = np.array([self._file.predicted_cycles])
        return count_to_each_end(self._program, lambda job: execute(job, whole, False))


class _Steps(_Stream):
    """Of the second machine, a step of time at a run. The stream's last word is not loaded: there
    stands what tells that the machine has kept its memory (`celosia.bands.stepping`)."""

    @cached_property
    def setup(self) -> np.ndarray:
        return super().setup[:-ENTRY_WORDS]

    @cached_property
    def probe(self) -> Probe | None:    # type: ignore[override]
        """Answers of the first step of a period, with anything in what is kept."""
        from celosia.bands.host import ring_addresses
        from celosia.bands.simulate import elements, in_main, job_of, results
        from celosia_sim.golden.steps import GoldenSteps

        graph = self._program.graph
        if any(node.joins for node in graph.nodes):     # more than mantissas is kept
            return None
        golden, rng = GoldenSteps(graph), np.random.default_rng(_SEED)
        places = {name: ring_addresses(self._program, name) for name in golden.rings}
        at = np.concatenate([np.zeros(0, np.int64), *map(np.ravel, places.values())])
        values, wanted = [], []
        for x in _images(self._file):
            main = elements(self._program)
            for name, place in places.items():
                tensor, exponent = graph.tensors[name], static_exponent(graph.tensors, name)
                assert exponent is not None
                format = tensor.format
                own = rng.integers(-format.largest if tensor.signed else 0, format.largest + 1,
                                   golden.rings[name].shape)
                golden.rings[name] = own.astype(np.int32)
                main[place] = to_odd(own[0].astype(np.int64), exponent - format.fraction,
                                     signed=tensor.signed)
            job = job_of(self._program, x[None], 0, main)
            values.append(np.concatenate([main[at], job.input_values[0]]))
            wanted.append(golden.run(x))
        job = replace(
            job, input_values=np.array(values, np.uint32), input_at=np.concatenate([
                in_main(at), job.input_at]))

        def right(record: Record) -> bool:
            found = results(self._program, job, record)
            return all(np.array_equal(m, own.mantissas) and e == own.exponent for m, e, own in zip(
                found.output, found.exponent, wanted, strict=False))

        return Probe(job=job, right=right, cycles=self._file.step_cycles[0])

    def simulate(self, images: np.ndarray, execute: Execute, *, tensors: bool) -> SimResult:
        raise CelosiaError("the program takes steps of time: give them to board.stream(), one "
                           "after the other")

    def count_to_each_end(self, execute: Execute) -> np.ndarray:
        raise CelosiaError("the program takes steps of time, and its layers are not counted one "
                           "by one; run it: the cycles of each step are compared")


class _Outputs(Protocol):
    """What a job gave: mantissas (N, C, H, W) and exponents (N,)."""

    @property
    def output(self) -> np.ndarray: ...

    @property
    def exponent(self) -> np.ndarray: ...


def _images(program: Program) -> np.ndarray:
    """Return inputs of random numbers."""
    tensor = program.graph.tensors[program.graph.input]
    low = -1 if tensor.signed else 0
    return np.random.default_rng(_SEED).uniform(
        low, 1, (_PROBES, *tensor.user_shape)).astype(np.float32)


def _probe(program: Program, images: np.ndarray, job: Job,
           decode: Callable[[Record], _Outputs]) -> Probe:
    """Return what the golden model makes of inputs, as known answers."""
    from celosia_sim.golden import run as run_golden

    golden = run_golden(program.graph, images, keep_tensors=False)
    output = program.graph.output

    def right(record: Record) -> bool:
        try:
            found = decode(record)
        except CelosiaError:        # copies of the output differ
            return False
        count = len(found.output)
        return (np.array_equal(found.output, golden.mantissas[output][:count])
                and np.array_equal(found.exponent, golden.exponents[output][:count]))

    return Probe(job=job, right=right, cycles=program.predicted_cycles)


@board_program.register
def _of_core(program: CoreProgram) -> BoardProgram:
    return _Core(program)


@board_program.register
def _of_stream(program: StreamFile) -> BoardProgram:
    return _Stream(program) if program.steps is None else _Steps(program)
