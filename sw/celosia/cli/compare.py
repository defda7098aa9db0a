"""``celosia compare``."""

from dataclasses import asdict

from rich.table import Table

from celosia import api
from celosia.cli import common
from celosia.compare import Comparison
from celosia.compare import compare as compare_program


def compare(program: common.ProgramPath, json: common.Json = False) -> None:
    """Set sparse, dense and the bound side by side, layer by layer, on the same lanes."""
    loaded = api.load(program)
    result = compare_program(loaded)
    if json:
        common.emit({
            "target": loaded.target, "lanes": loaded.lanes,
            "layers": [asdict(layer) for layer in result.layers],
            **{key: value for key, value in asdict(result.total).items() if key != "name"}})
    else:
        common.show(comparison_table(f"{loaded.target}, {loaded.lanes} lanes", result))


def comparison_table(title: str, result: Comparison) -> Table:
    """Return the table of a comparison, its total last."""
    table = common.table(title, "layer", "density", "sparse cycles", "dense cycles",
                         "bound cycles", "speed-up", "utilisation")
    for layer in (*result.layers, result.total):
        if layer is result.total:
            table.add_section()
        table.add_row(layer.name, f"{layer.density:.1%}", f"{layer.cycles_sparse:,}",
                      f"{layer.cycles_dense:,}", f"{layer.cycles_bound:,}",
                      f"{layer.cycles_dense / layer.cycles_sparse:.2f}",
                      f"{layer.utilisation:.1%}")
    return table
