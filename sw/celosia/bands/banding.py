"""Where the outputs of a layer are cut into bands."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache

from celosia.bands.layouts import KEPT, Band, Lines, Stretch
from celosia.bands.shares import Share
from celosia.bands.spreads import Spread
from celosia.bands.tiles import TileTable
from celosia_spec.isa.array import Array
from celosia_spec.isa.words import TILE_WORDS


@dataclass(frozen=True, kw_only=True, eq=False)
class Banding:
    """The bands of each part of a layer."""

    layout: Lines | Spread
    parts: list[list[Band]]

    @cached_property
    def tiles(self) -> int:
        """The most tiles of a band."""
        return max(band.tiles for part in self.parts for band in part)


@lru_cache(maxsize=KEPT)
def bandings(layout: Lines, array: Array, lines: int, shares: tuple[Share, ...], *,
             single: bool) -> list[Banding]:
    """Return all ways to cut parts into bands that banks and tables hold.

    lines : of a stretch.   single : bands of one tile each.
    """
    height = layout.grid.lines.count
    if (lines < height and len(shares) > 1
            and layout.rows * -(-height // lines) <= array.bank_rows):
        return []
    parts = [[Stretch(line=line, lines=min(lines, height - line), channel=share.channel,
                      channels=share.channels, added=share.added, addends=share.addends)
              for line in range(0, height, lines)] for share in shares]
    tiles = len(layout.tiles(lines))
    shapes = {stretch.lines for part in parts for stretch in part}
    crowded = TILE_WORDS * sum(len(layout.tiles(own)) for own in shapes) > array.tiles
    every = _period(layout) if crowded else 1

    @cache
    def cut(most: int, *begin: int) -> list[list[Band]] | None:
        return _cut(layout, array, parts, begin, most)
    found = []
    for most in [1] if single else _uniform(cut, tiles, every):
        for begin in _begins(min(most, tiles), every):
            bands = cut(most, *begin)
            if bands is not None and (not crowded or _table(layout, bands) <= array.tiles):
                found.append(Banding(layout=layout, parts=bands))
    return found


def _uniform(cut: Callable[[int], list[list[Band]] | None], tiles: int, every: int) -> list[int]:
    """Return how many tiles a band may have at most: all of a stretch, as many as fit beside the
    next one's, and as many as fit alone.

    cut : returns bands of so many tiles, if they fit.   tiles : of a stretch.   every : of what
    number of tiles bands are multiples.
    """
    def largest(fits: Callable[[list[list[Band]]], bool]) -> int:
        low, high = 0, -(-tiles // every)
        while low < high:
            middle = (low + high + 1) // 2
            bands = cut(middle * every)
            low, high = (middle, high) if bands and fits(bands) else (low, middle - 1)
        return low * every
    most = {largest(lambda bands: all(band.beside for part in bands for band in part[1:])),
            largest(lambda bands: True)} - {0}
    return sorted(most | {-(-tiles // -(-tiles // own) // every) * every or every for own in most})


def _period(layout: Lines) -> int:
    """Return the tiles after which lines begin at the same lanes again."""
    pitch = layout.grid.pitch
    return len(layout.tiles(math.lcm(math.lcm(pitch, layout.size) // pitch,
                                     layout.grid.lines.every)))


def _begins(most: int, every: int) -> Iterator[list[int]]:
    """Yield the tiles of a layer's first bands: small ones have their fill early."""
    yield []
    first = every
    while first < most:
        yield [first]
        if 2 * first < most:
            yield [first << k for k in range((most // first).bit_length()) if first << k < most]
        first *= 2


def _cut(layout: Lines, array: Array, parts: list[list[Stretch]], begin: Iterable[int],
         most: int) -> list[list[Band]] | None:
    """Return bands of ``most`` tiles, the first ones of ``begin``; None where the banks do not hold
    one of them."""
    reach = layout.grid.span(0)
    row, low = 0, None
    sizes = iter(begin)
    lines_of = {own.lines: _lines(layout, own.lines) for part in parts for own in part}
    found: list[list[Band]] = []
    for part in parts:
        found.append([])
        for own in part:
            stretch = Stretch(line=own.line, lines=own.lines, channel=own.channel,
                              channels=own.channels, added=own.added, addends=own.addends, row=row)
            lines = lines_of[own.lines]
            tile = end = 0
            while tile < len(lines):
                count = min(next(sizes, most), len(lines) - tile)
                last = lines[tile + count - 1][1] + reach + 1
                rows = layout.rows_of(lines[tile][0], last)
                # Strides may pass over lines that are filled all the same.
                filled = layout.rows_of(min(end, lines[tile][0]), last)
                if filled[1] - filled[0] > array.bank_rows:
                    return None
                found[-1].append(Band(
                    stretch=stretch, tile=tile, tiles=count, begin=end, end=last,
                    beside=low is not None and row + rows[1] - low <= array.bank_rows))
                tile, end, low = tile + count, last, row + rows[0]
            row += layout.rows_of(0, end)[1]
    return found


@cache
def _lines(layout: Lines, lines: int) -> list[list[int]]:
    found: list[list[int]] = layout.tiles(lines).lines.tolist()
    return found


def _table(layout: Lines, bands: list[list[Band]]) -> int:
    """Return the words of the tile table that bands take."""
    table = TileTable()
    for band in sorted((band for part in bands for band in part), key=lambda band: -band.tiles):
        table.add(layout.tiles(band.stretch.lines).some(band.tile, band.tiles))
    return TILE_WORDS * len(table.rows)
