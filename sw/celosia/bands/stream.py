"""The stream of a network: control words, weight entries, and the order in which they are read."""

from collections.abc import Iterable, Sequence

import numpy as np

from celosia.bands.batches import Batches, batches
from celosia.bands.entries import Stream, command, controls, table
from celosia.bands.layouts import Band, Lines, Rectangle, Spread, joined, rectangles
from celosia.bands.plan import Layer
from celosia.bands.regions import Region
from celosia_spec.block import floor_log2
from celosia_spec.floats import to_odd
from celosia_spec.isa import EXPONENT_MAX, EXPONENT_MIN, SIGNIFICAND_BITS
from celosia_spec.qgraph import QGraph, QNode
from celosia_spec.stream.array import EDGE, ENTRY_WORDS, Array
from celosia_spec.stream.controls import Op
from celosia_spec.stream.fills import Fill
from celosia_spec.stream.words import tap_word, tile_words


def weights(graph: QGraph, layers: Sequence[Layer], array: Array) -> list[list[Batches]]:
    """Return the batches of each layer's parts."""
    return [[batches(graph, layer, part, array) for part in layer.parts] for layer in layers]


def stream(graph: QGraph, layers: Sequence[Layer], made: Sequence[Sequence[Batches]],
           places: dict[str, Region], slots: dict[str, int], reads: dict[str, int],
           array: Array) -> Stream:
    """Return the stream of a network.

    made : the layers' `weights`.   places : region of every tensor.   slots : its exponent's.
    reads : of what each node reads.   How long it is depends on none of the last three.
    """
    found = Stream()
    for layer, parts in zip(layers, made, strict=True):
        _layer(found, graph, layer, parts, places, slots, reads[layer.node.name], array)
    found.read(found.add(controls(command(Op.HALT))))
    return found


def _layer(out: Stream, graph: QGraph, layer: Layer, made: Sequence[Batches],
           places: dict[str, Region], slots: dict[str, int], read: int, array: Array) -> None:
    tiles, words = _tiles(layer, array)
    before = (table(Op.TAPS, [tap_word(array).pack(row=row % array.bank_rows, rotation=bank,
                                                   mask=mask)
                              for row, bank, mask in layer.layout.taps()])
              + table(Op.TILES, words) + _join(layer.node, slots, read)
              + _fields(graph, layer, places, slots, read, array))
    bands = layer.bands
    base = [index % 2 * layer.layout.rows * layer.double for index in range(len(bands))]
    fills = [controls(_fills(graph, layer, band, row, places, read, array))
             for band, row in zip(bands[1:], base[1:], strict=True)]
    out.read(out.add(controls(before + _fills(graph, layer, bands[0], 0, places, read, array))))
    width, wide = graph.tensors[layer.node.output].shape[2], places[layer.node.output].wide
    at = 0
    for part, own in zip(layer.parts, made, strict=True):
        chunk = None
        for band in part.bands:
            begin = band.line * width << wide
            out.read(out.add(controls(command(
                Op.BAND, row=base[at], tile=tiles[band.lines][0],
                last_tile=tiles[band.lines][1] - 1, position=begin))))
            if chunk is None:
                chunk = out.add(own.entries(graph, layer.node, part, places[layer.node.output],
                                            array))
            # The next band is filled from this one's first batch on: it has the other's banks.
            out.read((chunk[0], own.first))
            if at + 1 < len(bands):
                out.read(out.add(fills[at]))
            out.read((chunk[0] + own.first, chunk[1] - own.first))
            at += 1
    out.read(out.add(controls(_close(graph, layer.node, slots, read))))


def _tiles(layer: Layer, array: Array) -> tuple[dict[int, tuple[int, int]], list[int]]:
    """Return (first word, tiles) of bands by their lines, and the words of the tile table."""
    first, starts, written = tile_words(array)
    groups = 1 << layer.log2_groups
    words: list[int] = []
    places = {}
    for lines in sorted({band.lines for band in layer.bands}):
        tiles = layer.layout.tiles(lines)
        places[lines] = len(words), len(tiles)
        begins = tiles.begins
        words += np.stack([
            first.pack(row=tiles.rows, before=_bits(begins[:, EDGE - 1::-1]),
                       behind=_bits(begins[:, -EDGE:])),
            starts.pack(starts=_bits(np.tile(begins[:, EDGE:-EDGE], groups))),
            written.pack(written=_bits(np.tile(tiles.written, groups)))], axis=1).ravel().tolist()
    return places, words


def _bits(bits: np.ndarray) -> np.ndarray:
    """Return bools (words, bits), the lowest bit first, as int64 (words,)."""
    found: np.ndarray = (bits << np.arange(bits.shape[1])).sum(axis=1)
    return found


def _join(node: QNode, slots: dict[str, int], read: int) -> list[int]:
    """Return what sets the exponent of a reading of several tensors."""
    first, *others = (slots[name] for name in node.inputs)
    words = []
    for other in others:
        words += command(Op.JOIN, slot=read, first=first, second=other, least=node.least,
                         most=EXPONENT_MAX)
        first = read
    return words


def _close(graph: QGraph, node: QNode, slots: dict[str, int], read: int) -> list[int]:
    """Return what gives the output its exponent."""
    rule, slot = graph.tensors[node.output].exponent, slots[node.output]
    if rule.keeps is not None:
        return command(Op.JOIN, slot=slot, first=read, second=read, least=EXPONENT_MIN,
                       most=EXPONENT_MAX)
    if rule.fixed is not None:
        return command(Op.CLOSE, slot=slot, least=rule.fixed, most=rule.fixed)
    return command(Op.CLOSE, slot=slot, least=rule.least, most=EXPONENT_MAX)


def _fields(graph: QGraph, layer: Layer, places: dict[str, Region], slots: dict[str, int],
            read: int, array: Array) -> list[int]:
    node = layer.node
    source, result = graph.tensors[node.input], graph.tensors[node.output]
    add, pool = node.epilogue.add, node.epilogue.pool
    activation = node.epilogue.activation
    high = activation.bounds[1]
    clamped = activation.clamps
    wide = places[node.output].wide
    values = {
        "log2_groups": layer.log2_groups, "signed_in": source.signed,
        "signed_out": result.signed, "relu": activation.bounds[0] == 0, "wide": wide,
        "clamp": clamped, "in_slot": read,
        "rows": (layer.layout.channels if isinstance(layer.layout, Lines) else 1)
        % array.bank_rows,
    }
    if pool is not None:
        phases = pool.window[0] * pool.window[1]
        values |= {"last_phase": phases - 1,
                   "tap_step": len(layer.layout.taps()) // phases % array.taps}
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
    return command(Op.LAYER, **{name: int(value) for name, value in values.items()})


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
    return [word for record in fill.records(array) for word in command(Op.FILL, **record)]


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
