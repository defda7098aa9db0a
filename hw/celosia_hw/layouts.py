"""Layouts and signatures that several blocks share."""

from amaranth.hdl import signed, unsigned
from amaranth.lib import data

from celosia_spec.isa import DESCRIPTOR_WORDS, ArrayConfig

step_layout = data.StructLayout({
    "valid": 1,        # a weight word was issued
    "first": 1,        # of its pass: the product loads the accumulators, the taps change phase
    "last": 1,         # of its pass: the sums are complete
    "tile_first": 1,   # a new tile begins: the bank addresses move on
    "tile_last": 1,    # the tile is the last of its batch
})
"""Flags that travel down the pipeline beside a weight word. All zero in a bubble."""

def tile_layout(array: ArrayConfig) -> data.StructLayout:
    """Bank-row bases of one tile and its line break.

    row, next, after : of lanes that read in the tile's position group, in the next one, and in the
                       one after it.
    split     : first lane of the group that lies on the next line.   broken : there is one.
    """
    rows = dict.fromkeys(("row", "next", "after"), array.bank_row_bits)
    return data.StructLayout({**rows, "split": array.lane_bits, "broken": 1})


def operand_layout(array: ArrayConfig) -> data.StructLayout:
    """What one group's decoder says of one non-zero: mantissa, bank-row offset, rotation."""
    return data.StructLayout({
        "mantissa": signed(array.weight_bits),
        "row": array.bank_row_bits,
        "rotation": array.lane_bits,
    })


descriptor_layout = data.ArrayLayout(unsigned(16), DESCRIPTOR_WORDS)
"""A descriptor as loaded; indexed with :class:`celosia_spec.isa.Word`."""


def row_layout() -> data.StructLayout:
    """Row-table word, as :func:`celosia_spec.isa.pack_row` packs it."""
    return data.StructLayout({"bias": signed(16), "sw": signed(6), "sb": signed(8), "_": 2})


def write_layout(array: ArrayConfig) -> data.StructLayout:
    """Write-table word, as :meth:`celosia_spec.isa.ArrayConfig.pack_write` packs it."""
    return data.StructLayout({"last": 1, "count": array.beat_bits, "bank": array.lane_bits,
                              "row": array.bank_row_bits})
