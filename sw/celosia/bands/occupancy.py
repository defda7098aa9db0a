"""Who lies where in main memory, and when: the stream, maps, and what is copied from flash."""

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from celosia.bands.lives import Life
from celosia.bands.program import StreamProgram
from celosia_spec.isa.array import kib
from celosia_spec.isa.image import UNIT_BYTES, UNIT_WORDS, Section


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

    def __str__(self) -> str:
        """As in "conv2: maps 21.3 KiB + stream 7.1 of 32"; unit and sum stand once."""
        names = {Kind.MAP: "maps", Kind.STREAM: "stream", Kind.SECTION: "from flash"}
        parts = [f"{name} {kib(self.words[kind]):.1f}" for kind, name in names.items()
                 if self.words[kind]]
        return f"{self.layer}: {' + '.join(parts)} of {kib(self.available):g} KiB"


def pieces(program: StreamProgram) -> list[Piece]:
    """Return what lies in main memory, the stream first, with its list of chunks."""
    layers = program.graph.nodes
    return [
        Piece(kind=Kind.STREAM, name="stream", first=0, words=len(program.entries),
              life=Life(-1, len(layers))),
        *(Piece(kind=Kind.MAP, name=name, first=place.word, words=place.words, life=place.life)
          for name, place in program.places.items()),
        *(section_piece(layers[at].name, sections, program.flash.lives[at])
          for at, sections in program.copied_layers.items())]


def section_piece(name: str, sections: Sequence[Section], life: Life) -> Piece:
    """Return the words that sections of a layer have, one after the other."""
    first = min(section.first for section in sections)
    end = max(section.first + section.units for section in sections)
    return Piece(kind=Kind.SECTION, name=name, first=first * UNIT_WORDS,
                 words=(end - first) * UNIT_WORDS, life=life)


def fullest(found: Sequence[Piece], program: StreamProgram) -> Moment:
    """Return the moment at which most of main memory is taken; of equal ones the first."""
    moments = [Moment(layer=node.name, available=program.array.main_words, words={
        kind: _taken(piece for piece in found if piece.kind == kind and piece.there(at))
        for kind in Kind}) for at, node in enumerate(program.graph.nodes)]
    return max(moments, key=lambda moment: moment.used)


def _taken(found: Iterable[Piece]) -> int:
    """Return the words that pieces have; a sum may have those of what is added."""
    return sum({piece.first: piece.words for piece in found}.values())


def flash_bytes(program: StreamProgram) -> dict[str, int]:
    """Return the bytes of the image in flash that are copied during a run, by the layer; none where
    all is resident."""
    return {program.graph.nodes[at].name: sum(section.units for section in sections) * UNIT_BYTES
            for at, sections in program.copied_layers.items()}


EMPTY, STREAM = "·", "="
"""Marks of the picture: nothing is there; the stream."""

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


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
        shares = np.array([np.minimum(bounds[1:], piece.first + piece.words)
                           - np.maximum(bounds[:-1], piece.first) for piece in there])
        best = shares.argmax(axis=0)
        lines.append("".join(marks[there[piece]] if shares[piece, column] > 0 else EMPTY
                             for column, piece in enumerate(best)))
    return lines
