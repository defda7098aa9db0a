"""How many row groups each node gets: the fastest that the memories hold."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from celosia.schedule.candidates import Candidate, Candidates
from celosia.schedule.memory_map import MemoryMap, alive, bank_spans, memory_map, residual_spans
from celosia.schedule.memory_use import memory_need
from celosia_spec.errors import FitError
from celosia_spec.isa import ArrayConfig, Space, memory_of
from celosia_spec.qgraph import QGraph


@dataclass(frozen=True, kw_only=True)
class Option:
    """A number of row groups for linked nodes; cost in cycles.

    rows  : bank rows of each node's input.
    words : of the weight memory, and about how many of the write table.
    """

    groups: int
    cost: int
    rows: dict[str, int]
    words: dict[Space, int]


@dataclass(kw_only=True)
class Linked:
    """Nodes that must use the same groups, their options from the cheapest up, and the pick."""

    members: list[str]
    options: list[Option]
    pick: int = 0

    @property
    def now(self) -> Option:
        """The option picked."""
        return self.options[self.pick]


def row_groups(candidates: Candidates, *, compact: bool = False,
               ) -> tuple[dict[str, Candidate], MemoryMap]:
    """Return how every node is run, by its name, and where its tensors lie.

    Linked nodes begin with their fastest option. While the banks do not hold the maps, those that
    save bank rows for the least cycles take another. FitError where nothing is left to take.
    Likewise, where ``compact``, while the weights exceed their memory; and the write table, as far
    as can be told from here.
    """
    graph, array = candidates.graph, candidates.array
    linked = [_linked(candidates, members) for members in links(graph)]
    if compact:
        _compact(linked, array)
    while True:
        chosen = candidates.of_all({name: nodes.now.groups for nodes in linked
                                    for name in nodes.members})
        last = next(reversed(chosen.values()))
        if last.unfits:
            tight = {last.node.name}
        else:
            found = memory_map(graph, chosen, array)
            if found is not None:
                return chosen, found
            if refusal := residual_refusal(graph, chosen, array):
                raise refusal
            tight = _peak(graph, chosen, array)
        if not _retreat(linked, partial(_rows_saved, tight)):
            raise _refusal(last) if last.unfits else _too_large(graph, chosen, array)


def _linked(candidates: Candidates, members: list[str]) -> Linked:
    """The group counts that every member allows, cheapest first; FitError where there is none."""
    graph, array = candidates.graph, candidates.array
    nodes = [node for node in graph.nodes if node.name in members]
    options = []
    for groups in candidates.group_choices:
        ways = []
        for node in nodes:
            ways.append(candidates.of(node, groups))
            if ways[-1].unfits:
                refused = ways[-1]
                break
        else:
            beats = sum(-(-way.window.positions // array.beat) for way in ways
                        if way.node.output != graph.output)
            options.append(Option(
                groups=groups, cost=sum(way.cycles for way in ways),
                rows={way.node.name: way.reads.rows_needed for way in ways},
                words={Space.WEIGHTS: sum(way.port_words for way in ways),
                       Space.WRITES: groups * beats}))
    if not options:
        raise _refusal(refused)
    return Linked(members=members,
                  options=sorted(options, key=lambda option: (option.cost, option.groups)))


def _refusal(found: Candidate) -> FitError:
    """Return the first reason why a node cannot be run in some way."""
    node, unfit = found.node, found.unfits[0]
    return FitError(node.name, node.kind, unfit.problem, unfit.remedy, need=unfit.need)


def _compact(linked: list[Linked], array: ArrayConfig) -> None:
    """Let nodes take options with fewer words until the memories hold them.

    FitError where they cannot hold the weights. Layers may share words of the write table.
    """
    for space in (Space.WRITES, Space.WEIGHTS):
        while sum(nodes.now.words[space] for nodes in linked) > memory_of(space).depth(array):
            if not _retreat(linked, partial(_words_saved, space)):
                if space == Space.WEIGHTS:
                    raise FitError("network", "memory", "its weights fit in no way",
                                   memory_of(space).way_out)
                break


def _words_saved(space: Space, now: Option, other: Option) -> int:
    return now.words[space] - other.words[space]


def _rows_saved(tight: set[str], now: Option, other: Option) -> int:
    """Bank rows saved for the inputs of the nodes ``tight``."""
    return sum(now.rows[name] - other.rows[name] for name in now.rows if name in tight)


def _retreat(linked: list[Linked], saving: Callable[[Option, Option], int]) -> bool:
    """Let linked nodes take an option that saves something, the one that costs the fewest cycles
    for what it saves; return whether there was one.

    saving : of an option instead of another; nothing where it is 0 or less.
    """
    best: tuple[float, Linked, int] | None = None
    for nodes in linked:
        for at in range(nodes.pick + 1, len(nodes.options)):
            saved = saving(nodes.now, nodes.options[at])
            if saved > 0:
                price = (nodes.options[at].cost - nodes.now.cost) / saved
                if best is None or price < best[0]:
                    best = price, nodes, at
    if best is None:
        return False
    best[1].pick = best[2]
    return True


def _peak(graph: QGraph, chosen: dict[str, Candidate], array: ArrayConfig) -> set[str]:
    """Names of the nodes whose inputs lie in the banks when these hold the most rows."""
    fullest = max(alive(bank_spans(graph, chosen, array), len(graph.nodes)),
                  key=lambda live: sum(span.size for span in live))
    names = {span.name for span in fullest}
    return {node.name for node in graph.nodes if node.input in names}


def links(graph: QGraph) -> list[list[str]]:
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
    found: dict[int, list[str]] = {}
    for name, k in number.items():
        found.setdefault(k, []).append(name)
    return list(found.values())


def residual_refusal(graph: QGraph, chosen: dict[str, Candidate],
                     array: ArrayConfig) -> FitError | None:
    """Return why residual operands do not fit, None where they do or there are none.

    No choice of groups helps them.
    """
    node = next((node for node in graph.nodes if node.epilogue.add), None)
    if node is None:
        return None
    most = max(sum(span.size for span in live)
               for live in alive(residual_spans(graph, chosen), len(graph.nodes)))
    if most <= array.residual_beats:
        return None
    need = memory_need(Space.RESIDUAL, most * array.beat, array)
    if not array.residual_beats:
        return FitError(node.name, "add", "this array has no residual store",
                        "leave the addition out", need=need)
    return FitError(node.name, "add", f"the residual operands alive at once need {most} "
                    f"beats, the array has {array.residual_beats}",
                    f"{memory_of(Space.RESIDUAL).way_out} there", need=need)


def _too_large(graph: QGraph, chosen: dict[str, Candidate], array: ArrayConfig) -> FitError:
    """Return the refusal of maps that the banks do not hold; its numbers are what lies in the banks
    at once, and none where only gaps are in the way."""
    worst = max(chosen.values(), key=lambda found: found.reads.rows_needed)
    shape = "x".join(map(str, graph.tensors[worst.node.input].shape))
    most = max(sum(span.size for span in live)
               for live in alive(bank_spans(graph, chosen, array), len(graph.nodes)))
    return FitError(
        worst.node.name, worst.node.kind, f"its input of {shape} takes {worst.reads.rows_needed} "
        f"rows and, with the maps beside it, does not fit {array.lanes} banks of "
        f"{array.bank_rows} mantissas", f"{memory_of(Space.BANKS).way_out} there",
        need=None if most <= array.bank_rows
        else memory_need(Space.BANKS, most * array.lanes, array))
