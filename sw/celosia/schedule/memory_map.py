"""Where the stored tensors of a program lie: banks, accumulator store, residual store."""

from dataclasses import dataclass

import numpy as np

from celosia.schedule.candidates import Candidate
from celosia_spec.isa import ArrayConfig, Space
from celosia_spec.program import Place
from celosia_spec.qgraph import QGraph, QNode


@dataclass(frozen=True)
class Span:
    """A tensor's need: ``size`` units from step ``first`` to step ``last``, both inclusive."""

    name: str
    size: int
    first: int
    last: int


@dataclass(frozen=True)
class Layout:
    """Where everything lies, and which tensors share their place with another."""

    base: dict[str, int]
    shared: frozenset[str]


def allocate(spans: list[Span], depth: int) -> Layout | None:
    """Place every span in ``depth`` units, or return None.

    Without overlap at all if that fits, since shared places have to be cleared before every use;
    else by first fit, largest first, where life times do not meet.
    """
    if sum(span.size for span in spans) <= depth:
        base, at = {}, 0
        for span in spans:
            base[span.name] = at
            at += span.size
        return Layout(base, frozenset())
    placed: list[tuple[int, Span]] = []
    for span in sorted(spans, key=lambda s: (-s.size, s.first)):
        busy = sorted((at, at + other.size) for at, other in placed
                      if other.first <= span.last and span.first <= other.last)
        at = 0
        for low, high in busy:
            if at + span.size <= low:
                break
            at = max(at, high)
        if at + span.size > depth:
            return None
        placed.append((at, span))
    shared = {a.name for at, a in placed for bt, b in placed
              if a is not b and at < bt + b.size and bt < at + a.size}
    return Layout({span.name: at for at, span in placed}, frozenset(shared))


@dataclass(frozen=True)
class Layouts:
    """Bank rows and residual beats, by tensor.

    A tensor that only residual additions read has one bank row, where its mantissas fall when they
    are written: the machine writes every result to some bank.
    """

    banks: Layout
    residuals: Layout


def readers(graph: QGraph) -> dict[str, QNode]:
    """Return the node that reads each tensor from the banks; of several alike, the last."""
    return {node.input: node for node in graph.nodes}


def makers(graph: QGraph) -> dict[str, int]:
    """Return the index of the node that makes each tensor; -1 for the network's input."""
    return {graph.input: -1} | {node.output: k for k, node in enumerate(graph.nodes)}


def bank_spans(graph: QGraph, fills: dict[str, Candidate], array: ArrayConfig) -> list[Span]:
    """Bank rows that every tensor needs, and when.

    A map with zeros around its elements keeps its rows for the whole program where nobody can
    clear them: the host writes elements only, and not every array can clear rows.
    """
    made, end = makers(graph), len(graph.nodes) - 1
    spans: dict[str, Span] = {}
    for k, node in enumerate(graph.nodes):
        source, first, last = fills[node.name].source, made[node.input], k
        if source.has_zeros(graph.tensors[node.input]) and (first < 0 or not array.clearing):
            first, last = -1, end
        spans[node.input] = Span(node.input, source.rows_needed, first, last)
    for node in graph.nodes:
        if node.output not in spans and node.output != graph.output:
            spans[node.output] = Span(node.output, 1, made[node.output], made[node.output])
    return list(spans.values())


def residual_spans(graph: QGraph, fills: dict[str, Candidate]) -> list[Span]:
    """Residual beats that every operand of an addition needs, and when."""
    made = makers(graph)
    last = {node.epilogue.add: k for k, node in enumerate(graph.nodes) if node.epilogue.add}
    return [Span(name, fills[graph.nodes[made[name]].name].beats, made[name], k)
            for name, k in last.items()]


def arrange(graph: QGraph, fills: dict[str, Candidate], array: ArrayConfig) -> Layouts | None:
    """Return places for every tensor, or None where the banks do not hold them.

    The residual store must be large enough; see :func:`residual_spans`.
    """
    banks = allocate(bank_spans(graph, fills, array), array.bank_rows)
    residuals = allocate(residual_spans(graph, fills), array.residual_beats)
    if banks is None or residuals is None:
        return None
    return Layouts(banks, residuals)


def tensor_places(graph: QGraph, fills: dict[str, Candidate], layouts: Layouts, array: ArrayConfig,
                  ) -> dict[str, Place]:
    """Return where the host finds every tensor."""
    made, by_input = makers(graph), readers(graph)
    places = {}
    for name, tensor in graph.tensors.items():
        if name in by_input:
            addresses = fills[by_input[name].name].source.addresses(
                tensor, layouts.banks.base[name])
            places[name] = Place(space=Space.BANKS, addresses=addresses, written=made[name])
            continue
        found = fills[graph.nodes[made[name]].name]
        if name == graph.output:
            space, beat = Space.STORE, _walked_beats(found, array)
        else:
            space, beat = Space.RESIDUAL, layouts.residuals.base[name] + _store_beats(found, array)
        inside = np.arange(found.window.positions) % found.source.size
        addresses = (beat * array.beat + inside % array.beat).reshape(1, *tensor.shape)
        places[name] = Place(space=space, addresses=addresses, written=made[name])
    return places


def _row_places(found: Candidate) -> tuple[np.ndarray, np.ndarray]:
    """Batch and group of every row, int64 (rows, 1)."""
    place = np.empty(found.node.matrix.shape[0], np.int64)
    place[found.order[found.order >= 0]] = np.flatnonzero(found.order >= 0)
    return (place // found.groups)[:, None], (place % found.groups)[:, None]


def _store_beats(found: Candidate, array: ArrayConfig) -> np.ndarray:
    """Beat of every row's positions in the accumulator and residual stores, int64 (rows, n)."""
    batch, group = _row_places(found)
    n, size = np.arange(found.window.positions), found.source.size
    beats: np.ndarray = ((batch * found.source.tiles + n // size) * array.pass_beats
                         + group * (size // array.beat) + n % size // array.beat)
    return beats


def _walked_beats(found: Candidate, array: ArrayConfig) -> np.ndarray:
    """Number of every row's beats in the order of the normalising walk, int64 (rows, n): 16-bit
    results stand in the store that way, without the beats that hold no position."""
    batch, group = _row_places(found)
    n, size = np.arange(found.window.positions), found.source.size
    left = np.minimum(found.window.positions - np.arange(found.source.tiles) * size, size)
    per_tile = -(-left // array.beat)
    start = np.concatenate([[0], np.cumsum(per_tile)]) * found.groups
    tile = n // size
    beats: np.ndarray = (batch * start[-1] + start[tile] + group * per_tile[tile]
                         + n % size // array.beat)
    return beats
