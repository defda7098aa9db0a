"""What a stream makes happen, as far as it takes time: commands, batches, fills, entries."""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate

import numpy as np

from celosia_spec.isa.array import ENTRY_WORDS, Array
from celosia_spec.isa.controls import BATCH, CHUNK, COMMAND, HEAD, RECORDS, Op, is_command
from celosia_spec.isa.entries import words_of
from celosia_spec.isa.fills import places
from celosia_spec.isa.image import UNIT_WORDS, Section
from celosia_spec.isa.image import places as image_places
from celosia_spec.isa.passes import head_reads, pass_cycles, row_cycles
from celosia_spec.isa.words import TILE_WORDS, tile_words

NEVER = 1 << 62
"""A cycle that does not come."""

Lines = list[list[int]]
"""Accesses of main memory, or cycles without the port, for each channel's lines."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """What passes of a layer have in common.

    groups : row groups.   phases : passes of a tile.   single : lanes leave one by one.
    wide, residual : sums are stored; a tensor is added.   heads : words of a row's head.
    row, least : cycles that a row and a pass take at least.
    """

    groups: int
    phases: int
    single: bool
    wide: bool
    residual: bool
    heads: tuple[int, ...]
    row: int
    least: int

    @classmethod
    def of(cls, array: Array, fields: dict[str, int]) -> "Layer":
        """Return what a layer's fields say."""
        log2_groups = fields["log2_groups"]
        signed, wide, residual = (bool(fields[name]) for name in ("signed_in", "wide", "residual"))
        row, least = (count(array, log2_groups=log2_groups, signed_in=signed, wide=wide,
                            residual=residual) for count in (row_cycles, pass_cycles))
        return cls(groups=1 << log2_groups, phases=fields["last_phase"] + 1,
                   single=wide or residual or array.drain == 1, wide=wide, residual=residual,
                   heads=head_reads(array, signed_in=signed), row=row, least=least)


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """A batch of rows, or a part of one.

    steps : of a pass.   dense, joins, open : flags of `BATCH`.   heads : words to be passed over.
    added : its first entry reads a residual operand.
    first, entries : its entries, counted from the stream's first.   rows : of each the word where
    its channel begins, its first element there, and whether it is real.
    position : of its band.   tiles : for each tile of it, which lanes of a group are written.
    """

    layer: Layer
    steps: int
    dense: bool
    joins: bool
    open: bool
    added: bool
    heads: int
    first: int
    entries: int
    rows: tuple[tuple[int, int, bool], ...]
    position: int
    tiles: tuple[int, ...]

    @property
    def passes(self) -> int:
        return len(self.tiles) * self.layer.phases

    @cached_property
    def begins(self) -> list[int]:
        """Lanes of a group that are written before each tile, and in all."""
        return [0, *accumulate(lanes.bit_count() for lanes in self.tiles)]

    @property
    def entry_steps(self) -> int:
        """Steps that an entry has for each row."""
        return ENTRY_WORDS // self.layer.groups << self.dense


@dataclass(frozen=True, kw_only=True, eq=False)
class Command:
    """A command, or a batch.

    op : None of a batch.   words : that follow.
    lines : of a fill.   zero, apart : flags of it.   sections : of a copy, their units.
    """

    op: Op | None
    words: int
    batch: Batch | None = None
    lines: Lines | None = None
    zero: bool = False
    apart: bool = False
    sections: tuple[int, ...] = ()


@dataclass(kw_only=True)
class Entry:
    """An entry, as the fetcher comes to it.

    weights : it is one of weights.   words : control words of it that count.
    closes  : weights come behind it; of weights, it is its batch's last.
    part    : weights come behind it because its last word is a part of a batch.
    ends    : it is its chunk's last.
    """

    weights: bool
    words: int = ENTRY_WORDS
    closes: bool = False
    part: bool = False
    ends: bool = False


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """A chunk of a list: the word of main memory where it stands, that of its first entry, how many
    it has, and whether they come from flash."""

    at: int
    first: int
    entries: int
    waits: bool


def listed(array: Array, entries: Sequence[int], at: int) -> list[Chunk]:
    """Return the chunks of a list whose first one stands in word ``at``."""
    found = []
    while True:
        word = CHUNK.unpack(entries[at])
        found.append(Chunk(at=at, first=word["first"], entries=word["entries"],
                           waits=bool(word["copied"])))
        if word["final"]:
            return found
        at = word["next"] if array.clusters > 1 else at + 1


_AMONG = Entry(weights=True)
"""Stands for all entries of weights behind which others of their batch come."""


class _Reader:
    """Entries of chunks, one after the other; those that were read are in ``found``.

    places : words of main memory where they lie.
    """

    def __init__(self, entries: Sequence[int], chunks: Sequence[Chunk],
                 sections: Iterable[Section]) -> None:
        self._entries: list[int] = []
        self._ends: deque[int] = deque()
        self.places: list[int] = []
        main, waited = dict(enumerate(entries)), iter(sections)
        for chunk in chunks:
            if chunk.waits:
                section = next(waited)
                main.update(enumerate(section.words.tolist(), section.first * UNIT_WORDS))
            places = range(chunk.first, chunk.first + chunk.entries)
            self.places += places
            self._entries += [int(main[at]) for at in places]
            self._ends.append(len(self._entries))
        self._words: list[int] = []
        self.found: list[Entry] = []

    def word(self) -> int:
        if not self._words:
            self._words = words_of(self._entries[len(self.found)])
            self._add([Entry(weights=False)])
        return self._words.pop(0)

    def words(self, count: int) -> list[int]:
        return [self.word() for _ in range(count)]

    def weights(self, count: int, *, part: bool) -> None:
        """Pass over entries of weights."""
        last = self.found[-1]
        last.words, last.closes, last.part = ENTRY_WORDS - len(self._words), True, part
        self._words = []
        self._add([_AMONG] * (count - 1) + [Entry(weights=True, closes=True)] * (count > 0))

    def _add(self, entries: list[Entry]) -> None:
        self.found += entries
        while self._ends and self._ends[0] <= len(self.found):
            at = self._ends.popleft() - 1
            self.found[at] = replace(self.found[at], ends=True)


def events(array: Array, entries: Sequence[int], chunks: Sequence[Chunk],
           image: Sequence[Section]) -> tuple[list[Command], list[Entry], list[int]]:
    """Return the commands and batches of a stream in their order, its entries, and the words of
    main memory where these lie.

    entries, image : as `celosia_sim.clock.cycles.cycles` takes them.   chunks : `listed` there.
    """
    reader, first = _Reader(entries, chunks, [
        section for section in image if not section.resident]), 0
    found = {unit: number for number, unit in enumerate(image_places(image))}
    commands: list[Command] = []
    layer: Layer | None = None
    band: dict[str, int] = {}
    rows: tuple[tuple[int, int, bool], ...] = ()
    table = np.zeros(array.tiles, np.int64)
    while True:
        word = reader.word()
        if not is_command(word):
            assert layer is not None
            batch = _batch(array, reader, word, layer, band, rows, table, first)
            rows, first = batch.rows, first + batch.entries
            commands.append(Command(op=None, words=1, batch=batch))
            continue
        command = COMMAND.unpack(word)
        op = Op(command["op"])
        record = RECORDS.get(op)
        words = reader.words(command["argument"]) if record else []
        fields = record.unpack(words[:len(record.words)]) if record else {}
        if op == Op.COPY:
            number = found[fields["unit"]]
            units = [image[number].units]
            while image[number].more:
                number += 1
                units.append(image[number].units)
            commands.append(Command(op=op, words=len(words), sections=tuple(units)))
            continue
        if op == Op.FILL:
            commands.append(Command(op=op, words=len(words), lines=_lines(array, fields),
                                    zero=bool(fields["zero"]), apart=bool(fields["apart"])))
            continue
        commands.append(Command(op=op, words=len(words)))
        if op == Op.LAYER:
            layer = Layer.of(array, fields)
        elif op == Op.BAND:
            band = fields
        elif op == Op.TILES:
            table[fields["place"]:fields["place"] + len(words) - 1] = words[1:]
        elif op == Op.HALT:
            return commands, reader.found, reader.places


def _batch(array: Array, reader: _Reader, word: int, layer: Layer, band: dict[str, int],
           rows: tuple[tuple[int, int, bool], ...], table: np.ndarray, first: int) -> Batch:
    """Return a batch whose first word this is; a part of one has the ``rows`` before it."""
    batch = BATCH.unpack(word)
    if not batch["joins"]:
        heads = [HEAD.unpack(reader.words(len(layer.heads))[:len(HEAD.words)])
                 for _ in range(layer.groups)]
        rows = tuple((head["word"], head["element"], bool(head["real"])) for head in heads)
    words = (batch["steps"] + batch["dense"] >> batch["dense"]) * layer.groups
    added = layer.residual and not batch["joins"]
    count = added - (-words // ENTRY_WORDS)
    reader.weights(count, part=bool(batch["joins"]))
    written = tile_words(array)[2]
    size = array.lanes // layer.groups
    tiles = (int(table[band["tile"] + tile * TILE_WORDS + 2])
             for tile in range(band["last_tile"] + 1))
    return Batch(layer=layer, steps=batch["steps"], dense=bool(batch["dense"]),
                 joins=bool(batch["joins"]), open=bool(batch["open"]), added=added,
                 heads=0 if batch["joins"] else layer.groups * len(layer.heads), first=first,
                 entries=count, rows=rows, position=band["position"],
                 tiles=tuple(written.unpack(tile)["written"] & (1 << size) - 1 for tile in tiles))


def _lines(array: Array, record: dict[str, int]) -> Lines:
    element = places(record, array).element
    if record["apart"]:
        found = np.full(element.shape[:2], element.shape[2])
    else:
        begin, end = element[..., 0], element[..., -1]
        if record["zero"]:
            begin, end = np.zeros_like(begin), np.full_like(end, element.shape[2] - 1)
        found = end // array.unit - begin // array.unit + 1
        if array.fill == 2 * ENTRY_WORDS and not record["pair"] and (
                array.lanes >> record["log2_groups"] >= 8):
            alone = begin % ENTRY_WORDS > 0     # a word that a line begins inside of
            found = alone + (found - alone + 1) // 2
    lines: Lines = found.tolist()
    return lines
