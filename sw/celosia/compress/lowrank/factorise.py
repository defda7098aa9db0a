"""Low-rank factorisation of a whole network: choose ranks, replace layers, fine-tune, again."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from celosia.compress.cost import Cost, cost_of_layers
from celosia.compress.entry import entry
from celosia.compress.layers import names_of, prunable_layers
from celosia.compress.lowrank.decomposition import Decomposition, Ranks, decomposition, plain_copy
from celosia.compress.lowrank.rank_search import (
    Budget,
    as_lists,
    as_tuples,
    choose_ranks,
    choose_sites,
    given_ranks,
)
from celosia.compress.lowrank.rounds import FactoriseRound, Run
from celosia.compress.lowrank.sites import Site
from celosia.compress.promise import example_for, run_once
from celosia.compress.spans import COUNT
from celosia.compress.training.journal import Journal, describe, fingerprint
from celosia.compress.training.rounds import Measure
from celosia.compress.words import RULES
from celosia_spec.errors import ArgumentError

__all__ = ["FactoriseReport", "FactoriseRound", "LayerRanks", "factorise"]


@dataclass(frozen=True, kw_only=True)
class LayerRanks:
    """What became of one layer.

    ranks   : (r,) of SVD or (rank_out, rank_in) of Tucker-2; None if the layer was left alone.
    weights : before, biases not counted.   kept : weights of what stands in its place now.
    reason  : why it was left alone, else "".
    """

    ranks: Ranks | None
    weights: int
    kept: int
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class FactoriseReport:
    """The outcome of `factorise`.

    layers            : each chosen layer's ranks and weights; where all are chosen, also of those
                        that the method does not take, with the reason.
    rounds            : one record a round, those of a run that was resumed included.
    parameters_before : trained numbers of the whole network before.   macs_before : likewise.
    choices           : every setting that decided the outcome, as it was resolved and as JSON has
                        it, with the accuracy curves if there are any.
    """

    layers: Mapping[str, LayerRanks]
    rounds: tuple[FactoriseRound, ...]
    parameters_before: int
    macs_before: int
    choices: Mapping[str, Any]

    @property
    def parameters(self) -> int:
        """Trained numbers of the whole network now."""
        return self.rounds[-1].parameters

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the whole network now, for one input."""
        return self.rounds[-1].macs

    @property
    def density(self) -> float:
        """Weights now that are not zero / all weights that the network had before."""
        return self.rounds[-1].density


@entry
def factorise(
    model: nn.Module,
    example_input: Any,
    method: str = "svd",
    *,
    ranks: Mapping[str, int | tuple[int, int]] | None = None,
    rule: str | None = None,
    value: float | None = None,
    parameters_removed: float | None = None,
    macs_removed: float | None = None,
    scheme: str = "channel",
    layers: Collection[str] | None = None,
    skip: Collection[str] = (),
    minimum: int | None = None,
    weakening: float = 1.0,
    finetune: Callable[[nn.Module, int], None] | None = None,
    rounds: int = 1,
    evaluate: Callable[[nn.Module], float] | None = None,
    accuracy_budget: float | None = None,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    measure: Measure | None = None,
    progress: Callable[[FactoriseRound], None] | None = None,
) -> FactoriseReport:
    """Replace layers of a model by products of thinner ones, in place, and fine-tune those.

    A replaced layer's names stay and stand for an `nn.Sequential`. Fine-tuning works on the
    decomposed layers: in the original ones the directions that were cut would grow back (P3, Fig.
    6-19). A layer that would get no smaller is left alone, and the report says so; likewise one
    that no other layers can stand for: with a hook or a forward of its own, with a tensor that
    another holds too, with a weight that is read without calling it (as attention does with its
    output projection). Parts of a frozen layer are frozen.

    What takes a layer's place is tried on random inputs first. The network must run afterwards,
    and where the ranks lose nothing, its outputs must be those before.

    Parameters
    ----------
    model
        The trained network.
    example_input
        One input (1, ...), tensor or array; tells the sizes of the maps.
    method
        "svd" or "tucker", which takes convolutions only.
    ranks
        {layer name: rank}, for Tucker-2 (rank_out, rank_in) or one number for both. Or give a
        rule, a budget, or both:
    rule, value
        "energy": the smallest ranks that keep the share `value` of the energy. "speedup": the
        largest with `value` times fewer weights in each layer. "evbmf": the components that stand
        out of the noise (`celosia.compress.evbmf`), no value. "curve": the least ranks that, in
        this layer alone, cost no more accuracy than `accuracy_budget`, or, with a parameter or MAC
        budget instead, than the one allowance for all layers that meets it.
    parameters_removed, macs_removed
        Share of the whole network's parameters or multiply-accumulates to remove: the rule's
        ranks, or the full ones without a rule, are scaled by one factor, the largest that does.
    scheme
        Of SVD in convolutions, "channel" or "spatial".
    layers, skip
        Names of layers to decompose (None: all that the method takes), and to leave alone. A layer
        may be named by any of its names, here and in `ranks`.
    minimum
        Least rank that a rule or a budget gives; None is 8 for Tucker-2, and for SVD 2 in a
        convolution and 1 in a Linear.
    weakening
        Of "evbmf": 1 takes its rank r, 0 the full rank R, between R - weakening (R - r).
    finetune
        Called as ``finetune(model, round)`` after each round, round = 0, 1, ...; or None.
    rounds
        The ranks fall in so many equal steps from the largest that save weights. Each round
        decomposes anew the product of the layers that the last one left.
    evaluate, accuracy_budget
        Of the curve only: ``evaluate(model)`` -> accuracy, and the fall allowed, in its unit.
    seed
        In round r torch's global generators are set to ``seed + r``, and put back afterwards.
    checkpoint
        A folder that keeps the finished rounds. If it holds rounds of this very run, the run goes
        on after them and ends with the same bits as if it had never stopped; the logger
        ``celosia.compress.lowrank.rounds`` says so.
    measure
        ``measure(model)`` -> {name: number or None} after each round, kept in its record; or None.
    progress
        Called with the `FactoriseRound` of each round done now, or None.

    Returns
    -------
    FactoriseReport

    Raises
    ------
    ArgumentError
        Unknown names; a named layer that cannot be decomposed; ranks out of range; settings that
        contradict each other; a budget that cannot be met; no layer that gets smaller; a
        checkpoint of another run; a network that does not run on the example. The model is
        unchanged if it is raised before the first round.
    CelosiaError
        With a layer replaced the network does not run any more, or computes something else though
        nothing is lost. The round's layers are as before it then.
    """
    asked = _Settings(
        way=decomposition(method, scheme, minimum), ranks=ranks, rule=rule,
        value=value, parameters_removed=parameters_removed, macs_removed=macs_removed,
        layers=layers, skip=skip, weakening=weakening, finetune=finetune, rounds=rounds,
        evaluate=evaluate, accuracy_budget=accuracy_budget, seed=seed)
    return asked.run(model, example_input, checkpoint, measure, progress)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Settings:
    """What a call of `factorise` asks for."""

    way: Decomposition
    ranks: Mapping[str, Any] | None
    rule: str | None
    value: float | None
    parameters_removed: float | None
    macs_removed: float | None
    layers: Collection[str] | None
    skip: Collection[str]
    weakening: float
    finetune: Callable[[nn.Module, int], None] | None
    rounds: int
    evaluate: Callable[[nn.Module], float] | None
    accuracy_budget: float | None
    seed: int

    def run(self, model: nn.Module, example_input: Any, checkpoint: str | Path | None,
            measure: Measure | None, progress: Callable[[FactoriseRound], None] | None
            ) -> FactoriseReport:
        """Factorise the model as they say."""
        _check(self.ranks, self.rule, self.parameters_removed, self.macs_removed, self.evaluate,
               self.accuracy_budget, self.rounds)
        ranks, layers, skip = _named(model, self.ranks, self.layers, self.skip)
        run_once(model, example_for(model, example_input))
        before = cost_of_layers(model, example_for(model, example_input))
        sites, left = choose_sites(model, example_input, self.way,
                                   layers if ranks is None else ranks, skip)
        choices = self.choices(model, example_input, ranks, sites)
        journal = Journal(checkpoint, choices)
        if "plan" not in journal.notes:
            journal.note("plan", self.plan(model, ranks, sites, before))
        rows = _rows(self.way, sites, left, journal.notes["plan"])
        if layers is None and ranks is None:
            rows = _untaken(model, self.way, skip) | rows
        run = Run(model=model, example=example_for(model, example_input), way=self.way,
                  rounds=self.rounds, weights=before.weights,
                  final={name: row.ranks for name, row in rows.items() if row.ranks is not None},
                  originals={name: plain_copy(site.layer) for name, site in sites.items()})
        records = run(journal, self.finetune, self.seed, measure, progress)
        return FactoriseReport(layers=rows, rounds=records, parameters_before=before.parameters,
                               macs_before=before.macs, choices=choices | journal.notes["plan"])

    def choices(self, model: nn.Module, example_input: Any, ranks: Mapping[str, Any] | None,
                sites: Mapping[str, Site]) -> dict[str, Any]:
        """Return them as a report has them."""
        return {
            "method": self.way.method,
            "scheme": self.way.scheme, "rule": self.rule,
            "value": self.value, "given": describe(ranks),
            "parameters_removed": self.parameters_removed, "macs_removed": self.macs_removed,
            "layers": list(sites), "minimum": self.way.minimum, "weakening": self.weakening,
            "rounds": self.rounds, "accuracy_budget": self.accuracy_budget,
            "evaluate": describe(self.evaluate), "seed": self.seed,
            "finetuned": self.finetune is not None, "finetune": describe(self.finetune),
            "example": list(np.shape(example_input)), "start": fingerprint(model),
        }  # fmt: skip

    def plan(self, model: nn.Module, ranks: Mapping[str, Any] | None, sites: Mapping[str, Site],
             before: Cost) -> dict[str, Any]:
        """Return the ranks, those that are given or those that rule and budget choose."""
        budget = _budget(self.parameters_removed, self.macs_removed, before)
        if ranks:
            return {"ranks": as_lists(given_ranks(self.way, sites, ranks))}
        return choose_ranks(model, self.way, sites, self.rule, self.value, budget,
                            weakening=self.weakening, evaluate=self.evaluate,
                            allowed=self.accuracy_budget, seed=self.seed)


def _named(
    model: nn.Module, ranks: Mapping[str, Any] | None, layers: Collection[str] | None,
    skip: Collection[str],
) -> tuple[dict[str, Any] | None, list[str] | None, list[str]]:
    """Return the arguments with each layer under its first name."""
    first = {other: name for name, layer in prunable_layers(model).items()
             for other in names_of(model, layer)}
    found = None if ranks is None else {first.get(name, name): rank for name, rank in ranks.items()}
    if found is not None and len(found) < len(ranks or ()):
        raise ArgumentError("ranks name a layer twice, by two of its names; leave one out")
    return (found, None if layers is None else [first.get(name, name) for name in layers],
            [first.get(name, name) for name in skip])


def _check(
    ranks: object, rule: str | None, parameters: float | None, macs: float | None,
    evaluate: object, allowed: float | None, rounds: int,
) -> None:  # fmt: skip
    """Raise ArgumentError for a combination that means nothing."""
    COUNT.check("rounds", rounds)
    if rule is not None and rule not in RULES:
        raise ArgumentError(f"rule must be one of {', '.join(RULES)}, not {rule!r}")
    if parameters is not None and macs is not None:
        raise ArgumentError("give parameters_removed or macs_removed, not both")
    budget = parameters is not None or macs is not None
    if (ranks is not None) == (rule is not None or budget):
        raise ArgumentError("give ranks, or else a rule, a budget (parameters_removed or "
                            "macs_removed), or both of these")
    if rule == "curve":
        if evaluate is None or (allowed is None) == (not budget):
            raise ArgumentError("rule 'curve' needs evaluate=, a callable(model) -> accuracy, and "
                                "one of accuracy_budget, parameters_removed and macs_removed")
    elif evaluate is not None or allowed is not None:
        raise ArgumentError("evaluate and accuracy_budget go with rule='curve'; otherwise "
                            "measure= is called after each round")


def _budget(parameters: float | None, macs: float | None, before: Cost) -> Budget | None:
    if parameters is not None:
        return Budget(count="parameters", removed=parameters, total=before.parameters)
    if macs is not None:
        return Budget(count="macs", removed=macs, total=before.macs)
    return None


def _untaken(model: nn.Module, way: Decomposition, skip: Collection[str]) -> dict[str, LayerRanks]:
    """Return the rows of layers of kinds that the method has no decomposition for."""
    found = {}
    for name, layer in prunable_layers(model).items():
        if name not in skip and not way.takes(layer):
            weights, kind = layer.weight.numel(), type(layer).__name__
            if getattr(layer, "groups", 1) > 1:
                kind += f" of {layer.groups} groups"
            found[name] = LayerRanks(ranks=None, weights=weights, kept=weights, reason=(
                f"is a {kind}, which {way.method!r} does not decompose"))
    return found


def _rows(
    way: Decomposition, sites: Mapping[str, Site], left: Mapping[str, Site],
    plan: Mapping[str, Any]
) -> dict[str, LayerRanks]:
    """Return what becomes of each layer; refuse a plan by which none gets smaller."""
    planned = as_tuples(plan["ranks"])
    rows = {name: LayerRanks(ranks=None, weights=site.parameters, kept=site.parameters,
                             reason=site.reason) for name, site in left.items()}
    for name, site in sites.items():
        weights, ranks = site.parameters, planned.get(name)
        if ranks is not None and way.saves(site.layer, ranks):
            kept = way.parameters(site.layer, ranks)
            rows[name] = LayerRanks(ranks=ranks, weights=weights, kept=kept)
            continue
        if ranks is not None:
            reason = f"ranks {ranks} would save no weights"
        elif name in plan["curves"]:
            reason = "every rank that was tried costs more accuracy than allowed"
        else:
            reason = "no rank saves weights"
        rows[name] = LayerRanks(ranks=None, weights=weights, kept=weights, reason=reason)
    if all(row.ranks is None for row in rows.values()):
        reasons = "; ".join(f"{name}: {row.reason}" for name, row in rows.items())
        raise ArgumentError(f"no layer gets smaller ({reasons}); ask for lower ranks")
    return rows
