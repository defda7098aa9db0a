"""Low-rank factorisation of a whole network: choose ranks, replace layers, fine-tune, again."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from celosia.compress.cost import Cost
from celosia.compress.cost import measure as measure_cost
from celosia.compress.journal import Journal, describe, fingerprint
from celosia.compress.layers import put
from celosia.compress.lowrank.decomposition import Decomposition, Ranks, Site, plain_copy, product
from celosia.compress.lowrank.rank_search import (
    RULES,
    Budget,
    as_lists,
    as_tuples,
    choose_ranks,
    choose_sites,
    given_ranks,
)
from celosia.compress.pruning.rounds import Measure, reproducible
from celosia.errors import ArgumentError

__all__ = ["FactoriseReport", "FactoriseRound", "LayerRanks", "factorise"]

Layer = nn.Conv2d | nn.Linear

_LOGGER = logging.getLogger(__name__)


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
class FactoriseRound:
    """What one round did: its index from 0, of how many, and the network after it.

    ranks      : {layer name: ranks} of the layers that are decomposed.
    parameters : trained numbers of the whole network.
    macs       : of the whole network for one input.
    density    : weights of convolutions and linear layers now that are not zero / all that the
                 network had before the run.
    measured   : what the caller's `measure` returned; empty without one.
    seconds    : how long the round took, fine-tuning and measuring included.
    """

    round: int
    rounds: int
    ranks: Mapping[str, Ranks]
    parameters: int
    macs: int
    density: float
    measured: Mapping[str, float | int | None] = field(default_factory=dict)
    seconds: float = field(default=0.0, compare=False)

    @property
    def accuracy(self) -> float | None:
        """What was measured under this name, or None."""
        return self.measured.get("accuracy")

    @property
    def predicted_cycles(self) -> int | None:
        """What was measured under this name, or None."""
        return self.measured.get("predicted_cycles")

    def as_json(self) -> dict[str, Any]:
        """Return the record as JSON has it."""
        return {"round": self.round, "rounds": self.rounds, "ranks": as_lists(self.ranks),
                "parameters": self.parameters, "macs": self.macs, "density": self.density,
                "measured": dict(self.measured), "seconds": self.seconds}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> FactoriseRound:
        """Return the record that `as_json` wrote."""
        return cls(**{**content, "ranks": as_tuples(content["ranks"])})


@dataclass(frozen=True, kw_only=True)
class FactoriseReport:
    """The outcome of `factorise`.

    layers            : each chosen layer's ranks and weights, in the model's order.
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

    A replaced layer's name stays and stands for an `nn.Sequential`. Fine-tuning works on the
    decomposed layers: in the original ones the directions that were cut would grow back (P3, Fig.
    6-19). A layer that would get no smaller is left alone, and the report says so.

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
        Names of layers to decompose (None: all that the method takes), and to leave alone.
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
        ``celosia.compress.factorise`` says so.
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
        Unknown names; ranks out of range; settings that contradict each other; a budget that
        cannot be met; no layer that gets smaller; a checkpoint of another run. The model is
        unchanged if it is raised before the first round.
    """
    way = Decomposition(method=method, scheme=scheme, minimum=minimum)
    _check(ranks, rule, parameters_removed, macs_removed, evaluate, accuracy_budget, rounds)
    before = measure_cost(model, example_input)
    sites = choose_sites(model, example_input, way, layers if ranks is None else ranks, skip)
    choices = {
        "method": method, "scheme": scheme if method == "svd" else None, "rule": rule,
        "value": value, "given": describe(ranks), "parameters_removed": parameters_removed,
        "macs_removed": macs_removed, "layers": list(sites), "minimum": minimum,
        "weakening": weakening, "rounds": rounds, "accuracy_budget": accuracy_budget,
        "evaluate": describe(evaluate), "seed": seed, "finetuned": finetune is not None,
        "finetune": describe(finetune), "example": list(np.shape(example_input)),
        "start": fingerprint(model),
    }  # fmt: skip
    journal = Journal(checkpoint, choices)
    if "plan" not in journal.notes:
        budget = _budget(parameters_removed, macs_removed, before)
        journal.note("plan", {"ranks": as_lists(given_ranks(way, sites, ranks))} if ranks else
                     choose_ranks(model, way, sites, rule, value, budget, weakening=weakening,
                                  evaluate=evaluate, allowed=accuracy_budget, seed=seed))
    rows = _rows(way, sites, journal.notes["plan"])
    run = _Run(model=model, example=example_input, way=way, rounds=rounds, weights=before.weights,
               final={name: row.ranks for name, row in rows.items() if row.ranks is not None},
               originals={name: plain_copy(site.layer) for name, site in sites.items()})
    records = run(journal, finetune, seed, measure, progress)
    return FactoriseReport(layers=rows, rounds=records, parameters_before=before.parameters,
                           macs_before=before.macs, choices=choices | journal.notes["plan"])


@dataclass(frozen=True, kw_only=True, eq=False)
class _Run:
    """The rounds.

    originals : a copy of each layer as it was given, without masks.
    weights   : of the whole network as it was given, biases not counted.
    """

    model: nn.Module
    example: Any
    way: Decomposition
    final: Mapping[str, Ranks]
    rounds: int
    originals: Mapping[str, Layer]
    weights: int

    def __call__(
        self,
        journal: Journal,
        finetune: Callable[[nn.Module, int], None] | None,
        seed: int,
        measure: Measure | None,
        progress: Callable[[FactoriseRound], None] | None,
    ) -> tuple[FactoriseRound, ...]:
        """Do the rounds that the journal does not have yet; return the records of all."""
        records = [FactoriseRound.from_json(record) for record in journal.records]
        kept = journal.restore()
        if kept is not None:
            _LOGGER.info("%s: %d of %d rounds found, going on after them", journal.folder,
                         len(records), self.rounds)
            self.install(records[-1].ranks)
            self.model.load_state_dict(kept)
        for index in range(len(records), self.rounds):
            start = time.perf_counter()
            ranks = self.ranks(index)
            self.install(ranks)
            with reproducible(self.model, seed + index):
                if finetune is not None:
                    finetune(self.model, index)
            with reproducible(self.model, seed + index):
                measured = {} if measure is None else dict(measure(self.model))
            cost = measure_cost(self.model, self.example)
            records.append(FactoriseRound(
                round=index, rounds=self.rounds, ranks=ranks, parameters=cost.parameters,
                macs=cost.macs, density=cost.nonzeros / self.weights, measured=measured,
                seconds=time.perf_counter() - start))
            journal.finish(records[-1].as_json(), self.model.state_dict())
            if progress is not None:
                progress(records[-1])
        return tuple(records)

    def ranks(self, index: int) -> dict[str, Ranks]:
        """Return the ranks of a round, falling to the final ones in equal steps."""
        share = (self.rounds - 1 - index) / self.rounds
        found = {}
        for name, last in self.final.items():
            layer = self.originals[name]
            top = self.way.largest_saving(layer) or last
            between = tuple(round(low + max(high - low, 0) * share)
                            for low, high in zip(last, top, strict=True))
            between = self.way.consistent(layer, between)
            found[name] = between if self.way.saves(layer, between) else last
        return found

    def install(self, ranks: Mapping[str, Ranks]) -> None:
        """Decompose layers to these ranks, from their product where they are decomposed."""
        for name, wanted in ranks.items():
            current = self.model.get_submodule(name)
            dense = self.originals[name].train(current.training)
            if isinstance(current, nn.Sequential):
                with torch.no_grad():
                    dense.weight.copy_(product(current).reshape(dense.weight.shape))
                    if dense.bias is not None:
                        dense.bias.copy_(current[-1].bias)
            put(self.model, current, self.way.split(dense, wanted))


def _check(
    ranks: object, rule: str | None, parameters: float | None, macs: float | None,
    evaluate: object, allowed: float | None, rounds: int,
) -> None:  # fmt: skip
    """Raise ArgumentError for a combination that means nothing."""
    if rounds < 1:
        raise ArgumentError(f"rounds must be at least 1, not {rounds}")
    if rule is not None and rule not in RULES:
        raise ArgumentError(f"rule must be one of {RULES}, not {rule!r}")
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


def _rows(
    way: Decomposition, sites: Mapping[str, Site], plan: Mapping[str, Any]
) -> dict[str, LayerRanks]:
    """Return what becomes of each layer; refuse a plan by which none gets smaller."""
    planned, rows = as_tuples(plan["ranks"]), {}
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
