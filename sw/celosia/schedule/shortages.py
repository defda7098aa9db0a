"""Everything that a graph needs more of than an array has, where scheduling stops at the first."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from celosia.graph import Conv
from celosia.schedule.candidates import Candidate, Candidates
from celosia.schedule.copies import expand_copies
from celosia.schedule.memory_use import memory_need
from celosia.schedule.row_groups import residual_refusal, row_groups
from celosia.schedule.scheduling import schedule
from celosia_spec.errors import CompileError, FitError
from celosia_spec.isa import ArrayConfig, Space, memory_of
from celosia_spec.qgraph import QGraph

_ROOM = 65_536
"""The deepest memory that an array can have."""


_Ways = dict[str, list[Candidate]]
"""By the name of a node."""


class Planned(Protocol):
    """How an array runs a graph."""

    @property
    def predicted_cycles(self) -> int:
        """Cycles of one inference, exact."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """schedule : where the graph fits, else None.   refusals : everything in the way.

    measured : whether the memory that weights take is known, or only the least that they may.
    planned  : whether that of all tables is known.
    remarks  : of the quantised graph.
    """

    schedule: Planned | None
    refusals: tuple[CompileError, ...]
    measured: bool = True
    planned: bool = True
    remarks: tuple[str, ...] = ()


def attempt(graph: QGraph, array: ArrayConfig, target: str) -> Outcome:
    """Schedule a graph; return the schedule or everything in the way.

    A layer is in the way where the array can run it in none of its row groups. Where the maps do
    not fit, the weights are measured as if they did.
    """
    try:
        found = schedule(graph, array)
    except FitError as first:
        return _everything(expand_copies(graph), array, target, first)
    refusals = tuple(found.refusals(target))
    return Outcome(None if refusals else found, refusals)


def attempt_weights(layers: Sequence[Conv], array: ArrayConfig, target: str) -> Outcome:
    """Return what is in the way of layers of which only the weights are known."""
    from celosia_spec.block import bfp

    words = sum(int(np.count_nonzero(bfp(layer.weight.reshape(len(layer.weight), -1),
                                         array.weight_bits, axis=0)[0])) for layer in layers)
    rows = sum(len(layer.weight) for layer in layers)
    return Outcome(None, tuple(_too_much(target, array, words, rows)), measured=False,
                   planned=False)


def _everything(graph: QGraph, array: ArrayConfig, target: str, first: FitError) -> Outcome:
    candidates = Candidates(graph, array)
    ways = {node.name: [candidates.of(node, groups) for groups in candidates.group_choices]
            for node in graph.nodes}
    found = [*_layers(ways), *_maps(graph, ways, array)]
    least = {name: min(entries, key=lambda way: way.beats) for name, entries in ways.items()}
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
        need = replace(memory_need(space, least, array), least=True)
        if need.needed > need.available:
            yield FitError(target, "memory", f"the program needs at least {least} words of "
                           f"{memory.name} memory", memory.way_out, need=need)


def _key(refusal: FitError) -> tuple[str, str]:
    return refusal.node, refusal.need.what if refusal.need else refusal.problem


def _layers(ways: _Ways) -> Iterator[FitError]:
    """What is in the way of each layer in the row groups where the least is."""
    for entries in ways.values():
        best = min(entries, key=_overrun)
        for unfit in best.unfits:
            yield FitError(best.node.name, best.node.kind, unfit.problem, unfit.remedy,
                           need=unfit.need)


def _overrun(way: Candidate) -> tuple[int, float]:
    """How many things are in the way, and how far off the worst is."""
    return len(way.unfits), max((unfit.need.needed / unfit.need.available for unfit in way.unfits
                                 if unfit.need), default=0.0)


def _maps(graph: QGraph, ways: _Ways, array: ArrayConfig) -> Iterator[FitError]:
    """Maps that the banks would not hold if nothing else lay there."""
    for node in graph.nodes:
        rows = min(way.reads.rows_needed for way in ways[node.name])
        if rows > array.bank_rows:
            shape = "x".join(map(str, graph.tensors[node.input].shape))
            yield FitError(
                node.name, node.kind, f"its input of {shape} takes {rows} rows and does not fit "
                f"{array.lanes} banks of {array.bank_rows} mantissas",
                f"{memory_of(Space.BANKS).way_out} there",
                need=memory_need(Space.BANKS, rows * array.lanes, array))


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
    candidates = Candidates(graph, array)
    for compact in (False, True):
        try:
            chosen, _ = row_groups(candidates, compact=compact)
        except FitError:
            return words
        words = sum(way.port_words for way in chosen.values())
        if words <= memory_of(Space.WEIGHTS).depth(array):
            break
    return words
