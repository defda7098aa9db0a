"""What a board's memories must hold before a program runs on it."""

import numpy as np

from celosia_boards.host.requests import block_words
from celosia_spec.isa import (
    BATCH,
    BLOCK,
    DESCRIPTOR,
    DESCRIPTOR_WORDS,
    Space,
    tap_word,
    weight_word,
)
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
    for words in descriptors.reshape(-1, DESCRIPTOR_WORDS):
        layer = DESCRIPTOR.unpack(words)
        size = array.lanes >> layer["log2_groups"]
        tile, lane = np.divmod(np.arange(layer["last_position"] + 1)[:, None], size)
        line, start = layer["line"], tile * size
        further = layer["jump"] * (start // line + (start % line + lane >= line))
        offset, rotation = _taps(program, layer)
        at = tile + further + (lane + rotation >= size)
        row = (layer["in_base"] + layer["in_channels"] * at + offset) % len(read)
        for first in range(0, array.lanes, size):
            read[row, first + (lane + rotation) % size] = True
    return read[:array.bank_rows]


def _taps(program: Program, layer: dict[str, int]) -> np.ndarray:
    """Return what a layer's weights are multiplied by, int64 (2, taps): rows from a position
    group's first, and banks from a lane."""
    entry, within = np.divmod(_column_indices(program, layer), BLOCK)
    phases = np.arange(layer["last_phase"] + 1) * layer["tap_step"] + layer["tap_base"]
    taps = tap_word(program.array).unpack(
        program.images[Space.TAPS][np.add.outer(phases, entry)].astype(np.int64))
    pairs = np.stack([taps["row"] + within, taps["rotation"]])
    return np.unique(pairs.reshape(2, -1), axis=1)


def _column_indices(program: Program, layer: dict[str, int]) -> np.ndarray:
    """Return the column indices of all weight words of a layer, each once."""
    array, groups = program.array, 1 << layer["log2_groups"]
    stride = array.groups_max if array.replicate else groups
    batches = program.images[Space.PROGRAM][layer["length_base"]:][:layer["last_batch"] + 1]
    lengths = BATCH.unpack(batches.astype(np.int64))["steps"]
    first, count = layer["weight_base"] * array.groups_max, int(lengths.sum()) * stride
    words = program.images[Space.WEIGHTS][first:first + count].astype(np.int64)
    deltas = weight_word(array).unpack(words)["step"].reshape(-1, stride)[:, ::stride // groups]
    found = [np.zeros(0, np.int64), *(np.unique(np.cumsum(batch, axis=0))
                                      for batch in np.split(deltas, np.cumsum(lengths)[:-1]))]
    return np.unique(np.concatenate(found))


def _words(space: Space, addresses: np.ndarray, values: np.ndarray) -> np.ndarray:
    return np.stack([np.full(len(addresses), space, np.uint32), addresses.astype(np.uint32),
                     np.asarray(values, np.uint32)], axis=1)
