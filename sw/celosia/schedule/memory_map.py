"""Where the tensors of a program lie: banks, residual store, exponent slots."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from celosia.schedule.candidates import Candidate
from celosia_spec.isa import ArrayConfig
from celosia_spec.qgraph import QGraph, QNode


@dataclass(frozen=True, kw_only=True)
class Span:
    """A tensor's need: ``size`` units from node ``first`` to node ``last``, both inclusive; -1
    stands for what the host writes."""

    name: str
    size: int
    first: int
    last: int


@dataclass(frozen=True, kw_only=True)
class Region(Span):
    """A tensor's place: its units from ``base`` on.   shared : whether others have some of them at
    other times, so that they have to be cleared before every use."""

    base: int
    shared: bool = False


@dataclass(frozen=True, kw_only=True)
class MemoryMap:
    """Where every tensor lies, by name.

    banks     : bank rows. A tensor that only residual additions read has one, where its mantissas
                fall when they are written: the machine writes every result to some bank.
    residuals : beats of the residual store.   slots : exponent slots.
    """

    banks: Mapping[str, Region]
    residuals: Mapping[str, Region]
    slots: Mapping[str, int]


@dataclass(kw_only=True)
class SharedTable:
    """A table of entries that layers share where they need the same ones; int64 (n, fields)."""

    entries: np.ndarray = field(default_factory=lambda: np.empty((0, 0), np.int64))

    def place(self, new: np.ndarray) -> int:
        """Return where ``new`` stands, one entry after another, appending it if it does not yet."""
        if not len(new):
            return 0
        if len(self.entries):
            first = np.flatnonzero((self.entries == new[0]).all(axis=1))
            for at in first[first <= len(self.entries) - len(new)]:
                if np.array_equal(self.entries[at:at + len(new)], new):
                    return int(at)
        at, known = len(self.entries), self.entries.reshape(-1, new.shape[1])
        self.entries = np.concatenate([known, new])
        return at


def readers(graph: QGraph) -> dict[str, QNode]:
    """Return the node that reads each tensor from the banks; of several alike, the last."""
    return {node.input: node for node in graph.nodes}


def makers(graph: QGraph) -> dict[str, int]:
    """Return the index of the node that makes each tensor; -1 for the network's input."""
    return {graph.input: -1} | {node.output: k for k, node in enumerate(graph.nodes)}


def bank_spans(graph: QGraph, chosen: Mapping[str, Candidate], array: ArrayConfig) -> list[Span]:
    """Bank rows that every tensor needs, and when.

    A map with zeros around its elements keeps its rows for the whole program where nobody can
    clear them: the host writes elements only, and not every array can clear rows.
    """
    made, end = makers(graph), len(graph.nodes) - 1
    spans: dict[str, Span] = {}
    for k, node in enumerate(graph.nodes):
        reads, first, last = chosen[node.name].reads, made[node.input], k
        if reads.has_zeros(graph.tensors[node.input]) and (first < 0 or not array.clearing):
            first, last = -1, end
        spans[node.input] = Span(name=node.input, size=reads.rows_needed, first=first, last=last)
    for node in graph.nodes:
        if node.output not in spans and node.output != graph.output:
            spans[node.output] = Span(name=node.output, size=1, first=made[node.output],
                                      last=made[node.output])
    return list(spans.values())


def residual_spans(graph: QGraph, chosen: Mapping[str, Candidate]) -> list[Span]:
    """Residual beats that every operand of an addition needs, and when."""
    made = makers(graph)
    last = {node.epilogue.add: k for k, node in enumerate(graph.nodes) if node.epilogue.add}
    return [Span(name=name, size=chosen[graph.nodes[made[name]].name].beats, first=made[name],
                 last=k) for name, k in last.items()]


def alive(spans: list[Span], nodes: int) -> list[list[Span]]:
    """Return the spans that are needed at each of so many nodes."""
    return [[span for span in spans if span.first <= k <= span.last] for k in range(nodes)]


def memory_map(graph: QGraph, chosen: Mapping[str, Candidate],
               array: ArrayConfig) -> MemoryMap | None:
    """Return places for every tensor, or None where the banks or the residual store do not hold
    them."""
    banks = allocate(bank_spans(graph, chosen, array), array.bank_rows)
    residuals = allocate(residual_spans(graph, chosen), array.residual_beats)
    if banks is None or residuals is None:
        return None
    return MemoryMap(banks=banks, residuals=residuals,
                     slots={name: k for k, name in enumerate(graph.tensors)})


def allocate(spans: list[Span], depth: int) -> dict[str, Region] | None:
    """Place every span in ``depth`` units, or return None.

    Without overlap at all if that fits, since shared places have to be cleared before every use;
    else by first fit, largest first, where life times do not meet.
    """
    if sum(span.size for span in spans) <= depth:
        base = np.cumsum([0, *(span.size for span in spans)]).tolist()
        return {span.name: _region(span, at) for span, at in zip(spans, base, strict=False)}
    placed: list[Region] = []
    for span in sorted(spans, key=lambda s: (-s.size, s.first)):
        at = 0
        for other in sorted(placed, key=lambda region: region.base):
            if other.first <= span.last and span.first <= other.last:
                if at + span.size <= other.base:
                    break
                at = max(at, other.base + other.size)
        if at + span.size > depth:
            return None
        placed.append(_region(span, at))
    return {a.name: _region(a, a.base, any(
        a is not b and a.base < b.base + b.size and b.base < a.base + a.size for b in placed))
        for a in placed}


def _region(span: Span, base: int, shared: bool = False) -> Region:
    return Region(name=span.name, size=span.size, first=span.first, last=span.last, base=base,
                  shared=shared)
