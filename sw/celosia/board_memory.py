"""What a board's memories must hold before a program runs on it."""

import numpy as np

from celosia.program import Program
from celosia_boards.host.requests import block_words
from celosia_hw.isa import BLOCK, DESCRIPTOR_WORDS, Flag, Space, Word

__all__ = ["memory_words", "rows_read"]


def memory_words(program: Program) -> np.ndarray:
    """Return what is written to load a program, uint32 (words, 3): space, address, value.

    Program memory first, which the driver reads back at the end; then zeros where a layer reads a
    bank and nothing is written before: around maps. The blocks of the input's own elements are left
    out, as they are written whole with every input.
    """
    parts = [_words(space, np.arange(len(words)), words)
             for space, words in sorted(program.images.items())]
    array, size = program.array, block_words(Space.BANKS, program.array)
    zeros = rows_read(program).repeat(array.lanes)
    for place in program.places.values():
        if place.space is Space.BANKS and place.written >= 0:
            zeros[place.addresses] = False
    blocks = np.asarray(zeros.reshape(-1, size).any(axis=1))
    source = program.places[program.graph.input]
    if source.space is Space.BANKS:
        blocks[source.addresses // size] = False
    clear = np.flatnonzero(blocks.repeat(size))
    parts.insert(1, _words(Space.BANKS, clear, np.zeros(len(clear), np.uint32)))
    return np.concatenate(parts)


def rows_read(program: Program) -> np.ndarray:
    """Return which bank rows the layers may read, bool (bank_rows,): all that they do, and some
    beside them."""
    array = program.array
    depth = 1 << array.bank_row_bits
    edges = np.zeros(2 * depth + BLOCK + 1, np.int64)   # 1 where a run of rows begins, -1 behind
    descriptors = program.images[Space.PROGRAM][:program.descriptors * DESCRIPTOR_WORDS]
    for words in descriptors.astype(np.int64).reshape(-1, DESCRIPTOR_WORDS):
        size = array.lanes >> (words[Word.GROUPS] & 15)
        tiles = np.arange(words[Word.LAST_TILE] + 1)
        jump = bool(words[Word.FLAGS] & Flag.JUMP)
        ends = jump * (tiles * size // words[Word.LINE])
        further = np.arange(2 + jump)       # by their rotation, lanes read one group on; behind a
        groups = np.unique(np.add.outer(tiles + ends, further))     # line's end one more
        count = words[Word.TAP_STEP] * (words[Word.LAST_PHASE] + 1)
        taps = program.images[Space.TAPS][words[Word.TAP_BASE]:][:count]
        offsets = np.unique(taps.astype(np.int64) >> array.lane_bits)
        begin = np.add.outer(words[Word.IN_BASE] + words[Word.IN_CHANNELS] * groups, offsets)
        np.add.at(edges, begin.ravel() % depth, 1)
        np.add.at(edges, begin.ravel() % depth + BLOCK, -1)
    runs = np.cumsum(edges)[:2 * depth] > 0
    return (runs[:depth] | runs[depth:])[:array.bank_rows]


def _words(space: Space, addresses: np.ndarray, values: np.ndarray) -> np.ndarray:
    return np.stack([np.full(len(addresses), space, np.uint32), addresses.astype(np.uint32),
                     np.asarray(values, np.uint32)], axis=1)
