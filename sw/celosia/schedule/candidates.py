"""All ways to run the nodes of a graph: row groups, the input in the banks, steps of the batches.

Steps are counted here and nothing is encoded.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from celosia.schedule.input_map import InputMap, Order, Window
from celosia.schedule.memory_use import memory_need
from celosia.schedule.steps import batch_steps, port_words, row_order, row_words
from celosia_spec.errors import Need
from celosia_spec.isa import BATCH, PHASE_BITS, ArrayConfig, Space, memory_of
from celosia_spec.isa.timing import MIN_PASS
from celosia_spec.qgraph import NodeKind, QGraph, QNode


@dataclass(frozen=True, kw_only=True)
class Unfit:
    """Why the array cannot run a node in some way: what is too large, the way out, the numbers."""

    problem: str
    remedy: str
    need: Need | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class Candidate:
    """One way to run a node.

    reads  : its input in the banks.   rows : in batch order, -1 for none.
    result : order of the output's channels.   steps : int64 (batches,), of each batch.
    direct : results go to the banks while sums drain; no normalising walk follows.
    beats  : of the accumulator store that its output takes (of the residual store too).
    reach  : largest column index of the weight words.
    cycles : about how many it takes, without what no choice changes.
    unfits : everything why the array cannot run it so.
    """

    node: QNode
    reads: InputMap
    rows: np.ndarray
    result: Order
    steps: np.ndarray
    direct: bool
    beats: int
    reach: int
    cycles: int
    unfits: tuple[Unfit, ...]

    @property
    def groups(self) -> int:
        return self.reads.groups

    @property
    def window(self) -> Window:
        return self.reads.window

    @property
    def port_words(self) -> int:
        """Words of weight memory."""
        return port_words(self.steps, self.groups, self.reads.array)


@dataclass(eq=False)
class Candidates:
    """The candidates of a graph's nodes on an array; each is made once, and each node's rows are
    counted once for each order of its columns."""

    graph: QGraph
    array: ArrayConfig
    _made: dict[tuple[str, int, int | None], Candidate] = field(default_factory=dict)
    _words: dict[tuple[str, bytes], tuple[np.ndarray, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        added = {node.epilogue.add for node in self.graph.nodes}
        self.kept = {node.name for node in self.graph.nodes
                     if node.epilogue.add or node.output in added}
        self._maker = {node.output: node for node in self.graph.nodes}

    @property
    def group_choices(self) -> list[int]:
        """Numbers of row groups that the array can be split into."""
        return [1 << k for k in range(self.array.groups_max.bit_length())]

    def of(self, node: QNode, groups: int, made_in: int | None = None) -> Candidate:
        """Return a node's candidate with ``groups`` row groups.

        made_in : row groups of the node that makes its input, whose rows then stand in the order in
                  which that node leaves them; None where the order is not known yet.
        """
        key = node.name, groups, made_in
        if key not in self._made:
            self._made[key] = self._candidate(node, groups, self._given(node, groups, made_in))
        return self._made[key]

    def of_all(self, groups: dict[str, int]) -> dict[str, Candidate]:
        """Return every node's candidate where all have these row groups, up to and including the
        first that the array cannot run."""
        found = {}
        for node in self.graph.nodes:
            maker = self._maker.get(node.input)
            found[node.name] = self.of(node, groups[node.name],
                                       groups[maker.name] if maker else None)
            if found[node.name].unfits:
                break
        return found

    def _given(self, node: QNode, groups: int, made_in: int | None) -> Order:
        """Return the order of the channels of a node's input: the network's input as the host
        writes it for ``groups`` row groups, another tensor as its maker leaves it."""
        if made_in is None:
            spread = node.input == self.graph.input and self._spreads(node.input)
            return Order.plain(self.graph.tensors[node.input],
                               self.array.lanes // groups if spread else 1)
        maker = self._maker[node.input]
        return self._result_order(maker, self._rows(maker, made_in), made_in)

    def _rows(self, node: QNode, groups: int) -> np.ndarray:
        return row_order(node.matrix, groups, keep=node.name in self.kept)

    def _candidate(self, node: QNode, groups: int, order: Order) -> Candidate:
        source, result = self.graph.tensors[node.input], self.graph.tensors[node.output]
        window = Window.of(node, source, result)
        reads = InputMap(self.array, window, order, groups)
        rows = self._rows(node, groups)
        index = reads.columns(node.matrix.shape[1])
        words, reach = self._row_words(node, index)
        steps = batch_steps(words, rows, groups)
        final = node.output == self.graph.output
        direct = not final and not result.exponent.found
        beats = len(rows) // groups * reads.tiles * self.array.pass_beats
        return Candidate(
            node=node, reads=reads, rows=rows, steps=steps, direct=direct, beats=beats,
            reach=reach, result=self._result_order(node, rows, groups),
            cycles=_cycles(reads, steps, self.array, direct),
            unfits=tuple(self._unfits(node, reads, steps, beats, reach, direct)))

    def _row_words(self, node: QNode, index: np.ndarray) -> tuple[np.ndarray, int]:
        """Return the words of each of a node's rows, where its columns stand at ``index``, and the
        largest index of a weight."""
        key = node.name, index.tobytes()
        if key not in self._words:
            at = index.astype(np.int32)[node.matrix.indices]
            self._words[key] = row_words(node.matrix.indptr, at), int(at.max(initial=0))
        return self._words[key]

    def _result_order(self, node: QNode, rows: np.ndarray, groups: int) -> Order:
        """Return the stored channels of a node's output: rows in batch order."""
        place = np.empty(int((rows >= 0).sum()), np.int64)
        place[rows[rows >= 0]] = np.flatnonzero(rows >= 0)
        if self._spreads(node.output):
            return Order(place // groups, place % groups, len(rows) // groups, groups)
        return Order(place, np.zeros_like(place), len(rows))

    def _spreads(self, name: str) -> bool:
        """Whether a tensor's channels spread over neighbouring positions: a vector, unless a layer
        puts zeros around it."""
        return self.graph.tensors[name].shape[1:] == (1, 1) and not any(
            any(node.geometry.padding) for node in self.graph.nodes if node.input == name)

    def _unfits(self, node: QNode, reads: InputMap, steps: np.ndarray, beats: int, reach: int,
                direct: bool) -> Iterator[Unfit]:
        """Every reason why the array cannot run a node so."""
        array = self.array
        if not reads.valid:
            yield Unfit(problem=f"output lines of {reads.window.shape[1]} positions that read "
                        f"{reads.reach} columns cannot be walked by groups of {reads.size} lanes",
                        remedy="use a smaller kernel or dilation there")
        if reach >= 1 << array.index_bits:
            yield Unfit(problem=f"column indices reach {reach}, the array has {array.index_bits} "
                        f"bits for them",
                        remedy="pool in two steps" if node.kind == NodeKind.AVERAGE
                        else "give the layer fewer inputs",
                        need=Need("inputs of a row", reach + 1, 1 << array.index_bits,
                                  "column indices"))
        if (longest := int(steps.max())) > (most := BATCH["steps"].most):
            yield Unfit(problem=f"a row of {longest} words, the machine takes {most}",
                        remedy="give the layer fewer inputs, or prune it",
                        need=Need("weights of a row", longest, most, "words"))
        final = node.output == self.graph.output
        positions = reads.window.positions
        if final and positions > 1 and array.wide_elements < array.beat:
            yield Unfit(problem=f"its output is the network's and a map of {positions} positions; "
                        "this array rounds only vectors to 16 bits",
                        remedy="end the network in a vector")
        limit = (1 << array.count_bits) - 2
        for what, value in (("row batches", len(steps)), ("tiles", reads.tiles),
                            ("output positions", positions)):
            if value > limit:
                yield Unfit(problem=f"{value} {what}, the array counts to {limit}",
                            remedy="use fewer channels or smaller maps there",
                            need=Need(what, value, limit, what))
        if (phases := reads.window.phases) > 1 << PHASE_BITS:
            yield Unfit(problem=f"a pooling window of {phases} positions, the machine takes "
                        f"{1 << PHASE_BITS}", remedy="pool in two steps",
                        need=Need("pooling window", phases, 1 << PHASE_BITS, "positions"))
        if beats > array.store_beats and (node.name in self.kept or not direct):
            yield Unfit(problem=f"its output needs {beats} beats of the accumulator store, the "
                        f"array has {array.store_beats}",
                        remedy=f"{memory_of(Space.STORE).way_out} there",
                        need=memory_need(Space.STORE, beats * array.beat, array))


def _cycles(reads: InputMap, steps: np.ndarray, array: ArrayConfig, direct: bool) -> int:
    shortest = max(MIN_PASS, array.pass_beats)
    walk = len(steps) * reads.groups * -(-reads.window.positions // array.beat)
    return (int(np.maximum(steps, shortest).sum()) * reads.tiles * reads.window.phases
            + walk * (not direct))
