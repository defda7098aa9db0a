"""What users call. Torch, SciPy, the simulators and the FPGA tools are imported when needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from celosia.calibration import calibration_array, calibration_remarks, known_early
from celosia.compiler import Compiler
from celosia.extras import names_extra
from celosia.uncollected import uncollected
from celosia_spec.errors import ArgumentError, CelosiaError, located, refusals
from celosia_spec.files import check_folder

if TYPE_CHECKING:
    from celosia.program import Program
    from celosia_boards.build import BuildReport
    from celosia_boards.targets import Target
    from celosia_spec.preprocessing import Preprocessing

@names_extra
@uncollected()
def compile(model: Any, example_input: Any = None, *, target: str = Compiler.target,
            calibration: Any = None, exponents: str = Compiler.exponents,
            weight_bits: int = Compiler.weight_bits,
            activation_bits: int = Compiler.activation_bits,
            input_bits: int | None = None, lanes: int | None = None, sparse: bool = True,
            stream: str | None = None, hop: int | None = None, accuracy: str | None = None,
            preprocessing: Preprocessing | None = None,
            dump_after: str | None = None,
            progress: Callable[[str], None] | None = None) -> Program:
    """Compile a trained network into a program for one target's array.

    model         : torch.nn.Module, torch.export.ExportedProgram, or path of a ``.pt2`` or
                    ``.onnx`` file.
    example_input : (1, C, H, W), (1, C, L) or (1, F), or such a shape itself; tells the shapes. Of
                    more than one input the first counts, and one may lack its batch axis
                    (`Program.remarks` says so). None where the model is exported or a file, and
                    tells them itself. Of a network that takes several tensors a tuple of such, one
                    of each, or a mapping of their names to such.
    target        : a board or a device; ``celosia targets`` lists them.
    calibration   : float32 (N, C, H, W), (N, C, L) or (N, F), or None; "static" exponents need it,
                    but of a quantised network whose scales tell them. Of such a network
                    `Program.quantised` then says how far the program is from it. Of several inputs
                    a tuple of such, or a mapping.
    exponents     : "dynamic" (found for each image) or "static" (fixed: by the scales of a
                    quantised network, else by calibration).
    weight_bits, activation_bits : mantissa widths, 4 to 8 and 4 to 9.
    input_bits    : of the input's mantissas, up to 2 * activation_bits - 1; None takes
                    activation_bits. More of them let the layers that read it compute twice.
    lanes         : None lets the target's default stand.
    sparse        : False keeps zero weights as work to be done, the dense baseline.
    stream        : "time" for a program that takes a step of time at a run (`celosia.stream`): the
                    network is over a window, (1, C, T, W) or (1, C, 1, T), and what it computed of
                    earlier lines is kept. None computes the whole window.
    hop           : new lines that a step takes; None takes the fewest that are possible.
    accuracy      : "default" runs the passes that make outputs more like the float ones, each only
                    where it helps on calibration inputs that it has not seen (`Program.remarks`
                    says so). "best" lets static exponents clip, too, where that helps. "none" does
                    nothing of it. None is "default" where there are 8 different calibration
                    inputs or more, else "none". `Program.noise` tells what it gave.
    preprocessing : how pixels become inputs and what outputs are called, to be stored with the
                    program. Where it, or the calibration, says that inputs are never below 0, their
                    mantissas get no sign, and inputs below 0 are refused.
    dump_after    : name of a graph pass whose result is printed on stderr.
    progress      : called with what takes long and begins, such as to look for what helps where
                    the network does not fit.

    ArgumentError where one of these settings cannot be, CelosiaError where there is no such target
    or it cannot hold the array at all, both before the model is read. CompileError names the
    layer, the operator, the reason, the line of the model's source and the way out. FitError, which
    is one: another target or other settings may take the network; its way out has been tried.
    """
    from celosia.passes import check_pass

    compiler = Compiler(target=target, exponents=exponents, weight_bits=weight_bits,
                        activation_bits=activation_bits, input_bits=input_bits, lanes=lanes,
                        sparse=sparse, stream=stream, hop=hop, accuracy=accuracy)
    compiler.check(calibrated=calibration is not None)
    check_pass(dump_after)
    samples = (calibration_array(calibration, preprocessing=preprocessing)
               if known_early(calibration) else None)

    from celosia.accuracy import more_accurate
    from celosia.beside_quantised import quantised_loss
    from celosia.faint_outputs import faint_outputs, output_remarks
    from celosia.faint_tensors import faint_tensors
    from celosia.input_scales import input_remarks
    from celosia.ways_out import compile_or_advise

    imported = compiler.imported(model, example_input)
    if imported.takes and preprocessing is not None and preprocessing.scale is not None:
        names = ", ".join(one.name for one in imported.takes)
        raise ArgumentError(f"scale, mean and deviation are those of pictures, and the network "
                            f"takes {names}; leave them out, and give numbers as it was trained")
    if samples is None or imported.takes:
        samples = calibration_array(calibration, imported.takes, imported.input_shape,
                                    preprocessing)
    prepared = compiler.prepared(imported, samples, preprocessing, dump_after=dump_after)
    graph, samples, compiler = prepared.graph, prepared.samples, prepared.compiler
    graph = replace(graph, remarks=(
        *graph.remarks, *(preprocessing.remarks if preprocessing else ()),
        *calibration_remarks(samples, preprocessing),
        *input_remarks(graph, samples, compiler.larger_input),
        *output_remarks(graph, calibrated=samples is not None),
        *faint_tensors(graph, samples, activation_bits)))
    if preprocessing is not None:
        preprocessing.check(graph.input_shape[0],
                            *(output.scoring.classes for output in graph.outputs))
    with located(graph.sources), refusals():
        noise: dict[str, tuple[float, float]] = {}
        if samples is not None and compiler.passes(samples):
            improved = more_accurate(graph, compiler, samples, dump_after=dump_after)
            graph, compiler, noise = improved.graph, improved.compiler, improved.noise
        program = replace(compile_or_advise(graph, compiler, samples, progress), host=graph.host,
                          returns=graph.returns, takes=graph.takes, preprocessing=preprocessing,
                          noise=noise)
        if samples is None:
            return program
        program = replace(program, graph=replace(program.graph, remarks=(
            *program.graph.remarks, *faint_outputs(graph, program, samples))))
        return replace(program, quantised=quantised_loss(imported, prepared.graph, program,
                                                         samples))


def load(path: str | Path) -> Program:
    """Return the program that ``Program.save`` wrote; CelosiaError where the file is not sound."""
    from celosia.serialise import load as load_program

    return load_program(path)


@names_extra
def build(program: Program, board: str | None = None, *, seeds: int = 1, seed: int = 0,
          clock_mhz: float | None = None, allow_timing_failure: bool = False,
          placement: Sequence[str] = (), directory: str | Path | None = None, fresh: bool = False,
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
    fresh     : place anew, whatever ``directory`` and the cache hold of earlier builds.
    progress  : called with the name of each stage as it starts, and what each seed came to.

    CelosiaError where the tools are missing, the board is unknown or cannot hold the array, the
    design does not fit or misses its clock, or the results cannot be written.
    """
    from celosia.program import check_program
    from celosia_boards.targets import target as find_target

    check_program(program)
    with refusals():
        place = find_target(board or program.target)
        check_buildable(program, place)
        folder = check_folder(directory or Path("build") / place.name, "celosia.*")

    from celosia_boards.board_top import top_for
    from celosia_boards.build import build as build_design

    with refusals():
        return build_design(
            lambda mhz: top_for(place, program.array, clock_mhz=mhz), place, folder, seed=seed,
            seeds=seeds, clock_mhz=clock_mhz, allow_timing_failure=allow_timing_failure,
            placement=placement, fresh=fresh, progress=progress)


def check_buildable(program: Program, place: Target) -> None:
    """CelosiaError unless ``place`` can hold the program's array."""
    from celosia_boards.arrays import require

    if place.name == program.target:
        require(place, program.array)
    elif problems := place.check(program.array):
        raise CelosiaError(f"{place.name}: {problems[0]}, which the program for {program.target} "
                           f"asks for; compile it for {place.name} (--target {place.name})")


