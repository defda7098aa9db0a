# amaranth: UnusedElaboratable=no
"""Networks that main memory does not hold, from power-up on: the chip at the machine's pins has the
image, and the machine of words says what comes out."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, reject, settings
from hypothesis import strategies as st

from celosia.bands.host import addresses, prepare
from celosia.bands.program import stream_program
from celosia.graph import Conv, Graph
from celosia.quantise import quantise
from celosia_hw.machine import Machine
from celosia_sim import stream_machine
from celosia_spec.epilogue import Epilogue, Relu
from celosia_spec.errors import CompileError
from celosia_spec.stream.array import ENTRY_WORDS, Array
from celosia_spec.stream.image import pack
from stream import rtl
from stream.networks import graphs

ARRAY = Array(lanes=8, main_words=512, bank_rows=128, ring=64, controls=64, taps=64, tiles=64,
              residual=False, clamp=True, flash=4)


def network(rng):
    """Four layers on shrinking maps."""
    sizes = (3, 8, 12, 12, 12)
    nodes = tuple(Conv(name=f"n{k}", input=f"n{k - 1}" if k else "x", bias=rng.normal(size=after),
                       weight=rng.normal(size=(after, before, 3, 3)), padding=(1, 1, 1, 1),
                       stride=(2, 2) if k in (1, 2) else (1, 1),
                       epilogue=Epilogue(activation=Relu()))
                  for k, (before, after) in enumerate(pairwise(sizes)))
    graph = Graph(nodes=nodes, input="x", output="n3", input_map=(3, 8, 8), input_shape=(3, 8, 8),
                  output_shape=(12, 2, 2))
    return quantise(graph, acc_bits=24)


@pytest.fixture(scope="module")
def block():
    with rtl.machine(ARRAY) as one:
        yield one


def check(block, program, x):
    """Run one input on both machines; compare the output's sums."""
    graph = program.graph
    state = stream_machine.State(ARRAY, np.zeros(ARRAY.main_words * ENTRY_WORDS, np.int64))
    slot, place = program.slots[graph.input], program.places[graph.input]
    state.exponents[slot] = exponent = prepare(program, x, state.main)
    given = range(place.word * ENTRY_WORDS, (place.word + place.words) * ENTRY_WORDS)
    elements = {at: int(state.main[at]) for at in given}
    copied = np.isin(np.arange(len(program.chunks)), program.copied)
    stream_machine.run(state, program.entries, program.chunks, stream_machine.Flash(
        state, program.sections, copied, late=False))
    found, _ = rtl.run_from_flash(block, ARRAY, pack(ARRAY, program.sections), elements,
                                  {slot: exponent}, program.list_at, 300_000)
    at = addresses(graph.tensors[graph.output], program.places[graph.output])
    for half in (at, at + 1):
        assert np.array_equal(found[half], state.main[half])


def test_from_power_up(block):
    rng = np.random.default_rng(2)
    program = stream_program(network(rng), ARRAY)
    assert len(program.copied) > 1
    x = rng.random(program.graph.tensors["x"].user_shape).astype(np.float32)
    check(block, program, x)


@settings(max_examples=8, deadline=None, derandomize=True,
          suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow,
                                 HealthCheck.filter_too_much])
@given(graphs(), st.integers(0, 1 << 32))
def test_random_networks(block, graph, seed):
    assume(graph.activation_bits == ARRAY.activation_bits)
    assume(graph.nodes[-1].epilogue.add is None)
    try:
        program = stream_program(graph, ARRAY)
    except CompileError:            # too large, or it adds and the array cannot
        reject()
    assume(program.copied)
    tensor = graph.tensors[graph.input]
    x = np.random.default_rng(seed).random(tensor.user_shape) - (0.5 if tensor.signed else 0)
    check(block, program, x.astype(np.float32))


def test_an_array_with_flash_has_a_reader():
    with pytest.raises(ValueError, match="an array with flash has a reader, and no other"):
        Machine(ARRAY)
