# amaranth: UnusedElaboratable=no
"""Networks that main memory does not hold, from power-up on: the chip at the machine's pins has the
image, and the golden model says what comes out."""

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, reject, settings
from hypothesis import strategies as st

from celosia.bands.program import stream_program
from celosia.bands.simulate import simulate
from celosia_hw.machine import Machine
from celosia_sim import golden
from celosia_sim.clock.cycles import cycles
from celosia_spec.errors import CompileError
from celosia_spec.stream.array import Array
from stream.networks import graphs, shrinking_network

ARRAY = Array(lanes=8, main_words=512, bank_rows=128, ring=64, controls=64, taps=64, tiles=64,
              residual=False, clamp=True, flash=4)


def check(program, images):
    """Run inputs on the machine."""
    found = simulate(program, images)
    wanted, name = golden.run(program.source, images), program.source.output
    assert np.array_equal(found.output, wanted.mantissas[name])
    assert np.array_equal(found.exponent, wanted.exponents[name])
    exact = cycles(program.array, program.entries.tolist(), program.chunks.tolist(),
                   program.copied, program.sections)
    assert set(found.cycles) == {exact.cycles}


def check_random(graph, seed, array, chosen):
    """Run inputs on the machine, of a network whose program is one of the chosen."""
    assume(graph.activation_bits == array.activation_bits)
    assume(graph.nodes[-1].epilogue.add is None)
    try:
        program = stream_program(graph, array)
    except CompileError:            # too large, or it adds and the array cannot
        reject()
    assume(chosen(program))
    tensor = graph.tensors[graph.input]
    x = np.random.default_rng(seed).random((2, *tensor.user_shape)) - 0.5 * tensor.signed
    check(program, x.astype(np.float32))


def test_from_power_up():
    rng = np.random.default_rng(2)
    program = stream_program(shrinking_network(), ARRAY)
    assert len(program.copied) > 1
    check(program, rng.random((3, *program.graph.tensors["x"].user_shape)).astype(np.float32))


@settings(max_examples=15, deadline=None, derandomize=True,
          suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(graphs(), st.integers(0, 1 << 32))
def test_random_networks(graph, seed):
    check_random(graph, seed, ARRAY, lambda program: program.copied)


def test_an_array_with_flash_has_a_reader():
    with pytest.raises(ValueError, match="an array with flash has a reader, and no other"):
        Machine(ARRAY)
