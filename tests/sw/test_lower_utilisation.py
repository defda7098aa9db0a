"""Where the lane-cycles go: the utilisation that the machine is built for, on predicted cycles.

With dynamic exponents a layer ends with a pass that rounds a beat a cycle: elements / beat cycles,
which no schedule changes. The targets hold for all the rest, and for static exponents as a whole.
"""

from dataclasses import replace

import numpy as np
import pytest

from celosia.graph import Conv, Graph, node_shape
from celosia.lower import lower
from celosia.quantise import quantise
from celosia_spec.epilogue import Epilogue, Relu
from celosia_spec.isa import ArrayConfig
from celosia_spec.program import Layer
from celosia_spec.qgraph import NodeKind
from first_machine import HX8K, SIXTEEN, THIRTY_TWO, UP5K

ROOMY = {"weight_rows": 65536, "bank_rows": 16384, "table_rows": 4096, "taps": 4096,
         "writes": 16384, "program_words": 4096, "store_beats": 32768, "index_bits": 16,
         "count_bits": 16, "acc_bits": 32}
"""Depths change no cycle; these let every layer in."""

ARRAYS = {"UP5K": UP5K, "HX8K": HX8K,
          "16 lanes": SIXTEEN, "32 lanes": THIRTY_TWO}


def array_of(name: str) -> ArrayConfig:
    array = ARRAYS[name]
    return replace(array, wide_elements=array.beat, **ROOMY)


def compiled(array: ArrayConfig, shape, rows: int, kernel: int, density: float, *,
             exponents: str, sparse: bool = True, **geometry) -> Layer:
    """Compile a layer with random weights in front of one that reads a single value of it."""
    rng = np.random.default_rng(1)
    weight = rng.normal(size=(rows, shape[0], kernel, kernel))
    weight *= rng.random(weight.shape) < density
    layer = Conv(name="layer", input="x", weight=weight, bias=np.zeros(rows),
                 epilogue=Epilogue(activation=Relu()), **geometry)
    made = node_shape(layer, {"x": shape})
    last = Conv(name="last", input="layer", weight=np.ones((1, rows, 1, 1)), bias=None)
    graph = Graph(nodes=(layer, last), input="x", input_map=shape, input_shape=shape, output="last",
                  output_shape=(1, *made[1:]))
    quantised = quantise(graph, exponents=exponents, acc_bits=32, sparse=sparse,
                         calibration=rng.normal(size=(1, *shape)).astype(np.float32))
    return lower(quantised, array, target="test", exponents=exponents).layers[0]


CONVOLUTIONS = {
    "64 channels 3x3 on 16x16": ((64, 16, 16), 64, 3, 0.1, {"padding": (1, 1, 1, 1)}, 0.95),
    "64 channels 1x1 on 16x16": ((64, 16, 16), 64, 1, 0.5, {}, 0.95),
    "stride 2": ((16, 33, 33), 32, 3, 0.25, {"stride": (2, 2)}, 0.95),
    "64 positions": ((16, 8, 8), 32, 3, 16 / 144, {"padding": (1, 1, 1, 1)}, 0.90),
}


def utilisation(layer: Layer, array: ArrayConfig, cycles: int) -> float:
    return layer.macs / (array.lanes * cycles)


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("layer", CONVOLUTIONS)
def test_convolution(layer, name):
    shape, rows, kernel, density, geometry, least = CONVOLUTIONS[layer]
    array = array_of(name)
    static = compiled(array, shape, rows, kernel, density, exponents="static", **geometry)
    assert static.lane_cycles["normalise"] == 0
    assert utilisation(static, array, static.predicted_cycles) >= least
    dynamic = compiled(array, shape, rows, kernel, density, exponents="dynamic", **geometry)
    pass_cycles = dynamic.lane_cycles["normalise"] // array.lanes
    assert pass_cycles <= dynamic.rows * dynamic.positions / array.beat
    assert utilisation(dynamic, array, dynamic.predicted_cycles - pass_cycles) >= least


@pytest.mark.parametrize("name", ARRAYS)
def test_fully_connected(name):
    """At least 0.92 of the bound with enough rows for every group."""
    array = array_of(name)
    shape, rows = (512, 1, 1), 16 * array.lanes
    static = compiled(array, shape, rows, 1, 0.1, exponents="static", kind=NodeKind.LINEAR)
    assert static.bound_cycles >= 0.92 * static.predicted_cycles
    dynamic = compiled(array, shape, rows, 1, 0.1, exponents="dynamic", kind=NodeKind.LINEAR)
    pass_cycles = dynamic.lane_cycles["normalise"] // array.lanes
    assert dynamic.bound_cycles >= 0.92 * (dynamic.predicted_cycles - pass_cycles)


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("density", [0.5, 0.2, 0.1, 0.05])
def test_speed_up(density, name):
    """Sparse against dense on the same lanes: at least 0.9 of 1 / density."""
    array = array_of(name)
    cycles = [compiled(array, (64, 16, 16), 64, 3, density, exponents="static", sparse=sparse,
                       padding=(1, 1, 1, 1)) for sparse in (True, False)]
    found = cycles[0].nonzeros / cycles[0].weights
    assert cycles[1].predicted_cycles / cycles[0].predicted_cycles >= 0.9 / found


@pytest.mark.parametrize("name", ARRAYS)
def test_padding_words(name):
    """Index steps too long for a word stay under one per cent of the stream at one in ten."""
    layer = compiled(array_of(name), (64, 16, 16), 64, 3, 0.1, exponents="static",
                     padding=(1, 1, 1, 1))
    assert layer.padding <= 0.01 * layer.weight_words
