"""Records of fills: what of which map goes to the banks for a band."""

from collections.abc import Iterable, Mapping

from celosia.bands.layouts import Band, Lines, Rectangle, Spread, joined, rectangles
from celosia_spec.qgraph import QGraph, QNode
from celosia_spec.stream.array import ENTRY_WORDS, Array
from celosia_spec.stream.fills import Fill

Place = tuple[int, int]
"""The word in which a map begins, and the elements from a channel to the next."""


def records(graph: QGraph, node: QNode, layout: Lines | Spread, band: Band,
            places: Mapping[str, Place], array: Array, *, log2_groups: int,
            slot: int) -> list[dict[str, int]]:
    """Return the records of a band's fills. How many they are, and how long they take, does not
    depend on the words in which maps begin, nor on the slot."""
    source = joined(graph, node)
    common = {"slot": slot, "signed": int(source.signed), "log2_groups": log2_groups}
    if isinstance(layout, Spread):
        return Fill(**common, word=places[node.input][0], run=layout.elements, row=band.stretch.row,
                    rows=1).records(array)
    found = []
    for fill in rectangles(layout, source, band.stretch, band.begin, band.end):
        parts = ([(0, fill.channels, 0, 0)] if fill.zero
                 else _parts(graph, node, band, places))
        for begin, channels, word, plane in parts:
            found += Fill(
                **common, **_places(layout, fill, band.stretch.row + begin), zero=int(fill.zero),
                only=int(fill.only), step_x=fill.step, phase_x=fill.phase, word=word,
                element=fill.element, plane=plane, channels=channels, run=fill.run,
                lines=fill.lines, pitch=fill.pitch, rows=layout.channels).records(array)
    return found


def _parts(graph: QGraph, node: QNode, band: Band,
           places: Mapping[str, Place]) -> Iterable[tuple[int, int, int, int]]:
    """Yield what of each map a band holds: (its first channel there, channels, where the first one
    lies, words from one to the next)."""
    before, stretch = 0, band.stretch
    for name in node.inputs:
        count, (word, stride) = graph.tensors[name].shape[0], places[name]
        first = max(stretch.channel, before)
        channels = min(stretch.channel + stretch.channels, before + count) - first
        if channels > 0:
            plane = stride // ENTRY_WORDS
            yield first - stretch.channel, channels, word + (first - before) * plane, plane
        before += count


def _places(layout: Lines, fill: Rectangle, row: int) -> dict[str, int]:
    """Return the positions of a fill as bank rows and banks."""
    found: dict[str, int] = {}
    for name, position, begin in (("", fill.position, row), ("plane_x_", fill.plane_x, 0),
                                  ("line_", fill.line, 0)):
        rows, bank = layout.place(position)
        found |= {f"{name}row": rows + begin, f"{name}bank": bank}
    return found
