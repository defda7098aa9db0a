# amaranth: UnusedElaboratable=no
"""Streams of random networks on the gateware: main memory is that of the machine of words, and
cycles are those of the clock model."""

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, reject, settings
from hypothesis import strategies as st

from celosia.bands import ways
from celosia.bands.host import prepare
from celosia.bands.program import stream_program
from celosia.bands.ways import GRIDS
from celosia.graph import Conv, Graph
from celosia.quantise import quantise
from celosia_sim import stream_machine
from celosia_sim.clock.cycles import cycles
from celosia_spec.epilogue import Epilogue, Identity, Pool, Relu
from celosia_spec.errors import CompileError
from celosia_spec.stream.array import Array
from stream import rtl
from stream.networks import graphs

ARRAYS = {"16": Array(main_words=4096, clamp=True),
          "16, one lane, two elements": Array(main_words=4096, clamp=True, bank_rows=128, drain=1,
                                              fill=2),
          "8 without residual": Array(lanes=8, main_words=4096, bank_rows=256, ring=64, clamp=True,
                                      residual=False)}


@pytest.fixture(scope="module", params=ARRAYS)
def machine(request):
    array = ARRAYS[request.param]
    # Where one lane leaves a cycle, sums can be inside multiplier blocks.
    with rtl.machine(array, "mac16" if array.drain == 1 else "generic") as block:
        yield array, block


def check(machine, graph, x):
    """Run one input on both machines, from the same noise in main memory on."""
    array, block = machine
    program = stream_program(graph, array)
    noise = np.random.default_rng(3).integers(0, 1 << 16, array.main_words * 4)
    state = stream_machine.State(array, noise)
    state.exponents[program.slots[graph.input]] = prepare(program, x, state.main)
    before = state.main.copy(), state.exponents.copy()
    stream_machine.run(state, program.entries, program.chunks)
    found = rtl.run(block, array, *before, program.list_at, 400_000)
    wrong = np.flatnonzero(found.main != state.main)
    assert not wrong.size, [(int(at), hex(found.main[at]), hex(state.main[at])) for at in wrong[:9]]
    exact = cycles(array, program.entries.tolist(), program.chunks.tolist())
    assert found.cycles == exact.cycles
    ends = (*exact.closed, exact.cycles)
    assert [sum(own.values()) for own in exact.spent] == np.diff(ends, prepend=0).tolist()
    assert sum(own["steps"] for own in exact.spent) == _steps(program)
    assert np.array_equal(found.exponents, state.exponents)
    assert found.saturated == state.saturated


def _steps(program):
    """Return the steps of all passes of a network, and those that read what is added."""
    return sum((int(part.steps.sum()) * layer.phases + len(part.steps) * (part.added is not None))
               * part.tiles for layer in program.layers for part in layer.parts)


@settings(max_examples=60, deadline=None, derandomize=True,
          suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.data())
def test_random_networks(machine, data):
    graph = data.draw(graphs())
    assume(graph.activation_bits == machine[0].activation_bits)
    tensor = graph.tensors[graph.input]
    rng = np.random.default_rng(data.draw(st.integers(0, 1 << 32)))
    x = rng.random(tensor.user_shape) - (0.5 if tensor.signed else 0)
    try:
        check(machine, graph, x.astype(np.float32))
    except CompileError:            # too large, or it adds and the array cannot
        reject()


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
                         acc_bits=24, unsigned=True)
        check(machine, graph, rng.standard_normal((2, high, wide)).astype(np.float32))


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
                     acc_bits=24, codes=True, unsigned_input=unsigned)
    assert graph.remarks == ("weights have 6 to 7 bits in 3 of 6 rows of a, so that sums fit "
                             "24-bit accumulators",)
    check(machine, graph, np.full((count, 1, 1), 1.99, np.float32))
    if not unsigned:
        check(machine, graph, np.full((count, 1, 1), -1.99, np.float32))


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
                     acc_bits=24, unsigned=True, unsigned_input=True)
    check(machine, graph, rng.random((1, 28, 28)).astype(np.float32))
