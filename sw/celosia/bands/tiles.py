"""Tiles: which outputs the lanes of a group have, and the table that says so."""

from dataclasses import dataclass, field

import numpy as np

from celosia_spec.isa.array import PIECE, Array
from celosia_spec.isa.words import TILE_WORDS, tile_words


@dataclass(frozen=True, kw_only=True, eq=False)
class Tiles:
    """Tiles, one behind the other.

    rows    : first bank rows, int64 (tiles,).
    begins  : which positions begin a line, and that behind the last one, bool (tiles, P' + 1).
    written : lanes, bool (tiles, P').   lines : the first and the last line that a tile writes,
              int64 (tiles, 2).
    """

    rows: np.ndarray
    begins: np.ndarray
    written: np.ndarray
    lines: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def some(self, first: int, count: int) -> "Tiles":
        """Return ``count`` tiles from one on."""
        kept = slice(first, first + count)
        return Tiles(rows=self.rows[kept], begins=self.begins[kept], written=self.written[kept],
                     lines=self.lines[kept])


@dataclass
class TileTable:
    """The tiles that are in the table: what differs in bank rows by one number stands once.

    rows : from the first tile that was added with it.   bits : of everything else.
    """

    rows: list[int] = field(default_factory=list)
    bits: list[bytes] = field(default_factory=list)
    _tiles: list[Tiles] = field(default_factory=list)

    def add(self, tiles: Tiles) -> tuple[int, int]:
        """Add tiles that are not there, and return where they stand: (tiles before them, bank rows
        that theirs count from)."""
        bits = [begins.tobytes() + written.tobytes()
                for begins, written in zip(tiles.begins, tiles.written, strict=True)]
        rows = tiles.rows.tolist()
        steps = [row - rows[0] for row in rows]
        for first, own in enumerate(self.bits):
            if own == bits[0] and self.bits[first:first + len(bits)] == bits:
                begin = self.rows[first]
                if [row - begin for row in self.rows[first:first + len(bits)]] == steps:
                    return first, rows[0] - begin
        self.rows += steps
        self.bits += bits
        self._tiles.append(tiles)
        return len(self.rows) - len(bits), rows[0]

    def words(self, array: Array, groups: int) -> list[int]:
        """Return the words of the table."""
        if not self._tiles:
            return []
        first, starts, written = tile_words(array)
        begins, lanes = (np.concatenate([getattr(tiles, name) for tiles in self._tiles])
                         for name in ("begins", "written"))
        found: list[int] = np.stack([
            first.pack(piece=np.array(self.rows) % array.bank_rows // PIECE,
                       behind=begins[:, -1].astype(np.int64)),
            starts.pack(starts=_bits(np.tile(begins[:, :-1], groups))),
            written.pack(written=_bits(np.tile(lanes, groups)))], axis=1).ravel().tolist()
        assert len(found) == TILE_WORDS * len(self.rows)
        return found


def _bits(bits: np.ndarray) -> np.ndarray:
    """Return bools (words, bits), the lowest bit first, as int64 (words,)."""
    found: np.ndarray = (bits << np.arange(bits.shape[1])).sum(axis=1)
    return found
