"""Bit for bit: the simulated gateware, or a board, against the golden model."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from celosia.backends import (
    BOARD,
    SIMULATORS,
    BoardAt,
    GoldenModel,
    Meanwhile,
    Simulator,
    named,
    run_steps,
)
from celosia.program import Program, check_program
from celosia.results import Notice, Progress, Stages, as_images, stored_names, warned
from celosia_spec.errors import CelosiaError, refusals

CHUNK = 100
"""Images whose stored tensors are held at once; bounds memory, not results."""


@dataclass(frozen=True, kw_only=True)
class Mismatch:
    """The first difference: mantissa ``element`` (its index in the tensor), or "exponent" or
    "saturated", of one image's tensor."""

    tensor: str
    image: int
    element: tuple[int, ...] | str
    expected: int
    got: int


@dataclass(frozen=True, eq=False, kw_only=True)
class Verification:
    """Outcome over N images.

    values     : mantissas, exponents and flags that were compared.   mismatches : of these.
    tensors    : names of the stored tensors that were compared.
    cycles     : int64 (N,), as simulated, or counted by the board.
    predicted_cycles : of one inference.   predicted : int64 (N,), of each, where they differ.
    """

    images: int
    values: int
    mismatches: int
    first_mismatch: Mismatch | None
    tensors: tuple[str, ...]
    cycles: np.ndarray
    predicted_cycles: int
    predicted: np.ndarray | None = None

    @property
    def passed(self) -> bool:
        """Every value equal, and every image took the predicted cycles."""
        predicted = self.predicted_cycles if self.predicted is None else self.predicted
        return not self.mismatches and bool(np.all(self.cycles == predicted))


class _Tally:
    """Counts of values compared and unequal, and the first of these."""

    def __init__(self) -> None:
        self.values = self.mismatches = 0
        self.first: Mismatch | None = None

    def add(self, tensor: str, expected: np.ndarray, got: np.ndarray, start: int,
            what: str | None = None) -> None:
        """Compare (N, ...) values of images ``start`` and up; ``what`` stands for the element."""
        expected, got = np.asarray(expected, np.int64), np.asarray(got, np.int64)
        if expected.shape != got.shape:
            raise CelosiaError(f"tensor {tensor!r}: the backend gives shape {got.shape}, the "
                               f"golden model {expected.shape}; compile the model again")
        wrong = np.argwhere(expected != got)
        self.values += expected.size
        self.mismatches += len(wrong)
        if len(wrong) and self.first is None:
            at = tuple(wrong[0].tolist())
            self.first = Mismatch(tensor=tensor, image=start + at[0], element=what or at[1:],
                                  expected=int(expected[at]), got=int(got[at]))


def verify(program: Program, x: Any, backend: str = "verilator", *,
           progress: Progress | None = None, stages: Stages | None = None,
           notice: Notice | None = None, baud: int | None = None) -> Verification:
    """Run N inputs on the golden model and on ``backend`` and compare all that the backend shows:
    every stored tensor, the outputs, their exponents and the saturation flags; of a program in
    steps what is kept of each.

    progress, stages, notice, baud : as `celosia.run` takes them.
    CelosiaError where the input does not fit or the backend is not a simulator, or a board, that is
    there.
    """
    check_program(program)
    compared = named(backend)
    if isinstance(compared, GoldenModel):
        raise CelosiaError(f"backend {backend!r} is the reference itself; verify "
                           f"{', '.join(SIMULATORS)} or {BOARD}:PORT against it")
    images, tally = as_images(program, x, notice or warned), _Tally()
    meanwhile = Meanwhile(progress=progress, stages=stages, notice=notice, baud=baud)
    if program.steps is not None:
        return _verify_steps(program, images, compared, tally, meanwhile)
    cycles, names = [], set()
    with compared.machine(program, meanwhile) as machine:
        for start in range(0, len(images), CHUNK):
            simulation = _compare_chunk(program, images, start, machine, tally, progress)
            cycles.append(simulation.cycles)
            names |= set(simulation.tensors)
    return Verification(
        images=len(images), values=tally.values, mismatches=tally.mismatches,
        first_mismatch=tally.first, tensors=tuple(sorted(names | {program.graph.output})),
        cycles=np.concatenate(cycles), predicted_cycles=program.predicted_cycles)


def _verify_steps(program: Program, images: np.ndarray, backend: Simulator | BoardAt,
                  tally: _Tally, meanwhile: Meanwhile) -> Verification:
    """Compare the results of all steps that end a whole window, what each of them has added to what
    is kept, and exponents. Flags are not compared: a machine also sees what a ring held before the
    stream began."""
    names = stored_names(program, True)
    golden = run_steps(program, images, GoldenModel(), Meanwhile(), names)
    found = run_steps(program, images, backend, meanwhile, names)
    for name in names:
        right, got = golden.tensors[name], found.tensors[name]
        tally.add(name, right.mantissa, got.mantissa, 0)
        tally.add(name, right.exponent, got.exponent, 0, "exponent")
    assert program.steps is not None
    assert found.cycles is not None
    first, period = program.steps.first - 1, len(program.step_cycles)
    predicted = np.array([program.step_cycles[(first + step) % period]
                          for step in range(len(found.cycles))])
    return Verification(
        images=len(found.cycles), values=tally.values, mismatches=tally.mismatches,
        first_mismatch=tally.first, tensors=tuple(sorted(names)), cycles=found.cycles,
        predicted_cycles=program.predicted_cycles, predicted=predicted)


def _compare_chunk(program: Program, images: np.ndarray, start: int, machine: Callable[..., Any],
                   tally: _Tally, progress: Progress | None) -> Any:
    """Return the ``SimResult`` of ``CHUNK`` images from ``start``, compared into ``tally``."""
    from celosia_sim.golden import run as run_golden

    chunk = images[start:start + CHUNK]
    report = progress and (lambda done, _: progress(start + done, len(images)))
    with refusals():
        golden = run_golden(program.graph, chunk, keep_tensors=True)
    simulation = machine(chunk, tensors=stored_names(program, True), progress=report)
    output = program.graph.output
    for name in (program.graph.input, *(node.output for node in program.graph.nodes)):
        if name in simulation.tensors and name != output:
            mantissa, exponent = simulation.tensors[name]
            tally.add(name, golden.mantissas[name], mantissa, start)
            tally.add(name, golden.exponents[name], exponent, start, "exponent")
    tally.add(output, golden.mantissas[output], simulation.output, start)
    tally.add(output, golden.exponents[output], simulation.exponent, start, "exponent")
    flags = np.where(golden.unread, simulation.saturated, golden.saturated)
    tally.add(output, flags, simulation.saturated, start, "saturated")
    return simulation
