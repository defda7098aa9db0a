"""One way to run a node: row groups, the stored input, the weight stream."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from celosia.emit.weight_stream import Stream, encode, row_order
from celosia.schedule.input_map import InputMap, Order, Window
from celosia_spec.epilogue import Dynamic
from celosia_spec.errors import Need
from celosia_spec.isa import BATCH_STEPS_MAX, PHASE_BITS, ArrayConfig
from celosia_spec.isa.timing import MIN_PASS
from celosia_spec.qgraph import QGraph, QNode


class Unfit(Exception):
    """The array cannot run a node in this way: what is too large, the way out, the numbers."""

    def __init__(self, problem: str, remedy: str, need: Need | None = None) -> None:
        super().__init__(problem)
        self.problem, self.remedy, self.need = problem, remedy, need


@dataclass(frozen=True, eq=False)
class Candidate:
    """One way to run a node.

    node, window : what is run.   source : its input in the banks.   order : rows in batch order,
    -1 for none.   result : order of the output's channels.   stream : its weight words.
    direct : results go to the banks while sums drain; no normalising walk follows.
    beats  : of the accumulator store that its output takes (of the residual store too).
    reach  : largest column index of the weight words.
    """

    node: QNode
    window: Window
    source: InputMap
    order: np.ndarray
    result: Order
    stream: Stream
    direct: bool
    beats: int
    reach: int

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
         keep_rows: bool) -> Candidate:
    """Return the node's fill with ``groups`` row groups; Unfit where the array cannot run it.

    order     : the input's channels as its producer leaves them.
    keep_rows : leave the rows in their own order.
    """
    found = filled(graph, node, groups, order, array, keep_rows=keep_rows)
    for refusal in unfits(graph, found, array, keep_rows=keep_rows):
        raise refusal
    return found


def unfits(graph: QGraph, found: Candidate, array: ArrayConfig, *,
           keep_rows: bool) -> Iterator[Unfit]:
    """Every reason why the array cannot run a node as ``found`` says."""
    node = found.node
    if not found.source.valid:
        yield Unfit(f"output lines of {found.window.shape[1]} positions that read "
                    f"{found.source.reach} columns cannot be walked by groups of "
                    f"{found.source.size} lanes", "use a smaller kernel or dilation there")
    if found.reach >= 1 << array.index_bits:
        yield Unfit(f"column indices reach {found.reach}, the array has {array.index_bits} bits "
                    f"for them", "pool in two steps" if node.kind == "average"
                    else "give the layer fewer inputs",
                    Need("inputs of a row", found.reach + 1, 1 << array.index_bits,
                         "column indices"))
    if (longest := int(found.stream.lengths.max())) > BATCH_STEPS_MAX:
        yield Unfit(f"a row of {longest} words, the machine takes {BATCH_STEPS_MAX}",
                    "give the layer fewer inputs, or prune it",
                    Need("weights of a row", longest, BATCH_STEPS_MAX, "words"))
    yield from _too_many(found, array, final=node.output == graph.output,
                         linked=node.epilogue.add is not None or keep_rows)


def filled(graph: QGraph, node: QNode, groups: int, order: Order, array: ArrayConfig, *,
            keep_rows: bool) -> Candidate:
    """Return the node's fill, whether the array can run it or not."""
    source, result = graph.tensors[node.input], graph.tensors[node.output]
    window = Window.of(node, source, result)
    stored = InputMap(array, window, order, groups)
    rows = row_order(node.matrix, groups, keep=keep_rows)
    index = stored.column_index(node.matrix.indices.astype(np.int64), window.rows.shape[1])
    stream = encode(node.matrix, index, rows, groups, array)
    final = node.output == graph.output
    return Candidate(node, window, stored, rows,
                _result_order(rows, groups, spread=spreads(graph, node.output)), stream,
                direct=not final and not isinstance(result.exponent, Dynamic),
                beats=len(rows) // groups * stored.tiles * array.pass_beats,
                reach=int(index.max(initial=0)))


def _too_many(found: Candidate, array: ArrayConfig, *, final: bool,
              linked: bool) -> Iterator[Unfit]:
    """Counters and memories of the output stage that are too small."""
    if final and found.window.positions > 1 and array.wide_elements < array.beat:
        yield Unfit(f"its output is the network's and a map of {found.window.positions} "
                    "positions; this array rounds only vectors to 16 bits",
                    "end the network in a vector")
    limit = (1 << array.count_bits) - 2
    for what, value in (("row batches", found.batches), ("tiles", found.source.tiles),
                        ("output positions", found.window.positions)):
        if value > limit:
            yield Unfit(f"{value} {what}, the array counts to {limit}",
                        "use fewer channels or smaller maps there",
                        Need(what, value, limit, what))
    if found.window.phases > 1 << PHASE_BITS:
        yield Unfit(f"a pooling window of {found.window.phases} positions, the machine takes "
                    f"{1 << PHASE_BITS}", "pool in two steps",
                    Need("pooling window", found.window.phases, 1 << PHASE_BITS, "positions"))
    if found.beats > array.store_beats and (linked or not found.direct):
        yield Unfit(f"its output needs {found.beats} beats of the accumulator store, the array "
                    f"has {array.store_beats}", "use fewer channels or a smaller map there",
                    Need("sums that wait to be rounded", found.beats * array.beat,
                         array.store_beats * array.beat, "sums"))


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


def estimate(found: Candidate, array: ArrayConfig) -> int:
    """Return about how many cycles a fill takes, without what no choice changes."""
    passes = found.source.tiles * found.window.phases
    shortest = max(MIN_PASS, array.pass_beats)
    walk = found.batches * found.groups * -(-found.window.positions // array.beat)
    return (int(np.maximum(found.stream.lengths, shortest).sum()) * passes
            + walk * (not found.direct))
