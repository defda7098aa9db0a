"""Layouts of layers that look at their whole input, or at whole channels of it."""

from dataclasses import dataclass, replace

import numpy as np

from celosia.bands.layouts import (
    Tap,
    pieces,
)
from celosia.bands.tiles import Tiles
from celosia_spec.isa.words import BLOCK


@dataclass(frozen=True, kw_only=True)
class Vector:
    """Elements of a map as they lie in main memory, side by side in the banks.

    channels, positions : of a stretch, and of each channel.   size : P'.   stride : elements from a
    channel to the next.   row : the first bank row.
    """

    channels: int
    positions: int
    size: int
    stride: int
    row: int = 0

    @property
    def elements(self) -> int:
        """Elements from the first to the last one, gaps between channels with them."""
        return (self.channels - 1) * self.stride + self.positions

    @property
    def rows(self) -> int:
        """Bank rows, whole pieces."""
        return pieces(-(-self.elements // self.size))

    @property
    def blocks(self) -> int:
        """Tap words of a bank."""
        return -(-self.rows // BLOCK)

    def place(self, element: int) -> tuple[int, int]:
        """Return (bank rows, bank) from the first element to another one."""
        return divmod(element, self.size)

    def taps(self) -> list[Tap]:
        """Return all taps."""
        return [(self.row + block * BLOCK, bank, 0) for bank in range(self.size)
                for block in range(self.blocks)]

    def at(self, channels: int) -> np.ndarray:
        """Return how far the elements of so many channels lie from the first one, int64."""
        channel = np.arange(channels)[:, None] % self.channels
        return (channel * self.stride + np.arange(self.positions)).ravel()

    def column(self, at: np.ndarray) -> np.ndarray:
        """Return the column index of elements that lie so far from the first one, int64."""
        index: np.ndarray = at % self.size * (self.blocks * BLOCK) + at // self.size
        return index

    def index(self, channels: int) -> np.ndarray:
        """Return the column index of every element of so many channels, int64."""
        return self.column(self.at(channels))


@dataclass(frozen=True, kw_only=True)
class Spread:
    """A layer that looks at its whole input, or at whole channels of it, a stretch; behind it lie
    those channels of a residual operand that a stretch has.

    page : elements of its pages, of which the banks hold two, even ones before odd ones; 0 where
    they hold all of it.   copies : how often the taps of two pages stand in the table, so that
    columns go on behind its end as they do behind the two.
    """

    source: Vector
    operand: Vector | None = None
    page: int = 0
    copies: int = 1

    @property
    def pages(self) -> int:
        """Pages of the input."""
        return len(self.begins) if self.page else 1

    @property
    def begins(self) -> np.ndarray:
        """Elements from the input's first one to that of each page, int64 (pages,). Where there are
        gaps between channels, a page has whole ones, or a piece of one."""
        source = self.source
        if source.stride == source.positions or source.channels == 1:
            return np.arange(0, source.elements, self.page)
        if whole := min(self.page // source.stride, self.rows):
            return np.arange(0, source.elements, whole * source.stride)
        channels = np.arange(source.channels)[:, None] * source.stride
        return (channels + np.arange(0, source.positions, self.page)).ravel()

    def held(self, page: int) -> Vector:
        """Return the elements of a page, and where they lie in the banks."""
        source, begin = self.source, int(self.begins[page])
        end = int([*self.begins, source.elements][page + 1])
        row = self.place(page).row
        if source.channels > 1 and source.stride != source.positions:
            if self.page >= source.stride:
                return replace(source, channels=-(-(end - begin) // source.stride), row=row)
            end = min(end, begin // source.stride * source.stride + source.positions)
        return replace(source, channels=1, positions=end - begin, row=row)

    @property
    def orders(self) -> int:
        """Orders in which batches read its pages, one after the other."""
        return 2 if self.page else 1

    def place(self, page: int) -> Vector:
        """Return where a page lies in the banks."""
        return replace(self.source, channels=1, positions=self.page,
                       row=page % 2 * self.page // self.source.size)

    def order(self, batch: int) -> list[int]:
        """Return the pages in the order in which the batch of a number reads them, even and odd
        ones in turn: each begins with the two that the one before it has read last."""
        found = list(range(self.pages))
        if batch % 2 == 0:
            return found
        if self.pages % 2:
            return found[::-1]
        return [page for even in found[-2::-2] for page in (even, even + 1)]

    def index(self, channels: int, batch: int = 0) -> np.ndarray:
        """Return the column index of every element of so many channels for the batch of a number,
        int64."""
        if not self.page:
            return self.source.index(channels)
        at = self.source.at(channels)
        page = np.searchsorted(self.begins, at, side="right") - 1
        within = at - self.begins[page]
        index: np.ndarray = (np.argsort(self.order(batch))[page] * self.page
                             + self.place(0).column(within))
        return index

    @property
    def channels(self) -> int:
        """Channels of the input in a stretch."""
        return self.source.channels

    @property
    def addends(self) -> int:
        """Channels of a residual operand in a stretch."""
        return 0 if self.operand is None else self.operand.channels

    @property
    def around(self) -> bool:
        """No: a ring is not read so."""
        return False

    @property
    def depth(self) -> int:
        """Bank rows from one position group to the next."""
        return 1

    @property
    def rows(self) -> int:
        """Bank rows."""
        if self.page:
            return 2 * self.page // self.source.size
        return self.source.rows + (0 if self.operand is None else self.operand.rows)

    def operand_taps(self) -> list[Tap]:
        """Return the taps of a residual operand."""
        return [] if self.operand is None else self.operand.taps()

    def operand_index(self) -> np.ndarray:
        """Return the column index of every channel of a residual operand in a stretch, int64."""
        return np.zeros(0, np.int64) if self.operand is None else self.operand.index(self.addends)

    def phases(self, turn: int = 0) -> list[list[Tap]]:
        """Return the taps of each phase, those of a residual operand first; no layer that looks at
        its whole input at once reads a ring."""
        if self.page:
            return [[*self.place(0).taps(), *self.place(1).taps()] * self.copies]
        return [taps for taps in (self.operand_taps(), self.source.taps()) if taps]

    def tiles(self, lines: int) -> Tiles:
        """Return the one tile of the one line."""
        size = self.source.size
        return Tiles(rows=np.zeros(1, np.int64), begins=np.zeros((1, size + 1), bool),
                     written=np.arange(size)[None] == 0, lines=np.zeros((1, 2), np.int64))

    def rows_of(self, begin: int, end: int) -> tuple[int, int]:
        """Return the bank rows of all that there is."""
        return 0, self.rows
