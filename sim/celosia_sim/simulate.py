"""Run a program on the simulated machine."""

from collections.abc import Callable

import numpy as np

from celosia_boards.cache import Stages, unseen
from celosia_boards.host.job import Failure, Job, Record, Stopped
from celosia_boards.host.session import Session, SimResult, job_to_each_end
from celosia_sim.simulators import cosim, rtl, verilated
from celosia_spec.errors import SimulationError
from celosia_spec.isa import Error
from celosia_spec.program import Program

__all__ = ["SIMULATORS", "SimResult", "SimulationError", "count_to_each_end", "simulate"]

Progress = Callable[[int, int], None]


def _verilator(design: rtl.Design, job: Job, progress: Progress | None, stages: Stages) -> Record:
    with verilated.VerilatedCore(verilated.library(design, stages)) as machine:
        return verilated.execute(machine, job, progress)


def _icarus(design: rtl.Design, job: Job, progress: Progress | None, stages: Stages) -> Record:
    return cosim.execute(design, job, "icarus", progress, stages)


def _cocotb_verilator(design: rtl.Design, job: Job, progress: Progress | None,
                      stages: Stages) -> Record:
    return cosim.execute(design, job, "verilator", progress, stages)


SIMULATORS = {"verilator": _verilator, "icarus": _icarus, "cocotb-verilator": _cocotb_verilator}
"""Compiled loop around Verilator's model; cocotb and Icarus; cocotb and Verilator."""


def _error_name(code: int) -> str:
    return Error(code).name if code in set(Error) else f"code {code}"


def _explain(stopped: Stopped, program: Program, job: Job) -> str:
    first, last, _ = job.runs[stopped.run].tolist()
    at = stopped.descriptor if stopped.code else first
    layer = program.layers[at].name if at < len(program.layers) else f"descriptor {at}"
    where = f"image {stopped.image}, "
    where += f"layer {layer}" if stopped.code or first == last else "whole network"
    if stopped.failure is Failure.ERROR:
        return (f"the machine stopped with error {_error_name(stopped.code)} ({where}); "
                f"compile the program again for this array")
    if stopped.failure is Failure.TIMEOUT:
        code = f", error {_error_name(stopped.code)}" if stopped.code else ""
        return (f"no end after {int(job.max_cycles)} cycles where {program.predicted_cycles} were "
                f"predicted ({where}{code}); compile the program again for this array")
    return f"the machine gave no answer to a bus read ({where}); it may still be busy after done"


def simulate(program: Program, mantissa: np.ndarray, exponent: np.ndarray, *,
             simulator: str = "verilator", tensors: bool = False,
             progress: Progress | None = None, stages: Stages = unseen,
             design: rtl.Design | None = None) -> SimResult:
    """Run ``program`` on N images, on the machine's Verilog.

    mantissa  : int (N, C, H, W), input mantissas.   exponent : int (N,), -16 ... 15.
    simulator : one of `SIMULATORS`. All give the same bits and cycles.
    tensors   : also run every image layer by layer and read every stored tensor, all copies.
    progress  : called with (finished images, N), from the calling thread.
    stages    : called as the simulator is built, the first time for an array.
    design    : the machine's Verilog; by default ``core_design(program.array)``.

    ValueError for an input of the wrong shape or range. SimulationError where a tool is missing,
    the machine reports an error or finds no end, or copies of a tensor differ.
    """
    if simulator not in SIMULATORS:
        raise ValueError(f"simulator must be one of {', '.join(SIMULATORS)}, not {simulator!r}")
    plan = Session(program, mantissa, exponent, tensors=tensors)
    if design is None:
        design = rtl.core_design(program.array, stages=stages)
    return plan.decode(_record(program, design, plan.job, simulator, progress, stages))


def count_to_each_end(program: Program, *,
                      stages: Stages = unseen) -> tuple[np.ndarray, np.ndarray]:
    """Return the cycles of each layer as the simulated machine passes from one to the next, and
    those from the start to each layer's end where nothing follows it: int64 (layers,) both.

    stages, errors : as of `simulate`.
    """
    design, job = rtl.core_design(program.array, stages=stages), job_to_each_end(program)
    record = _record(program, design, job, "verilator", None, stages)
    return record.layer_cycles[0], record.cycles[0][::-1]


def _record(program: Program, design: rtl.Design, job: Job, simulator: str,
            progress: Progress | None, stages: Stages) -> Record:
    """Return what a job brings back; SimulationError where the machine stops."""
    try:
        return SIMULATORS[simulator](design, job, progress, stages)
    except Stopped as stopped:
        raise SimulationError(_explain(stopped, program, job)) from stopped
