"""From weight words and tiles to the mantissas that the lanes multiply."""

from collections.abc import Sequence
from dataclasses import dataclass

from celosia_spec.isa import BLOCK, ArrayConfig


def rotate(values: Sequence[int], size: int, rotations: Sequence[int]) -> list[int]:
    """Return o[p] = i[(p + r) % size] in every group of ``size``; one rotation for each group."""
    return [values[p - p % size + (p % size + rotations[p // size]) % size]
            for p in range(len(values))]


def decode_pass(words: Sequence[int], base: int, taps: Sequence[tuple[int, int]],
                array: ArrayConfig) -> list[tuple[int, int, int]]:
    """Return mantissa, bank-row offset and rotation of every weight word of a group's pass.

    base : first tap-table entry of the phase.   taps : (bank-row offset, rotation) entries.
    """
    index, result = 0, []
    half = 1 << array.weight_bits - 1
    for word in words:
        mantissa = word % (2 * half)
        index = (index + (word >> array.weight_bits)) % (1 << array.index_bits)
        row, rotation = taps[(base + index // BLOCK) % array.taps]
        result.append((mantissa - 2 * half * (mantissa >= half),
                       (row + index % BLOCK) % (1 << array.bank_row_bits), rotation))
    return result


@dataclass(frozen=True, kw_only=True)
class Map:
    """Where the positions of an output map read.

    size : positions of a tile.   line : positions of a line.   base : first bank row.
    channels : bank rows of a position group.   jump : a line end skips a position group.
    """

    size: int
    line: int
    base: int
    channels: int
    jump: bool

    def row(self, tile: int, lane: int, wrapped: bool) -> int:
        """Return the bank-row base of ``lane`` in ``tile``; ``wrapped``: its bank number is past
        the group's end."""
        lines = (tile * self.size + lane) // self.line if self.jump else 0
        return self.base + self.channels * (tile + lines + wrapped)

    def breaks(self, tile: int) -> list[int]:
        """Return the lanes of ``tile``, but the first, that begin a line."""
        first = tile * self.size
        return [lane for lane in range(1, self.size) if (first + lane) % self.line == 0]


def lane_banks(size: int, rotation: int) -> list[tuple[int, bool]]:
    """Return the bank in the group, and whether it wrapped, of each lane of a group."""
    return [((lane + rotation) % size, lane + rotation >= size) for lane in range(size)]
