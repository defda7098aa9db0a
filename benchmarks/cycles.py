"""Cycles of LeNet-5: sparse, dense on the same lanes, and the bound, layer by layer.

The sparse figures are counted on the verilated machine; the dense ones are the compiler's, which
exactness.py shows to be exact. The bound is max(useful products / lanes, non-zero weights / those
that an entry of main memory holds at most).
"""

import argparse

from harness.command import main
from harness.networks import MODES, inputs, lenet5, simulated_cycles
from harness.result import Check, Result, Table

from celosia.compare import LayerComparison, compare
from celosia.show import clock_of, rate

TARGETS = ("icebreaker", "ecp5-85f")
NETWORK_UTILISATION = 0.90
"""Least share of the bound that a whole network reaches."""
SPEED_UP = 0.90
"""Least speed-up over dense, in units of 1 / density (over the multiplications)."""
COLUMNS = {"layer": "", "density": ".1%", "dense": ",d", "sparse": ",d", "ms": ".3f", "bound": ",d",
           "dense / sparse": ".2f", "bound / sparse": ".1%", "utilisation": ".1%"}


def measure(arguments: argparse.Namespace) -> Result:
    """Compare on each target in each mode."""
    x, _ = inputs(1)
    tables, checks = [], []
    for target in TARGETS:
        for mode in MODES:
            program = lenet5(target, mode)
            found = compare(program)
            cycles = simulated_cycles(program, x).tolist()
            clock = clock_of(program)
            rows = [_row(layer, count, clock)
                    for layer, count in zip(found.layers, cycles, strict=True)]
            rows.append(_row(found.total, sum(cycles), clock))
            tables.append(Table.of(
                f"LeNet-5, {target}, {program.lanes} lanes, {mode} exponents: cycles an image, "
                f"and ms of the sparse ones at {clock:g} MHz", COLUMNS, rows))
            where = f"{target}, {mode}"
            predicted = [layer.cycles_sparse for layer in found.layers]
            density = (sum(layer.macs for layer in program.layers)
                       / sum(layer.dense_macs for layer in program.layers))
            checks += [
                Check(what=f"simulated layer cycles are the predicted ones, {where}",
                      figure=f"{sum(cycles):,}", wanted=f"{sum(predicted):,}",
                      met=cycles == predicted),
                Check.at_least(f"bound / cycles of the network, {where}",
                               found.total.cycles_bound / sum(cycles), NETWORK_UTILISATION, ".1%"),
                Check.at_least(f"speed-up over dense x density of the products, {where}",
                               found.total.cycles_dense / sum(cycles) * density, SPEED_UP, ".2f"),
            ]
    return Result(title="Cycles", tables=tuple(tables), checks=tuple(checks))


def _row(layer: LayerComparison, cycles: int, clock_mhz: float) -> list:
    return [layer.name, layer.density, layer.cycles_dense, cycles,
            rate(cycles, clock_mhz).milliseconds, layer.cycles_bound,
            layer.cycles_dense / cycles, layer.cycles_bound / cycles, layer.utilisation]


if __name__ == "__main__":
    main(measure, __doc__)
