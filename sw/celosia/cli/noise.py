"""``celosia compare --against float``."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from celosia.calibration import spread
from celosia.cli import common
from celosia.cli.difference import difference
from celosia.cli.page import bars, sentence, table_html, write_page
from celosia.cli.progress import work
from celosia.cli.tables import Table, decibels, finite
from celosia.noise import MOST_INPUTS, Noise, against_float
from celosia.program import Program
from celosia.results import as_images
from celosia.samples import read_samples
from celosia.show import count
from celosia.verify import Verification, verify


def compare_with_float(program: Program, model: str, weights: Path | None, input: Sequence[Path],
                       limit: int | None, *, backend: str | None, baud: int | None,
                       html: Path | None, json: bool) -> None:
    """Show how much noise every layer has, and where most comes from; with a backend also whether
    it has the golden model's mantissas, which the noise is that of."""
    samples = read_samples(input, program, limit)
    inputs = as_images(program, samples.inputs, common.notice)
    network, _ = common.find_weighted(model, weights)
    with common.users_prints(), work("comparing with float") as shown:
        found = against_float(program, network, inputs, progress=shown.count)
    if found.others:
        common.notice(_others(found.others))
    same = None
    if backend is not None:
        with work(f"verifying {backend}") as shown:
            same = verify(program, spread(inputs, MOST_INPUTS), backend, baud=baud,
                          progress=shown.count, stages=shown.stage, notice=common.notice)
    words = _words(found) if same is None else f"{_words(found)}. {_equal(backend, same)}"
    table = _table(program, found, len(inputs))
    if json:
        common.emit(_json(program, found, backend, same))
    else:
        common.show(table)
        print(common.wrapped(words))
    if html is not None:
        write_page(html, table.title, [
            table_html(table), sentence(words),
            bars("dB of the map that a layer stores, all noise before it included",
                 [(layer.name, layer.ratio) for layer in found.layers]),
            bars("dB of the outputs, if nothing but this layer were rounded",
                 [(layer.name, layer.alone) for layer in found.layers], found.worst.name)])
    if same is not None and same.first_mismatch is not None:
        common.refuse(difference(program, str(backend), same.first_mismatch))


def _json(program: Program, found: Noise, backend: str | None,
          same: Verification | None) -> dict[str, object]:
    return {"target": program.target, "inputs": found.inputs, "worst": found.worst.name,
            "other_weights": list(found.others),
            "output_ratio": finite(found.output_ratio),
            "output_ratio_functions": None if found.functions is None else finite(found.functions),
            "backend": None if same is None else {
                "name": backend, "values": same.values, "mismatches": same.mismatches,
                "first_mismatch": same.first_mismatch and asdict(same.first_mismatch)},
            "layers": [{name: finite(value) if isinstance(value, float) else value
                        for name, value in asdict(layer).items()} for layer in found.layers]}


def _table(program: Program, found: Noise, given: int) -> Table:
    of = f"{found.inputs}" if found.inputs == given else f"{found.inputs} of {given:,}"
    table = common.table(
        f"{program.target}, signal to noise against float, {of} input{'s' * (of != '1')}", "layer",
        "dB", "outputs alone, dB", "saturated", "zero", "zero in float",
        optional=("zero in float",))
    for layer in found.layers:
        table.add_row(layer.name, decibels(layer.ratio), decibels(layer.alone),
                      f"{layer.saturated:.2%}", f"{layer.zeros:.1%}", f"{layer.zeros_float:.1%}")
    return table


def _words(found: Noise) -> str:
    whole = "" if found.functions is None else (
        f"outputs, against the functions themselves and not their pieces: "
        f"{decibels(found.functions)} dB; ")
    return (f"{whole}outputs: {decibels(found.output_ratio)} dB. Most is lost in "
            f"{found.worst.name}: if nothing else were rounded, it would be "
            f"{decibels(found.worst.alone)}")


def _others(names: Sequence[str]) -> str:
    more = f" and {count(len(names) - 1, 'more layer')}" if len(names) > 1 else ""
    return (f"the model's weights are not those that the program has rounded, in {names[0]}{more}: "
            f"the noise is that of other weights, too; give the weights that it was compiled with "
            f"(--weights FILE)")


def _equal(backend: str | None, same: Verification) -> str:
    if same.mismatches:
        return (f"Of {count(same.values, 'value')} that {backend} shows "
                f"{count(same.mismatches, 'differs', 'differ')} from the golden model's, of which "
                f"all this is told")
    return (f"All {count(same.values, 'value')} that {backend} shows are the golden model's, so "
            f"this is its noise, too")
