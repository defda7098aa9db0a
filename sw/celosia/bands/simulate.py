"""Programs of the second machine on its Verilog: many images, in a compiled loop."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np

from celosia.bands.host import addresses, output, prepare
from celosia.bands.program import StreamProgram
from celosia_boards.cache import Stages, unseen
from celosia_boards.host.job import Job, Record, Stopped
from celosia_sim.flash import PARTS, Beside, Chip
from celosia_sim.simulators.rtl import FLASH, FLASH_HZ, Design, machine_design
from celosia_sim.simulators.verilated import VerilatedCore, execute, library
from celosia_spec.errors import SimulationError
from celosia_spec.stream.array import ENTRY_WORDS
from celosia_spec.stream.image import pack
from celosia_spec.stream.memories import EXPONENT_SLOTS, Space

Execute = Callable[[Job], Record]
"""What carries out a job."""

PATIENCE = 10
"""How many times its counted cycles a run may take."""


@dataclass(frozen=True, kw_only=True, eq=False)
class StreamResult:
    """What N images gave.

    output    : int64 (N, C, H, W) mantissas.   exponent : int64 (N,).
    cycles    : int64 (N,), from the edge that accepts the start to the one that ends ``busy``.
    saturated : bool (N,).
    """

    output: np.ndarray
    exponent: np.ndarray
    cycles: np.ndarray
    saturated: np.ndarray


def job_of(program: StreamProgram, images: np.ndarray) -> Job:
    """Return what is to be done on the host bus, whatever is behind it: the stream is written once,
    then for each image its elements and its exponent; what is read are all exponents, and the sums
    that are the output.

    images : floats (N, *user_shape).
    """
    graph, size = program.graph, program.array.main_words * ENTRY_WORDS
    taken = addresses(graph.tensors[graph.input], program.places[graph.input]).ravel()
    main = np.zeros(size, np.int64)
    values = np.zeros((len(images), taken.size + 1), np.uint32)
    for row, x in zip(values, images, strict=True):
        exponent = prepare(program, x, main)
        row[:-1], row[-1] = main[taken], exponent & 0xFF
    words = len(program.entries) * ENTRY_WORDS
    given = addresses(graph.tensors[graph.output], program.places[graph.output]).ravel()
    reads = np.concatenate([_at(Space.EXPONENTS, np.arange(EXPONENT_SLOTS)),
                            _at(Space.MAIN, np.concatenate([given, given + 1]))])
    counted = sum(layer.cycles for layer in program.layers) + program.flash.waits
    return Job(
        setup=np.column_stack([_at(Space.MAIN, np.arange(words)), main[:words]]).astype(np.uint32),
        input_at=np.concatenate([_at(Space.MAIN, taken),
                                 _at(Space.EXPONENTS, [program.slots[graph.input]])]),
        input_values=values, runs=np.array([[program.list_at & 0xFF, program.list_at >> 8, 1]]),
        read_at=reads, read_ends=np.array([len(reads)]), descriptors=np.array(1),
        max_cycles=np.array(PATIENCE * counted + 10_000))


def results(program: StreamProgram, job: Job, record: Record) -> StreamResult:
    """Return what a job brought back."""
    main = np.zeros(program.array.main_words * ENTRY_WORDS, np.int64)
    mantissas, exponents = [], []
    for read in record.reads.astype(np.int64):
        slots = (read[:EXPONENT_SLOTS] & 0xFF ^ 0x80) - 0x80
        main[job.read_at[EXPONENT_SLOTS:, 1]] = read[EXPONENT_SLOTS:]
        found, exponent = output(program, main, slots)
        mantissas.append(found)
        exponents.append(exponent)
    return StreamResult(output=np.array(mantissas), exponent=np.array(exponents),
                        cycles=record.cycles[:, 0], saturated=record.saturated[:, 0] != 0)


@contextmanager
def simulated(program: StreamProgram, *, progress: Callable[[int, int], None] | None = None,
              stages: Stages = unseen, design: Design | None = None) -> Iterator[Execute]:
    """Yield what carries out jobs of a program on its Verilog, in the compiled loop.

    progress, stages : as of `celosia_sim.simulate.simulate`.   design : the machine's Verilog.

    An array with flash is started with the program's image in it, and nothing is loaded else.
    SimulationError where a tool is missing, or the machine reports an error or finds no end.
    """
    array = program.array
    design = machine_design(array, stages) if design is None else design
    compiled = library(design, stages)

    def run(job: Job) -> Record:
        flash = None
        if array.flash:
            job = replace(job, setup=job.setup[:0])
            chip = Chip(PARTS[FLASH.part], bytes(FLASH.base) + pack(array, program.sections))
            flash = Beside(chip, array.flash, FLASH_HZ)
        try:
            with VerilatedCore(compiled, flash) as machine:
                return execute(machine, job, progress)
        except Stopped as stopped:
            raise SimulationError(f"the machine stopped in image {stopped.image} "
                                  f"({stopped.failure.name.lower()}, error {stopped.code}); "
                                  f"compile the program again for this array") from stopped

    yield run


def simulate(program: StreamProgram, images: np.ndarray, *,
             progress: Callable[[int, int], None] | None = None, stages: Stages = unseen,
             design: Design | None = None) -> StreamResult:
    """Run a program on N images, floats (N, *user_shape); the rest as of `simulated`."""
    job = job_of(program, images)
    with simulated(program, progress=progress, stages=stages, design=design) as run:
        return results(program, job, run(job))


def _at(space: Space, addresses: np.ndarray | list[int]) -> np.ndarray:
    """Return space and address, uint32 (n, 2)."""
    found = np.array(addresses)
    return np.column_stack([np.full(len(found), space), found]).astype(np.uint32)
