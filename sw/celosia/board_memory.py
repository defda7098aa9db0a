"""What a board's memories must hold before a program runs on it."""

import numpy as np

from celosia_boards.host.requests import block_words
from celosia_spec.isa import BATCH_STEP_BITS, BLOCK, DESCRIPTOR_WORDS, Flag, Space, Word
from celosia_spec.program import Program

__all__ = ["memory_words", "words_read"]


def memory_words(program: Program) -> np.ndarray:
    """Return what is written to load a program, uint32 (words, 3): space, address, value.

    Program memory first, which the driver reads back at the end; then zeros where a layer reads a
    bank and nothing is written before: around maps. The blocks of the input's own elements are left
    out, as they are written whole with every input.
    """
    parts = [_words(space, np.arange(len(words)), words)
             for space, words in sorted(program.images.items())]
    size = block_words(Space.BANKS, program.array)
    zeros = words_read(program).reshape(-1)
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


def words_read(program: Program) -> np.ndarray:
    """Return which words of the banks the layers read for results that count, bool (bank_rows,
    lanes): what the others come to does not matter."""
    array = program.array
    read = np.zeros((1 << array.bank_row_bits, array.lanes), np.bool_)
    descriptors = program.images[Space.PROGRAM][:program.descriptors * DESCRIPTOR_WORDS]
    for words in descriptors.astype(np.int64).reshape(-1, DESCRIPTOR_WORDS):
        size = array.lanes >> (words[Word.GROUPS] & 15)
        tile, lane = np.divmod(np.arange(words[Word.LAST_POSITION] + 1)[:, None], size)
        jump = bool(words[Word.FLAGS] & Flag.JUMP)
        line, start = words[Word.LINE], tile * size
        further = jump * (start // line + (start % line + lane >= line))
        offset, rotation = _taps(program, words)
        at = tile + further + (lane + rotation >= size)
        row = (words[Word.IN_BASE] + words[Word.IN_CHANNELS] * at + offset) % len(read)
        for first in range(0, array.lanes, size):
            read[row, first + (lane + rotation) % size] = True
    return read[:array.bank_rows]


def _taps(program: Program, words: np.ndarray) -> np.ndarray:
    """Return what a layer's weights are multiplied by, int64 (2, taps): rows from a position
    group's first, and banks from a lane."""
    entry, within = np.divmod(_column_indices(program, words), BLOCK)
    phases = np.arange(words[Word.LAST_PHASE] + 1) * words[Word.TAP_STEP] + words[Word.TAP_BASE]
    taps = program.images[Space.TAPS][np.add.outer(phases, entry)].astype(np.int64)
    pairs = np.stack([(taps >> program.array.lane_bits) + within, taps % program.array.lanes])
    return np.unique(pairs.reshape(2, -1), axis=1)


def _column_indices(program: Program, words: np.ndarray) -> np.ndarray:
    """Return the column indices of all weight words of a layer, each once."""
    array, groups = program.array, 1 << int(words[Word.GROUPS] & 15)
    stride = array.groups_max if array.replicate else groups
    batches = program.images[Space.PROGRAM][words[Word.LENGTH_BASE]:][:words[Word.LAST_BATCH] + 1]
    begin, found = int(words[Word.WEIGHT_BASE]) * array.groups_max, [np.zeros(0, np.int64)]
    for steps in ((batches & (1 << BATCH_STEP_BITS) - 1) + 1).tolist():
        stream = program.images[Space.WEIGHTS][begin:begin + steps * stride].reshape(steps, stride)
        deltas = stream[:, ::stride // groups].astype(np.int64) >> array.weight_bits
        found.append(np.unique(np.cumsum(deltas, axis=0)))
        begin += steps * stride
    return np.unique(np.concatenate(found))


def _words(space: Space, addresses: np.ndarray, values: np.ndarray) -> np.ndarray:
    return np.stack([np.full(len(addresses), space, np.uint32), addresses.astype(np.uint32),
                     np.asarray(values, np.uint32)], axis=1)
