"""What to do where a network does not fit: other settings, each tried before it is named."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, takewhile

import numpy as np
from scipy.sparse import csr_array

from celosia.compiler import Compiler, as_if_calibrated
from celosia.graph import Conv, Graph
from celosia.program import Program
from celosia.quantise import Begun
from celosia_boards.targets import target, targets
from celosia_spec.epilogue import DYNAMIC
from celosia_spec.errors import CelosiaError, CompileError, FitError
from celosia_spec.isa.numbers import MANTISSA_BITS
from celosia_spec.qgraph import NodeKind, QGraph

SECONDS = 10.0
"""Processor time after which no further trial is started."""

DENSITIES = (0.5, 0.3, 0.2, 0.1, 0.05)
"""Shares of the weights that may be left."""


def compile_or_advise(graph: Graph, compiler: Compiler, samples: np.ndarray | None,
                      progress: Callable[[str], None] | None = None) -> Program:
    """Return the program of an optimised graph.

    samples : calibration inputs.   progress : called with what takes long and begins.

    FitError where the network does not fit. What its remedy names has been compiled: another
    number of lanes, narrower weights, another target, a pruned network; kinds of exponents take as
    much room as each other. Where none of them fits, the remedy says what was tried in vain.
    """
    quantised = None
    graphs = Graphs(graph, samples)
    try:
        quantised = graphs.quantised(compiler)
        return compiler.program(quantised)
    except FitError as refusal:
        if progress is not None:
            progress("looking for what helps")
        trials = Trials(graphs, compiler)
        narrower = trials.narrower() if quantised is None else ()
        raise trials.advice(refusal, chain(narrower, trials.here()),
                            trials.elsewhere()) from None


@dataclass(frozen=True, eq=False)
class Trial:
    """remedy : in words.   kind, value : what is tried, for the list of what was in vain.

    compiler : to compile with.   share : of each layer's weights that is kept.
    """

    remedy: str
    kind: str
    value: str
    compiler: Compiler
    share: float = 1.0


class Graphs:
    """A network with the mantissas of every trial so far: targets that are alike share them.

    graph : optimised.   samples : calibration inputs, or None.
    """

    def __init__(self, graph: Graph, samples: np.ndarray | None) -> None:
        self.graph, self.samples = graph, samples
        self._known: dict[object, QGraph | CompileError] = {}
        self._begun: dict[tuple[int, bool, int, float], tuple[Graph, Begun]] = {}

    def of(self, trial: Trial) -> Iterator[QGraph]:
        """The trial's graph with its mantissas, in each way that has to fit."""
        compiler, share = trial.compiler, trial.share
        if compiler.exponents == DYNAMIC or self.samples is not None or self.graph.ranges:
            yield self.quantised(compiler, share)
            return
        # No calibration inputs: no place and no cycle depends on the exponents' values, but the
        # width of the accumulators may. It is that of dynamic exponents or wider.
        dynamic = replace(compiler, exponents=DYNAMIC)
        least = self.quantised(dynamic, share)
        yield as_if_calibrated(least)
        for width in dynamic.accumulators():
            if width > least.acc_bits:
                yield as_if_calibrated(self.quantised(dynamic, share, acc_bits=width))

    def quantised(self, compiler: Compiler, share: float = 1.0, *,
                  acc_bits: int | None = None) -> QGraph:
        """Return the graph with a share of each layer's weights as `Compiler.quantised` makes it;
        CompileError where it does not."""
        key = (replace(compiler, target=Compiler.target, lanes=None), compiler.accumulators(),
               share, acc_bits)
        if key not in self._known:
            try:
                graph, begun = self._begin(compiler, share)
                self._known[key] = compiler.quantised(graph, self.samples, acc_bits=acc_bits,
                                                      begun=begun)
            except CompileError as refusal:
                self._known[key] = refusal
        found = self._known[key]
        if isinstance(found, CompileError):
            raise found
        return found

    def _begin(self, compiler: Compiler, share: float) -> tuple[Graph, Begun]:
        """Return the graph with a share of its weights, and its mantissas."""
        key = compiler.weight_bits, compiler.sparse, compiler.low_bits, share
        if key not in self._begun:
            graph = self.graph if share == 1 else replace(self.graph, nodes=tuple(
                _pruned(node, share) if isinstance(node, Conv) else node
                for node in self.graph.nodes))
            self._begun[key] = graph, compiler.begun(graph)
        return self._begun[key]


class Trials:
    """Other settings for one network.

    failed : by kind, what was tried in vain.
    """

    def __init__(self, graphs: Graphs, compiler: Compiler) -> None:
        self.graphs, self.compiler = graphs, compiler
        self.failed: dict[str, list[str]] = {}
        self.end = time.thread_time() + SECONDS

    def advice(self, refusal: FitError, *groups: Iterator[Trial]) -> FitError:
        """Return the refusal with the first trial of each group that compiles as its remedy; pruned
        networks are tried only where nothing else helps."""
        ways = [way for group in groups if (way := self._first(group))]
        if not ways and (way := self._pruned()):
            ways = [way]
        in_vain = f"; tried in vain: {self._in_vain()}" if self.failed else ""
        remedy = " or ".join(ways) or f"{refusal.remedy}{in_vain}"
        return FitError(refusal.node, refusal.operator, refusal.problem, remedy, refusal.source)

    def _first(self, trials: Iterator[Trial]) -> str | None:
        """Return the remedy of the first trial that compiles; None if there is none in time."""
        return next((trial.remedy for trial in trials if self._fits(trial)), None)

    def _fits(self, trial: Trial) -> bool:
        """Whether a trial compiles, in time; what does not is remembered."""
        if time.thread_time() > self.end:
            return False
        try:
            if trial.share < 1:
                self._check_without_weights(trial)
            for quantised in self.graphs.of(trial):
                trial.compiler.fitting(quantised)
            return True
        except CelosiaError:
            values = self.failed.setdefault(trial.kind, [])
            if trial.value not in values:
                values.append(trial.value)
            return False

    def _check_without_weights(self, trial: Trial) -> None:
        """CelosiaError where the network would not fit if no weight were left of it, so that it
        need not be pruned to be seen not to."""
        compiler = trial.compiler
        try:
            whole = list(self.graphs.of(replace(trial, share=1.0)))
        except CompileError:
            return      # fewer weights may have smaller sums
        for quantised in whole:
            for refusal in compiler.schedule(_without_weights(quantised)).refusals():
                raise refusal

    def _in_vain(self) -> str:
        """Return what was tried in vain, in words."""
        words = []
        for kind, values in self.failed.items():
            if kind == "target" and len(values) == len(self._others()):
                words.append("every other target")
            elif kind == "pruning":
                words.append(f"pruning to {values[-1]}")
            elif kind in ("lanes", "weight bits"):
                words.append(f"{', '.join(sorted(values, key=int))} {kind}")
            else:
                words += [value if kind == "target" else f"{kind} {value}".strip()
                          for value in values]
        return ", ".join(words)

    def narrower(self) -> Iterator[Trial]:
        """Narrower weights, whose units are larger: there is more room for biases."""
        for bits in range(self.compiler.weight_bits - 1, MANTISSA_BITS[0] - 1, -1):
            yield Trial(f"use weight_bits={bits}", "weight bits", str(bits),
                        replace(self.compiler, weight_bits=bits))

    def here(self) -> Iterator[Trial]:
        """Other settings for the same target."""
        now = self.compiler
        if not now.sparse:
            yield Trial("leave the zeros out (sparse)", "sparse weights", "",
                        replace(now, sparse=True))
        for count in self._lanes():
            yield Trial(f"use {count} lanes", "lanes", str(count), replace(now, lanes=count))

    def elsewhere(self) -> Iterator[Trial]:
        """Other targets with their own lanes."""
        for name in self._others():
            yield Trial(f"compile it for {name}", "target", name,
                        replace(self.compiler, target=name, lanes=None))

    def _pruned(self) -> str | None:
        """Return the remedy that removes the smallest weights of each layer, for this target or
        for the first other one on which any share fits: the largest share found in time, from the
        smallest on, which takes the least of it."""
        for name in (self.compiler.target, *self._others()):
            trials = (self.pruned_to(share, name) for share in reversed(DENSITIES))
            if fitting := list(takewhile(self._fits, trials)):
                return fitting[-1].remedy
        return None

    def pruned_to(self, share: float, name: str) -> Trial:
        """The largest of each layer's weights kept, for one target."""
        now, own = self.compiler, name == self.compiler.target
        return Trial(
            f"prune it{'' if own else f' and compile it for {name}'}: with the largest "
            f"{share:.0%} of each layer's weights it fits", "pruning", f"{share:.0%}",
            replace(now, sparse=True, target=name, lanes=now.lanes if own else None), share)

    def _others(self) -> list[str]:
        """The other targets, boards before bare devices; of those that are alike one."""
        entries = sorted(targets().values(), key=lambda entry: entry.platform is None)
        names: dict[object, str] = {}
        for entry in entries:
            names.setdefault(entry.machine, entry.name)
        del names[target(self.compiler.target).machine]
        return list(names.values())

    def _lanes(self) -> Iterator[int]:
        """Numbers of lanes that the target's array can have, near the present one first."""
        now = self.compiler.array().lanes_all
        for lanes in (now // 2, now * 2, now // 4, now * 4, now // 8):
            try:
                replace(self.compiler, lanes=lanes).array()
            except CelosiaError:
                continue
            yield lanes


def _without_weights(graph: QGraph) -> QGraph:
    return replace(graph, nodes=tuple(
        replace(node, matrix=csr_array(node.matrix.shape, dtype=np.int16)) for node in graph.nodes))


def _pruned(node: Conv, share: float) -> Conv:
    """Return a layer with a share of its weights, the largest, and of equal ones the first.

    Averages, selections and factors for each channel stay as they are.
    """
    if node.kind not in (NodeKind.CONV, NodeKind.LINEAR) or node.weight[0].size == 1:
        return node
    size = np.abs(node.weight).ravel()
    kept, real = max(1, round(share * size.size)), size[size > 0]
    if kept >= real.size:
        return node
    least = np.partition(real, real.size - kept)[real.size - kept]
    keep = size > least
    keep[np.flatnonzero(size == least)[:kept - np.count_nonzero(keep)]] = True
    return replace(node, weight=np.where(keep.reshape(node.weight.shape), node.weight, 0))
