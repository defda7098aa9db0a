"""Records of fills: what of which map goes to the banks for a band."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from celosia.bands.layouts import Band, Lines, joined
from celosia.bands.rectangles import Rectangle, addend, rectangles
from celosia.bands.spreads import Spread, Vector
from celosia_spec.isa.array import ENTRY_WORDS, Array
from celosia_spec.isa.fills import Fill, cycles
from celosia_spec.qgraph import QGraph, QNode

MOST_APART = 64
"""Most channels from one to the next in a fill."""


@dataclass(frozen=True)
class Place:
    """Where what a node reads lies.

    word : in which the map begins.   stride : elements from a channel to the next.
    line : of the map, at which it begins.   lines : of the map, behind which its first one comes
    again; 0 where none does.
    """

    word: int
    stride: int
    line: int = 0
    lines: int = 0

    def pieces(self, fill: Rectangle, width: int) -> Iterator[Rectangle]:
        """Yield a fill of lines of what is read as fills of the map, whose lines have so many
        elements."""
        total, at = self.lines * width, fill.element + self.line * width
        if not total:
            yield fill if at == fill.element else replace(fill, element=at)
        elif fill.lines == 1:
            done = 0
            while done < fill.run:
                begin = (at + done) % total
                run = min(fill.run - done, total - begin)
                yield replace(fill, element=begin, run=run, position=fill.position + done)
                done += run
        else:
            done = 0
            while done < fill.lines:
                begin = (at + done * fill.pitch) % total
                lines = min(fill.lines - done, -(-(total - begin) // fill.pitch))
                yield replace(fill, element=begin, lines=lines,
                              position=fill.position + done * fill.line)
                done += lines


def records(graph: QGraph, node: QNode, layout: Lines | Spread, band: Band,
            places: Mapping[str, Place], array: Array, *, log2_groups: int) -> list[dict[str, int]]:
    """Return the records of a band's fills. How many they are, and how long they take, does not
    depend on the words in which maps begin."""
    source, add = joined(graph, node), node.epilogue.add
    common = {"signed": int(source.signed), "log2_groups": log2_groups, "rows": layout.depth}
    other = dict(common)
    if add is not None:
        other |= {"signed": int(graph.tensors[add].signed), "residual": 1}
    if isinstance(layout, Spread):
        return _whole(layout, band, node, places, common, other, array)
    made = [part for fill in rectangles(layout, band.stretch, band.begin, band.end)
            for part in _pieces(fill, array.bank_rows)]

    def of(fill: Rectangle, begin: int, channels: int, word: int, plane: int, apart: int = 1,
           common: dict[str, int] = common) -> Fill:
        return Fill(
            **common, **_places(layout, fill, band.stretch.row + begin), zero=int(fill.zero),
            only=int(fill.only), step_x=fill.step, phase_x=fill.phase, word=word,
            element=fill.element, plane=plane * apart, channels=channels, channel_rows=apart,
            run=fill.run, lines=fill.lines, pitch=fill.pitch)
    zeros: list[dict[str, int]] = []
    covered = False
    for alike in _groups(layout, [fill for fill in made if fill.zero]):
        own = [record for fill in alike
               for record in of(fill, 0, fill.channels, 0, 0).records(array)]
        if (block := _block(layout, band, alike)) is not None:
            first, last = block
            whole = Fill(**common | {"rows": 1}, zero=1, row=band.stretch.row + first,
                         run=(last - first) * layout.size).records(array)
            own = min(own, whole, key=lambda records: _takes(records, array))
            covered |= own is whole
        zeros += own
    width = graph.tensors[node.input].shape[2]
    found = [record for fill in made if not fill.zero
              for part, place in _parts(graph, node, band, places, fill.moved)
              for piece in place.pieces(fill, width)
              for record in of(piece, *part).records(array)]
    added = addend(layout, band.stretch, band.begin, band.end)
    if add is not None and added is not None:
        place = places[add]
        plane = place.stride // ENTRY_WORDS
        word = place.word + band.stretch.added * plane
        found += [record for fill in _pieces(added, array.bank_rows)
                  for piece in place.pieces(fill, graph.tensors[add].shape[2])
                  for record in of(piece, layout.operand, piece.channels, word, plane,
                                   common=other).records(array)]
    # The longest first: what is read, but where zeros cover its place.
    return zeros + found if covered else found + zeros


def _whole(layout: Spread, band: Band, node: QNode, places: Mapping[str, Place],
           common: dict[str, int], other: dict[str, int], array: Array) -> list[dict[str, int]]:
    """Return the records of a layer that looks at its whole input; none where it is there."""
    if band.begin == band.end:
        return []
    row, source, operand = band.stretch.row, layout.source, layout.operand
    if layout.page:
        return [page_record(layout, page, places[node.input].word, array,
                            signed=bool(common["signed"]), log2_groups=common["log2_groups"])
                for page in range(2)]
    row, source, operand = band.stretch.row, layout.source, layout.operand
    found = _side_by_side(replace(source, channels=band.stretch.channels), Fill(
        **common, word=places[node.input].word, row=row, run=0,
        element=band.stretch.channel * source.stride), array)
    if operand is not None and node.epilogue.add is not None:
        place = places[node.epilogue.add]       # of one line of one element
        found += _side_by_side(replace(operand, channels=band.stretch.addends), Fill(
            **other, word=place.word, row=row + operand.row, run=0,
            element=band.stretch.added * operand.stride + place.line), array)
    return found


def _side_by_side(vector: Vector, fill: Fill, array: Array) -> list[dict[str, int]]:
    """Return the records of a map's elements from where a fill begins, as they lie: as one line,
    or, where there are gaps between channels, one of each: what other maps have left in gaps must
    not be clipped."""
    if vector.stride == vector.positions or vector.channels == 1:
        return replace(fill, run=vector.channels * vector.positions).records(array)
    found = []
    for first in range(0, vector.channels, array.bank_rows):
        rows, bank = vector.place(first * vector.stride)
        line_row, line_bank = vector.place(vector.stride)
        found += replace(
            fill, run=vector.positions, lines=min(array.bank_rows, vector.channels - first),
            pitch=vector.stride, element=fill.element + first * vector.stride, row=fill.row + rows,
            bank=bank, line_row=line_row, line_bank=line_bank).records(array)
    return found


def page_record(layout: Spread, page: int, word: int, array: Array, *, signed: bool,
                log2_groups: int) -> dict[str, int]:
    """Return the record that fills a page.

    word : where the input begins.   signed : its elements have signs.
    """
    vector = layout.held(page)
    record, = _side_by_side(vector, Fill(
        signed=int(signed), log2_groups=log2_groups, rows=layout.depth, word=word,
        element=int(layout.begins[page]), row=vector.row, run=0), array)
    return record


def _pieces(fill: Rectangle, most: int) -> Iterable[Rectangle]:
    """Yield a fill in pieces of as many lines as a record may have."""
    if fill.lines <= most:
        yield fill
        return
    for first in range(0, fill.lines, most):
        yield replace(fill, lines=min(most, fill.lines - first),
                      position=fill.position + first * fill.line,
                      element=fill.element + first * fill.pitch)


def _takes(records: list[dict[str, int]], array: Array) -> int:
    return sum(cycles(record, array) for record in records)


def _groups(layout: Lines, zeros: list[Rectangle]) -> list[list[Rectangle]]:
    """Return zeros by the position groups that they lie in: those that share one are together."""
    found: list[list[Rectangle]] = []
    end = -1
    for fill in sorted(zeros, key=lambda fill: fill.position):
        first, last = fill.position // layout.size, _last(fill) // layout.size
        if first > end:
            found.append([])
        found[-1].append(fill)
        end = max(end, last)
    return found


def _last(fill: Rectangle) -> int:
    """Return the last position of a rectangle."""
    return fill.position + (fill.lines - 1) * fill.line + fill.run - 1


def _block(layout: Lines, band: Band, zeros: list[Rectangle]) -> tuple[int, int] | None:
    """Return whole bank rows, from the first to before the last one, that hold these zeros and
    nothing else that was filled before; what is filled with them comes behind them. None where
    there are none."""
    if band.begin and not layout.grid.single:
        return None
    first = zeros[0].position // layout.size
    last = max(map(_last, zeros)) // layout.size
    if band.begin and first * layout.size < layout.grid.before + band.begin * layout.grid.pitch:
        return None
    return first * layout.depth, (last + 1) * layout.depth


def _parts(graph: QGraph, node: QNode, band: Band, places: Mapping[str, Place],
           moved: tuple[int, ...]) -> Iterable[tuple[tuple[int, int, int, int, int], Place]]:
    """Yield what of each map a band holds: (its first channel there, channels, where the first one
    lies, words from a channel of the map to the next, channels from one to the next), and the map's
    place.   moved : as a `Rectangle` has it."""
    before, stretch = 0, band.stretch
    end = stretch.channel + stretch.channels
    for name in node.inputs:
        count, place = graph.tensors[name].shape[0], places[name]
        plane = place.stride // ENTRY_WORDS
        for first, channels, source, apart in channel_runs(
                moved or None, stretch.channel, end, before, before + count):
            yield (first - stretch.channel, channels, place.word + (source - before) * plane, plane,
                   apart), place
        before += count


@lru_cache(maxsize=1 << 12)
def channel_runs(moved: tuple[int, ...] | None, begin: int, end: int, low: int,
                 high: int) -> list[tuple[int, int, int, int]]:
    """Return the channels from one until another whose elements are of channels ``low`` to before
    ``high``, as few runs: (the first one, how many, where that is filled from, channels from one to
    the next, there and here).   moved : as a `Rectangle` has it; None: none is."""
    if moved is None:
        first = max(begin, low)
        return [(first, min(end, high) - first, first, 1)] if first < min(end, high) else []
    found = []
    moves: dict[int, list[int]] = {}
    for channel, source in enumerate(moved[begin:end], begin):
        if low <= source < high:
            moves.setdefault(channel - source, []).append(channel)
    for distance, own in sorted(moves.items()):
        there = frozenset(own)
        apart = min(range(1, MOST_APART + 1),
                    key=lambda apart: sum(channel - apart not in there for channel in own))
        found += [(first, count, first - distance, apart)
                  for first, count in _progressions(own, apart)]
    return found


def _progressions(numbers: Sequence[int], apart: int) -> list[tuple[int, int]]:
    """Return rising numbers as runs of such that are so far apart: (first, count)."""
    counts: dict[int, int] = {}     # by the first one
    first_of: dict[int, int] = {}
    for number in numbers:
        first = first_of[number] = first_of.get(number - apart, number)
        counts[first] = counts.get(first, 0) + 1
    return sorted(counts.items(), key=lambda run: (run[0] % apart, run[0]))


def _places(layout: Lines, fill: Rectangle, row: int) -> dict[str, int]:
    """Return the positions of a fill as bank rows and banks."""
    found: dict[str, int] = {}
    for name, position, begin in (("", fill.position, row), ("plane_x_", fill.plane_x, 0),
                                  ("line_", fill.line, 0)):
        rows, bank = layout.place(position)
        found |= {f"{name}row": rows + begin, f"{name}bank": bank}
    return found
