"""What the gateware of an array is built of, where kinds of chips differ."""

from dataclasses import dataclass

__all__ = ["GENERIC", "Fabric", "LutMemory"]


@dataclass(frozen=True, kw_only=True)
class LutMemory:
    """How memories stand in look-up tables.

    words, bits, luts : of the smallest memory, and how many of them it takes.
    bank_rows : codes at most of a bank that stands there.
    banks     : of each of several clusters that do; of a lone cluster all do.
    """

    words: int
    bits: int
    luts: int
    bank_rows: int
    banks: int


@dataclass(frozen=True, kw_only=True)
class Fabric:
    """What a kind of chip has.

    multiplier : kind of `celosia_hw.parts.multiplier.Multipliers`.
    served     : lanes that one of its blocks serves; 0 where multipliers are made of logic.
    adds       : they can add products up, of two lanes each (`celosia_hw.lanes.block_sums`).
    carries    : a look-up table has a carry before it, so that it compares and chooses at once
                 (`celosia_hw.output.pool.LanePool`).
    lut_memory : None where look-up tables are no memories.
    """

    multiplier: str = "generic"
    served: int = 0
    adds: bool = False
    carries: bool = False
    lut_memory: LutMemory | None = None


GENERIC = Fabric()
"""Look-up tables and block memories, as every chip has them."""
