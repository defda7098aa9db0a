"""One way to run a node: row groups, the stored input, the weight stream."""

from dataclasses import dataclass

import numpy as np

from celosia.lower.stored_map import StoredMap
from celosia.lower.stream import Stream, encode, row_order
from celosia.lower.window import Order, Window
from celosia.qgraph import QGraph, QNode
from celosia_hw.isa import PHASE_BITS, ArrayConfig
from celosia_hw.timing import MIN_PASS


class Unfit(Exception):
    """The array cannot run a node in this way: what is too large, and the way out."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.problem, self.remedy = problem, remedy


@dataclass(frozen=True, eq=False)
class Fill:
    """One way to run a node.

    node, window : what is run.   source : its input in the banks.   order : rows in batch order,
    -1 for none.   result : order of the output's channels.   stream : its weight words.
    direct : results go to the banks while sums drain; no normalising walk follows.
    beats  : of the accumulator store that its output takes (of the residual store too).
    """

    node: QNode
    window: Window
    source: StoredMap
    order: np.ndarray
    result: Order
    stream: Stream
    direct: bool
    beats: int

    @property
    def groups(self) -> int:
        return self.source.groups

    @property
    def batches(self) -> int:
        return len(self.stream.lengths)


def group_choices(array: ArrayConfig) -> list[int]:
    """Return the numbers of row groups that the array can be split into."""
    return [1 << k for k in range(array.groups_max.bit_length())]


def fill(graph: QGraph, node: QNode, groups: int, order: Order, array: ArrayConfig, *,
         keep_rows: bool) -> Fill:
    """Return the node's fill with ``groups`` row groups; Unfit where the array cannot run it.

    order     : the input's channels as its producer leaves them.
    keep_rows : leave the rows in their own order.
    """
    source, result = graph.tensors[node.input], graph.tensors[node.output]
    window = Window.of(node, source, result)
    stored = StoredMap(array, window, order, groups)
    if not stored.valid:
        raise Unfit(f"output lines of {window.shape[1]} positions that read {stored.reach} "
                    f"columns cannot be walked by groups of {stored.size} lanes",
                    "use a smaller kernel or dilation there")
    rows = row_order(node.matrix, groups, keep=keep_rows)
    index = stored.column_index(node.matrix.indices.astype(np.int64), window.rows.shape[1])
    largest = int(index.max(initial=0))
    if largest >= 1 << array.index_bits:
        raise Unfit(f"column indices reach {largest}, the array has {array.index_bits} bits "
                    f"for them", "pool in two steps" if node.kind == "average"
                    else "give the layer fewer inputs")
    stream = encode(node.matrix, index, rows, groups, array)
    final = node.output == graph.output
    found = Fill(node, window, stored, rows,
                 _result_order(rows, groups, spread=spreads(graph, node.output)), stream,
                 direct=not final and (result.static_exponent is not None or node.keep),
                 beats=len(rows) // groups * stored.tiles * array.pass_beats)
    _check(found, array, final=final, linked=node.residual is not None or keep_rows)
    return found


def _check(found: Fill, array: ArrayConfig, *, final: bool, linked: bool) -> None:
    """Unfit where a counter or a memory of the output stage is too small."""
    if final and found.window.positions > 1 and array.wide_elements < array.beat:
        raise Unfit(f"its output is the network's and a map of {found.window.positions} "
                    "positions; this array rounds only vectors to 16 bits",
                    "end the network in a vector")
    limit = (1 << array.count_bits) - 2
    for what, value in (("row batches", found.batches), ("tiles", found.source.tiles),
                        ("output positions", found.window.positions)):
        if value > limit:
            raise Unfit(f"{value} {what}, the array counts to {limit}",
                        "use fewer channels or smaller maps there")
    if found.window.phases > 1 << PHASE_BITS:
        raise Unfit(f"a pooling window of {found.window.phases} positions, the machine takes "
                    f"{1 << PHASE_BITS}", "pool in two steps")
    if found.beats > array.store_beats and (linked or not found.direct):
        raise Unfit(f"its output needs {found.beats} beats of the accumulator store, the array "
                    f"has {array.store_beats}", "use fewer channels or a smaller map there")


def spreads(graph: QGraph, name: str) -> bool:
    """Whether a tensor's channels spread over neighbouring positions: a vector, unless a layer
    puts zeros around it."""
    return graph.tensors[name].shape[1:] == (1, 1) and not any(
        any(node.geometry.padding) for node in graph.nodes if node.input == name)


def _result_order(rows: np.ndarray, groups: int, *, spread: bool) -> Order:
    """Stored channels of a node's output: rows in batch order."""
    place = np.empty(int((rows >= 0).sum()), np.int64)
    place[rows[rows >= 0]] = np.flatnonzero(rows >= 0)
    if spread:
        return Order(place // groups, place % groups, len(rows) // groups, groups)
    return Order(place, np.zeros_like(place), len(rows))


def estimate(found: Fill, array: ArrayConfig) -> int:
    """Return about how many cycles a fill takes, without what no choice changes."""
    passes = found.source.tiles * found.window.phases
    shortest = max(MIN_PASS, array.pass_beats)
    walk = found.batches * found.groups * -(-found.window.positions // array.beat)
    return (int(np.maximum(found.stream.lengths, shortest).sum()) * passes
            + walk * (not found.direct))
