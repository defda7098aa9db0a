"""``celosia run`` and ``celosia verify``."""

import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from celosia import backends
from celosia import verify as verification
from celosia.answer_picture import check_picture, shown_range, write_picture
from celosia.answers import check_truth
from celosia.cli import common
from celosia.cli.difference import difference
from celosia.cli.progress import work
from celosia.labels import check_classes, read_labels, read_truth
from celosia.program import Program
from celosia.results import RunResult, stored_names
from celosia.samples import Samples, read_samples
from celosia.show import clock_of, count, rate, span, speed
from celosia_spec.errors import CelosiaError
from celosia_spec.files import check_output, replacing
from celosia_spec.preprocessing import Preprocessing

Input = Annotated[list[Path], typer.Option(
    "--input", metavar="FILE", help="A picture, PNG or JPEG (--input may be given again); a folder "
    "of pictures; inputs (N, ...) in a .npy file; a .npz file with images and labels, or with "
    "each of several tensors by its name; a data set, "
    "such as fashion-mnist, whose test images are taken.")]
Backend = Annotated[str | None, typer.Option(help=f"{backends.NAMES}.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Only the first so many inputs.")]


def run(
    program: common.ProgramPath,
    input: Input,
    backend: Backend = None,
    port: common.Port = None,
    baud: common.Baud = None,
    output: Annotated[Path | None, typer.Option(
        "--output", "-o", help="Results: mantissa, exponent, values, answer, saturated, and of a "
                               "simulation cycles and layer_cycles, in a .npz file; or a map as a "
                               "picture, in a .png file.")] = None,
    tensors: Annotated[bool, typer.Option(
        "--tensors", help="Show what every layer stores, too; in a .npz file all of it.")] = False,
    tensor: Annotated[list[str] | None, typer.Option(
        "--tensor", metavar="LAYER", help="Likewise of this layer; may be given again.")] = None,
    truth: Annotated[Path | None, typer.Option(
        metavar="FILE", help="The true class of each input: a number or a class name a line, or "
                             "whole numbers in a .npy file. Then accuracy and confusions are "
                             "shown.")] = None,
    labels: Annotated[Path | None, typer.Option(
        metavar="FILE", help="Names of the classes, one on each line, instead of those that are "
                             "stored with the program.")] = None,
    of: common.OutputName = None,
    limit: Limit = None,
    json: common.Json = False,
) -> None:
    """Run inputs on the golden model, the simulated gateware or a board, and show the answers.

    A board gets the program first: celosia run PROGRAM.celo --input FILE --port auto
    """
    from celosia.cli import answers

    backend = common.backend_of(backend, port, backends.GOLDEN)
    if output is not None:
        check_output(output, program, truth, labels, *input)
    loaded = common.load_program(program)
    outputs = loaded.outputs if of is None else (loaded.output(of),)
    names = _class_names(loaded, labels)
    stored = stored_names(loaded, tensors or tensor or False)
    _check_written(loaded, output, of)
    samples = _samples(loaded, input, limit, truth, names)
    if samples.truth is not None:
        check_truth(loaded.output(of), samples.truth, len(samples.inputs))
    started = time.perf_counter()
    with work(f"running on {backend}") as shown:
        result = backends.run(loaded, samples.inputs, backend, tensors=stored, baud=baud,
                              progress=shown.count, stages=shown.stage, notice=common.notice)
    seconds = time.perf_counter() - started
    drawn = None if output is None else _write(output, loaded, result, of)
    if json:
        common.emit({
            "images": len(samples.inputs),
            "cycles": None if result.cycles is None else result.cycles.tolist(),
            **_predicted(loaded), "saturated": int(result.saturated.sum()), "seconds": seconds,
            **answers.as_json(loaded, samples, result, outputs, names),
            "tensors": answers.stored_json(result), "drawn": drawn,
            "output": None if output is None else str(output)})
        return
    print(common.wrapped(
        f"{count(len(samples.inputs), 'input')} on {backend} in {seconds:.2f} s, "
        f"{_clipped(result.saturated)}"
        + ("" if result.cycles is None else f", {span(result.cycles.tolist())} cycles each")))
    print(_speed(loaded))
    answers.show_answers(loaded, samples, result, outputs, names)
    answers.show_stored(result)
    if output is not None:
        print(f"wrote {output}" + (f", black {drawn[0]:.4g}, white {drawn[1]:.4g}"
                                   if drawn else ""))


def _clipped(saturated: np.ndarray) -> str:
    """Return of how many inputs a number was clipped, in words."""
    wrong, whole = int(saturated.sum()), len(saturated)
    if not wrong:
        return "nothing clipped"
    return f"{wrong:,} of {whole:,} with a number clipped (larger than its exponent holds)"


def _check_written(program: Program, output: Path | None, of: str | None) -> None:
    """CelosiaError unless a file can hold results, or the output of a name as a picture."""
    ending = "" if output is None else output.suffix.lower()
    if output is not None and ending == ".png":
        check_picture(output, program.output(of))
    elif ending not in (".npz", ""):
        raise CelosiaError(f"{output}: results are written as .npz, and maps as .png too; give the "
                           f"file one of these endings")


def _write(path: Path, program: Program, result: RunResult,
           of: str | None) -> tuple[float, float] | None:
    """Write all results, or the output of a name as a picture; return what is black in that, and
    white."""
    if path.suffix.lower() != ".png":
        with replacing(path) as file:
            np.savez(file, **result.arrays)     # type: ignore[arg-type]
        return None
    output = program.output(of)
    answer = result.answers[output.name]
    ends = shown_range(output, answer)
    write_picture(path, answer, *ends)
    return ends


def _class_names(program: Program, labels: Path | None) -> tuple[str, ...]:
    """Return the class names that are given, else those that the program brings."""
    known = program.preprocessing or Preprocessing()
    if labels is not None:
        known = replace(known, labels=read_labels(labels))
        known.check(program.graph.tensors[program.graph.input].user_shape[0],
                    *(output.scoring.classes for output in program.outputs))
    return known.labels


def _samples(program: Program, sources: list[Path], limit: int | None, truth: Path | None,
             names: tuple[str, ...]) -> Samples:
    """Return the inputs with their true classes."""
    samples = read_samples(sources, program, limit)
    if truth is not None:
        return replace(samples, truth=read_truth(truth, names)[:limit])
    check_classes(sources[0], samples.classes, names)
    return samples


def _predicted(program: Program) -> dict[str, float]:
    """Return the predicted cycles and what they are at the target's clock, for JSON."""
    clock = clock_of(program)
    return {"predicted_cycles": program.predicted_cycles, "clock_mhz": clock,
            **rate(program.predicted_cycles, clock)._asdict()}


def _speed(program: Program) -> str:
    return (f"predicted {program.predicted_cycles:,} cycles: "
            f"{speed(program.predicted_cycles, clock_of(program))}")


def verify(
    program: common.ProgramPath,
    input: Input,
    backend: Backend = None,
    port: common.Port = None,
    baud: common.Baud = None,
    limit: Limit = None,
    json: common.Json = False,
) -> None:
    """Compare a backend with the golden model: every stored tensor, every output, every cycle.

    On a board: celosia verify PROGRAM.celo --input FILE --port auto
    """
    backend = common.backend_of(backend, port, "verilator")
    loaded = common.load_program(program)
    x = read_samples(input, loaded, limit).inputs
    with work(f"verifying {backend}") as shown:
        found = verification.verify(loaded, x, backend, baud=baud, progress=shown.count,
                                    stages=shown.stage, notice=common.notice)
    if json:
        first = None if found.first_mismatch is None else asdict(found.first_mismatch)
        common.emit({
            "images": found.images, "values": found.values, "tensors": list(found.tensors),
            "mismatches": found.mismatches, "first_mismatch": first,
            "cycles": found.cycles.tolist(), **_predicted(loaded)})
    else:
        print(common.wrapped(
            f"{count(found.images, 'input')}, {count(len(found.tensors), 'tensor')}, "
            f"{count(found.values, 'value')}: {count(found.mismatches, 'mismatch', 'mismatches')}; "
            f"took {span(found.cycles.tolist())} cycles"))
        print(_speed(loaded))
    if found.first_mismatch is not None:
        common.refuse(difference(loaded, backend, found.first_mismatch))
    if not found.passed:
        common.refuse(f"{span(found.cycles.tolist())} cycles instead of "
                      f"{found.predicted_cycles:,}; the cycle model is wrong for this program, "
                      f"report it with the program")
