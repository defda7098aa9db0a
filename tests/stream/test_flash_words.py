"""Networks that main memory does not hold at once, on the machine of words: what is copied from
flash is there when it is needed, and lies where nothing else does."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from celosia.bands.host import output, prepare
from celosia.bands.program import stream_program
from celosia_sim import golden, stream_machine, stream_memories
from celosia_spec.errors import FitError, SimulationError
from celosia_spec.isa.array import Array
from celosia_spec.isa.image import pack
from flash_image import unpack
from stream.networks import graphs
from stream.sharing import check_memory, check_words, held_words

LARGE = Array(clamp=True, flash=4)
SETTINGS = settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=[
    HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


def smallest(graph):
    """Return the program for the smallest main memory that has a way to run the network."""
    array = replace(LARGE, activation_bits=graph.activation_bits)
    found = stream_program(graph, array)
    array = replace(array, main_words=max(64, 1 << (held_words(found) - 1).bit_length()))
    while array.main_words > 64:
        array = replace(array, main_words=array.main_words // 2)
        try:
            found = stream_program(graph, array)
        except FitError:
            break
    return found


def run(program, x, *, late):
    """Return the output's mantissas and exponent."""
    state = stream_memories.State(program.array, np.random.default_rng(3).integers(
        0, 1 << 16, program.array.main_words * 4))
    state.exponents[program.slots[program.graph.input]] = prepare(program, x, state.main)
    stream_machine.run(state, program.entries, program.order.lists, stream_memories.Flash(
        state, list(unpack(program.array, pack(program.array, program.sections))),
        program.order.waiting, late=late))
    return output(program, state.main, state.exponents)[:2]


def test_random_networks():
    seen = Counter()

    @settings(SETTINGS, max_examples=30)
    @given(st.data())
    def check(data):
        graph = data.draw(graphs())
        program = smallest(graph)
        if not program.copied:
            reject()
        seen["ahead"] += any(life.born < life.dies for life in program.flash.lives.values())
        seen["several"] += any(len(run) > 1 for run in program.flash.runs.values())
        check_memory(program)
        check_words(program)
        tensor = graph.tensors[graph.input]
        rng = np.random.default_rng(data.draw(st.integers(0, 1 << 32)))
        x = (rng.random(tensor.user_shape) - (0.5 if tensor.signed else 0)).astype(np.float32)
        wanted = golden.run(graph, x[None])
        for late in (False, True):
            mantissas, exponent = run(program, x, late=late)
            assert exponent == wanted.exponents[graph.output][0]
            assert np.array_equal(mantissas, wanted.mantissas[graph.output][0])

    check()
    assert min(seen["several"], seen["ahead"]) > 2


def test_nothing_is_copied_where_all_fits():
    @SETTINGS
    @given(st.data())
    def check(data):
        graph = data.draw(graphs())
        array = replace(LARGE, activation_bits=graph.activation_bits)
        program, plain = (stream_program(graph, replace(array, flash=flash)) for flash in (4, 0))
        assert not program.copied and len(program.sections) == 1
        assert np.array_equal(program.entries, plain.entries)

    check()


def test_refusals():
    state = stream_memories.State(LARGE, np.zeros(LARGE.main_words * 4, np.int64))
    flash = stream_memories.Flash(state, [], [np.zeros(1, bool)], late=False)
    with pytest.raises(SimulationError, match="no section begins behind unit 3 of flash"):
        flash.copy(3)
    with pytest.raises(SimulationError, match="a chunk waits for a section that nobody copies"):
        flash.wait(0)
