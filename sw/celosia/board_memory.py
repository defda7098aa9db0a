"""What a board's memories must hold before a program runs on it."""

import numpy as np

from celosia.disassembly import layer_words
from celosia_boards.host.requests import block_words
from celosia_spec.isa import Space
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
    for layer in layer_words(program):
        fields, size = layer.fields, layer.size
        tile, lane = np.divmod(np.arange(layer.positions)[:, None], size)
        line, start = fields["line"], tile * size
        further = fields["jump"] * (start // line + (start % line + lane >= line))
        offset, rotation = layer.taps(program.images[Space.TAPS])
        at = tile + further + (lane + rotation >= size)
        row = (fields["in_base"] + fields["in_channels"] * at + offset) % len(read)
        for first in range(0, array.lanes, size):
            read[row, first + (lane + rotation) % size] = True
    return read[:array.bank_rows]


def _words(space: Space, addresses: np.ndarray, values: np.ndarray) -> np.ndarray:
    return np.stack([np.full(len(addresses), space, np.uint32), addresses.astype(np.uint32),
                     np.asarray(values, np.uint32)], axis=1)
