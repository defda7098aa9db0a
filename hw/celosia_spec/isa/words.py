"""The words of tables and weights."""

from celosia_spec.isa.array import PIECE_BITS, Array
from celosia_spec.isa.fields import Field, Word
from celosia_spec.isa.numbers import DELTA_BITS, MANTISSA_BITS

BLOCK_BITS = 4
BLOCK = 1 << BLOCK_BITS
"""Channels that a tap covers. A column index is ``tap * BLOCK + channel % BLOCK``."""

WEIGHT = Word("weight", (
    Field("mantissa", 8, True, "weight mantissa; 0 in padding"),
    Field("step", DELTA_BITS, False, "column indices from the weight before it in its row"),
))
"""One weight, or a longer step to the next one. Four are an entry."""

WEIGHT_BITS = range(MANTISSA_BITS[0], WEIGHT["mantissa"].bits + 1)
"""Widths of weights that a stream can hold."""

DENSE = Word("dense", (
    Field("low", 8, True, "weight mantissa of a step"),
    Field("high", 8, True, "that of the next step; 0 behind the last one"),
))
"""Two weights of a row, in an entry of dense8: every step is 1 but for a batch's first, 0."""


TAP_GROUP_BITS = DELTA_BITS - BLOCK_BITS
TAP_GROUP = 1 << TAP_GROUP_BITS
"""Taps that a step reaches. Those of a phase begin with a whole group of so many."""


def piece_bits(array: Array) -> int:
    """Return the bits of a number of a piece of bank rows."""
    return (array.bank_rows - 1).bit_length() - PIECE_BITS


def tap_word(array: Array) -> Word:
    """Where one kernel position of a block of 16 channels lies, seen from an output position."""
    return Word("tap", (
        Field("rotation", array.lanes.bit_length() - 1, False, "banks that lanes are turned by"),
        Field("mask", 2, False, "lanes that read nothing: with bit 0 those that begin a line, with "
                                "bit 1 those behind which one begins"),
        Field("piece", piece_bits(array), False,
              "pieces of bank rows further on, modulo the banks' depth"),
    ))


def tile_words(array: Array) -> tuple[Word, Word, Word]:
    """A tile: where it begins, the columns of its lanes, and which of them are written.

    The lanes of every group have the same bits in ``starts``, and in ``written``.
    """
    return (
        Word("tile", (
            Field("behind", 1, False, "the position behind the last lane begins a line"),
            Field("piece", piece_bits(array), False, "first piece of bank rows"))),
        Word("starts", (Field("starts", array.lanes, False, "lanes that begin a line, the first "
                                                            "one in bit 0"),)),
        Word("written", (Field("written", array.lanes, False, "lanes whose results are kept"),)),
    )


TILE_WORDS = len(tile_words(Array()))
