"""``celosia compare``."""

from dataclasses import asdict

from celosia import api
from celosia.cli import common
from celosia.cli.tables import Table
from celosia.compare import Comparison
from celosia.compare import compare as compare_program
from celosia.show import clock_of, rate, speed


def compare(program: common.ProgramPath, json: common.Json = False) -> None:
    """Set sparse, dense and the bound side by side, layer by layer, on the same lanes."""
    loaded = api.load(program)
    result, clock = compare_program(loaded), clock_of(loaded)
    if json:
        common.emit({
            "target": loaded.target, "lanes": loaded.lanes, "clock_mhz": clock,
            **rate(loaded.predicted_cycles, clock)._asdict(),
            "layers": [asdict(layer) for layer in result.layers],
            **{key: value for key, value in asdict(result.total).items() if key != "name"}})
    else:
        common.show(comparison_table(f"{loaded.target}, {loaded.lanes} lanes", result, clock))
        print(f"sparse: {speed(result.total.cycles_sparse, clock)}\n"
              f"dense:  {speed(result.total.cycles_dense, clock)}")


def comparison_table(title: str, result: Comparison, clock_mhz: float) -> Table:
    """Return the table of a comparison, its total last."""
    table = common.table(title, "layer", "density", "sparse cycles", "ms", "dense cycles",
                         "bound cycles", "speed-up", "utilisation",
                         optional=("ms", "density", "utilisation"))
    for layer in (*result.layers, result.total):
        if layer is result.total:
            table.add_section()
        table.add_row(layer.name, f"{layer.density:.1%}", f"{layer.cycles_sparse:,}",
                      f"{rate(layer.cycles_sparse, clock_mhz).milliseconds:,.3f}",
                      f"{layer.cycles_dense:,}", f"{layer.cycles_bound:,}",
                      f"{layer.cycles_dense / layer.cycles_sparse:.2f}",
                      f"{layer.utilisation:.1%}")
    return table
