"""What to do where a network does not fit: other settings, each tried before it is named."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from celosia.compiler import ACCUMULATORS, BITS, Settings
from celosia.errors import CelosiaError, FitError
from celosia.graph import Graph
from celosia.program import Program
from celosia.qgraph import QGraph, QNode
from celosia_boards.targets import targets

SECONDS = 10.0
"""Processor time after which no further trial is started."""

DENSITIES = (0.5, 0.3, 0.2, 0.1, 0.05)
"""Shares of the weights that may be left, tried from the largest down."""


def compile_or_advise(graph: Graph, settings: Settings, samples: np.ndarray | None) -> Program:
    """Return the program of an optimised graph; samples : calibration inputs.

    FitError where the network does not fit. What its remedy names has been compiled: static
    exponents, another number of lanes or both, narrower weights, another target, a pruned network.
    Where none of them fits, the remedy says what was tried in vain.
    """
    try:
        quantised = settings.quantised(graph, samples)
    except FitError as refusal:
        trials = _Trials(settings)
        raise trials.advice(refusal, trials.narrower(graph, samples)) from None
    try:
        return settings.lowered(quantised)
    except FitError as refusal:
        trials = _Trials(settings)
        narrower = trials.narrower(graph, samples) if refusal.operator == ACCUMULATORS else iter(())
        raise trials.advice(refusal, chain(narrower, trials.here(quantised)),
                            trials.elsewhere(quantised), last=trials.pruned(quantised)) from None


@dataclass(frozen=True)
class Trial:
    """remedy : in words.   kind, value : what is tried, for the list of what was in vain.

    attempt : compiles; CelosiaError where that fails.
    """

    remedy: str
    kind: str
    value: str
    attempt: Callable[[], object]


class _Trials:
    """failed : by kind, what was tried in vain."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.failed: dict[str, list[str]] = {}
        self.end = time.thread_time() + SECONDS

    def advice(self, refusal: FitError, *groups: Iterator[Trial],
               last: Iterator[Trial] | None = None) -> FitError:
        """Return the refusal with the first trial of each group that compiles as its remedy.

        last : tried only where nothing else helps.
        """
        ways = [way for group in groups if (way := self._first(group))]
        if not ways and last is not None and (way := self._first(last)):
            ways = [way]
        in_vain = f"; tried in vain: {self._in_vain()}" if self.failed else ""
        remedy = " or ".join(ways) or f"{refusal.remedy}{in_vain}"
        return FitError(refusal.node, refusal.operator, refusal.problem, remedy, refusal.source)

    def _first(self, trials: Iterator[Trial]) -> str | None:
        """Return the remedy of the first trial that compiles; None if there is none in time."""
        for trial in trials:
            if time.thread_time() > self.end:
                return None
            try:
                trial.attempt()
                return trial.remedy
            except CelosiaError:
                values = self.failed.setdefault(trial.kind, [])
                if trial.value not in values:
                    values.append(trial.value)
        return None

    def _in_vain(self) -> str:
        """Return what was tried in vain, in words."""
        words = []
        for kind, values in self.failed.items():
            if kind == "target" and len(values) == len(targets()) - 1:
                words.append("every other target")
            elif kind == "pruning":
                words.append(f"pruning to {values[-1]}")
            elif kind in ("lanes", "weight bits"):
                words.append(f"{', '.join(sorted(values, key=int))} {kind}")
            else:
                words += [value if kind == "target" else f"{kind} {value}".strip()
                          for value in values]
        return ", ".join(words)

    def narrower(self, graph: Graph, samples: np.ndarray | None) -> Iterator[Trial]:
        """Narrower mantissas, for sums that no accumulator is wide enough for."""
        for bits in range(self.settings.weight_bits - 1, BITS[0] - 1, -1):
            settings = replace(self.settings, weight_bits=bits)
            yield Trial(f"use weight_bits={bits}", "weight bits", str(bits),
                        partial(_compiled, settings, graph, samples))

    def here(self, graph: QGraph) -> Iterator[Trial]:
        """Other settings for the same target."""
        calibrate = "use static exponents (give calibration inputs)"
        dynamic = self.settings.exponents == "dynamic"
        if not self.settings.sparse:
            yield Trial("leave the zeros out (sparse)", "sparse weights", "",
                        self._attempt(_sparse(graph), sparse=True))
        if dynamic:
            yield Trial(calibrate, "static exponents", "",
                        self._attempt(graph, exponents="static"))
        lanes = list(self._lanes())
        for count in lanes:
            yield Trial(f"use {count} lanes", "lanes", str(count),
                        self._attempt(graph, lanes=count))
        for count in lanes if dynamic else ():
            yield Trial(f"{calibrate} and {count} lanes", "lanes", str(count),
                        self._attempt(graph, lanes=count, exponents="static"))

    def elsewhere(self, graph: QGraph) -> Iterator[Trial]:
        """Other targets with their own lanes."""
        kinds = {self.settings.exponents: "", "static": " with static exponents"}
        for exponents, words in kinds.items():
            for name in self._others():
                yield Trial(f"compile it for {name}{words}", "target", name, self._attempt(
                    graph, target=name, lanes=None, exponents=exponents))

    def pruned(self, graph: QGraph) -> Iterator[Trial]:
        """The smallest weights of each layer removed, for this target and for others."""
        smaller = [(f"{share:.0%}", _pruned(graph, share)) for share in DENSITIES]
        for name in (self.settings.target, *self._others()):
            own = name == self.settings.target
            for share, fewer in smaller:
                yield Trial(
                    f"prune it{'' if own else f' and compile it for {name}'}: with the largest "
                    f"{share} of each layer's weights it fits", "pruning", share,
                    self._attempt(fewer, sparse=True, target=name,
                                  lanes=self.settings.lanes if own else None))

    def _others(self) -> list[str]:
        """The other targets, boards before bare devices."""
        entries = sorted(targets().values(), key=lambda entry: entry.board is None)
        return [entry.name for entry in entries if entry.name != self.settings.target]

    def _lanes(self) -> Iterator[int]:
        """Numbers of lanes that the target's array can have, near the present one first."""
        now = self.settings.array().lanes
        for lanes in (now // 2, now * 2, now // 4, now * 4, now // 8):
            try:
                replace(self.settings, lanes=lanes).array()
            except CelosiaError:
                continue
            yield lanes

    def _attempt(self, graph: QGraph, **changes: Any) -> Callable[[], object]:
        settings = replace(self.settings, **changes)
        return lambda: settings.lowered(_with_exponents(graph, settings.exponents))


def _compiled(settings: Settings, graph: Graph, samples: np.ndarray | None) -> Program:
    return settings.lowered(settings.quantised(graph, samples))


def _with_exponents(graph: QGraph, exponents: str) -> QGraph:
    """Return the graph with exponents of this kind; no place and no cycle depends on their values.
    """
    tensors = {name: replace(tensor, static_exponent=None if exponents == "dynamic" else
                             tensor.exponent_min if tensor.static_exponent is None
                             else tensor.static_exponent)
               for name, tensor in graph.tensors.items()}
    return replace(graph, tensors=tensors)


def _sparse(graph: QGraph) -> QGraph:
    return _kept(graph, lambda node: node.matrix.data != 0)


def _pruned(graph: QGraph, share: float) -> QGraph:
    """Return the graph with the largest mantissas of each layer, and of equal ones the first."""
    def keep(node: QNode) -> np.ndarray:
        size = np.abs(node.matrix.data.astype(np.int64))
        order = np.argsort(-size, kind="stable")[:max(1, round(share * node.weights))]
        kept = np.zeros(len(size), bool)
        kept[order] = True
        kept &= size > 0
        return kept

    return _kept(graph, keep)


def _kept(graph: QGraph, keep: Callable[[QNode], np.ndarray]) -> QGraph:
    """Return the graph with some weights only; averages, selections and factors for each channel
    stay as they are."""
    nodes = []
    for node in graph.nodes:
        if node.kind in ("conv", "linear") and node.weights > node.matrix.shape[0]:
            kept, matrix = keep(node), node.matrix
            row = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
            counts = np.bincount(row[kept], minlength=matrix.shape[0])
            starts = np.concatenate([[0], np.cumsum(counts)]).astype(matrix.indptr.dtype)
            node = replace(node, matrix=csr_array(
                (matrix.data[kept], matrix.indices[kept], starts), shape=matrix.shape))
        nodes.append(node)
    return replace(graph, nodes=tuple(nodes))
