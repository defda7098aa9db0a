"""What is in a network's way on each target, and the smallest changes that were seen to help."""

import math
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from celosia.bands.schedule import Outcome, attempt_weights
from celosia.compiler import Compiler
from celosia.graph import Conv, Graph
from celosia.ways_out import DENSITIES, SECONDS, Graphs, Trial, Trials
from celosia_boards.targets import target as find_target
from celosia_spec.errors import CelosiaError, CompileError, FitError, Scarce

_STEPS = 6
"""Shares of the weights that are tried from the largest that may fit downwards."""

_LEAST = 0.03
"""The smallest share of its weights that a network can be thought to work with."""

Progress = Callable[[str, int, int], None]
"""What long work calls: what is done now, how many of it are done, and of how many; 0 of 0 where
there is one."""

Key = tuple[str, ...]
"""What is in the way, whatever its size: it is gone where no refusal has its key."""


@dataclass(eq=False)
class Machine:
    """A network on one target.

    outcome : with the settings asked for.
    single  : by key, the first change that makes it go away.   whole : the first that makes the
    network fit, or None.
    """

    settings: Compiler
    outcome: Outcome
    single: dict[Key, str] = field(default_factory=dict)
    whole: str | None = None


class Search:
    """A network, and what became of it with all settings tried so far.

    graph   : optimised, or None where it is not known as a whole.
    samples : calibration inputs, or None.   layers : linear layers that are known in any case.
    """

    def __init__(self, graph: Graph | None, samples: np.ndarray | None,
                 layers: Sequence[Conv]) -> None:
        self.layers = layers
        self.graphs = None if graph is None else Graphs(graph, samples)
        self._machines: dict[object, Machine] = {}

    def machine(self, settings: Compiler) -> Machine:
        """Return the network with these settings; targets that are alike share one."""
        alike = settings.array(), find_target(settings.target).machine
        if alike not in self._machines:
            self._machines[alike] = Machine(settings, self._outcome(settings))
        return self._machines[alike]

    def find_changes(self, progress: Progress) -> None:
        """Look for changes for every machine that the network does not fit."""
        open_ = [machine for machine in self._machines.values() if machine.outcome.schedule is None]
        for done, machine in enumerate(open_):
            progress("looking for what helps", done, len(open_))
            if self.graphs is not None and all(isinstance(refusal, FitError)
                                               for refusal in machine.outcome.refusals):
                self._find(self.graphs, machine, SECONDS / len(open_))

    def elsewhere(self, settings: Compiler, asked: Sequence[str]) -> str | None:
        """Return the first change to a target not asked for that compiles."""
        if self.graphs is None:
            return None
        end = time.thread_time() + SECONDS
        trials = Trials(self.graphs, settings)
        for trial in trials.elsewhere():
            if trial.compiler.target in asked:
                continue
            if time.thread_time() > end:
                break
            if all(outcome.schedule for outcome in _outcomes(self.graphs, trial)):
                return trial.remedy
        return None

    def _outcome(self, settings: Compiler) -> Outcome:
        if self.graphs is None:
            return attempt_weights(self.layers, settings.array(), settings.target)
        return _outcomes(self.graphs, Trial("", "", "", settings))[0]

    def _find(self, graphs: Graphs, machine: Machine, seconds: float) -> None:
        end = time.thread_time() + seconds
        trials = Trials(graphs, machine.settings)
        keys = [key(refusal) for refusal in machine.outcome.refusals]
        for trial in self._trials(trials, machine):
            if time.thread_time() > end or (machine.whole and len(machine.single) == len(keys)):
                return
            try:
                outcomes = _outcomes(graphs, trial)
            except CelosiaError:        # the target cannot have such an array
                continue
            for one in keys:
                if one not in machine.single and all(gone(one, outcome) for outcome in outcomes):
                    machine.single[one] = _words(trial)
            if machine.whole is None and all(outcome.schedule for outcome in outcomes):
                machine.whole = _words(trial)

    def _trials(self, trials: Trials, machine: Machine) -> Iterator[Trial]:
        """Changes for one target, the small ones first."""
        here = list(trials.here())
        shares = self._shares(trials.graphs.graph, machine.outcome)
        yield from (trial for trial in here if trial.compiler.lanes == machine.settings.lanes)
        yield from (trials.pruned_to(share, machine.settings.target) for share in shares)
        yield from (trial for trial in here if trial.compiler.lanes != machine.settings.lanes)

    def _shares(self, graph: Graph, outcome: Outcome) -> list[float]:
        """Return shares of the weights that may be left, where fewer weights can help at all."""
        needs = {refusal.need.what: refusal.need for refusal in outcome.refusals
                 if isinstance(refusal, FitError) and refusal.need}
        if Scarce.MAIN_MEMORY not in needs:
            few = {Scarce.ROW_WEIGHTS, Scarce.SUM_BITS} & needs.keys()
            return list(DENSITIES) if few else []
        layers = [node for node in graph.nodes if isinstance(node, Conv)]
        size = sum(node.weight.size for node in layers)
        stored = sum(np.count_nonzero(node.weight) for node in layers)
        # Maps stay; weights take a byte or two now, and two each where many are gone.
        need = needs[Scarce.MAIN_MEMORY]
        high, low = ((need.available - need.needed) * 512 / size + count * stored / size / 2
                     for count in (2, 1))
        shares = sorted({_tidy(low + (high - low) * k / (_STEPS + 1))
                         for k in range(_STEPS + 2)}, reverse=True)
        shares = [share for share in shares if _LEAST <= share < 1]
        return shares + [share for share in DENSITIES if share < min(shares, default=_LEAST)]


def _tidy(share: float) -> float:
    """Return a share that people would name, not above another."""
    step = 0.05 if share > 0.2 else 0.01
    return round(math.floor(share / step) * step, 2)


def _outcomes(graphs: Graphs, trial: Trial) -> list[Outcome]:
    """Return what becomes of a trial, in each way that has to fit."""
    try:
        return [trial.compiler.attempt(graph) for graph in graphs.of(trial)]
    except CompileError as refusal:
        return [Outcome(None, (refusal,), planned=False)]


def key(refusal: CompileError) -> Key:
    """Return what is in the way, whatever its size."""
    what = refusal.need.what if isinstance(refusal, FitError) and refusal.need else None
    if what == Scarce.MAIN_MEMORY:
        return (what,)
    return refusal.node, what or re.sub(r"\d+", "#", refusal.problem)


def gone(one: Key, outcome: Outcome) -> bool:
    """Whether something is known to be no longer in the way."""
    known = outcome.planned or len(one) > 1
    return known and one not in {key(refusal) for refusal in outcome.refusals} and all(
        isinstance(refusal, FitError) for refusal in outcome.refusals)


def _words(trial: Trial) -> str:
    if trial.share == 1:
        return trial.remedy
    return f"prune it to the largest {trial.share:.0%} of each layer's weights"
