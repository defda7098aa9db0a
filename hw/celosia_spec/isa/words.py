"""The words of a program's tables: what the compiler packs, and the machine takes apart."""

from celosia_spec.isa.array import ArrayConfig
from celosia_spec.isa.fields import Field, Word
from celosia_spec.isa.numbers import DELTA_BITS, OUTPUT_BITS

BLOCK_BITS = 4
BLOCK = 1 << BLOCK_BITS
"""Channels a tap-table entry covers. A column index is ``tap_block * BLOCK + channel % BLOCK``."""

ROW = Word("row", (
    Field("bias", OUTPUT_BITS, True, "bias mantissa"),
    Field("sw", 6, True, "exponent s_w of the weight mantissas' least significant bit"),
    Field("sb", 8, True, "exponent of the bias mantissa's least significant bit, less s_w"),
    Field("_", 2),
))
"""One row of a weight matrix."""

BATCH = Word("batch", (
    Field("steps", 12, False, "steps of a pass", offset=1),
    Field("wait", 4, False, "cycles that a pass waits before its first step"),
))
"""One row batch, in program memory."""


def weight_word(array: ArrayConfig) -> Word:
    """One weight, or a longer step to the next one."""
    return Word("weight", (
        Field("mantissa", array.weight_bits, True, "weight mantissa; 0 in padding"),
        Field("step", DELTA_BITS, False, "column indices from the weight before it in its row"),
    ))


def tap_word(array: ArrayConfig) -> Word:
    """Where one kernel position of a block of channels lies, seen from an output position."""
    return Word("tap", (
        Field("rotation", array.lane_bits, False, "banks that lanes and banks are turned by"),
        Field("row", array.bank_row_bits, False, "bank rows further on, modulo the banks' depth"),
    ))


def write_word(array: ArrayConfig) -> Word:
    """Where elements of one beat go."""
    return Word("write", (
        Field("last", 1, False, "the beat's last entry"),
        Field("count", array.beat_bits, False, "elements that go to consecutive positions",
              offset=1),
        Field("bank", array.lane_bits, False, "bank of the first, modulo the reader's row group"),
        Field("row", array.bank_row_bits, False, "bank row of the first"),
    ))
