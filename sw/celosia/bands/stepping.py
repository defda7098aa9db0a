"""A program that takes steps of time, one after the other, whatever carries out its jobs."""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from celosia.bands.program import StreamProgram
from celosia.bands.simulate import StreamResult, job_of, results
from celosia_boards.cache import Stages, unseen
from celosia_boards.host.job import Job, Record, Stopped
from celosia_sim.flash import PARTS, Beside, Chip
from celosia_sim.simulators.rtl import FLASH, FLASH_HZ, Design, machine_design
from celosia_sim.simulators.verilated import VerilatedCore, execute, library
from celosia_spec.errors import SimulationError
from celosia_spec.stream.image import pack

ATTEMPTS = 5
"""How often a step is taken where the machine loses what it has kept."""

TakeStep = Callable[[Job, int], Record]
"""Carries out the job of a step; of the first one also its setup. It is told the step's number in
the period."""


class Stepping:
    """A program in steps on a machine that keeps its main memory between jobs.

    execute : carries out the job of a step.
    losses  : how often the machine has lost what was in main memory so far; then the steps that a
              window reaches back to are taken again.
    """

    def __init__(self, program: StreamProgram, execute: TakeStep,
                 losses: Callable[[], int] = lambda: 0) -> None:
        assert program.steps is not None
        self.program, self._execute, self._losses = program, execute, losses
        self._step = 0
        self._before: deque[np.ndarray] = deque(maxlen=program.steps.first - 1)

    def reset(self) -> None:
        """Begin a new stream: nothing of what was taken so far is remembered."""
        self._before.clear()

    def run(self, x: np.ndarray) -> StreamResult:
        """Take a step, with its lines x (*user_shape) of the input, and return what it gives."""
        lost = False
        for _ in range(ATTEMPTS):
            losses = self._losses()
            if lost:
                for back, own in zip(range(len(self._before), 0, -1), self._before, strict=True):
                    self._take(own, self._step - back)
            found = self._take(x, self._step)
            lost = self._losses() != losses
            if not lost:
                break
        else:
            raise SimulationError(f"the machine lost what it keeps {ATTEMPTS} times in one step; "
                                  f"check its power and its cable")
        self._step += 1
        self._before.append(x)
        return found

    def _take(self, x: np.ndarray, step: int) -> StreamResult:
        job = job_of(self.program, x[None], step)
        if step:
            job = replace(job, setup=job.setup[:0])
        return results(self.program, job, self._execute(job, step % len(self.program.orders)))


@contextmanager
def simulated_steps(program: StreamProgram, *, stages: Stages = unseen,
                    design: Design | None = None) -> Iterator[Stepping]:
    """Yield a program in steps on one simulated machine, in the compiled loop.

    stages : as of `celosia_sim.simulate.simulate`.   design : the machine's Verilog.

    An array with flash is started with the program's image in it. SimulationError where a tool is
    missing, or the machine reports an error or finds no end.
    """
    array, flash = program.array, None
    compiled = library(machine_design(array, stages) if design is None else design, stages)
    if array.flash:
        chip = Chip(PARTS[FLASH.part], bytes(FLASH.base) + pack(array, program.sections))
        flash = Beside(chip, array.flash, FLASH_HZ)
    with VerilatedCore(compiled, flash) as machine:
        def take(job: Job, step: int) -> Record:
            try:
                return execute(machine, replace(job, setup=job.setup[:0]) if flash else job, None)
            except Stopped as stopped:
                raise SimulationError(f"the machine stopped ({stopped.failure.name.lower()}, error "
                                      f"{stopped.code}); compile the program again for this "
                                      f"array") from stopped

        yield Stepping(program, take)
