"""``celosia compare --against float``."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from celosia.cli import common
from celosia.cli.progress import work
from celosia.cli.tables import decibels, finite
from celosia.noise import Noise, against_float
from celosia.program import Program
from celosia.samples import read_samples


def compare_with_float(program: Program, model: str, input: Sequence[Path], limit: int | None,
                       json: bool) -> None:
    """Show how much noise every layer has, and where most comes from."""
    samples = read_samples(input, program, limit)
    network, _ = common.find_model(model)
    with common.users_prints(), work("comparing with float") as shown:
        found = against_float(program, network, samples.inputs, progress=shown.count)
    if json:
        common.emit({"target": program.target, "inputs": found.inputs, "worst": found.worst.name,
                     "output_ratio": finite(found.output_ratio),
                     "layers": [{name: finite(value) if isinstance(value, float) else value
                                 for name, value in asdict(layer).items()}
                                for layer in found.layers]})
    else:
        _print(program, found, len(samples.inputs))


def _print(program: Program, found: Noise, given: int) -> None:
    of = f"{found.inputs}" if found.inputs == given else f"{found.inputs} of {given:,}"
    table = common.table(
        f"{program.target}, signal to noise against float, {of} input{'s' * (of != '1')}", "layer",
        "dB", "outputs alone, dB", "saturated", "zero", "zero in float",
        optional=("zero in float",))
    for layer in found.layers:
        table.add_row(layer.name, decibels(layer.ratio), decibels(layer.alone),
                      f"{layer.saturated:.2%}", f"{layer.zeros:.1%}", f"{layer.zeros_float:.1%}")
    common.show(table)
    print(common.wrapped(
        f"outputs: {decibels(found.output_ratio)} dB. Most is lost in {found.worst.name}: if "
        f"nothing else were rounded, it would be {decibels(found.worst.alone)}"))
