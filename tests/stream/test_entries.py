"""Entries of the stream: what commands are packed to."""

import numpy as np
import pytest

from celosia.bands.entries import Lists, Order, Stream, controls, table
from celosia_sim import stream_machine, stream_memories
from celosia_spec.isa.array import Array
from celosia_spec.isa.controls import Op
from celosia_spec.isa.entries import entries_of


def test_a_table_is_written_whole():
    """Also one of more words than a command can have behind it."""
    state = stream_memories.State(Array(taps=2048), np.zeros(0, np.int64))
    words = np.random.default_rng(1).integers(0, 1 << 16, 2048)
    entries = controls([*table(Op.TAPS, words.tolist()), 1 | Op.HALT << 1])
    stream_machine.run(state, entries, [np.array([[0, len(entries)]])])
    assert np.array_equal(state.taps, words)


def test_neighbours_are_read_in_one_go():
    order = Order()
    out = Stream(orders=[Lists([order])])
    a, b, c = (out.add(entries_of(np.full((count, 4), count))) for count in (1, 2, 3))
    for chunk in (a, b, (6, 0), a, c):
        order.read(chunk)
    assert order.chunks == [(0, 3), (0, 1), (3, 3)]
    words = out.words()
    assert words[:6].tolist() == [0x0001000100010001 * k for k in (1, 2, 2, 3, 3, 3)]
    assert words[6:].tolist() == [2 << 16, 0, 3 | 2 << 16 | 1 << 32, 0]     # and one to spare
    assert len(words) == out.words_needed


def test_words_of_more_bits_are_refused():
    with pytest.raises(ValueError, match="16 bits"):
        entries_of(np.array([[0, 0, 1 << 16, 0]]))
