"""What users call. Torch, SciPy, the simulators and the FPGA tools are imported when needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from celosia.errors import CelosiaError, located
from celosia.extras import names_extra
from celosia.files import check_folder
from celosia.host import compute, scoring
from celosia.inputs import as_array, calibration_array

if TYPE_CHECKING:
    from celosia.preprocessing import Preprocessing
    from celosia.program import Program
    from celosia_boards.build import BuildReport
    from celosia_boards.targets import Target
    from celosia_sim.backends import SimResult

GOLDEN, SIMULATORS, BOARD = "golden", ("verilator", "icarus"), "board"
CHUNK = 250
"""Inputs that the golden model computes between two reports of progress."""

Progress = Callable[[int, int], None]
"""Called with the number of inputs done and the number of all."""

Notice = Callable[[str], None]

Stages = Callable[[str, int, int], None]
"""Called as a simulator is built for an array, which the first time takes minutes: the stage, how
many of its steps are begun, and how many it has (0 of 0 where they are not known)."""


@dataclass(frozen=True, eq=False, kw_only=True)
class RunResult:
    """Outputs of N inputs. The output's value is ``mantissa * 2 ** (exponent - (bits - 2))``.

    mantissa : int32 (N, ...), as the array computes it.   exponent : int32 (N,).
    values   : float64 (N, ...), exact.
    answer   : what the network returns: the values, or what the host's layers (`Program.host`)
               make of them, float64, behind an argmax int64.
    saturated: bool (N,), True where a rounding or the input was clipped.
    cycles   : int64 (N,), from start to done; None from the golden model.
    layer_cycles : int64 (N, layers), or None likewise.
    """

    mantissa: np.ndarray
    exponent: np.ndarray
    values: np.ndarray
    answer: np.ndarray
    saturated: np.ndarray
    cycles: np.ndarray | None
    layer_cycles: np.ndarray | None


@names_extra
def compile(model: Any, example_input: Any, *, target: str = "icebreaker", calibration: Any = None,
            exponents: str = "dynamic", weight_bits: int = 8, activation_bits: int = 8,
            lanes: int | None = None, sparse: bool = True,
            preprocessing: Preprocessing | None = None,
            dump_after: str | None = None) -> Program:
    """Compile a trained network into a program for one target's array.

    model         : torch.nn.Module, torch.export.ExportedProgram, or path of a ``.pt2`` file.
    example_input : float32 (1, C, H, W) or (1, F); tells the shapes.
    target        : a board or a device; ``celosia targets`` lists them.
    calibration   : float32 (N, C, H, W) or (N, F), or None; "static" exponents need it.
    exponents     : "dynamic" (found for each image) or "static" (fixed by calibration).
    weight_bits, activation_bits : mantissa widths, 4 to 9.
    lanes         : None lets the target's default stand.
    sparse        : False keeps zero weights as work to be done, the dense baseline.
    preprocessing : how pixels become inputs and what outputs are called, to be stored with the
                    program; it changes nothing of what is computed.
    dump_after    : name of a graph pass whose result is printed on stderr.

    ArgumentError where one of these settings cannot be, CelosiaError where there is no such target
    or it cannot hold the array at all, both before the model is read. CompileError names the
    layer, the operator, the reason, the line of the model's source and the way out. FitError, which
    is one: another target or other settings may take the network; its way out has been tried.
    """
    from celosia.compiler import Settings
    from celosia.passes import check_pass, optimise

    settings = Settings(target=target, exponents=exponents, weight_bits=weight_bits,
                        activation_bits=activation_bits, lanes=lanes, sparse=sparse)
    settings.check(calibrated=calibration is not None)
    check_pass(dump_after)
    samples = calibration_array(calibration)

    from celosia.frontend import import_model
    from celosia.ways_out import compile_or_advise

    graph = optimise(import_model(model, example_input), dump_after=dump_after)
    if preprocessing is not None:
        preprocessing.check(graph.input_shape[0], scoring(graph.host, graph.output_shape).classes)
    with located(graph.sources):
        return replace(compile_or_advise(graph, settings, samples), host=graph.host,
                       preprocessing=preprocessing)


def load(path: str | Path) -> Program:
    """Return the program that ``Program.save`` wrote; CelosiaError where the file is not sound."""
    from celosia.serialise import load as load_program

    return load_program(path)


@names_extra
def run(program: Program, x: Any, backend: str = GOLDEN, *, progress: Progress | None = None,
        stages: Stages | None = None, notice: Notice | None = None,
        baud: int | None = None) -> RunResult:
    """Run N inputs on a backend.

    x       : float32 (N, ...), shaped as the network's input.
    backend : "golden" (NumPy), "verilator" or "icarus" (the simulated gateware), "board:PORT" (a
              flashed board, which gets the program first; see `celosia.connect` for PORT), "board"
              (the port that CELOSIA_PORT names, else "board:auto").
    progress, stages : what to call meanwhile: as inputs are done, and as a simulator is built or a
              board loaded.
    notice  : called with a line where something went wrong on a board and was mended.
    baud    : of a board's port; None is what its target is built for.

    CelosiaError where the shape is wrong, a value is not finite, or the backend is not there.
    """
    images = as_images(program, x)
    check_backend(backend)
    if backend == GOLDEN:
        return _run_golden(program, images, progress)
    if on_board(backend):
        from celosia.board import loaded

        with loaded(program, backend, baud=baud, stages=stages, notice=notice) as board:
            return board.run(images, progress=progress)
    simulation = simulate(program, images, backend, progress=progress, stages=stages)
    return result_of(program, simulation)


@names_extra
def build(program: Program, board: str | None = None, *, seeds: int = 1, seed: int = 0,
          clock_mhz: float | None = None, allow_timing_failure: bool = False,
          placement: Sequence[str] = (), directory: str | Path | None = None,
          progress: Callable[[str], None] | None = None) -> BuildReport:
    """Synthesise, place and route the program's array, and pack the bitstream.

    board     : a target's name; None takes the program's own.
    seeds     : placements to try; the fastest is kept, and a board then gets the highest standard
                clock that it meets. One is placed for the target's clock, and no more than that.
    seed      : nextpnr's first seed.
    clock_mhz : clock of the array; None is the target's.
    allow_timing_failure : keep a design that misses its clock.
    placement : further options of nextpnr, as its command line takes them.
    directory : where the results go; None is ``build/<board>``.
    progress  : called with the name of each stage as it starts, and what each seed came to.

    CelosiaError where the tools are missing, the board is unknown or cannot hold the array, the
    design does not fit or misses its clock, or the results cannot be written.
    """
    from celosia_boards.targets import target as find_target

    with refusals():
        place = find_target(board or program.target)
        check_buildable(program, place)
        folder = check_folder(directory or Path("build") / place.name, "celosia.*")

    from celosia_boards.board_top import top_for
    from celosia_boards.build import BuildError
    from celosia_boards.build import build as build_design

    with refusals(BuildError):
        return build_design(
            lambda mhz: top_for(place, program.array, clock_mhz=mhz), place, folder, seed=seed,
            seeds=seeds, clock_mhz=clock_mhz, allow_timing_failure=allow_timing_failure,
            placement=placement, progress=progress)


def check_buildable(program: Program, place: Target) -> None:
    """CelosiaError unless ``place`` can hold the program's array."""
    from celosia_boards.arrays import check_array, require

    if place.name == program.target:
        require(place, program.array)
    elif reasons := check_array(place, program.array):
        raise CelosiaError(f"{place.name}: {reasons[0]}, which the program for {program.target} "
                           f"asks for; compile it for {place.name} (--target {place.name})")


@contextmanager
def refusals(*errors: type[Exception]) -> Iterator[None]:
    """Turn ``errors``, and ValueErrors of packages below, into one-line refusals."""
    refused: tuple[type[Exception], ...] = (ValueError, *errors)
    try:
        yield
    except refused as problem:
        raise CelosiaError("; ".join(str(problem).splitlines())) from None


def as_images(program: Program, x: Any) -> np.ndarray:
    """Return the inputs as float32 (N, ...), checked against the network's input shape."""
    tensor = program.graph.tensors[program.graph.input]
    array = as_array(x)
    wanted = "(N, " + ", ".join(str(size) for size in tensor.user_shape) + ")"
    if array.shape[1:] != tuple(tensor.user_shape) or array.ndim == 0:
        raise CelosiaError(f"input: shape {array.shape}, the network takes {wanted}; "
                           f"reshape it, one input is N = 1")
    if len(array) == 0:
        raise CelosiaError(f"input: no inputs in it, the network takes {wanted} with N > 0")
    known = program.preprocessing
    pixels = str(getattr(x, "dtype", "")).endswith("uint8")     # of NumPy or torch
    if pixels and known is not None and known.scale is not None:
        raise CelosiaError("input: uint8 are pixels, and the program says how they become inputs; "
                           "give program.preprocessing.inputs(pixels), or numbers of another type")
    return array


def on_board(backend: str) -> bool:
    """Tell whether a backend is a board: "board" or "board:PORT"."""
    return backend == BOARD or backend.startswith(f"{BOARD}:")


def check_backend(backend: str) -> None:
    """CelosiaError unless ``backend`` is one that there is."""
    if backend not in (GOLDEN, *SIMULATORS) and not on_board(backend):
        raise CelosiaError(f"unknown backend {backend!r}; use {GOLDEN}, {', '.join(SIMULATORS)}, "
                           f"or {BOARD}:PORT such as {BOARD}:auto")


def simulate(program: Program, images: np.ndarray, simulator: str, *, tensors: bool = False,
             progress: Progress | None = None, stages: Stages | None = None) -> SimResult:
    """Return the ``SimResult`` of images (N, ...), quantised as the host does.

    ``saturated`` then also tells of the input, which the machine does not see.
    """
    from celosia_sim.backends import simulate as run_simulator
    from celosia_sim.cache import unseen
    from celosia_sim.golden import input_saturated, quantise_input

    with refusals():
        mantissa, exponent = quantise_input(program.graph, images)
    result = run_simulator(program, mantissa, exponent, simulator=simulator, tensors=tensors,
                           progress=progress, stages=stages or unseen)
    return replace(result, saturated=result.saturated | input_saturated(program.graph, images))


def result_of(program: Program, simulation: SimResult) -> RunResult:
    """Return what users get of a run on the machine, simulated or on a board."""
    return _result(program, simulation.output, simulation.exponent, simulation.saturated,
                   simulation.cycles, simulation.layer_cycles)


def _run_golden(program: Program, images: np.ndarray, progress: Progress | None) -> RunResult:
    from celosia_sim.golden import run as run_golden

    output, parts = program.graph.output, []
    for start in range(0, len(images), CHUNK):
        with refusals():
            golden = run_golden(program.graph, images[start:start + CHUNK], keep_tensors=False)
        parts.append((golden.mantissas[output], golden.exponents[output], golden.saturated))
        if progress:
            progress(min(start + CHUNK, len(images)), len(images))
    mantissa, exponent, saturated = (np.concatenate(part) for part in zip(*parts, strict=True))
    return _result(program, mantissa, exponent, saturated, None, None)


def _result(program: Program, mantissa: np.ndarray, exponent: np.ndarray, saturated: np.ndarray,
            cycles: np.ndarray | None, layer_cycles: np.ndarray | None) -> RunResult:
    tensor = program.graph.tensors[program.graph.output]
    mantissa = mantissa.reshape(len(mantissa), *tensor.user_shape).astype(np.int32)
    lsb = (exponent.astype(np.int32) - (tensor.bits - 2)).reshape(-1, *[1] * (mantissa.ndim - 1))
    values = np.ldexp(mantissa.astype(np.float64), lsb)
    return RunResult(mantissa=mantissa, exponent=exponent.astype(np.int32), values=values,
                     answer=compute(program.host, values), saturated=saturated,
                     cycles=cycles, layer_cycles=layer_cycles)
