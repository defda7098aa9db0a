# amaranth: UnusedElaboratable=no
"""Networks of some kinds on the gateware; `test_random.py` has random ones."""

import numpy as np
import pytest
import torch

from celosia.bands import ways
from celosia.bands.ways import GRIDS
from celosia.compiler import Compiler
from celosia.graph import Conv, Graph
from celosia.quantise import quantise
from celosia_sim import golden
from celosia_spec.epilogue import Epilogue, Identity, Pool, Relu
from celosia_spec.isa.array import Array
from stream import rtl
from stream.compared import compare, same
from stream.networks import Quiet


@pytest.fixture(scope="module", params=list(rtl.MACHINES)[:3])
def machine(request):
    array, fabric = rtl.MACHINES[request.param]
    with rtl.machine(array, fabric) as block:
        yield array, block


def check(machine, graph, x):
    """Run one input on all machines."""
    array, block = machine
    same(block, array, compare(graph, array, x))


@pytest.mark.parametrize("grid", GRIDS[:3], ids=["plain", "multiples", "filled"])
def test_a_last_layer_that_adds(machine, monkeypatch, grid):
    """Its sums are stored, and pass what is added on the way; however its lines lie."""
    if not machine[0].residual:
        pytest.skip("it adds, and the array cannot")
    monkeypatch.setattr(ways, "GRIDS", (grid,))
    rng = np.random.default_rng(1)
    for (high, wide), channels in (((5, 7), 9), ((4, 3), 8), ((9, 5), 3)):
        nodes = (Conv(name="a", input="x", weight=rng.standard_normal((channels, 2, 1, 1)),
                      bias=rng.standard_normal(channels)),
                 Conv(name="b", input="a", weight=rng.standard_normal((channels, channels, 3, 3)),
                      bias=None, padding=(1, 1, 1, 1),
                      epilogue=Epilogue(add="a", activation=Relu())))
        graph = quantise(Graph(nodes=nodes, input="x", output="b", input_map=(2, high, wide),
                               input_shape=(2, high, wide), output_shape=(channels, high, wide)),
                         acc_bits=24)
        check(machine, graph, rng.standard_normal((2, high, wide)).astype(np.float32))


@pytest.mark.parametrize("unsigned", [False, True])
@pytest.mark.parametrize("groups", [1, 3])
def test_a_wide_input(machine, unsigned, groups):
    """Its low parts are channels and layers of their own."""
    array, _ = machine
    if not array.residual:
        pytest.skip("it adds, and the array cannot")
    rng = np.random.default_rng(groups)
    nodes = (Conv(name="a", input="x", weight=rng.standard_normal((6, 3 // groups, 3, 3)),
                  bias=rng.standard_normal(6), groups=groups, padding=(1, 1, 1, 1),
                  epilogue=Epilogue(activation=Relu())),
             Conv(name="b", input="a", weight=rng.standard_normal((4, 6, 1, 1)), bias=None))
    graph = quantise(Graph(nodes=nodes, input="x", output="b", input_map=(3, 6, 5),
                           input_shape=(3, 6, 5), output_shape=(4, 6, 5)),
                     acc_bits=array.acc_bits, activation_bits=array.activation_bits,
                     low_bits=array.activation_bits - 1, unsigned_input=unsigned)
    assert [node.name for node in graph.nodes] == ["a.low", "a", "b"]
    check(machine, graph, rng.uniform(-(not unsigned), 1, (3, 6, 5)).astype(np.float32))


@pytest.mark.parametrize("exponents", ["dynamic", "static"])
def test_what_a_quiet_layer_reads_leaves_its_operand_room(machine, exponents):
    array, _ = machine
    if not array.residual:
        pytest.skip("it adds, and the array cannot")
    x = torch.randn(3, 4, 6, 6)
    graph = quantise(Compiler().graph(Quiet(), x[:1]), acc_bits=array.acc_bits, exponents=exponents,
                     activation_bits=array.activation_bits, calibration=x.numpy())
    found = golden.run(graph, x.numpy())
    assert any((reading.exponents > found.exponents[node.input]).any() for node in graph.nodes
               if (reading := found.readings.get(node.name)) is not None)
    for image in x.numpy():
        check(machine, graph, image)


@pytest.mark.parametrize("unsigned", [False, True])
def test_rows_that_were_narrowed(machine, unsigned):
    """Sums as far from 0 as they may be: of rows that just fit, and of narrowed ones."""
    rng = np.random.default_rng(4)
    count, most = 400, ((1 << 22) - 1) // (255 * 127)
    weight = rng.uniform(1.5, 1.98, (6, count)) * rng.choice([-1, 1], (6, 1))
    weight[0] = np.where(np.arange(count) < most, 127 / 64, 0)
    weight[1] = -weight[0]
    weight[2] = np.where(np.arange(count) <= most, 127 / 64, 0)
    weight[3] = rng.standard_normal(count)
    nodes = (Conv(name="a", input="x", weight=weight[:, :, None, None],
                  bias=rng.standard_normal(6)),
             Conv(name="b", input="a", weight=rng.standard_normal((3, 6, 1, 1)), bias=None))
    graph = quantise(Graph(nodes=nodes, input="x", output="b", input_map=(count, 1, 1),
                           input_shape=(count, 1, 1), output_shape=(3, 1, 1)),
                     acc_bits=24, unsigned_input=unsigned)
    assert graph.remarks == ("weights have 6 to 7 bits in 3 of 6 rows of a, so that sums fit "
                             "24-bit accumulators",)
    check(machine, graph, np.full((count, 1, 1), 1.99, np.float32))
    if not unsigned:
        check(machine, graph, np.full((count, 1, 1), -1.99, np.float32))


@pytest.mark.parametrize("lanes", [8, 16])
def test_weights_of_few_bits(lanes):
    """Whole entries of them, and some with steps."""
    array = Array(lanes=lanes, main_words=4096, bank_rows=128, clamp=True, weight_bits=5)
    rng = np.random.default_rng(lanes)
    weight = rng.standard_normal((4, 6, 3, 3)) * (rng.random((4, 6, 3, 3)) < 0.3)
    nodes = (Conv(name="a", input="x", weight=rng.standard_normal((6, 3, 3, 3)),
                  bias=rng.standard_normal(6), padding=(1, 1, 1, 1),
                  epilogue=Epilogue(activation=Relu())),
             Conv(name="b", input="a", weight=weight, bias=None))
    graph = quantise(Graph(nodes=nodes, input="x", output="b", input_map=(3, 6, 5),
                           input_shape=(3, 6, 5), output_shape=(4, 4, 3)),
                     acc_bits=24, weight_bits=array.weight_bits)
    with rtl.machine(array) as block:
        check((array, block), graph, rng.uniform(-1, 1, (3, 6, 5)).astype(np.float32))


def test_lenet5(machine):
    """A network with long passes, most of which nothing else happens in."""
    rng = np.random.default_rng(5)
    nodes, name = [], "x"
    for at, shape in enumerate(((6, 1, 5, 5), (16, 6, 5, 5), (120, 16, 4, 4), (84, 120, 1, 1),
                                (10, 84, 1, 1))):
        weight = rng.standard_normal(shape) * (rng.random(shape) < 0.2)
        pool = Pool(window=(2, 2), stride=(2, 2)) if at < 2 else None
        activation = Relu() if at < 4 else Identity()
        nodes.append(Conv(name=f"n{at}", input=name, weight=weight, bias=rng.standard_normal(
            shape[0]), epilogue=Epilogue(activation=activation, pool=pool)))
        name = f"n{at}"
    graph = quantise(Graph(nodes=tuple(nodes), input="x", output=name, input_map=(1, 28, 28),
                           input_shape=(1, 28, 28), output_shape=(10, 1, 1)),
                     acc_bits=24, unsigned_input=True)
    check(machine, graph, rng.random((1, 28, 28)).astype(np.float32))
