"""``celosia check``."""

import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from celosia.cli import common, preprocessing, streams
from celosia.cli.page import check_page
from celosia.cli.progress import work
from celosia.cli.widths import as_json, read_bits
from celosia.cli.widths import show as show_widths
from celosia.cli.widths import write as write_widths
from celosia.compiler import Compiler
from celosia.fit import Report, TargetCheck, refused_arrays
from celosia.fit import check as check_model
from celosia.show import figure, rate
from celosia_spec.errors import CelosiaError


def check(
    model: common.ModelName,
    target: Annotated[list[str] | None, typer.Option(
        help="Board or device, may be given again; all of them without it.")] = None,
    input_shape: common.InputShape = None,
    weights: common.Weights = None,
    calibration: Annotated[Path | None, typer.Option(
        help="Inputs, float32 (N, ...) in a .npy file, of several tensors in a .npz file by their "
             "names; static exponents need them.")] = None,
    exponents: Annotated[str, typer.Option(help="dynamic or static.")] = Compiler.exponents,
    weight_bits: common.WeightBits = Compiler.weight_bits,
    activation_bits: common.ActivationBits = Compiler.activation_bits,
    input_bits: common.InputBits = None,
    lanes: Annotated[int | None, typer.Option(help="Instead of each target's default.")] = None,
    accuracy: common.Accuracy = None,
    dense: Annotated[bool, typer.Option(help="Keep the zeros: the dense baseline.")] = False,
    scale: preprocessing.Scale = None,
    mean: preprocessing.Mean = None,
    deviation: preprocessing.Deviation = None,
    bits: Annotated[str | None, typer.Option(
        metavar="W/A,...", help="Measure on --calibration what weights and activations of these "
                                "bits give, on one target: 8/8,6/8, or all.")] = None,
    labels: Annotated[Path | None, typer.Option(
        help="With --bits: classes of the calibration inputs, whole numbers (N,) in a .npy "
             "file.")] = None,
    html: common.Html = None,
    json: common.Json = False,
) -> None:
    """Tell which targets a model fits and how fast, or all that is in the way and what helps."""
    names = target or []
    settings = Compiler(exponents=exponents, weight_bits=weight_bits, lanes=lanes,
                        activation_bits=activation_bits, input_bits=input_bits,
                        sparse=not dense, accuracy=accuracy)
    pairs = _pairs(bits, names, calibration, labels, html)
    refused_arrays(names, settings, calibrated=calibration is not None)
    check_page(html, *(path for path in (calibration, labels) if path))
    shape, known = common.input_shape(input_shape), preprocessing.told(
        model, None, scale, mean, deviation)
    samples = None if calibration is None else common.read_calibration(calibration, known)
    module, example = common.find_weighted(model, weights, common.known_shape(shape, samples))
    if pairs:
        _widths(model, module, common.example_input(model, example, samples, shape), pairs,
                replace(settings, target=names[0]) if names else settings, samples, labels,
                html=html, json=json)
        return
    with common.users_prints(), work() as shown:
        report = check_model(
            module, common.example_input(model, example, samples, shape), names or None,
            calibration=samples, exponents=exponents, weight_bits=weight_bits,
            activation_bits=activation_bits, input_bits=input_bits, lanes=lanes,
            sparse=not dense, accuracy=accuracy,
            preprocessing=known,
            progress=shown.stage if sys.stderr.isatty() or not json else None)
    if json:
        common.emit({"model": model, "exponents": exponents, "fits": report.fits,
                     **asdict(report), "targets": [
                         asdict(entry) | streams.memory_json(entry.memory)
                         for entry in report.targets]})
    else:
        _print(f"{model}, {exponents} exponents", report)
    if not report.fits:
        count = len(report.targets)
        where = report.targets[0].target if count == 1 else f"any of {count} targets"
        common.refuse(f"{model} does not fit {where}; what is in the way and what helps is told "
                      f"{'in the JSON' if json else 'above'}")


def _pairs(bits: str | None, targets: list[str], calibration: Path | None, labels: Path | None,
           html: Path | None) -> list[tuple[int, int]]:
    """Return what --bits says, nothing without it; CelosiaError where what it needs is missing."""
    if bits is None:
        for option, given in (("labels", labels), ("html", html)):
            if given is not None:
                raise CelosiaError(f"--{option} goes with --bits; leave it out, or give --bits 8/8")
        return []
    pairs = read_bits(bits)
    if len(targets) > 1:
        raise CelosiaError("--bits measures for one target; give --target once, such as --target "
                           "icebreaker")
    if calibration is None:
        raise CelosiaError("--bits measures on inputs; give --calibration inputs.npy, an array "
                           "(N, C, H, W) or (N, F)")
    return pairs


def _widths(name: str, model: Any, example: "common.Examples", pairs: list[tuple[int, int]],
            settings: Compiler, samples: Any, labels: Path | None, *, html: Path | None,
            json: bool) -> None:
    from celosia.widths import widths

    given, title = settings.arguments, f"{name}, {settings.exponents} exponents"
    for own in ("weight_bits", "activation_bits", "stream", "hop"):
        del given[own]
    with common.users_prints(), work() as shown:
        found = widths(
            model, example, bits=pairs, calibration=samples, **given,
            labels=None if labels is None else common.read_array(labels),
            progress=lambda done, of: shown.stage("measuring widths", done, of))
    if json:
        common.emit({"model": name, "exponents": settings.exponents, **as_json(found)})
    else:
        show_widths(title, found)
    if html is not None:
        write_widths(html, title, found)
    if all(width.problem is not None for width in found.widths):
        common.refuse(f"{settings.target} takes {name} with none of these widths; what is in the "
                      f"way is told {'in the JSON' if json else 'above'}")


def _print(title: str, report: Report) -> None:
    table = common.table(title, "target", "fits", "in the way", "lanes", "cycles", "ms",
                         "inferences a second", words=3, optional=("lanes",))
    for entry in report.targets:
        speed = ("", "", "")
        if entry.cycles is not None:
            found = rate(entry.cycles, entry.clock_mhz)
            speed = f"{entry.cycles:,}", figure(found.milliseconds), figure(found.per_second)
        table.add_row(entry.target, "yes" if entry.fits else "no", _obstacles(entry),
                      "" if entry.lanes is None else str(entry.lanes), *speed)
    common.show(table)
    for entry in report.targets:
        if entry.layers:
            streams.spent_told([(layer.name, layer.spent) for layer in entry.layers])
        if entry.memory is not None:
            streams.picture(entry.memory)
    for line in report.details():
        indent = " " * (len(line) - len(line.lstrip()) + 2)
        print(common.wrapped(line, indent))


def _obstacles(entry: TargetCheck) -> str:
    """Return what is in the way in a few words, each once."""
    return ", ".join(dict.fromkeys(problem.what or problem.operator for problem in entry.problems))
