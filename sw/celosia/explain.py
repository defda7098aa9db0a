"""What the machine will do with a program, in words: read back out of its stream."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from celosia.bands.disassembly import Batch, Command, LayerWords, layer_words
from celosia.bands.lives import Life
from celosia.bands.occupancy import Kind, MainMemory, Piece, section_piece, stream_piece
from celosia.bands.program import StreamProgram
from celosia.bands.report import copied, spent
from celosia.program import Program, check_program
from celosia.show import count, span
from celosia_spec.isa.array import ENTRY_WORDS
from celosia_spec.isa.controls import LAYER, Op
from celosia_spec.isa.fills import accesses, first_element, run
from celosia_spec.isa.image import UNIT_WORDS, Section
from celosia_spec.isa.image import places as image_places
from celosia_spec.isa.words import TILE_WORDS


@dataclass(frozen=True, kw_only=True)
class Line:
    """A command, or batches that follow each other.

    entry : word of main memory in which it begins.   op : its name.   fields : of its record.
    says  : the same in a sentence.
    """

    entry: int
    op: str
    fields: dict[str, int]
    says: str


@dataclass(frozen=True, kw_only=True)
class LayerExplained:
    """A layer as the machine meets it.

    groups, lanes   : row groups, and lanes of each.   windows : passes of a tile.
    bands, tiles    : of the layer; each band's tiles are computed one after the other.
    batches, parts  : of rows, as they stand in memory; further parts of those that were cut.
    runs            : batches as often as bands read them.   passes : a tile and window each.
    fills, filled   : records, and the accesses to main memory that they need.
    weights, padding : weights that entries hold, and room in them for more.
    taps            : words of the tap table.   tile_table : tiles in the tile table.
    entries, fetched : entries as they stand in memory, and as often as they are fetched.
    copied          : whether they come from flash.
    spent           : cycles by `celosia_sim.clock.machine_clock.SPENT`.
    lines           : its commands, one by one.
    """

    name: str
    kind: str
    groups: int
    lanes: int
    windows: int
    bands: int
    tiles: int
    batches: int
    parts: int
    runs: int
    passes: int
    fills: int
    filled: int
    weights: int
    padding: int
    taps: int
    tile_table: int
    entries: int
    fetched: int
    copied: bool
    spent: dict[str, int]
    lines: tuple[Line, ...]


def explain(program: Program) -> tuple[list[LayerExplained], MainMemory]:
    """Return what each layer makes the machine do, and what lies in main memory meanwhile."""
    check_program(program)
    words = layer_words(program.program)
    found = pieces_told(program.program, words)
    layers = [_layer(program, at, own, found) for at, own in enumerate(words)]
    return layers, MainMemory(layers=tuple(layer.name for layer in layers), pieces=tuple(found),
                              words=program.array.main_words, copied=copied(program.program))


# Main memory

def pieces_told(stream: StreamProgram, words: Sequence[LayerWords]) -> list[Piece]:
    """Return what lies in main memory: maps where heads say that rows are written, from there to
    the last layer that reads their exponents. The input is where the host puts it."""
    graph = stream.graph
    held = {stream.slots[graph.input]: graph.input}
    place = stream.places[graph.input]
    begins = {graph.input: (place.word, place.words, -1)}
    dies = {graph.input: -1}
    for at, own in enumerate(words):
        *others, last = [item for item in own.items if isinstance(item, Command)]
        for item in others:
            for slot in _read(item):
                if slot in held:
                    dies[held[slot]] = at
            if item.op == Op.JOIN:
                held.pop(item.fields["slot"], None)
        name = graph.nodes[at].output
        held[last.fields["slot"]] = name
        begins[name] = *_written(own, stream.array.lanes), at
        dies[name] = at
    dies[graph.output] = len(words)
    return [
        stream_piece(len(stream.entries), len(words)),
        *(Piece(kind=Kind.MAP, name=name, first=first, words=count, life=Life(born, dies[name]))
          for name, (first, count, born) in begins.items()),
        *_sections(stream, words)]


def _read(command: Command) -> Iterator[int]:
    """Yield the slots of exponents that a command reads."""
    fields = command.fields
    if command.op == Op.JOIN:
        yield from (fields["first"], fields["second"])
    elif command.op == Op.LAYER:
        yield fields["in_slot"]
        if fields["residual"]:
            yield fields["residual_slot"]


def _written(own: LayerWords, lanes: int) -> tuple[int, int]:
    """Return the first word that a layer's rows are written to, and how many words."""
    first, end, position, count = 1 << 32, 0, 0, 0
    wide, every, tiles = own.layer["wide"], (1 << lanes // own.groups) - 1, own.table(Op.TILES)
    for item in (*own.items, *own.beside):
        if isinstance(item, Batch):
            for head in item.heads:
                if head["real"]:
                    row = head["word"] * ENTRY_WORDS + head["element"] + position
                    first, end = min(first, row), max(end, row + count)
        elif item.op == Op.BAND:
            position, place = item.fields["position"], item.fields["tile"] + TILE_WORDS - 1
            written = tiles[place:place + (item.fields["last_tile"] + 1) * TILE_WORDS:TILE_WORDS]
            count = sum((tile & every).bit_count() for tile in written) << wide
    return first // ENTRY_WORDS, -(-end // ENTRY_WORDS) - first // ENTRY_WORDS


def _sections(stream: StreamProgram, words: Sequence[LayerWords]) -> Iterator[Piece]:
    """Yield what is copied from flash for each layer, until the layer whose entries stand there."""
    image = dict(zip(image_places(stream.sections), stream.sections, strict=True))
    found: dict[int, list[Section]] = {}
    born: dict[int, int] = {}
    for at, own in enumerate(words):
        for copy in own.commands(Op.COPY):
            unit, more = copy.fields["unit"], True
            while more:
                section = image[unit]
                there = range(section.first * UNIT_WORDS,
                              (section.first + section.units) * UNIT_WORDS)
                reads = next(layer for layer in range(at, len(words)) if any(
                    piece.start in there for piece in words[layer].taken))
                found.setdefault(reads, []).append(section)
                born.setdefault(reads, at)
                unit, more = unit + section.units + 1, section.more
    for reads, sections in found.items():
        yield section_piece(stream.graph.nodes[reads].name, sections, Life(born[reads], reads))


# Layers

def _layer(program: Program, at: int, own: LayerWords, found: Sequence[Piece]) -> LayerExplained:
    reported, bands, fills = program.layers[at], own.bands, own.commands(Op.FILL)
    kept = own.kept
    weights = sum(batch.weights for batch in kept)
    tiles, passes = 0, 0
    for item in (*own.items, *own.beside):
        if isinstance(item, Batch):
            passes += tiles * own.windows * (not item.fields["joins"])
        elif item.op == Op.BAND:
            tiles = item.fields["last_tile"] + 1
    words = set().union(*own.taken)
    return LayerExplained(
        name=reported.name, kind=str(reported.kind), groups=own.groups,
        lanes=own.array.lanes // own.groups, windows=own.windows, bands=len(bands),
        tiles=sum(band.fields["last_tile"] + 1 for band in bands),
        batches=sum(not batch.fields["joins"] for batch in kept),
        parts=sum(batch.fields["joins"] for batch in kept),
        runs=sum(not batch.fields["joins"] for batch in own.batches), passes=passes,
        fills=len(fills), filled=sum(accesses(fill.fields, own.array) for fill in fills),
        weights=weights,
        padding=sum(batch.fields["steps"] for batch in kept) * own.groups - weights,
        taps=len(own.table(Op.TAPS)), tile_table=len(own.table(Op.TILES)) // TILE_WORDS,
        entries=own.entries, fetched=sum(map(len, own.taken)),
        copied=any(piece.kind == Kind.SECTION and piece.first in words and piece.life.dies == at
                   for piece in found),
        spent=spent(reported, program.lanes), lines=tuple(_lines(at, own, found)))


# Commands

def _lines(at: int, own: LayerWords, found: Sequence[Piece]) -> Iterator[Line]:
    closing, bands = own.items[-1], own.bands
    for batches, items in groupby(own.items, key=lambda item: isinstance(item, Batch)):
        if batches:
            yield _run([item for item in items if isinstance(item, Batch)])
            continue
        for item in items:
            assert isinstance(item, Command)
            if item is closing:
                says = _closed(item, own, found, at)
            elif item.op == Op.BAND and item not in bands:
                says = "the batch goes on with the next page of the input"
            else:
                says = _SAYS[item.op](item, own, found, at)
            yield Line(entry=item.entry, op=item.op.name.lower(), fields=item.fields, says=says)


def _run(batches: list[Batch]) -> Line:
    """Return the line of batches that follow each other."""
    steps = [batch.fields["steps"] for batch in batches]
    fields = {"batches": sum(not batch.fields["joins"] for batch in batches),
              "parts": sum(batch.fields["joins"] for batch in batches),
              "dense": sum(batch.fields["dense"] for batch in batches),
              "rows": sum(head["real"] for batch in batches for head in batch.heads),
              "steps": sum(steps), "weights": sum(batch.weights for batch in batches)}
    begun = (f"{count(fields['batches'], 'batch', 'batches')} of {count(fields['rows'], 'row')}"
             if fields["batches"] else "of the same batch")
    says = (f"{begun}, {span(steps)} steps a pass, {count(fields['weights'], 'weight')}")
    if fields["parts"]:
        says += f", in {count(len(batches), 'part')}"
    if fields["dense"]:
        says += f", {'all' if fields['dense'] == len(batches) else fields['dense']} of them dense"
    return Line(entry=batches[0].entry, op="batch", fields=fields, says=says)


def _named(found: Sequence[Piece], at: int, word: int) -> str:
    """Return what lies in a word while a layer runs."""
    return next((piece.name for piece in found if piece.there(at)
                 and piece.first <= word < piece.first + piece.words), "nothing")


def _copy(command: Command, own: LayerWords, found: Sequence[Piece], at: int) -> str:
    begun = [piece for piece in found if piece.kind == Kind.SECTION and piece.life.born == at]
    what = ", ".join(f"{piece.name} to words {piece.first:,} to {piece.first + piece.words - 1:,}"
                     for piece in begun)
    return f"from unit {command.fields['unit']:,} of flash the entries of layers are copied: {what}"


def _table(size: int) -> Callable[[Command, LayerWords, Sequence[Piece], int], str]:
    def says(command: Command, own: LayerWords, found: Sequence[Piece], at: int) -> str:
        place, words = command.fields["place"], len(command.words)
        return f"{place // size:,} to {(place + words - 1) // size:,} of the table"
    return says


def _join(command: Command, own: LayerWords, found: Sequence[Piece], at: int) -> str:
    fields = command.fields
    of_add = (own.layer["residual"] and fields["second"] == own.layer["residual_slot"]
              and (fields["room"] < 0 or not _filled(own, found, at, residual=True)
                   & _filled(own, found, at, residual=False)))
    second, why = f"{fields['second']}", "maps are read together"
    if of_add:
        second += f" less {fields['room']}"
        why = "the residual operand has room in the sums"
    return (f"slot {fields['slot']} gets the larger exponent of slots {fields['first']} and "
            f"{second}: {why}")


def _filled(own: LayerWords, found: Sequence[Piece], at: int, *, residual: bool) -> set[str]:
    """Return the maps that a layer adds, or those that it multiplies. One that is both takes no
    exponent of the reading for itself, unless by a room below 0."""
    return {_named(found, at, first_element(fill.fields) // ENTRY_WORDS)
            for fill in own.commands(Op.FILL)
            if fill.fields["residual"] == residual and not fill.fields["zero"]}


def _fields(command: Command, own: LayerWords, found: Sequence[Piece], at: int) -> str:
    fields = command.fields
    told = [f"{count(own.groups, 'row group')}",
            f"the input's exponent in slot {fields['in_slot']}",
            f"bank rows from one position group to the next: {fields['rows']}"]
    if own.windows > 1:
        told.append(f"{own.windows} passes of a tile, {fields['tap_step']} taps apart")
    told += [field.about for word in LAYER.words for field in word.fields
             if field.bits == 1 and fields[field.name]]
    return "; ".join(told)


def _fill(command: Command, own: LayerWords, found: Sequence[Piece], at: int) -> str:
    fields = command.fields
    size = (f"{count(-fields['channels'], 'channel')} of {count(-fields['lines'], 'line')} of "
            f"{count(run(fields, own.array), 'element')}")
    what = "what is added, " * fields["residual"]
    where = f"to bank row {fields['a_row']}, bank {fields['a_bank']} on"
    if fields["zero"]:
        return f"{what}zeros, {size}, {where}"
    word, rest = divmod(first_element(fields), ENTRY_WORDS)
    how = (f", every {fields['step']}th" if fields["apart"] else
           ", even and odd ones apart" if fields["pair"] else "")
    return (f"{what}{_named(found, at, word)}, {size}{how}, from word {word:,}"
            + (f" element {rest}" if rest else "") + f" {where}")


def _band(command: Command, own: LayerWords, found: Sequence[Piece], at: int) -> str:
    fields = command.fields
    first, last = fields["tile"] // TILE_WORDS, fields["last_tile"]
    return (f"tiles {first} to {first + last} of the table, from bank row {fields['row']} on; "
            f"results from element {fields['position']:,} of a row on")


def _wait(command: Command, own: LayerWords, found: Sequence[Piece], at: int) -> str:
    return "when all steps before are issued"


def _closed(command: Command, own: LayerWords, found: Sequence[Piece], at: int) -> str:
    fields = command.fields
    name = next(piece.name for piece in found if piece.kind == Kind.MAP and piece.life.born == at)
    if command.op == Op.JOIN:
        rule = "that of its input"
    elif fields["least"] == fields["most"]:
        rule = f"fixed at {fields['least']}"
    else:
        rule = f"that of its largest element, {fields['least']} to {fields['most']}"
    return f"when all is written, slot {fields['slot']} has the exponent of {name}: {rule}"


_SAYS = {Op.COPY: _copy, Op.TAPS: _table(1), Op.TILES: _table(TILE_WORDS),
         Op.JOIN: _join, Op.LAYER: _fields, Op.FILL: _fill, Op.BAND: _band, Op.WAIT: _wait}
"""What says a command of a layer in a sentence."""
