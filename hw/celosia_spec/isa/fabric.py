"""What the gateware of an array is built of, where kinds of chips differ."""

from dataclasses import dataclass

__all__ = ["GENERIC", "Fabric"]


@dataclass(frozen=True, kw_only=True)
class Fabric:
    """What a kind of chip has.

    multiplier : kind of `celosia_hw.parts.multiplier.Multipliers`.
    served     : lanes that one of its blocks serves; 0 where multipliers are made of logic.
    adds       : they can add products up, of two lanes each (`celosia_hw.lanes.block_sums`).
    carries    : a look-up table has a carry before it, so that it compares and chooses at once
                 (`celosia_hw.output.pool.LanePool`).
    lut_memory : words and bits of the smallest memory that stands in look-up tables, and how many
                 of them it takes; None where they are no memories.
    """

    multiplier: str = "generic"
    served: int = 0
    adds: bool = False
    carries: bool = False
    lut_memory: tuple[int, int, int] | None = None


GENERIC = Fabric()
"""Look-up tables and block memories, as every chip has them."""
