# amaranth: UnusedElaboratable=no
"""Streams of random networks on the gateware: main memory is that of the machine of words."""


import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, reject, settings
from hypothesis import strategies as st

from celosia.bands.host import prepare
from celosia.bands.program import stream_program
from celosia_sim import stream_machine
from celosia_spec.errors import CompileError
from celosia_spec.stream.array import Array
from stream import rtl
from stream.networks import graphs

ARRAYS = {"16": Array(main_words=4096, clamp=True),
          "16 without residual": Array(main_words=4096, clamp=True, residual=False,
                                      bank_rows=128),
          "8": Array(lanes=8, main_words=4096, bank_rows=256, ring=64, clamp=True)}


@pytest.fixture(scope="module", params=ARRAYS)
def machine(request):
    array = ARRAYS[request.param]
    with rtl.machine(array) as block:
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
    assert np.array_equal(found.exponents, state.exponents)
    assert found.saturated == state.saturated


@settings(max_examples=60, deadline=None, derandomize=True,
          suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.data())
def test_random_networks(machine, data):
    graph = data.draw(graphs())
    assume(graph.activation_bits == machine[0].activation_bits)
    assume(graph.nodes[-1].epilogue.add is None)
    tensor = graph.tensors[graph.input]
    rng = np.random.default_rng(data.draw(st.integers(0, 1 << 32)))
    x = rng.random(tensor.user_shape) - (0.5 if tensor.signed else 0)
    try:
        check(machine, graph, x.astype(np.float32))
    except CompileError:            # too large, or it adds and the array cannot
        reject()
