"""Where every lane-cycle goes: LeNet-5, and three single layers of larger networks.

A lane-cycle is one lane for one clock cycle. The classes come from the cycle model; the cycles they
sum to are counted on the verilated machine. The single layers have seeded random weights and are
inner layers: they store elements of a map, not sums (see harness/networks.py).
"""

import argparse
from collections.abc import Iterator

import numpy as np
import torch
from harness.command import main
from harness.networks import MODES, inputs, layer_program, lenet5, simulated_cycles
from harness.result import Check, Result, Table

from celosia.program import Program
from celosia_sim.clock.machine_clock import SPENT
from celosia_spec.program import Layer

LENET_TARGET, LAYER_TARGET = "icebreaker", "ecp5-85f"
LANES = (16, 64)
"""Of the array that single layers run on."""
CONVOLUTION, LINEAR = 0.95, 0.92
"""Least utilisation of a convolution of at least 256 positions and 32 non-zeros a row, and least
share of its bound of a linear layer with at least 4 rows a lane."""
NOTES = (
    "useful: a non-zero weight times a real output position (this column is the utilisation). "
    "idle: other lanes in a cycle with a step: they have no output position, or their weight word "
    "only carries an index on. "
    + "; ".join(f"{name}: {about}" for name, about in SPENT.items() if name != "steps") + ".",)


def single_layers() -> Iterator[tuple[str, torch.nn.Module, tuple[int, ...], float, bool]]:
    """Yield title, layer, input shape, density, and whether it is a convolution."""
    conv = torch.nn.Conv2d
    yield "3x3, 64 to 64, 16x16, 10 %", conv(64, 64, 3, padding=1), (64, 16, 16), 0.10, True
    yield "1x1, 64 to 64, 16x16, 25 %", conv(64, 64, 1), (64, 16, 16), 0.25, True
    yield "linear, 512 to 512, 10 %", torch.nn.Linear(512, 512), (512,), 0.10, False


def measure(arguments: argparse.Namespace) -> Result:
    """Count LeNet-5 and the single layers in both modes."""
    x, _ = inputs(1)
    tables, checks = [], []
    for mode in MODES:
        program = lenet5(LENET_TARGET, mode)
        cycles = _simulated("LeNet-5", program, x, checks)
        rows = [_row("LeNet-5", layer, program.lanes) for layer in program.layers]
        rows.append(_total(program.layers, program.lanes))
        checks.append(_sums(f"LeNet-5, {mode}", program.layers, program.lanes, cycles))
        tables.append(Table.of(f"LeNet-5, {LENET_TARGET}, {program.lanes} lanes, {mode} exponents: "
                               "share of the lane-cycles", _columns(program.layers), rows))
    tables += [_single(lanes, mode, checks) for lanes in LANES for mode in MODES]
    return Result(title="Lane-cycles", tables=tuple(tables), checks=tuple(checks), notes=NOTES)


def _single(lanes: int, mode: str, checks: list[Check]) -> Table:
    """Count the single layers on an array of so many lanes."""
    rows = []
    for title, module, shape, density, convolution in single_layers():
        program, sample = layer_program(module, shape, density, LAYER_TARGET, mode, lanes)
        layer = program.layers[0]
        told = f"{title}, {lanes} lanes, {mode}"
        cycles = _simulated(f"{title}, {lanes} lanes", program, sample, checks)
        rows.append(_row(title, layer, lanes))
        checks.append(_sums(told, (layer,), lanes, cycles[:1]))
        useful = layer.macs / (lanes * layer.predicted_cycles)
        bound = layer.bound_cycles / layer.predicted_cycles
        checks.append(Check.at_least(f"utilisation, {told}", useful, CONVOLUTION, ".1%")
                      if convolution else
                      Check.at_least(f"bound / cycles, {told}", bound, LINEAR, ".1%"))
    return Table.of(f"Single layers, {LAYER_TARGET}, {lanes} lanes, {mode} exponents: share of the "
                    "lane-cycles", _columns(program.layers), rows)


def _simulated(title: str, program: Program, x: np.ndarray, checks: list[Check]) -> np.ndarray:
    """Return the simulated cycles of each layer; check them against the prediction."""
    cycles = simulated_cycles(program, x)
    predicted = [layer.predicted_cycles for layer in program.layers]
    checks.append(Check(what=f"simulated layer cycles are the predicted ones, {title}, "
                             f"{program.exponents}", figure=f"{cycles.sum():,}",
                        wanted=f"{sum(predicted):,}", met=cycles.tolist() == predicted))
    return cycles


def _sums(title: str, layers: tuple[Layer, ...], lanes: int, cycles: np.ndarray) -> Check:
    """Require that the classes sum to lanes x simulated cycles."""
    counted = sum(sum(layer.lane_cycles.values()) for layer in layers)
    return Check.equal(f"lane-cycles accounted for, {title}", counted, lanes * int(cycles.sum()))


def _columns(layers: tuple[Layer, ...]) -> dict[str, str]:
    return {"network": "", "layer": "", "cycles": ",d", "groups": "d",
            **dict.fromkeys(layers[0].lane_cycles, ".2%"), "bound / cycles": ".1%"}


def _row(network: str, layer: Layer, lanes: int) -> list:
    total = lanes * layer.predicted_cycles
    return [network, layer.name, layer.predicted_cycles, layer.groups,
            *(cycles / total for cycles in layer.lane_cycles.values()),
            layer.bound_cycles / layer.predicted_cycles]


def _total(layers: tuple[Layer, ...], lanes: int) -> list:
    cycles = sum(layer.predicted_cycles for layer in layers)
    return ["LeNet-5", "total", cycles, None,
            *(sum(layer.lane_cycles[name] for layer in layers) / (lanes * cycles)
              for name in layers[0].lane_cycles),
            sum(layer.bound_cycles for layer in layers) / cycles]


if __name__ == "__main__":
    main(measure, __doc__)
