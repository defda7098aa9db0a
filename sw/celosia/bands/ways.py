"""The ways in which a layer can run: its row groups, layouts in the banks, bands and batches."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import product

from celosia.bands.banding import Banding, bandings
from celosia.bands.counting import Way, Work
from celosia.bands.grid import NONE, Grid
from celosia.bands.layouts import Band, Lines, Stretch, is_depthwise, is_vector, joined, tap_words
from celosia.bands.pages import page_of, piece_steps, words_held
from celosia.bands.shares import shares_of
from celosia.bands.spreads import Spread, Vector
from celosia.bands.works import longest_batch, works_of
from celosia_spec.isa.array import RING_GAP, Array
from celosia_spec.isa.controls import head_words
from celosia_spec.isa.words import BLOCK
from celosia_spec.qgraph import QGraph, QNode, QTensor, as_made
from celosia_spec.steps import Ring, stored_name

GRIDS = ((False, False, False, False), (True, False, False, False), (False, True, False, False),
         (False, False, True, False), (True, False, True, False), (False, False, False, True))
"""Grids that are tried: lines begin on multiples of P', they are filled up with zeros, the grid is
dense, all planes of columns are stored."""

REACH = 16 * BLOCK
"""Column indices that a residual operand's step reaches."""


def ways_of(graph: QGraph, node: QNode, array: Array, log2: int,
            apart: dict[str, int]) -> Iterator[Way]:
    """Yield the ways of a node with 2^log2 row groups that the array's banks and tables hold.

    apart : `strides` of the graph.
    """
    source, result = joined(graph, node), as_made(graph.tensors, node)
    size, depthwise = array.positions(log2), is_depthwise(node, source, result)
    adds = node.epilogue.add is not None
    if is_vector(node, source, result):
        for channels, addends in _held(source, result, apart[node.epilogue.add or node.input], log2,
                                       depthwise=depthwise, adds=adds)[::-1 if depthwise else 1]:
            spread = spread_of(graph, node, apart, size, channels, addends)
            if spread.rows <= array.bank_rows and tap_words(spread.phases()) <= array.taps:
                yield _spread_way(graph, node, array, log2, spread)
                break
        else:
            if (way := paged_way(graph, node, array, log2, apart)) is not None and (
                    held_words(graph, node, array, way) <= most_held(array)):
                yield way
        if not depthwise or apart[node.input] == 1:
            return
    works: dict[tuple[int, int], list[Work]] = {}
    seen = set()
    masked = any(mask for taps in Grid.of(node, source, result, fill=array.unit).taps(1)
                 for _, mask in taps)
    for around, (multiple, filled, dense, every) in product(_arounds(graph, node), GRIDS):
        if dense and adds:              # what is added lies as the outputs do, without gaps
            continue
        grid = Grid.of(node, source, result, fill=array.unit, multiple=size if multiple else 1,
                       filled=filled, dense=dense, whole=every, around=around)
        # Without masks nothing has to be filled.
        key = replace(grid, filled=filled and masked)
        if key in seen:
            continue
        seen.add(key)
        for channels, addends in _held(source, result, 1, log2, depthwise=depthwise, adds=adds):
            for layout, lines in _layouts(grid, array, size, channels, addends):
                held = channels, addends
                if held not in works:
                    works[held] = works_of(graph, node, array, log2, layout)
                longest = max(work.longest for work in works[held])
                single = longest > longest_batch(array, single=False)
                if single and node.epilogue.pool is not None:
                    continue        # what the ring does not hold is cut, and has one pass
                for banding in bandings(layout, array, lines, shares_of(graph, node, layout),
                                        single=single):
                    yield Way(log2_groups=log2, works=works[held], banding=banding)


def paged_way(graph: QGraph, node: QNode, array: Array, log2: int,
              apart: dict[str, int]) -> Way | None:
    """Return the way in which a node's whole input goes through the banks page by page; None where
    there is none, as not all rows read all of it, something is added, or the output moves from step
    to step.

    apart : `strides` of the graph.
    """
    source, result = joined(graph, node), as_made(graph.tensors, node)
    if (is_depthwise(node, source, result) or node.epilogue.add is not None
            or isinstance(result, Ring)):
        return None
    size = array.positions(log2)
    page = page_of(array, size)
    return _spread_way(graph, node, array, log2, replace(
        spread_of(graph, node, apart, size, source.shape[0], 0),
        page=page, copies=array.taps * BLOCK // (2 * page)))


def held_words(graph: QGraph, node: QNode, array: Array, way: Way) -> int:
    """Return the words of the controls' ring that the longest batch of a `paged_way` holds."""
    work, = way.works
    heads = head_words(array, signed_in=graph.tensors[node.input].signed) << way.log2_groups
    longest = piece_steps(longest_batch(array, single=True), work.dense, 1 << way.log2_groups)
    return words_held(way.layout, work.page_steps, longest, heads)


def most_held(array: Array) -> int:
    """Return the words of the controls' ring that a batch may hold."""
    return array.controls - RING_GAP


def _arounds(graph: QGraph, node: QNode) -> list[int]:
    """Return the lines of the ring that a node may read as it lies, and 0. Where there is one line
    of results, taps can find each line of its input wherever it is."""
    ring = graph.tensors[stored_name(graph.tensors, node.input)]
    lone = (not node.joins and node.epilogue.add != node.input
            and as_made(graph.tensors, node).shape[1] == 1)
    return [ring.lines, 0] if isinstance(ring, Ring) and lone else [0]


def _held(source: QTensor, result: QTensor, stride: int, log2: int, *, depthwise: bool,
          adds: bool) -> list[tuple[int, int]]:
    """Return how many channels of the input, and of a residual operand, a stretch may hold.

    stride : as of `_addends`.
    """
    if depthwise:
        return [(count, count * adds) for count in _channels(source.shape[0], 1 << log2)
                if not adds or count <= REACH // stride]
    return [(source.shape[0], addends) for addends in _addends(result, stride, log2, adds=adds)]


def _addends(result: QTensor, stride: int, log2: int, *, adds: bool) -> list[int]:
    """Return how many channels of a residual operand a stretch may have, the most first: what one
    step reaches, and fewer where the banks do not hold those.

    stride : elements from one to the next.
    """
    if not adds:
        return [0]
    found = [min(result.shape[0], REACH // stride)]
    while found[-1] > 1 << log2:
        found.append(max(found[-1] // 2, 1 << log2))
    return found


def spread_of(graph: QGraph, node: QNode, apart: dict[str, int], size: int, channels: int,
              addends: int) -> Spread:
    """Return the layout of a layer that looks at so many whole channels of its input."""
    _, height, width = graph.tensors[node.input].shape
    source = Vector(channels=channels, positions=height * width, size=size,
                    stride=apart[node.input])
    if node.epilogue.add is None:
        return Spread(source=source)
    return Spread(source=source, operand=Vector(
        channels=addends, positions=1, size=size, stride=apart[node.epilogue.add],
        row=source.rows))


def _spread_way(graph: QGraph, node: QNode, array: Array, log2: int, spread: Spread) -> Way:
    bands = [[Band(stretch=Stretch(line=0, lines=1, channel=share.channel, channels=share.channels,
                                   added=share.added, addends=share.addends, row=k * spread.rows),
                   tile=0, tiles=1, begin=0, end=1,
                   beside=k > 0 and 2 * spread.rows <= array.bank_rows)]
             for k, share in enumerate(shares_of(graph, node, spread))]
    return Way(log2_groups=log2, works=works_of(graph, node, array, log2, spread),
               banding=Banding(layout=spread, parts=bands))


def _channels(count: int, groups: int) -> list[int]:
    """Return numbers of channels that a stretch of a depthwise layer may have."""
    found = {count}
    size = groups
    while size < count:
        found.add(size)
        size *= 2
    return sorted(found)


def _layouts(grid: Grid, array: Array, size: int, channels: int,
             addends: int) -> Iterator[tuple[Lines, int]]:
    """Yield layouts that tables and banks hold, and the lines of their stretches: all of them where
    lines may follow each other without an end, else as many as fit."""
    height = grid.lines.count
    for lines in ([height] if grid.single else
                  sorted({-(-height // count) for count in range(1, height + 1)}, reverse=True)):
        layout = Lines(grid=grid, size=size, span=grid.span(lines), channels=channels,
                       addends=addends)
        phases = layout.phases()
        if (tap_words(phases) <= array.taps
                and max(mask for taps in phases for *_, mask in taps) < NONE
                and (grid.single or layout.rows <= array.bank_rows)):
            yield layout, lines
