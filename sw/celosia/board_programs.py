"""Programs as a board is given them: what is written, what is run, and what comes back."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np

from celosia.program import Program
from celosia_boards.host.driver import Probe
from celosia_boards.host.job import Job, Record
from celosia_spec.errors import CelosiaError, refusals
from celosia_spec.floats import to_odd
from celosia_spec.isa.array import ENTRY_WORDS
from celosia_spec.qgraph import static_exponent

if TYPE_CHECKING:
    from celosia.bands.session import SimResult

__all__ = ["BoardProgram", "Execute", "board_program"]

Execute = Callable[[Job, int, bool], Record]
"""Carries out a job whose runs take so many cycles, exactly that or not."""

_PROBES = 4
"""Inputs whose answers the loaded machine must know; one of them where the line damaged nothing."""
_SEED = 20


class BoardProgram(Protocol):
    """One program.

    setup : what loads it, uint32 (words, 3): space, address, value.   start : word where its
    list of chunks begins.   probe : known answers; None where there are none.
    """

    @property
    def setup(self) -> np.ndarray: ...

    @property
    def start(self) -> int: ...

    @property
    def probe(self) -> Probe | None: ...

    def simulate(self, images: np.ndarray, execute: Execute, *,
                 tensors: Collection[str]) -> SimResult:
        """Run float32 images (N, ...); tensors : names of those that are read, too."""
        ...

    def count_to_each_end(self, execute: Execute) -> np.ndarray:
        """Count the cycles from the start to each layer's end where nothing follows it, int64
        (layers,), of which the last bits are right."""
        ...


def board_program(program: Program) -> BoardProgram:
    """Return a program as a board is given it."""
    return _Windows(program) if program.steps is None else _Steps(program)


class _Windows:
    """A whole window at a run. The list of chunks, which runs to single layers cut short, is
    written again with the inputs of its probe."""

    def __init__(self, program: Program) -> None:
        self._file, self._program = program, program.program
        self.start = self._program.list_at

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

    def simulate(self, images: np.ndarray, execute: Execute, *,
                 tensors: Collection[str]) -> SimResult:
        from celosia.bands.session import run

        cycles, exact = self._file.predicted_cycles, [True]

        def carry_out(job: Job) -> Record:
            return execute(job, cycles, bool(exact and exact.pop()))

        with refusals():
            found = run(self._program, images, carry_out, tensors=tensors)
        if tensors:
            execute(self.probe.job.first(1), cycles, True)
        return found

    def count_to_each_end(self, execute: Execute) -> np.ndarray:
        from celosia.bands.session import count_to_each_end

        whole = self._file.predicted_cycles
        return count_to_each_end(self._program, lambda job: execute(job, whole, False))


class _Steps(_Windows):
    """A step of time at a run. The stream's last word is not loaded: there
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
        if any(node.rounds for node in graph.nodes):     # more than mantissas is kept
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

    def simulate(self, images: np.ndarray, execute: Execute, *,
                 tensors: Collection[str]) -> SimResult:
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
