"""Who lies where in main memory, and when: the stream, maps, and what is copied from flash."""

import enum
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from celosia.bands.lives import Life
from celosia.bands.regions import Region
from celosia_spec.isa.array import kib
from celosia_spec.isa.image import UNIT_WORDS, Section


class Kind(enum.StrEnum):
    """What words of main memory hold."""

    STREAM = "stream"
    MAP = "map"
    SECTION = "section"


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Words of main memory that one thing has for some time.

    name : of a tensor, or of the layer whose entries are copied from flash.
    first, words : where it begins, and how many words it has.   life : when, in layers.
    """

    kind: Kind
    name: str
    first: int
    words: int
    life: Life

    @property
    def end(self) -> int:
        """The word behind it."""
        return self.first + self.words

    def there(self, at: int) -> bool:
        """Whether it is there while the layer of a number runs."""
        return self.life.born <= at <= self.life.dies


@dataclass(frozen=True, kw_only=True)
class Moment:
    """How much of main memory is taken while a layer runs, in words.

    available : of all main memory.
    """

    layer: str
    words: dict[Kind, int]
    available: int

    @property
    def used(self) -> int:
        return sum(self.words.values())

    @property
    def told(self) -> dict[str, Any]:
        """The same, ready for JSON."""
        return {"layer": self.layer, "used": self.used, "available": self.available,
                "maps": self.words[Kind.MAP], "stream": self.words[Kind.STREAM],
                "sections": self.words[Kind.SECTION]}

    def __str__(self) -> str:
        """As in "conv2: maps 21.3 KiB + stream 7.1 of 32"; unit and sum stand once."""
        names = {Kind.MAP: "maps", Kind.STREAM: "stream", Kind.SECTION: "from flash"}
        parts = [f"{name} {kib(self.words[kind]):.1f}" for kind, name in names.items()
                 if self.words[kind]]
        return f"{self.layer}: {' + '.join(parts)} of {kib(self.available):g} KiB"


EMPTY, STREAM, END = "·", "=", "|"
"""Marks of the picture: nothing is there; the stream; where main memory ends."""

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

_ROWS = 32
"""Lines of the picture, at most."""

_NAME = 14
"""Characters of a layer's name beside it."""

_LEAST = 20
"""Marks of a line, at least."""

WIDTH = 80
"""Characters of a line, where nobody says how many there are."""


@dataclass(frozen=True, kw_only=True)
class MainMemory:
    """Who lies where in main memory while each layer runs.

    layers : names, in the order in which they run.   pieces : the stream first.
    words  : that there are. Where a network does not fit, it is told how it would lie if there were
             more: some pieces end behind them.
    copied : bytes that are copied from flash during a run, by the layer; none where all is
             resident.
    """

    layers: tuple[str, ...]
    pieces: tuple[Piece, ...]
    words: int
    copied: Mapping[str, int] = field(default_factory=dict)

    @property
    def needed(self) -> int:
        """The word before which all pieces end."""
        return max(piece.end for piece in self.pieces)

    @property
    def fits(self) -> bool:
        """Whether all pieces end where main memory does, or before."""
        return self.needed <= self.words

    @property
    def fullest(self) -> Moment:
        """The moment at which most of main memory is taken; of equal ones the first."""
        moments = [Moment(layer=name, available=self.words, words={
            kind: _taken(piece for piece in self.pieces if piece.kind == kind and piece.there(at))
            for kind in Kind}) for at, name in enumerate(self.layers)]
        return max(moments, key=lambda moment: moment.used)

    @property
    def told(self) -> dict[str, Any]:
        """When most of it is taken, words of it, and what is copied from flash; ready for JSON."""
        return {"fullest": self.fullest.told, "flash_bytes": dict(self.copied)}

    @property
    def streams(self) -> str:
        """What is copied from flash, in words."""
        return (f"copied from flash in each inference: {sum(self.copied.values()) / 1024:.1f} KiB, "
                f"of {', '.join(self.copied)}")

    def __str__(self) -> str:
        return "\n".join(self.lines(WIDTH))

    def lines(self, width: int) -> Iterator[str]:
        """Yield the picture, a line for each layer with a mark for each range of main memory, and
        then whose the marks are, on lines of at most so many characters. Where it does not fit, a
        bar stands where main memory ends, and only those are told that are there when most is
        taken."""
        side = min(max(map(len, self.layers)), _NAME)
        columns = max(width - side - 1 - (not self.fits), _LEAST)
        every, fullest = -(-len(self.layers) // _ROWS), self.fullest
        extent = max(self.words, self.needed)
        columns = min(columns, extent)
        ends = "" if self.fits else f" as far as the {END}"
        yield (f"main memory, {kib(self.words):g} KiB{ends}: a mark is "
               f"{kib(extent) * 1024 / columns:,.0f} bytes"
               + (f"; a line for {every} layers" if every > 1 else ""))
        lines = picture(self.pieces, len(self.layers), extent, columns)
        most = self.layers.index(fullest.layer)
        for first in range(0, len(lines), every):
            at = most if first <= most < first + every else first
            name, line, end = self.layers[at], lines[at], self.words * columns // extent
            if not self.fits:
                line = line[:end] + END + line[end:]
            yield f"{name if len(name) <= side else name[:side - 1] + '…':{side}} {line}"
        yield from _wrapped(f"{'fullest' if self.fits else 'most is needed'} at {fullest}", width)
        marks = letters(self.pieces)
        for piece in sorted(self.pieces, key=lambda piece: (list(Kind).index(piece.kind),
                                                            piece.life)):
            if self.fits or piece.there(most):
                yield from _wrapped(f"{marks[piece]}  {self._told(piece)}", width)
        yield f"{EMPTY}  nothing"
        if self.copied:
            yield from _wrapped(self.streams, width)

    def _told(self, piece: Piece) -> str:
        """Return what a piece is, how large, where and when."""
        first, last = max(piece.life.born, 0), min(piece.life.dies, len(self.layers) - 1)
        names = self.layers[first:last + 1]
        when = "always" if piece.kind == Kind.STREAM else (
            f"at {names[0]}" if first == last else f"{names[0]} to {names[-1]}")
        what = {Kind.STREAM: _STREAMS.get(piece.name, piece.name), Kind.MAP: f"map {piece.name}",
                Kind.SECTION: f"{'' if self.fits else 'a part of the '}entries of {piece.name}, "
                              f"from flash"}[piece.kind]
        where = f"words {piece.first:,} to {piece.end - 1:,}, " if self.fits else ""
        return f"{what}: {kib(piece.words):.1f} KiB, {where}{when}"


_STREAMS = {"stream": "stream and its list of chunks", "weights": "weights, at least"}
"""What is said of a stream: where layers have no way yet, weights tell what it has at least."""


def stream_piece(words: int, layers: int, name: str = "stream") -> Piece:
    """Return the words that are always there."""
    return Piece(kind=Kind.STREAM, name=name, first=0, words=words, life=Life(-1, layers))


def map_pieces(places: Mapping[str, Region]) -> Iterator[Piece]:
    """Yield the words that maps have."""
    for name, place in places.items():
        yield Piece(kind=Kind.MAP, name=name, first=place.word, words=place.words, life=place.life)


def section_piece(name: str, sections: Sequence[Section], life: Life) -> Piece:
    """Return the words that sections of a layer have, one after the other."""
    first = min(section.first for section in sections)
    end = max(section.first + section.units for section in sections)
    return Piece(kind=Kind.SECTION, name=name, first=first * UNIT_WORDS,
                 words=(end - first) * UNIT_WORDS, life=life)


def _taken(found: Iterable[Piece]) -> int:
    """Return the words that pieces have; a sum may have those of what is added."""
    return sum({piece.first: piece.words for piece in found}.values())


def letters(found: Sequence[Piece]) -> dict[Piece, str]:
    """Return the mark of each piece: capitals for maps and small letters for what is copied from
    flash, both in the order of their births, again from A on where there are more."""
    marks: dict[Piece, str] = {}
    for kind, alphabet in ((Kind.MAP, _LETTERS), (Kind.SECTION, _LETTERS.lower())):
        own = sorted((piece for piece in found if piece.kind == kind),
                     key=lambda piece: (piece.life, piece.first))
        marks |= {piece: alphabet[number % len(alphabet)] for number, piece in enumerate(own)}
    return marks | {piece: STREAM for piece in found if piece.kind == Kind.STREAM}


def picture(found: Sequence[Piece], layers: int, main_words: int,
            columns: int) -> list[str]:
    """Return a line for each layer: what has most of each of so many ranges of main memory."""
    marks, lines = letters(found), []
    bounds = np.arange(columns + 1) * main_words / columns
    for at in range(layers):
        there = [piece for piece in found if piece.there(at)]
        shares = np.array([np.minimum(bounds[1:], piece.end)
                           - np.maximum(bounds[:-1], piece.first) for piece in there])
        best = shares.argmax(axis=0)
        lines.append("".join(marks[there[piece]] if shares[piece, column] > 0 else EMPTY
                             for column, piece in enumerate(best)))
    return lines


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, max(width, _LEAST), subsequent_indent="   ", break_on_hyphens=False)
