"""How many row groups each node gets: the fastest that the memories hold."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from celosia.emit.weight_stream import port_rows
from celosia.schedule.candidates import Candidate, Unfit, estimate, fill, group_choices, spreads
from celosia.schedule.input_map import Order
from celosia.schedule.memory_map import Layouts, arrange, bank_spans, residual_spans
from celosia_spec.errors import FitError, Need
from celosia_spec.isa import ArrayConfig, Space, memory_of
from celosia_spec.qgraph import QGraph, QNode


@dataclass(frozen=True)
class Option:
    """A number of row groups for a family of nodes; cost in cycles.

    rows  : bank rows of each node's input.
    words : of the weight memory, and about how many of the write table.
    """

    groups: int
    cost: int
    rows: dict[str, int]
    words: dict[Space, int]


@dataclass
class Linked:
    """Nodes that must use the same groups, their options from the cheapest up, and the pick."""

    members: list[str]
    options: list[Option]
    pick: int = 0

    @property
    def groups(self) -> int:
        return self.options[self.pick].groups


def choose(graph: QGraph, array: ArrayConfig, *, compact: bool = False,
           ) -> tuple[dict[str, Candidate], Layouts]:
    """Return how every node fills the array, and where its tensors lie.

    Every family of nodes begins with its fastest option. While the banks do not hold the maps, the
    family that saves bank rows for the least cycles takes another. FitError where nothing is
    left to take. Likewise, where ``compact``, while the weights exceed their memory; and the write
    table, as far as can be told from here.
    """
    kept = kept_rows(graph)
    families = [_family(graph, members, array, kept) for members in _families(graph)]
    if compact:
        _compact(families, array)
    while True:
        fills = _assign(graph, array, {name: family.groups for family in families
                                       for name in family.members}, kept)
        if isinstance(fills, dict):
            layouts = arrange(graph, fills, array)
            if layouts is not None:
                return fills, layouts
            if refusal := residual_refusal(graph, fills, array):
                raise refusal
            tight = _peak(graph, fills, array)
        else:
            tight = {fills.node.name}
        if not _retreat(families, partial(_rows_saved, tight)):
            raise _too_large(graph, fills, array)


@dataclass(frozen=True)
class _Failure:
    """A node that cannot be run after the picks before it."""

    node: QNode
    unfit: Unfit


def _assign(graph: QGraph, array: ArrayConfig, groups: dict[str, int], kept: set[str],
            ) -> dict[str, Candidate] | _Failure:
    """Candidate node after node, each input in the order its producer leaves it."""
    orders: dict[str, Order] = {}
    fills: dict[str, Candidate] = {}
    for node in graph.nodes:
        order = orders.get(node.input) or given(graph, node.input, groups[node.name], array)
        try:
            found = fill(graph, node, groups[node.name], order, array,
                         keep_rows=node.name in kept)
        except Unfit as unfit:
            return _Failure(node, unfit)
        fills[node.name], orders[node.output] = found, found.result
    return fills


def given(graph: QGraph, name: str, groups: int, array: ArrayConfig) -> Order:
    """Channels of the network's input as the host writes them for ``groups`` row groups; of another
    tensor in their own order, since its producer decides."""
    spread = name == graph.input and spreads(graph, name)
    return Order.plain(graph.tensors[name], array.lanes // groups if spread else 1)


def _family(graph: QGraph, members: list[str], array: ArrayConfig, kept: set[str]) -> Linked:
    """The group counts that every member allows, cheapest first."""
    nodes = [node for node in graph.nodes if node.name in members]
    options = []
    refusals: list[tuple[QNode, Unfit]] = []
    for groups in group_choices(array):
        cost, rows, words = 0, {}, {Space.WEIGHTS: 0, Space.WRITES: 0}
        for node in nodes:
            try:
                found = fill(graph, node, groups, given(graph, node.input, groups, array), array,
                             keep_rows=node.name in kept)
            except Unfit as unfit:
                refusals.append((node, unfit))
                break
            cost += estimate(found, array)
            rows[node.name] = found.source.rows_needed
            words[Space.WEIGHTS] += len(port_rows(found.stream, groups, array))
            if node.output != graph.output:
                words[Space.WRITES] += groups * -(-found.window.positions // array.beat)
        else:
            options.append(Option(groups, cost, rows, words))
    if not options:
        node, refusal = refusals[-1]
        raise FitError(node.name, node.kind, refusal.problem, refusal.remedy,
                       need=refusal.need)
    return Linked(members, sorted(options, key=lambda option: (option.cost, option.groups)))


def _compact(families: list[Linked], array: ArrayConfig) -> None:
    """Let families take options with fewer words until the memories hold them.

    FitError where they cannot hold the weights. Layers may share words of the write table.
    """
    for space in (Space.WRITES, Space.WEIGHTS):
        while (sum(family.options[family.pick].words[space] for family in families)
               > memory_of(space).depth(array)):
            if not _retreat(families, partial(_words_saved, space)):
                if space == Space.WEIGHTS:
                    raise FitError("network", "memory", "its weights fit in no way", "prune it")
                break


def _words_saved(space: Space, now: Option, other: Option) -> int:
    return now.words[space] - other.words[space]


def _rows_saved(tight: set[str], now: Option, other: Option) -> int:
    """Bank rows saved for the inputs of the nodes ``tight``."""
    return sum(now.rows[name] - other.rows[name] for name in now.rows if name in tight)


def _retreat(families: list[Linked], saving: Callable[[Option, Option], int]) -> bool:
    """Let one family take an option that saves something, the one that costs the fewest cycles
    for each unit; False where there is none.

    saving : what the second option saves against the first.
    """
    best: tuple[float, Linked, int] | None = None
    for family in families:
        now = family.options[family.pick]
        for at in range(family.pick + 1, len(family.options)):
            option = family.options[at]
            saved = saving(now, option)
            if saved > 0:
                price = (option.cost - now.cost) / saved
                if best is None or price < best[0]:
                    best = price, family, at
    if best is None:
        return False
    best[1].pick = best[2]
    return True


def _peak(graph: QGraph, fills: dict[str, Candidate], array: ArrayConfig) -> set[str]:
    """Names of the nodes whose inputs lie in the banks when these hold the most rows."""
    spans = bank_spans(graph, fills, array)
    alive = [[span for span in spans if span.first <= k <= span.last]
             for k in range(len(graph.nodes))]
    fullest = max(alive, key=lambda live: sum(span.size for span in live))
    names = {span.name for span in fullest}
    return {node.name for node in graph.nodes if node.input in names}


def kept_rows(graph: QGraph) -> set[str]:
    """Nodes whose rows keep their order: those that add a residual operand, and its makers."""
    operands = {node.epilogue.add for node in graph.nodes}
    return {node.name for node in graph.nodes if node.epilogue.add or node.output in operands}


def _families(graph: QGraph) -> list[list[str]]:
    """Group the nodes that must use the same row groups: those that a residual operand links walk
    over their outputs alike; those that read one tensor find it stored for all of them."""
    number = {node.name: k for k, node in enumerate(graph.nodes)}
    maker = {node.output: node.name for node in graph.nodes}
    reader: dict[str, str] = {}
    for node in graph.nodes:
        partners = [reader.setdefault(node.input, node.name)]
        if node.epilogue.add:
            partners.append(maker[node.epilogue.add])
        for partner in partners:
            old, new = number[node.name], number[partner]
            number = {name: new if k == old else k for name, k in number.items()}
    families: dict[int, list[str]] = {}
    for name, k in number.items():
        families.setdefault(k, []).append(name)
    return list(families.values())


def residual_refusal(graph: QGraph, fills: dict[str, Candidate],
                     array: ArrayConfig) -> FitError | None:
    """Return why residual operands do not fit, None where they do or there are none.

    No choice of groups helps them.
    """
    node = next((node for node in graph.nodes if node.epilogue.add), None)
    if node is None:
        return None
    spans = residual_spans(graph, fills)
    most = max(sum(span.size for span in spans if span.first <= k <= span.last)
               for k in range(len(graph.nodes)))
    if most <= array.residual_beats:
        return None
    need = Need("tensors to be added", most * array.beat, array.residual_beats * array.beat,
                "values")
    if not array.residual_beats:
        return FitError(node.name, "add", "this array has no residual store",
                        "leave the addition out", need=need)
    return FitError(node.name, "add", f"the residual operands alive at once need {most} "
                    f"beats, the array has {array.residual_beats}",
                    "use fewer channels or smaller maps there", need=need)


def _too_large(graph: QGraph, fills: dict[str, Candidate] | _Failure, array: ArrayConfig,
               ) -> FitError:
    if isinstance(fills, _Failure):
        return FitError(fills.node.name, fills.node.kind, fills.unfit.problem,
                        fills.unfit.remedy, need=fills.unfit.need)
    worst = max(graph.nodes, key=lambda node: fills[node.name].source.rows_needed)
    shape = "x".join(map(str, graph.tensors[worst.input].shape))
    return FitError(
        worst.name, worst.kind, f"its input of {shape} takes "
        f"{fills[worst.name].source.rows_needed} rows and, with the maps beside it, does not fit "
        f"{array.lanes} banks of {array.bank_rows} mantissas",
        "use fewer channels or smaller maps there", need=_maps(graph, fills, array))


def _maps(graph: QGraph, fills: dict[str, Candidate], array: ArrayConfig) -> Need | None:
    """What the maps take that lie in the banks at once; None where only gaps are in the way."""
    spans = bank_spans(graph, fills, array)
    most = max(sum(span.size for span in spans if span.first <= k <= span.last)
               for k in range(len(graph.nodes)))
    kib = array.lanes * array.activation_bits / (8 * 1024)
    return None if most <= array.bank_rows else Need(
        "maps", most * kib, array.bank_rows * kib, "KiB")
