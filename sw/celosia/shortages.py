"""Everything that a graph needs more of than an array has, where lowering stops at the first."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from celosia.emit.program import exceeded, memory_need
from celosia.emit.weight_stream import port_rows
from celosia.graph import Conv
from celosia.lower import plan
from celosia.program import Program
from celosia.schedule.candidates import Candidate, Unfit, filled, group_choices, unfits
from celosia.schedule.copies import expand_copies
from celosia.schedule.row_groups import choose, given, kept_rows, residual_refusal
from celosia_spec.errors import CompileError, FitError, Need
from celosia_spec.isa import ArrayConfig, Space, memory_of
from celosia_spec.qgraph import QGraph, QNode

_ROOM = 65_536
"""The deepest memory that an array can have."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """program : where the graph fits, else None.   refusals : everything in the way.

    measured : whether the memory that weights take is known, or only the least that they may.
    planned  : whether that of all tables is known.
    """

    program: Program | None
    refusals: tuple[CompileError, ...]
    measured: bool = True
    planned: bool = True


def attempt(graph: QGraph, array: ArrayConfig, *, target: str, exponents: str) -> Outcome:
    """Lower a graph as `celosia.lower.lower` does; return the program or everything in the way.

    A layer is in the way where the array can run it in none of its row groups. Where the maps do
    not fit, the weights are measured as if they did.
    """
    try:
        program = plan(graph, array, target=target, exponents=exponents).program
    except FitError as first:
        return _everything(expand_copies(graph), array, target, first)
    found = tuple(exceeded(program))
    return Outcome(None if found else program, found)


def attempt_weights(layers: Sequence[Conv], array: ArrayConfig, target: str) -> Outcome:
    """Return what is in the way of layers of which only the weights are known."""
    from celosia_spec.block import bfp

    words = sum(int(np.count_nonzero(bfp(layer.weight.reshape(len(layer.weight), -1),
                                         array.weight_bits, axis=0)[0])) for layer in layers)
    rows = sum(len(layer.weight) for layer in layers)
    return Outcome(None, tuple(_too_much(target, array, words, rows)), measured=False,
                   planned=False)


def _everything(graph: QGraph, array: ArrayConfig, target: str, first: FitError) -> Outcome:
    ways = {node.name: list(_ways(graph, node, array)) for node in graph.nodes}
    found = [*_layers(graph, ways, array), *_maps(graph, ways, array)]
    least = {name: min((way for way, _ in entries), key=lambda way: way.beats)
             for name, entries in ways.items()}
    if adds := residual_refusal(graph, least, array):
        found.append(adds)
    words, measured = _weights(graph, array)
    rows = sum(node.matrix.shape[0] for node in graph.nodes)
    found += _too_much(target, array, words, rows)
    known = {_key(refusal) for refusal in found}
    if _key(first) not in known:
        found.insert(0, first)
    return Outcome(None, tuple(found), measured, planned=False)


def _too_much(target: str, array: ArrayConfig, words: int, rows: int) -> Iterator[FitError]:
    """Memories that overflow with so many words of weights and so many rows, or more."""
    for space, least in ((Space.WEIGHTS, words), (Space.ROWS, rows)):
        memory = memory_of(space)
        need = replace(memory_need(memory, least, array), least=True)
        if need.needed > need.available:
            yield FitError(target, "memory", f"the program needs at least {least} words of "
                           f"{memory.name} memory", memory.way_out, need=need)


def _key(refusal: FitError) -> tuple[str, str]:
    return refusal.node, refusal.need.what if refusal.need else refusal.problem


def _ways(graph: QGraph, node: QNode,
          array: ArrayConfig) -> Iterator[tuple[Candidate, list[Unfit]]]:
    """A node in each number of row groups, and what is in the way of that."""
    keep = node.name in kept_rows(graph)
    for groups in group_choices(array):
        found = filled(graph, node, groups, given(graph, node.input, groups, array), array,
                       keep_rows=keep)
        yield found, list(unfits(graph, found, array, keep_rows=keep))


_Ways = dict[str, list[tuple[Candidate, list[Unfit]]]]
"""By the name of a node."""


def _layers(graph: QGraph, ways: _Ways, array: ArrayConfig) -> Iterator[FitError]:
    """What is in the way of each layer in the row groups where the least is."""
    for node in graph.nodes:
        for unfit in min((reasons for _, reasons in ways[node.name]), key=_overrun):
            yield FitError(node.name, node.kind, unfit.problem, unfit.remedy, need=unfit.need)


def _overrun(found: list[Unfit]) -> tuple[int, float]:
    """How many things are in the way, and how far off the worst is."""
    return len(found), max((unfit.need.needed / unfit.need.available for unfit in found
                            if unfit.need), default=0.0)


def _maps(graph: QGraph, ways: _Ways, array: ArrayConfig) -> Iterator[FitError]:
    """Maps that the banks would not hold if nothing else lay there."""
    kib = array.lanes * array.activation_bits / (8 * 1024)
    for node in graph.nodes:
        rows = min(way.source.rows_needed for way, _ in ways[node.name])
        if rows > array.bank_rows:
            shape = "x".join(map(str, graph.tensors[node.input].shape))
            yield FitError(
                node.name, node.kind, f"its input of {shape} takes {rows} rows and does not fit "
                f"{array.lanes} banks of {array.bank_rows} mantissas",
                "use fewer channels or smaller maps there",
                need=Need("maps", rows * kib, array.bank_rows * kib, "KiB"))


def _weights(graph: QGraph, array: ArrayConfig) -> tuple[int, bool]:
    """Return the words that weights take where all else fits, and True; else the least that they
    may take, and False."""
    for bits in (array.index_bits, 31):
        roomy = replace(array, bank_rows=_ROOM, store_beats=_ROOM, residual_beats=_ROOM,
                        count_bits=16, index_bits=bits)
        words = _words(graph, roomy)
        if words is not None:
            return words, True
    return sum(node.matrix.nnz for node in graph.nodes), False


def _words(graph: QGraph, array: ArrayConfig) -> int | None:
    """Return the words that weights take, the fewest where that helps; None if all do not fit."""
    words = None
    for compact in (False, True):
        try:
            fills, _ = choose(graph, array, compact=compact)
        except FitError:
            return words
        words = sum(len(port_rows(way.stream, way.groups, array)) for way in fills.values())
        if words <= memory_of(Space.WEIGHTS).depth(array):
            break
    return words
