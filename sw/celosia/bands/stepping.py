"""A program that takes steps of time, one after the other, whatever carries out its jobs."""

import secrets
from collections import deque
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from celosia.bands.host import stored, stored_addresses
from celosia.bands.program import StreamProgram
from celosia.bands.simulate import (
    StreamResult,
    counted,
    elements,
    flash_of,
    in_main,
    job_of,
    results,
    verilated,
    why_stopped,
)
from celosia_boards.cache import Stages, unseen
from celosia_boards.host.job import Job, Record, Stopped
from celosia_sim.simulators.rtl import Design, machine_design
from celosia_sim.simulators.verilated import execute
from celosia_spec.errors import SimulationError
from celosia_spec.isa.array import ENTRY_WORDS
from celosia_spec.isa.memories import exponents_of
from celosia_spec.isa.numbers import ELEMENT_BITS, EXPONENT_SLOTS

_ELEMENT = (1 << ELEMENT_BITS) - 1

ATTEMPTS = 20
"""How often a step is taken where the machine loses what it has kept."""

TakeStep = Callable[[Job, int], Record]
"""Carries out the job of a step; of the first one also its setup. It is told the step's number in
the period."""


class Stepping:
    """A program in steps on a machine that keeps its main memory between jobs.

    execute : carries out the job of a step.
    tensors : names of rings whose new lines are read behind each step.
    losses  : how often the machine is known to have lost what was in main memory so far.

    The last word of the stream, which no machine reads, holds a number that the host has made up: a
    machine that was reset meanwhile does not know it. Steps that a window reaches back to are taken
    again where anything was lost.
    """

    def __init__(self, program: StreamProgram, execute: TakeStep,
                 losses: Callable[[], int] = lambda: 0, tensors: Collection[str] = ()) -> None:
        assert program.steps is not None
        self.program, self._execute, self._losses = program, execute, losses
        self._tensors = [name for name in tensors if name != program.graph.output]
        self._step, self._main = 0, elements(program)
        self._mark, self._lost = 0, True
        self._before: deque[np.ndarray] = deque(maxlen=program.steps.first - 1)

    def reset(self) -> None:
        """Begin a new stream: nothing of what was taken so far is remembered."""
        self._before.clear()

    def run(self, x: np.ndarray) -> StreamResult:
        """Take a step, with its lines x (*user_shape) of the input, and return what it gives."""
        for _ in range(ATTEMPTS):
            losses, kept, fresh = self._losses(), True, self._lost
            again = [*self._before, x] if fresh else [x]
            self._lost = True           # an error may leave the machine anywhere in between
            for back, own in zip(range(len(again) - 1, -1, -1), again, strict=True):
                found, marked = self._take(own, self._step - back, fresh=fresh)
                kept, fresh = kept and marked, False
            self._lost = not kept or self._losses() != losses
            if not self._lost:
                self._step += 1
                self._before.append(x)
                return found
        raise SimulationError(f"the machine lost what it keeps {ATTEMPTS} times in one step; check "
                              f"its power and its cable")

    def _take(self, x: np.ndarray, step: int, *, fresh: bool) -> tuple[StreamResult, bool]:
        """Take a step, with a ``fresh`` number or not; return what it gives, and whether the
        machine knows the number."""
        program = self.program
        job = job_of(program, x[None], step, self._main)
        at = in_main([(len(program.entries) - 1) * ENTRY_WORDS])
        places = {name: stored_addresses(program, name, step) for name in self._tensors}
        job = replace(job, read_at=np.concatenate([
            job.read_at, *(in_main(own.ravel()) for own in places.values()), at]))
        if step:
            job = replace(job, setup=job.setup[:0])
        if fresh:
            self._mark = 1 + secrets.randbelow(_ELEMENT)
            job = replace(job, input_at=np.concatenate([job.input_at, at]),
                          input_values=np.append(job.input_values, [[self._mark]], axis=1).astype(
                              np.uint32))
        record = self._execute(job, step % len(program.orders))
        found = results(program, job, record)
        return replace(found, tensors=self._read(record, places)), (
            int(record.reads[0, -1]) & _ELEMENT == self._mark)

    def _read(self, record: Record, places: dict[str, np.ndarray],
              ) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Return what stands in places of main memory, the last that are read but the number."""
        reads, found = record.reads[0].astype(np.int64), {}
        slots = exponents_of(reads[:EXPONENT_SLOTS])
        at = len(reads) - 1 - sum(own.size for own in places.values())
        for name, own in places.items():
            elements, at = reads[at:at + own.size].reshape(own.shape), at + own.size
            exponent = int(slots[self.program.slots[name]])
            found[name] = (stored(self.program, name, elements, exponent)[None],
                           np.array([exponent]))
        return found


@contextmanager
def simulated_steps(program: StreamProgram, *, tensors: Collection[str] = (),
                    stages: Stages = unseen, design: Design | None = None) -> Iterator[Stepping]:
    """Yield a program in steps on one simulated machine, in the compiled loop.

    tensors : as `Stepping` takes them.
    stages : as of `celosia.bands.simulate.simulate`.   design : the machine's Verilog.

    An array with flash is started with the program's image in it. SimulationError where a tool is
    missing, or the machine reports an error, finds no end or counts other cycles.
    """
    flash = flash_of(program)
    design = machine_design(program.array, stages) if design is None else design
    with verilated(design, flash, stages) as machine:
        def take(job: Job, step: int) -> Record:
            job = replace(job, setup=job.setup[:0]) if flash else job
            try:
                return counted(job, lambda job: execute(machine, job, None))
            except Stopped as stopped:
                raise SimulationError(why_stopped(stopped, job)) from stopped

        yield Stepping(program, take, tensors=tensors)
