"""How each node fills the array: how many row groups, and what that costs."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from celosia.errors import CompileError
from celosia.lower.placing import write_table
from celosia.lower.stored_map import Order, StoredMap, Window
from celosia.lower.stream import Stream, encode, row_order
from celosia.qgraph import QGraph, QNode
from celosia_hw.isa import ArrayConfig
from celosia_hw.timing import MIN_PASS
from celosia_sim.cycles import Work


@dataclass(frozen=True, eq=False)
class Fill:
    """One way to run a node.

    node, window : what is run.   source : its input in the banks.   order : rows in batch order,
    -1 for none.   result : order of the output's channels.   stream : its weight words.
    """

    node: QNode
    window: Window
    source: StoredMap
    order: np.ndarray
    result: Order
    stream: Stream

    @property
    def groups(self) -> int:
        return self.source.groups

    @property
    def batches(self) -> int:
        return len(self.stream.lengths)

    @property
    def steps(self) -> int:
        return int(self.stream.lengths.sum()) * self.source.tiles * self.window.phases


def group_choices(array: ArrayConfig) -> list[int]:
    return [1 << k for k in range(array.groups_max.bit_length())]


def fill(graph: QGraph, node: QNode, groups: int, order: Order, array: ArrayConfig, *,
         keep_rows: bool) -> Fill | None:
    """Return the node's fill with ``groups`` row groups, or None where the array cannot walk it.

    order : the input's channels as its producer leaves them.
    """
    source, result = graph.tensors[node.input], graph.tensors[node.output]
    window = Window.of(node, source, result)
    stored = StoredMap(array, window, order, groups)
    if not stored.valid:
        return None
    rows = row_order(node.matrix, groups, keep=keep_rows)
    taps = window.rows.shape[1]
    index = stored.column_index(node.matrix.indices.astype(np.int64), taps)
    if len(index) and index.max() >= 1 << array.index_bits:
        return None
    stream = encode(node.matrix, index, rows, groups, array)
    return Fill(node, window, stored, rows, _result_order(rows, groups, result.shape), stream)


def _result_order(rows: np.ndarray, groups: int, shape: tuple[int, int, int]) -> Order:
    """Stored channels of a node's output: rows in batch order; a vector spreads over groups."""
    place = np.empty(shape[0], np.int64)
    place[rows[rows >= 0]] = np.flatnonzero(rows >= 0)
    if shape[1] == shape[2] == 1:
        return Order(place // groups, place % groups, len(rows) // groups, groups)
    return Order(place, np.zeros_like(place), len(rows))


def choose(graph: QGraph, array: ArrayConfig) -> Iterator[dict[str, Fill]]:
    """Yield assignments of fills to nodes, the fastest first, then ones that need less memory.

    Nodes that a residual operand links use the same groups and leave rows in order, so that both
    walk over their outputs alike.
    """
    linked = _links(graph)
    cost: dict[str, dict[int, int]] = {}
    for node in graph.nodes:
        order = Order.plain(graph.tensors[node.input], 1)
        steps = {}
        for groups in group_choices(array):
            found = fill(graph, node, groups, order, array, keep_rows=node.name in linked)
            if found is not None:
                steps[groups] = _estimate(found, array)
        if not steps:
            raise CompileError(node.name, node.kind, _refusal(graph, node, array),
                               "split the layer, or choose a target with more lanes")
        cost[node.name] = steps
    families: dict[int, list[str]] = {}
    for node in graph.nodes:
        families.setdefault(linked.get(node.name, -1 - len(families)), []).append(node.name)
    options = [_family(members, {n: cost[n] for n in members}) for members in families.values()]
    for picks in islice(_combinations([len(o) for o in options]), 64):
        chosen = {name: options[k][pick] for k, pick in enumerate(picks)
                  for name in list(families.values())[k]}
        yield _assign(graph, array, chosen, linked)


def _family(members: list[str], cost: dict[str, dict[int, int]]) -> list[int]:
    """Group counts that every member allows, cheapest first."""
    shared = set.intersection(*(set(cost[name]) for name in members))
    if not shared:
        raise CompileError(members[0], "add", f"no row grouping suits all of {', '.join(members)}",
                           "choose another number of lanes")
    return sorted(shared, key=lambda g: (sum(cost[name][g] for name in members), g))


def _combinations(sizes: list[int]) -> Iterator[tuple[int, ...]]:
    """Index tuples in order of their sum: all first choices, then one second choice, ..."""
    frontier = [tuple(0 for _ in sizes)]
    seen = set(frontier)
    while frontier:
        yield from frontier
        after = []
        for picks in frontier:
            for k, size in enumerate(sizes):
                if picks[k] + 1 < size:
                    nxt = picks[:k] + (picks[k] + 1,) + picks[k + 1:]
                    if nxt not in seen:
                        seen.add(nxt)
                        after.append(nxt)
        frontier = after


def _assign(graph: QGraph, array: ArrayConfig, chosen: dict[str, int],
            linked: dict[str, int]) -> dict[str, Fill]:
    orders: dict[str, Order] = {}
    fills: dict[str, Fill] = {}
    for node in graph.nodes:
        source = graph.tensors[node.input]
        groups = chosen[node.name]
        order = orders.get(node.input) or Order.plain(source, array.lanes // groups)
        found = fill(graph, node, groups, order, array, keep_rows=node.name in linked)
        if found is None:
            return {}
        fills[node.name], orders[node.output] = found, found.result
    return fills


def _links(graph: QGraph) -> dict[str, int]:
    """Number the families of nodes that share an output through residual additions."""
    maker = {node.output: node.name for node in graph.nodes}
    family: dict[str, int] = {}
    for node in graph.nodes:
        if node.residual is None:
            continue
        pair = (node.name, maker[node.residual])
        old = [family[name] for name in pair if name in family]
        number = old[0] if old else len(graph.nodes) + len(family)
        family.update({name: number for name, n in family.items() if n in old})
        family.update({name: number for name in pair})
    return family


def _estimate(found: Fill, array: ArrayConfig) -> int:
    passes = found.source.tiles * found.window.phases
    shortest = max(MIN_PASS, array.pass_beats)
    walk = found.batches * found.groups * -(-found.window.positions // array.beat)
    return int(np.maximum(found.stream.lengths, shortest).sum()) * passes + walk


def _refusal(graph: QGraph, node: QNode, array: ArrayConfig) -> str:
    columns = node.matrix.shape[1]
    shape = graph.tensors[node.output].shape
    return (f"{columns} columns and a {shape[1]}x{shape[2]} output do not fit an array of "
            f"{array.lanes} lanes with {array.index_bits}-bit column indices")


def placed(found: Fill, reader: StoredMap | None, base: int, array: ArrayConfig, *, direct: bool,
           shape: tuple[int, int, int]) -> tuple[list[int], int, int, int]:
    """Return write-table words of a node's output, the cycles of a draining tile, those of the
    normalising walk, and the rows from one batch to the next.

    reader : the output in the banks; None for the network's output, which stays in the store.
    """
    groups, size = found.groups, found.source.size
    beats = -(-found.window.positions // array.beat)
    if reader is None:
        return [], array.pass_beats, found.batches * groups * beats, 0
    at = np.full(found.source.tiles * size, -1)
    grid = reader.element_positions(shape)
    at[:found.window.positions] = grid.ravel()
    vector = reader.order.spread > 1 or (shape[1] == shape[2] == 1)
    per_group = size // array.beat
    by_beat = at.reshape(found.source.tiles, 1, per_group, array.beat)
    every = np.broadcast_to(by_beat, (found.source.tiles, groups, per_group, array.beat)).copy()
    group = np.broadcast_to(np.arange(groups)[None, :, None], every.shape[:3])
    if vector:
        every += np.where(every >= 0, group[..., None], 0)
    bases = base + (np.zeros_like(group) if vector else group)
    plane = reader.plane_distance
    words, counts = write_table(
        array, every.reshape(-1, array.beat), size=reader.size, channels=reader.order.channels,
        base=bases.reshape(-1), plane=plane, every_beat=direct)
    tile = counts.reshape(found.source.tiles, -1).sum(axis=1)
    return words, int(tile.max()), int(counts.sum()) * found.batches, 1 if vector else groups


def work_of(found: Fill, *, pass_cycles: int, drain_cycles: int, walk_cycles: int,
            clear_rows: int, prefetched: int) -> Work:
    """Return the cycle model's view of a node."""
    positions = found.window.positions * found.window.phases
    weights = int(np.count_nonzero(found.node.matrix.data))
    words = int(found.stream.lengths.sum()) * found.groups
    return Work(lengths=found.stream.lengths, tiles=found.source.tiles,
                phases=found.window.phases, pass_cycles=pass_cycles, drain_cycles=drain_cycles,
                walk_cycles=walk_cycles, clear_rows=clear_rows, prefetched=prefetched,
                useful_macs=weights * positions,
                padding_macs=(words - weights) * positions)
