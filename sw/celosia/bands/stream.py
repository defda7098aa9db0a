"""The stream of a network: control words, weight entries, and the order in which they are read."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from celosia.bands.layouts import Band, Lines, Rectangle, Spread, joined, rectangles
from celosia.bands.plan import Layer, Part
from celosia.bands.regions import Region
from celosia.emit.weight_stream import encode
from celosia_spec.block import floor_log2
from celosia_spec.floats import to_odd
from celosia_spec.isa import EXPONENT_MAX, SIGNIFICAND_BITS, ArrayConfig
from celosia_spec.qgraph import QGraph, QNode
from celosia_spec.stream.array import CONTROL_BITS, EDGE, ENTRY_WORDS, Array
from celosia_spec.stream.controls import (
    BATCH,
    CHUNK,
    COMMAND,
    EXCESS,
    HEAD,
    RECORDS,
    Op,
    Rule,
)
from celosia_spec.stream.fills import Fill
from celosia_spec.stream.words import TILE_WORDS, tap_word, tile_words

NOTHING = COMMAND.pack(command=1, op=Op.WAIT, argument=0)
"""A command that does nothing: what an entry of control words is filled with."""


@dataclass
class Stream:
    """Entries as they stand in main memory, and the chunks in which they are read.

    entries : ints of 64 bits.   chunks : (first entry, entries), in reading order.
    """

    entries: list[int] = field(default_factory=list)
    chunks: list[tuple[int, int]] = field(default_factory=list)

    def add(self, entries: Iterable[int]) -> tuple[int, int]:
        """Add entries, and return the chunk that they are."""
        first = len(self.entries)
        self.entries.extend(entries)
        return first, len(self.entries) - first

    def list_of_chunks(self) -> list[int]:
        """Return the words that tell the fetcher what to read."""
        final = len(self.chunks) - 1
        return [CHUNK.pack(first=first, last=first + count - 1, final=int(place == final))
                for place, (first, count) in enumerate(self.chunks)]

    def read(self, chunk: tuple[int, int]) -> None:
        """Read a chunk next; one that follows the last one in memory is read with it."""
        if self.chunks and sum(self.chunks[-1]) == chunk[0]:
            self.chunks[-1] = self.chunks[-1][0], self.chunks[-1][1] + chunk[1]
        else:
            self.chunks.append(chunk)


def stream(graph: QGraph, layers: list[Layer], places: dict[str, Region], slots: dict[str, int],
           reads: dict[str, int], array: Array) -> Stream:
    """Return the stream of a network.

    places : region of every tensor.   slots : its exponent's.   reads : of what each node reads.
    """
    found = Stream()
    for layer in layers:
        _layer(found, graph, layer, places, slots, reads[layer.node.name], array)
    found.read(found.add(_entries(_command(Op.HALT))))
    return found


def _layer(out: Stream, graph: QGraph, layer: Layer, places: dict[str, Region],
           slots: dict[str, int], read: int, array: Array) -> None:
    tiles, table = _tiles(layer, array)
    before = (_table(Op.TAPS, [tap_word(array).pack(row=row % array.bank_rows, rotation=bank,
                                                    mask=mask)
                               for row, bank, mask in layer.layout.taps()])
              + _table(Op.TILES, table) + _join(layer.node, slots, read)
              + _fields(graph, layer, places, slots, read))
    bands = layer.bands
    base = [index % 2 * layer.layout.rows * layer.double for index in range(len(bands))]
    fills = [_fills(graph, layer, band, row, places, read, array)
             for band, row in zip(bands, base, strict=True)]
    out.read(out.add(_entries(before + fills[0])))
    width, wide = graph.tensors[layer.node.output].shape[2], places[layer.node.output].wide
    at = 0
    for part in layer.parts:
        batches: list[tuple[int, int]] = []
        for band in part.bands:
            begin = band.line * width << wide
            out.read(out.add(_entries(_band(base[at], tiles[band.lines], begin))))
            batches = batches or [out.add(batch) for batch in
                                  _batches(graph, layer, part, places, array)]
            # The next band is filled from this one's first batch on: it has the other's banks.
            out.read(batches[0])
            if at + 1 < len(bands):
                out.read(out.add(_entries(fills[at + 1])))
            for batch in batches[1:]:
                out.read(batch)
            at += 1
    out.read(out.add(_entries(_command(Op.CLOSE))))


def _entries(words: list[int]) -> list[int]:
    """Return control words as entries, the last one filled up."""
    words = words + [NOTHING] * (-len(words) % ENTRY_WORDS)
    return [_entry(words[at:at + ENTRY_WORDS]) for at in range(0, len(words), ENTRY_WORDS)]


def _entry(words: list[int]) -> int:
    assert all(0 <= word < 1 << CONTROL_BITS for word in words)
    return sum(int(word) << 16 * place for place, word in enumerate(words))


def _command(op: Op, **fields: int) -> list[int]:
    record = RECORDS.get(op)
    return _told(op, record.pack(**fields) if record else [])


def _table(op: Op, words: list[int]) -> list[int]:
    return _told(op, [*RECORDS[op].pack(place=0), *words]) if words else []


def _told(op: Op, words: list[int]) -> list[int]:
    return [COMMAND.pack(command=1, op=op, argument=len(words)), *words]


def _tiles(layer: Layer, array: Array) -> tuple[dict[int, tuple[int, int]], list[int]]:
    """Return (first word, tiles) of bands by their lines, and the words of the tile table."""
    first, starts, written = tile_words(array)
    groups = 1 << layer.log2_groups
    words: list[int] = []
    places = {}
    for lines in sorted({band.lines for band in layer.bands}):
        begin = len(words)
        for row, begins, kept in _tiles_of(layer, lines):
            bits = [int(bit) for bit in begins]
            words += [first.pack(row=row, before=_bits(bits[EDGE - 1::-1]),
                                 behind=_bits(bits[-EDGE:])),
                      starts.pack(starts=_bits(bits[EDGE:-EDGE] * groups)),
                      written.pack(written=_bits([*kept] * groups))]
        places[lines] = begin, (len(words) - begin) // TILE_WORDS
    return places, words


def _tiles_of(layer: Layer, lines: int) -> Iterable[tuple[int, np.ndarray, np.ndarray]]:
    if isinstance(layer.layout, Lines):
        return layer.layout.tiles(lines)
    lanes = np.arange(layer.layout.size)
    return [(0, np.zeros(len(lanes) + 2 * EDGE, bool), lanes == 0)]


def _bits(bits: Iterable[int]) -> int:
    return sum(int(bit) << place for place, bit in enumerate(bits))


def _join(node: QNode, slots: dict[str, int], read: int) -> list[int]:
    """Return what sets the exponent of a reading of several tensors."""
    first, *others = (slots[name] for name in node.inputs)
    words = []
    for other in others:
        words += _command(Op.JOIN, slot=read, first=first, second=other, least=node.least)
        first = read
    return words


def _fields(graph: QGraph, layer: Layer, places: dict[str, Region], slots: dict[str, int],
            read: int) -> list[int]:
    node = layer.node
    source, result = graph.tensors[node.input], graph.tensors[node.output]
    add, pool, rule = node.epilogue.add, node.epilogue.pool, result.exponent
    activation = node.epilogue.activation
    high = activation.bounds[1]
    clamped = activation.clamps
    wide = places[node.output].wide
    kind = (Rule.KEPT if rule.keeps is not None else
            Rule.DYNAMIC if rule.fixed is None else Rule.STATIC)
    values = {
        "log2_groups": layer.log2_groups, "signed_in": source.signed,
        "signed_out": result.signed, "relu": activation.bounds[0] == 0, "wide": wide,
        "clamp": clamped, "rule": kind, "in_slot": read,
        "out_slot": slots[node.output], "least": rule.least, "exponent": EXPONENT_MAX,
        "rows": layer.layout.channels if isinstance(layer.layout, Lines) else 1,
    }
    if pool is not None:
        phases = pool.window[0] * pool.window[1]
        values |= {"last_phase": phases - 1, "tap_step": len(layer.layout.taps()) // phases}
    if rule.fixed is not None:
        values["exponent"] = rule.fixed
    if clamped:         # what is beyond the bound is not written: no exponent is above the bound's
        exponent = int(floor_log2(np.array(high)))
        unit = exponent - (SIGNIFICAND_BITS - 2)
        values["bound"] = int(to_odd(np.array([int(high * 2.0 ** -unit)]), unit,
                                     signed=result.signed)[0])
    if add is not None:
        other = places[add]
        values |= {"residual": 1, "residual_slot": slots[add],
                   "residual_signed": graph.tensors[add].signed,
                   "residual_from": other.word - (places[node.output].word >> wide) & 0xFFFF}
    return _command(Op.LAYER, **{name: int(value) for name, value in values.items()})


def _fills(graph: QGraph, layer: Layer, band: Band, row: int, places: dict[str, Region],
           read: int, array: Array) -> list[int]:
    node, layout = layer.node, layer.layout
    source = joined(graph, node)
    common = {"slot": read, "signed": int(source.signed),
              "log2_groups": layer.log2_groups}
    if isinstance(layout, Spread):
        return _filled(array, Fill(**common, word=places[node.input].word, run=layout.elements,
                                   row=row, rows=1))
    words = []
    for fill in rectangles(layout, source, band):
        parts = [(0, fill.channels, 0, 0)] if fill.zero else _parts(graph, node, band, places)
        for begin, channels, word, plane in parts:
            words += _filled(array, Fill(
                **common, **_places(layout, fill, row + begin), zero=int(fill.zero),
                only=int(fill.only), step_x=fill.step[0], step_y=fill.step[1],
                phase_x=fill.phase[0], phase_y=fill.phase[1], word=word, element=fill.element,
                plane=plane, channels=channels, run=fill.run, lines=fill.lines, pitch=fill.pitch,
                rows=layout.channels))
    return words


def _filled(array: Array, fill: Fill) -> list[int]:
    return [word for record in fill.records(array) for word in _command(Op.FILL, **record)]


def _parts(graph: QGraph, node: QNode, band: Band,
           places: dict[str, Region]) -> Iterable[tuple[int, int, int, int]]:
    """Yield what of each map a band holds: (its first channel there, channels, where the first one
    lies, words from one to the next)."""
    before = 0
    for name in node.inputs:
        count, place = graph.tensors[name].shape[0], places[name]
        first = max(band.channel, before)
        channels = min(band.channel + band.channels, before + count) - first
        if channels > 0:
            plane = place.stride // ENTRY_WORDS
            yield first - band.channel, channels, place.word + (first - before) * plane, plane
        before += count


def _places(layout: Lines, fill: Rectangle, row: int) -> dict[str, int]:
    """Return the positions of a fill as bank rows and banks."""
    found: dict[str, int] = {}
    for name, position, begin in (("", fill.position, row), ("plane_x_", fill.plane_x, 0),
                                  ("plane_y_", fill.plane_y, 0), ("line_", fill.line, 0)):
        rows, bank = layout.place(position)
        found |= {f"{name}row": rows + begin, f"{name}bank": bank}
    return found


def _band(row: int, tiles: tuple[int, int], position: int) -> list[int]:
    return _command(Op.BAND, row=row, tile=tiles[0], last_tile=tiles[1] - 1, position=position)


def _batches(graph: QGraph, layer: Layer, part: Part, places: dict[str, Region],
             array: Array) -> Iterable[list[int]]:
    """Yield the entries of each of a part's batches: heads and weights."""
    node, groups = layer.node, layer.groups
    own = np.sort(part.rows[part.rows >= 0])
    words = encode(node.matrix[own], layer.index,
                   np.where(part.rows < 0, -1, np.searchsorted(own, part.rows)), part.steps,
                   groups, ArrayConfig(lanes=array.lanes))
    sums = np.asarray(node.matrix.astype(np.int64).sum(axis=1)).ravel()
    begin = 0
    for batch, count in enumerate(part.steps.tolist()):
        heads = []
        for row in part.rows[batch * groups:(batch + 1) * groups].tolist():
            heads += _head(graph, node, row, places[node.output],
                           int(sums[row]) << array.activation_bits - 1)
        rows = part.rows[batch * groups:(batch + 1) * groups]
        own_words = words[begin:begin + count * groups]
        begin += count * groups
        dense = int(part.dense[batch])
        if dense:
            own_words = _dense(node, layer.index, rows, count)
        found: list[int] = []
        longest = part.longest * ENTRY_WORDS * (1 + dense) // groups
        for at in range(0, count, longest):
            steps = min(count - at, longest)
            word = BATCH.pack(steps=steps, dense=dense, joins=int(at > 0),
                              open=int(at + steps < count))
            found += _entries([word] if at else [word, *heads])
            found += _weights(own_words[at * groups >> dense:
                                        -(-(at + steps) >> dense) * groups].tolist())
        yield found


def _dense(node: QNode, index: np.ndarray, rows: np.ndarray, columns: int) -> np.ndarray:
    """Return the words of a batch of dense8: a step is a column, and two steps of a row a word."""
    mantissas = np.zeros((columns + columns % 2, len(rows)), np.int64)
    for group, row in enumerate(rows.tolist()):
        if row >= 0:
            begin, end = node.matrix.indptr[row:row + 2]
            mantissas[index[node.matrix.indices[begin:end]], group] = node.matrix.data[begin:end]
    low, high = mantissas[::2] & 0xFF, mantissas[1::2] & 0xFF
    return (low | high << 8).ravel()


def _weights(words: list[int]) -> list[int]:
    words = words + [0] * (-len(words) % ENTRY_WORDS)
    return [_entry(words[at:at + ENTRY_WORDS]) for at in range(0, len(words), ENTRY_WORDS)]


def _head(graph: QGraph, node: QNode, row: int, place: Region, excess: int) -> list[int]:
    real = row >= 0
    word, element = divmod(place.element(row), ENTRY_WORDS) if real else (0, 0)
    words = HEAD.pack(bias=int(node.bias[row]) if real else 0, sw=int(node.sw[row]) if real else 0,
                      sb=int(node.sb[row] - node.sw[row]) if real else 0, element=element,
                      real=int(real), word=word)
    if graph.tensors[node.input].signed:
        excess = excess if real else 0
        words += EXCESS.pack(low=excess & 0xFFFF, high=excess >> 16)
    return words
