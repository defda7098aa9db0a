# amaranth: UnusedElaboratable=no
"""A network that main memory does not hold, from power-up on: the chip at its pins has the
image, and the machine of words says what main memory holds at the end."""

from itertools import pairwise

import numpy as np
import pytest

from celosia.bands.host import prepare
from celosia.bands.program import stream_program
from celosia.graph import Conv, Graph
from celosia.quantise import quantise
from celosia_hw.machine import Machine
from celosia_sim import stream_machine
from celosia_spec.epilogue import Epilogue, Relu
from celosia_spec.stream.array import ENTRY_WORDS, Array
from celosia_spec.stream.image import pack
from stream import rtl

ARRAY = Array(lanes=8, main_words=2048, bank_rows=128, ring=64, controls=64, taps=64, tiles=64,
              residual=False, flash=4)


def network(rng):
    """Four layers of growing numbers of channels on shrinking maps."""
    sizes = (3, 16, 16, 24, 32)
    nodes = tuple(Conv(name=f"n{k}", input=f"n{k - 1}" if k else "x", bias=rng.normal(size=after),
                       weight=rng.normal(size=(after, before, 3, 3)), padding=(1, 1, 1, 1),
                       stride=(2, 2) if k in (1, 2) else (1, 1),
                       epilogue=Epilogue(activation=Relu()))
                  for k, (before, after) in enumerate(pairwise(sizes)))
    graph = Graph(nodes=nodes, input="x", output="n3", input_map=(3, 8, 8), input_shape=(3, 8, 8),
                  output_shape=(32, 2, 2))
    return quantise(graph, acc_bits=24)


def test_from_power_up():
    rng = np.random.default_rng(2)
    graph = network(rng)
    program = stream_program(graph, ARRAY)
    assert len(program.copied) > 1
    state = stream_machine.State(ARRAY, np.zeros(ARRAY.main_words * ENTRY_WORDS, np.int64))
    x = rng.random(graph.tensors["x"].user_shape).astype(np.float32)
    exponent = prepare(program, x, state.main)
    state.exponents[program.slots["x"]] = exponent
    place = program.places["x"]
    given = range(place.word * ENTRY_WORDS, (place.word + place.words) * ENTRY_WORDS)
    elements = {at: int(state.main[at]) for at in given}
    copied = np.isin(np.arange(len(program.chunks)), program.copied)
    stream_machine.run(state, program.entries, program.chunks, stream_machine.Flash(
        state, program.sections, copied, late=False))
    with rtl.machine(ARRAY) as block:
        for _ in range(2):
            found, _ = rtl.run_from_flash(
                block, ARRAY, pack(ARRAY, program.sections), elements,
                {program.slots["x"]: exponent}, program.list_at, 300_000)
            assert np.array_equal(found, state.main)


def test_an_array_with_flash_has_a_reader():
    with pytest.raises(ValueError, match="an array with flash has a reader, and no other"):
        Machine(ARRAY)
