"""What the machine's reading path computes, one number after another."""

from dataclasses import dataclass

from celosia_spec.isa.array import PIECE


@dataclass(frozen=True, kw_only=True)
class Tile:
    """Lines begin at the positions ``starts`` of a tile, of which one may lie behind its lanes. The
    lanes ``written`` count."""

    piece: int
    starts: frozenset[int]
    written: frozenset[int]


@dataclass(frozen=True, kw_only=True)
class Tap:
    piece: int
    rotation: int
    mask: int


def shown(tile: Tile, mask: int, lane: int) -> bool:
    """Whether a lane reads something."""
    return not ((mask & 1 and lane in tile.starts) or (mask & 2 and lane + 1 in tile.starts))


def dot_product(banks: list[list[int]], taps: list[Tap], tile: Tile, lane: int,
                steps: list[tuple[int, int]], *, row: int, rows: int, nothing: int) -> int:
    """Return a lane's sum.

    banks   : of its group.   taps : of the phase.   steps : of its row, (step, mantissa).
    row     : bank row that tiles count from.   rows : from one position group to the next.
    nothing : code of 0.
    """
    total = column = 0
    for step, mantissa in steps:
        column += step
        tap = taps[column // 16]
        group, bank = divmod(lane + tap.rotation, len(banks))
        at = row + (tile.piece + tap.piece) * PIECE + column % 16 + group * rows
        code = banks[bank][at % len(banks[bank])] if shown(tile, tap.mask, lane) else nothing
        total += mantissa * code
    return total
