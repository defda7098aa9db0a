# amaranth: UnusedElaboratable=no
"""Networks that main memory does not hold, from power-up on: the chip at the machine's pins has the
image, and the golden model says what comes out."""

import numpy as np
import pytest

from celosia.bands.program import stream_program
from celosia.bands.report import clocked
from celosia.bands.simulate import simulate
from celosia_hw.machine import Machine
from celosia_sim import golden
from celosia_spec.isa.array import Array
from stream.networks import shrinking_network
from stream.sharing import check_memory, check_slots, check_words

ARRAY = Array(lanes=8, main_words=512, bank_rows=128, ring=64, controls=64, taps=64, tiles=64,
              residual=False, clamp=True, flash=4)


def check(program, images):
    """Run inputs on the machine."""
    check_memory(program)
    check_slots(program)
    check_words(program)
    found = simulate(program, images)
    wanted, name = golden.run(program.source, images), program.source.output
    assert np.array_equal(found.output, wanted.mantissas[name])
    assert np.array_equal(found.exponent, wanted.exponents[name])
    saturated = found.saturated | golden.input_saturated(program.source, images)
    assert ((saturated == wanted.saturated) | wanted.unread).all()
    exact, = clocked(program)
    assert set(found.cycles) == {exact.cycles}


def test_from_power_up():
    rng = np.random.default_rng(2)
    program = stream_program(shrinking_network(), ARRAY)
    assert len(program.copied) > 1
    check(program, rng.random((3, *program.graph.tensors["x"].user_shape)).astype(np.float32))


def test_an_array_with_flash_has_a_reader():
    with pytest.raises(ValueError, match="an array with flash has a reader, and no other"):
        Machine(ARRAY)
