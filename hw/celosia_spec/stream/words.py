"""The words of the second machine's tables and weights."""

from celosia_spec.isa.fields import Field, Word
from celosia_spec.isa.numbers import DELTA_BITS
from celosia_spec.stream.array import EDGE, Array

WEIGHT = Word("weight", (
    Field("mantissa", 8, True, "weight mantissa; 0 in padding"),
    Field("step", DELTA_BITS, False, "column indices from the weight before it in its row"),
))
"""One weight, or a longer step to the next one. Four are an entry. In an entry of dense8 both
halves are mantissas, of two steps of a row, and every step is 1 but for a batch's first, 0."""


def tap_word(array: Array) -> Word:
    """Where one kernel position of a block of 16 channels lies, seen from an output position."""
    return Word("tap", (
        Field("rotation", array.lanes.bit_length() - 1, False, "banks that lanes are turned by"),
        Field("mask", 3, False, "lanes that read nothing: 0 none; 1 to 3 the first columns of a "
                                "line; 4 to 6 the last 1 to 3"),
        Field("row", (array.bank_rows - 1).bit_length(), False,
              "bank rows further on, modulo the banks' depth"),
    ))


def tile_words(array: Array) -> tuple[Word, Word, Word]:
    """A tile: where it begins, the columns of its lanes, and which of them are written.

    ``before`` and ``behind`` go on with ``starts`` on both sides of a group, bit 0 next to its
    lanes. The lanes of every group have the same bits in ``starts``, and in ``written``.
    """
    return (
        Word("tile", (
            Field("before", EDGE, False, "lanes -1, -2, -3 begin a line"),
            Field("behind", EDGE, False, "the 3 positions behind the last lane begin a line"),
            Field("row", (array.bank_rows - 1).bit_length(), False, "first bank row"))),
        Word("starts", (Field("starts", array.lanes, False, "lanes that begin a line, the first "
                                                            "one in bit 0"),)),
        Word("written", (Field("written", array.lanes, False, "lanes whose results are kept"),)),
    )


TILE_WORDS = 3
