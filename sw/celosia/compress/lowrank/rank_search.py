"""Which rank for which layer: rules for single layers, accuracy curves, budgets for the network."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from celosia.compress.layers import prunable_layers, put
from celosia.compress.lowrank.decomposition import Decomposition, Ranks, largest_factor
from celosia.compress.lowrank.sites import Site, find_sites
from celosia.compress.spans import INSIDE
from celosia.compress.training.rounds import reproducible
from celosia_spec.errors import ArgumentError

__all__ = [
    "Budget",
    "Curve",
    "as_lists",
    "as_tuples",
    "choose_ranks",
    "choose_sites",
    "curve_ranks",
    "curve_ranks_for",
    "given_ranks",
    "rank_curves",
    "rule_ranks",
    "scale_to",
]

CURVE_POINTS = 8
"""Ranks that are tried in a layer: so many equal steps up to the largest that saves weights."""

Sites = Mapping[str, Site]
Curve = tuple[tuple[Ranks, float], ...]
"""A layer's ranks and the network's accuracy with this layer alone decomposed, ranks rising."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """A share of a network's "parameters" or "macs" that must go.

    count  : which of the two.   removed : the share, above 0 and below 1.
    total  : what the whole network has before.
    """

    count: str
    removed: float
    total: int

    def __post_init__(self) -> None:
        INSIDE.check(f"the share of {self.count} to remove", self.removed)

    def share(self, way: Decomposition, sites: Sites, ranks: Mapping[str, Ranks]) -> float:
        """Return the share that goes at these ranks; layers that save no weights stay whole."""
        gone = 0
        for name, chosen in ranks.items():
            site = sites[name]
            if not way.saves(site.layer, chosen):
                continue
            if self.count == "parameters":
                gone += site.parameters - way.parameters(site.layer, chosen)
            else:
                gone += site.macs - way.macs(site, chosen)
        return gone / self.total

    def refuse(self, most: float) -> ArgumentError:
        """Return the error for layers that lose no more than `most` at their least ranks."""
        return ArgumentError(
            f"these layers at their least ranks remove {most:.1%} of the {self.count}, not "
            f"{self.removed:.1%}; lower the minimum rank, name more layers, or ask for less"
        )


def rule_ranks(
    rule: str, value: float | None, way: Decomposition, sites: Sites, weakening: float
) -> dict[str, Ranks]:
    """Return the ranks that a rule for single layers, any but "curve", gives each layer."""
    if rule == "evbmf":
        return {name: way.for_noise(site.layer, weakening) for name, site in sites.items()}
    if value is None:
        what = "share of energy to keep" if rule == "energy" else "speed-up"
        raise ArgumentError(f"rule {rule!r} wants a value, the {what}")
    find = way.for_energy if rule == "energy" else way.for_speedup
    return {name: find(site.layer, value) for name, site in sites.items()}


def scale_to(
    budget: Budget, way: Decomposition, sites: Sites, bases: Mapping[str, Ranks]
) -> dict[str, Ranks]:
    """Return the base ranks times one factor, the largest that meets a budget.

    Raises ArgumentError where the least ranks do not.
    """

    def at(factor: float) -> dict[str, Ranks]:
        return {name: way.scaled(sites[name].layer, base, factor) for name, base in bases.items()}

    most = max(max(way.full(sites[name].layer)) / min(base) for name, base in bases.items())
    factor = largest_factor(
        lambda factor: budget.share(way, sites, at(factor)) >= budget.removed, most
    )
    if factor is None:
        raise budget.refuse(budget.share(way, sites, at(0)))
    return at(factor)


def rank_curves(
    model: nn.Module,
    way: Decomposition,
    sites: Sites,
    evaluate: Callable[[nn.Module], float],
    seed: int = 0,
) -> tuple[float, dict[str, Curve]]:
    """Measure the accuracy against the rank of each layer, the others held (P3, Fig. 6-21).

    Nothing is fine-tuned; the model is as before afterwards. A layer that saves weights at no
    rank has no curve.

    Returns
    -------
    The accuracy of the model as given, and {layer name: curve}.
    """

    def accuracy() -> float:
        with reproducible(model, seed):
            model.eval()
            return float(evaluate(model))

    baseline, curves = accuracy(), {}
    for name, site in sites.items():
        top = way.largest_saving(site.layer)
        if top is None:
            continue
        steps = {way.scaled(site.layer, top, step / CURVE_POINTS)
                 for step in range(1, CURVE_POINTS + 1)}  # fmt: skip
        points = []
        for ranks in sorted(steps):
            small = way.split(site.layer, ranks)
            put(model, site.layer, small)
            try:
                points.append((ranks, accuracy()))
            finally:
                put(model, small, site.layer)
        curves[name] = tuple(points)
    return baseline, curves


def curve_ranks(
    curves: Mapping[str, Curve], baseline: float, allowed: float
) -> dict[str, Ranks]:
    """Return each layer's least ranks whose accuracy is at most `allowed` below the baseline.

    A layer whose every rank costs more is not in the result.
    """
    chosen = {}
    for name, curve in curves.items():
        good = [ranks for ranks, accuracy in curve if max(baseline - accuracy, 0.0) <= allowed]
        if good:
            chosen[name] = good[0]
    return chosen


def curve_ranks_for(
    budget: Budget, way: Decomposition, sites: Sites, curves: Mapping[str, Curve], baseline: float
) -> dict[str, Ranks]:
    """Return `curve_ranks` at the least allowed loss that meets a budget.

    Raises ArgumentError where no point of the curves does.
    """
    losses = sorted({max(baseline - accuracy, 0.0)
                     for curve in curves.values() for _, accuracy in curve})  # fmt: skip
    ranks: dict[str, Ranks] = {}
    for loss in losses:
        ranks = curve_ranks(curves, baseline, loss)
        if budget.share(way, sites, ranks) >= budget.removed:
            return ranks
    raise budget.refuse(budget.share(way, sites, ranks))


def choose_sites(
    model: nn.Module, example: Any, way: Decomposition, named: Collection[str] | None,
    skip: Collection[str],
) -> tuple[dict[str, Site], dict[str, Site]]:
    """Return the layers to decompose and those that cannot be, in the model's order.

    Refuses names that mean nothing, and named layers that cannot be decomposed.

    named : their names, or None for all that the method takes.   skip : names to leave out.
    """
    layers, every = prunable_layers(model), find_sites(model, example)
    if "" in every:
        raise ArgumentError("the model is a single layer, which has no place to be replaced in; "
                            "give that layer to svd or tucker2")
    unknown = [name for name in [*(named or ()), *skip] if name not in layers]
    if unknown:
        raise ArgumentError(f"no layer is called {', '.join(map(repr, unknown))}; "
                            f"layers: {', '.join(map(repr, layers))}")
    for name in named or ():
        if not way.takes(layers[name]):
            raise ArgumentError(f"method {way.method!r} has no decomposition for layer {name!r}, "
                                f"{layers[name]}; leave it out")
        if every[name].reason:
            raise ArgumentError(f"layer {name!r} {every[name].reason}")
    wanted = {name: site for name, site in every.items() if way.takes(site.layer)
              and name not in skip and (named is None or name in named)}
    left = {name: site for name, site in wanted.items() if site.reason}
    chosen = {name: site for name, site in wanted.items() if not site.reason}
    if not chosen:
        reasons = "; ".join(f"{name!r} {site.reason}" for name, site in left.items())
        raise ArgumentError(f"no layer is left that method {way.method!r} can decompose"
                            f"{f' ({reasons})' if reasons else ''}")
    return chosen, left


def given_ranks(
    way: Decomposition, sites: Sites, ranks: Mapping[str, Any]
) -> dict[str, Ranks]:
    """Return the user's ranks as tuples; a rank that is out of range is refused.

    ranks : {layer name: number or tuple}; one number stands for both ranks of Tucker-2.
    """
    found = {}
    for name, site in sites.items():
        chosen = ranks[name]
        if isinstance(chosen, int | np.integer):
            chosen = (chosen,) * len(way.full(site.layer))
        found[name] = tuple(chosen)
        way.check(name, site.layer, found[name])
    return found


def choose_ranks(
    model: nn.Module,
    way: Decomposition,
    sites: Sites,
    rule: str | None,
    value: float | None,
    budget: Budget | None,
    *,
    weakening: float = 1.0,
    evaluate: Callable[[nn.Module], float] | None = None,
    allowed: float | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Return what `celosia.compress.factorise` decides before it touches the model.

    rule, value, weakening, evaluate, allowed : as there; `allowed` is its accuracy_budget.

    Returns
    -------
    As JSON has it: "ranks", {layer name: list}, of the layers to decompose, and for rule "curve"
    also "baseline" and "curves", {layer name: [[ranks, accuracy], ...]}.
    """
    if rule == "curve":
        assert evaluate is not None     # factorise has refused that
        baseline, curves = rank_curves(model, way, sites, evaluate, seed)
        if budget is not None:
            found = curve_ranks_for(budget, way, sites, curves, baseline)
        else:
            assert allowed is not None  # likewise
            found = curve_ranks(curves, baseline, allowed)
        listed = {name: [[list(ranks), accuracy] for ranks, accuracy in curve]
                  for name, curve in curves.items()}
        return {"ranks": as_lists(found), "baseline": baseline, "curves": listed}
    if rule is None:
        found = {name: way.full(site.layer) for name, site in sites.items()}
    else:
        found = rule_ranks(rule, value, way, sites, weakening)
    if budget is not None:
        found = scale_to(budget, way, sites, found)
    return {"ranks": as_lists(found)}


def as_lists(ranks: Mapping[str, Ranks]) -> dict[str, list[int]]:
    """Return ranks as JSON has them."""
    return {name: [int(rank) for rank in chosen] for name, chosen in ranks.items()}


def as_tuples(ranks: Mapping[str, Any]) -> dict[str, Ranks]:
    """Return the ranks that `as_lists` wrote."""
    return {name: tuple(chosen) for name, chosen in ranks.items()}
