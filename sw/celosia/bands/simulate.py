"""Programs on the machine's Verilog, in all simulators."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from celosia.bands.host import addresses, input_addresses, output, prepare
from celosia.bands.program import StreamProgram
from celosia_boards.cache import Stages, unseen
from celosia_boards.host.job import Failure, Job, Record, Stopped
from celosia_sim.flash import Beside, Contents
from celosia_sim.simulators import cosim
from celosia_sim.simulators.rtl import FLASH, FLASH_HZ, Design, machine_design
from celosia_sim.simulators.verilated import VerilatedCore, execute, library
from celosia_spec.errors import SimulationError
from celosia_spec.isa.array import CONTROL_BITS, ENTRY_WORDS
from celosia_spec.isa.image import pack
from celosia_spec.isa.memories import UPPER_HALF, Space, exponent_word, exponents_of
from celosia_spec.isa.numbers import EXPONENT_SLOTS
from celosia_spec.isa.registers import COUNTER_BITS, WAYS_OUT, Error, Register
from celosia_spec.steps import Ring

Execute = Callable[[Job], Record]
"""What carries out a job."""

Progress = Callable[[int, int], None]

PATIENCE = 10
"""How many times its counted cycles a run may take."""


@dataclass(frozen=True, kw_only=True, eq=False)
class StreamResult:
    """What N images gave.

    output    : int64 (N, C, H, W) mantissas.   exponent : int64 (N,).
    cycles    : int64 (N,), from the edge that accepts the start to the one that ends ``busy``.
    saturated : bool (N,), the machine's flag, or a value of the output was clipped.
    tensors   : of a step, by name: what it has made of those asked for, int64 (1, C, H, W), and
                their exponents, int64 (1,).
    """

    output: np.ndarray
    exponent: np.ndarray
    cycles: np.ndarray
    saturated: np.ndarray
    tensors: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)


def job_of(program: StreamProgram, images: np.ndarray, step: int = 0,
           main: np.ndarray | None = None) -> Job:
    """Return what is to be done on the host bus, whatever is behind it: the stream is written once,
    then for each image its elements and its exponent; what is read are all exponents, and the sums
    that are the output.

    images : floats (N, *user_shape).   step : that they take, of a network in steps.
    main   : int64, elements of main memory as the host knows them, to which it adds what it writes;
             None where they do not matter. The host writes whole words.
    """
    graph = program.graph
    order = program.orders[step % len(program.orders)]
    taken = input_addresses(program, step).ravel()
    if isinstance(graph.tensors[graph.input], Ring):
        touched = np.unique(taken // ENTRY_WORDS)
        taken = (touched[:, None] * ENTRY_WORDS + np.arange(ENTRY_WORDS)).ravel()
    main = elements(program) if main is None else main
    values = np.zeros((len(images), taken.size + 1), np.uint32)
    for row, x in zip(values, images, strict=True):
        exponent = prepare(program, x, main, step)
        row[:-1], row[-1] = main[taken], exponent_word(exponent)
    words = len(program.entries) * ENTRY_WORDS
    given = addresses(graph.tensors[graph.output], program.places[graph.output]).ravel()
    reads = np.concatenate([_at(Space.EXPONENTS, np.arange(EXPONENT_SLOTS)),
                            _at(Space.MAIN, np.concatenate([given, given + 1]))])
    counted = sum(layer.cycles for layer in program.layers) + program.flash.waits
    return Job(
        setup=np.column_stack([_at(Space.MAIN, np.arange(words)), main[:words]]).astype(np.uint32),
        input_at=np.concatenate([_at(Space.MAIN, taken),
                                 _at(Space.EXPONENTS, [program.slots[graph.input]])]),
        input_values=values, start=np.array(order.list_at), read_at=reads,
        max_cycles=np.array(PATIENCE * counted + 10_000))


def elements(program: StreamProgram) -> np.ndarray:
    """Return zeros for all elements of main memory, int64."""
    return np.zeros(program.array.main_words * ENTRY_WORDS, np.int64)


def results(program: StreamProgram, job: Job, record: Record) -> StreamResult:
    """Return what a job brought back."""
    main = elements(program)
    mantissas, exponents = [], []
    saturated = record.saturated.copy()
    for image, read in enumerate(record.reads.astype(np.int64)):
        slots = exponents_of(read[:EXPONENT_SLOTS])
        main[job.read_at[EXPONENT_SLOTS:, 1]] = read[EXPONENT_SLOTS:]
        found, exponent, clipped = output(program, main, slots)
        mantissas.append(found)
        exponents.append(exponent)
        saturated[image] |= clipped
    return StreamResult(output=np.array(mantissas), exponent=np.array(exponents),
                        cycles=record.cycles, saturated=saturated)


def verilated(design: Design, flash: Contents | None, stages: Stages) -> VerilatedCore:
    """Return a machine for the compiled loop, out of reset, with the chip at its pins."""
    beside = Beside(flash.chip, flash.element, flash.clock_hz) if flash else None
    return VerilatedCore(library(design, stages), beside)


def _verilator(design: Design, job: Job, flash: Contents | None,
               progress: Progress | None, stages: Stages) -> Record:
    with verilated(design, flash, stages) as machine:
        return execute(machine, job, progress)


def _icarus(design: Design, job: Job, flash: Contents | None,
            progress: Progress | None, stages: Stages) -> Record:
    return cosim.execute(design, job, progress, stages, flash)


def counted(job: Job, execute: Execute) -> Record:
    """Carry out a job on a simulated machine, and read its counter after each run; SimulationError
    where that does not hold the cycles seen from outside."""
    at = _at(Space.REGISTERS, [Register.EVENTS, Register.EVENTS + UPPER_HALF])
    record = execute(replace(job, read_at=np.concatenate([job.read_at, at])))
    lower, upper = record.reads[:, -2:].astype(np.int64).T
    counts, taken = lower | upper << CONTROL_BITS, record.cycles % (1 << COUNTER_BITS)
    for image in np.flatnonzero(counts != taken)[:1]:
        raise SimulationError(f"the machine counts {counts[image]:,} cycles of a run that takes "
                              f"{taken[image]:,} (image {image}); its counter is wrong, report it")
    return replace(record, reads=record.reads[:, :-2])


SIMULATORS = {"verilator": _verilator, "icarus": _icarus}
"""Compiled loop around Verilator's model; cocotb and Icarus."""


def simulated(program: StreamProgram, *, simulator: str = "verilator",
              progress: Progress | None = None, stages: Stages = unseen,
              design: Design | None = None) -> Execute:
    """Return what carries out jobs of a program on its Verilog, each on a fresh machine.

    simulator : one of `SIMULATORS`. All give the same bits and cycles.
    progress  : called with (finished images, N).   stages : called as the simulator is built, the
    first time for an array.   design : the machine's Verilog.

    An array with flash is started with the program's image in it, and nothing is loaded else.
    SimulationError where a tool is missing, or the machine reports an error, finds no end or counts
    other cycles.
    """
    design = machine_design(program.array, stages) if design is None else design
    flash = flash_of(program)

    def run(job: Job) -> Record:
        if flash:
            job = replace(job, setup=job.setup[:0])
        try:
            return counted(job, lambda job: SIMULATORS[simulator](design, job, flash, progress,
                                                                  stages))
        except Stopped as stopped:
            raise SimulationError(why_stopped(stopped, job)) from stopped

    return run


def flash_of(program: StreamProgram) -> Contents | None:
    """Return the flash chip with a program's image, if its array has one."""
    array = program.array
    return Contents(part=FLASH.part, element=array.flash, clock_hz=FLASH_HZ, memory=bytes(
        FLASH.base) + pack(array, program.sections)) if array.flash else None


def why_stopped(stopped: Stopped, job: Job) -> str:
    """Return in words why a job was stopped, and the way out."""
    where, again = f"(image {stopped.image})", "compile the program again for this array"
    if stopped.failure is Failure.ERROR:
        name = Error(stopped.code).name if stopped.code in set(Error) else f"code {stopped.code}"
        return (f"the machine stopped with error {name} {where}; "
                f"{WAYS_OUT.get(stopped.code, again)}")
    if stopped.failure is Failure.TIMEOUT:
        return f"no end after {int(job.max_cycles):,} cycles {where}; {again}"
    return f"the machine gave no answer to a bus read {where}; it may still be busy after done"


def simulate(program: StreamProgram, images: np.ndarray, *, simulator: str = "verilator",
             progress: Progress | None = None, stages: Stages = unseen,
             design: Design | None = None) -> StreamResult:
    """Run a program on N images, floats (N, *user_shape); the rest as of `simulated`."""
    job = job_of(program, images)
    run = simulated(program, simulator=simulator, progress=progress, stages=stages, design=design)
    return results(program, job, run(job))


def in_main(places: np.ndarray | list[int]) -> np.ndarray:
    """Return the space and the addresses of elements of main memory, uint32 (n, 2)."""
    return _at(Space.MAIN, places)


def _at(space: Space, addresses: np.ndarray | list[int]) -> np.ndarray:
    """Return space and address, uint32 (n, 2)."""
    found = np.array(addresses)
    return np.column_stack([np.full(len(found), space), found]).astype(np.uint32)
