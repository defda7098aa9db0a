"""How much can each layer lose? The accuracy-against-rate curve of each layer, and rates from it.

P1 (AE-LIP) reads its pruning rates off such curves by hand: one layer is pruned at growing rates,
the others stay whole, nothing is fine-tuned. Here a budget of accuracy reads them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from celosia.compress.criteria.scoring import scores
from celosia.compress.entry import entry
from celosia.compress.layers import (
    distinct_weights,
    first_names,
    prunable_layers,
    refuse_computed_weight,
    refuse_strangers,
)
from celosia.compress.masks.weights import current_mask, mask_weight
from celosia.compress.spans import NOT_NEGATIVE
from celosia.compress.training.rounds import reproducible
from celosia.compress.weights.schedule import count_kept, resolve_rates
from celosia.compress.weights.selection import Select, find_selection, refuse_equal
from celosia_spec.errors import ArgumentError

__all__ = ["GRID", "RateSearch", "search_rates"]

GRID = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
"""Rates that are tried where none are given."""


@dataclass(frozen=True, kw_only=True)
class RateSearch:
    """What `search_rates` found.

    rates    : {layer name: rate}, 0 for a layer whose every tried rate costs too much.
    curves   : {layer name: ((rate, accuracy), ...)}, rates rising, accuracy as `evaluate` gave it.
    baseline : the accuracy of the model as it was given.
    budget   : the fall of accuracy that was allowed in each curve.
    """

    rates: Mapping[str, float]
    curves: Mapping[str, tuple[tuple[float, float], ...]]
    baseline: float
    budget: float

    def as_json(self) -> dict[str, Any]:
        """Return the search as JSON has it."""
        return {
            "rates": dict(self.rates),
            "curves": {name: [list(point) for point in curve]
                       for name, curve in self.curves.items()},
            "baseline": self.baseline,
            "budget": self.budget,
        }


@entry
def search_rates(
    model: nn.Module,
    method: str,
    *,
    inputs: Any | None = None,
    evaluate: Callable[[nn.Module], float],
    budget: float,
    grid: Collection[float] = GRID,
    layers: Collection[str] | None = None,
    select: str = "topk_abs",
    strong: float = 0.75,
    seed: int = 0,
    progress: Callable[[str, float, float], None] | None = None,
    **options: Any,
) -> RateSearch:
    """Find for each layer the largest rate whose cost in accuracy stays within a budget.

    Each layer by itself is pruned at every rate of the grid, on a copy of the model in eval mode,
    without fine-tuning, and the copy is evaluated. The layer's rate is the largest of the grid
    whose accuracy is at least that of the model less the budget. The curves of several layers do
    not add up exactly, and fine-tuning wins some of the loss back: take the budget as a knob.

    Parameters
    ----------
    model
        The trained network; it is not changed.
    method, inputs, options
        As in `celosia.compress.scores`; the weights are scored once, on the given model.
    evaluate
        ``evaluate(model)`` -> accuracy, larger is better. Take images that are not for testing.
    budget
        The fall of accuracy allowed in each layer's curve, at least 0, in the unit of `evaluate`:
        0.01 is one point if that gives a share from 0 to 1.
    grid
        Rates to try, each above 0 and below 1.
    layers
        Names of the layers to search; None is all that the method scores. Of layers that hold one
        weight, the first stands for all.
    select, strong
        How the weights that stay are picked, as in `celosia.compress.prune`.
    seed
        Of `evaluate`, of the criterion and of a selection that samples.
    progress
        ``progress(layer name, rate, accuracy)`` after each evaluation, or None.

    Raises
    ------
    ArgumentError
        A budget below 0, an empty grid or a rate outside (0, 1), an unknown layer or method, a
        weight that a hook computes, a layer whose weights all have the same score, an accuracy
        that is not finite.
    """
    NOT_NEGATIVE.check("the accuracy budget", budget)
    rates = _check_grid(grid)
    pick = find_selection(select, method, strong)
    if layers is not None:
        layers = list(dict.fromkeys(first_names(model, layers).values()))
    every = distinct_weights(model)
    wanted = [layer for name, layer in every.items() if layers is None or name in layers]
    refuse_computed_weight(model, wanted, [nn.Module])
    refuse_strangers(model, wanted)
    with reproducible(model, seed):
        ranking = scores(model, method, inputs, layers=layers, **options)
    trial = copy.deepcopy(model).eval()
    baseline = _measure(trial, evaluate, seed)
    curves = {}
    for name, values in ranking.items():
        if name not in every:
            continue
        refuse_equal(method, name, values, current_mask(every[name]).cpu().numpy(), 0)
        curve = []
        for rate in rates:
            accuracy = _try(trial, name, values, rate, pick, evaluate, seed)
            curve.append((rate, accuracy))
            if progress is not None:
                progress(name, rate, accuracy)
        curves[name] = tuple(curve)
    affordable = {
        name: max((rate for rate, accuracy in curve if accuracy >= baseline - budget), default=0.0)
        for name, curve in curves.items()
    }
    return RateSearch(rates=affordable, curves=curves, baseline=baseline, budget=float(budget))


def _check_grid(grid: Collection[float]) -> list[float]:
    """Return the rates to try, rising and without repetition."""
    rates = sorted({float(rate) for rate in grid})
    if not rates or not all(0 < rate < 1 for rate in rates):
        raise ArgumentError(f"grid must hold rates above 0 and below 1, not {list(grid)}")
    return rates


def _try(
    trial: nn.Module,
    name: str,
    values: np.ndarray,
    rate: float,
    pick: Select,
    evaluate: Callable[[nn.Module], float],
    seed: int,
) -> float:
    """Return the accuracy with one layer pruned; leave the trial as it was."""
    layer = prunable_layers(trial)[name]
    before = current_mask(layer)
    alive = before.cpu().numpy()
    resolve_rates({name: rate}, {name: alive.size})
    kept = pick(values, alive, count_kept(1 - rate, alive.size), np.random.default_rng(seed))
    mask_weight(trial, layer, torch.tensor(kept, device=before.device))
    try:
        return _measure(trial, evaluate, seed)
    finally:
        mask_weight(trial, layer, before)


def _measure(trial: nn.Module, evaluate: Callable[[nn.Module], float], seed: int) -> float:
    """Return a model's accuracy, or raise ArgumentError if it is not a number."""
    with reproducible(trial, seed), torch.no_grad():
        accuracy = float(evaluate(trial))
    if not np.isfinite(accuracy):
        raise ArgumentError(f"evaluate(model) must give a finite number, not {accuracy}")
    return accuracy
