"""Unstructured pruning: score, remove, retrain, again.

Three separate things meet here: what makes a weight important (`criteria`), how much goes in each
round (`schedule`) and how the network recovers in between (any callable, such as
`finetune.FineTune`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from celosia.compress.criteria import scores
from celosia.compress.masks import apply_mask, current_mask, prunable_layers
from celosia.compress.schedule import count_removed, plan, resolve_rates
from celosia.compress.selection import keep_global, keep_largest
from celosia.errors import ArgumentError

__all__ = ["LayerDensity", "PruneReport", "RoundRecord", "prune"]

Masks = dict[str, np.ndarray]

SCOPES = ("layer", "global")
DEFAULT_ROUNDS = 5
"""Rounds when there is a `finetune` and no number is given."""


@dataclass(frozen=True, kw_only=True)
class LayerDensity:
    """A layer's weights, biases not counted, and how many of them are kept."""

    weights: int
    kept: int

    @property
    def density(self) -> float:
        """Kept weights / all weights."""
        return self.kept / self.weights


@dataclass(frozen=True, kw_only=True)
class RoundRecord:
    """What one round did: its index from 0, of how many, and the layers after it."""

    round: int
    rounds: int
    layers: Mapping[str, LayerDensity]

    @property
    def density(self) -> float:
        """Kept weights / all weights of the pruned layers together, after this round."""
        return sum(layer.kept for layer in self.layers.values()) / sum(
            layer.weights for layer in self.layers.values()
        )


@dataclass(frozen=True, kw_only=True)
class PruneReport:
    """The outcome of `prune`.

    layers  : each prunable layer's weights and kept weights, in the model's order.
    rounds  : one record a round.
    choices : every setting that decided the outcome, as it was resolved: method and its options,
              rates, scope, schedule, rounds, seed, and the rule for equal scores.
    """

    layers: Mapping[str, LayerDensity]
    rounds: tuple[RoundRecord, ...]
    choices: Mapping[str, Any]

    @property
    def density(self) -> float:
        """Kept weights / all weights of all prunable layers together."""
        return self.rounds[-1].density


def prune(
    model: nn.Module,
    method: str,
    *,
    inputs: Any | None = None,
    rates: float | Mapping[str, float],
    finetune: Callable[[nn.Module, int], None] | None = None,
    rounds: int | None = None,
    schedule: str = "cubic",
    seed: int = 0,
    scope: str = "layer",
    progress: Callable[[RoundRecord], None] | None = None,
    **options: Any,
) -> PruneReport:
    """Remove weights of a model's `Conv2d` and `Linear` layers, in place.

    Each round scores the current model, keeps the best weights, masks the rest and calls
    `finetune`. A weight once removed stays removed, also by an earlier call on the same model.
    The masks stay on the model and hold through further training; `celosia.compress.
    make_permanent` turns them into plain zeros, which exporting and saving want.

    Parameters
    ----------
    model
        The trained network.
    method
        Name of a criterion (`celosia.compress.methods`).
    inputs
        Calibration inputs (N, ...) for the methods that need some, else None.
    rates
        The fraction of weights to remove, at least 0 and below 1: one number for all layers, or
        {layer name: number}; layers not named are left alone. Of n weights, round(rate * n) go.
    finetune
        Called as ``finetune(model, round)`` after each round, round = 0, 1, ...; or None.
    rounds
        Number of rounds; None is 5 with `finetune` and 1 without.
    schedule
        How the removed share grows over the rounds: "cubic" or "linear".
    seed
        In round r torch's global generator is set to ``seed + r`` for the criterion and
        `finetune`, and put back afterwards.
    scope
        "layer": each layer reaches its own rate. "global": one rate; weights of all layers
        compete with their plain scores.
    progress
        Called with a `RoundRecord` after each round, or None.
    options
        Passed to the criterion.

    Returns
    -------
    PruneReport

    Raises
    ------
    ArgumentError
        Unknown method, schedule, scope or layer; rates that are not as above; a layer that would
        be left without a weight. The model is unchanged if it is raised before the first round.
    TypeError
        An option that the method does not have.
    """
    layers = prunable_layers(model)
    sizes = {name: layer.weight.numel() for name, layer in layers.items()}
    if scope not in SCOPES:
        raise ArgumentError(f"scope must be one of {SCOPES}, not {scope!r}")
    if scope == "global" and isinstance(rates, Mapping):
        raise ArgumentError(
            "scope='global' ranks all layers together and takes one rate; give one number, or "
            "scope='layer' for a rate each"
        )
    final = resolve_rates(rates, sizes)
    if rounds is None:
        rounds = DEFAULT_ROUNDS if finetune is not None else 1
    records = []
    for index, densities in enumerate(plan(final, rounds, schedule)):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + index)
            ranking = scores(model, method, inputs, **options)
            _mask(layers, _select(layers, ranking, densities, scope))
            if finetune is not None:
                finetune(model, index)
        records.append(RoundRecord(round=index, rounds=rounds, layers=_densities(layers)))
        if progress is not None:
            progress(records[-1])
    choices = {
        "method": method,
        "options": dict(options),
        "rates": final,
        "scope": scope,
        "schedule": schedule,
        "rounds": rounds,
        "seed": seed,
        "ties": "lower index stays",
        "finetuned": finetune is not None,
    }
    return PruneReport(layers=records[-1].layers, rounds=tuple(records), choices=choices)


def _select(
    layers: Mapping[str, nn.Module],
    ranking: Mapping[str, np.ndarray],
    densities: Mapping[str, float],
    scope: str,
) -> Masks:
    """Return the masks that reach the densities, without changing the model."""
    alive = {name: current_mask(layer).cpu().numpy() for name, layer in layers.items()}
    if scope == "layer":
        return {
            name: keep_largest(ranking[name], mask, _count_kept(densities[name], mask.size))
            for name, mask in alive.items()
        }
    total = sum(mask.size for mask in alive.values())
    chosen = keep_global(ranking, alive, _count_kept(min(densities.values()), total))
    for name, mask in chosen.items():
        if not mask.any():
            raise ArgumentError(
                f"this rate with scope='global' leaves layer {name!r} without a weight; give a "
                "lower rate, or scope='layer'"
            )
    return chosen


def _count_kept(density: float, weights: int) -> int:
    return weights - count_removed(1 - density, weights)


def _mask(layers: Mapping[str, nn.Module], masks: Masks) -> None:
    """Mask the layers that lose weights; a layer that keeps all of them stays plain."""
    for name, layer in layers.items():
        if not masks[name].all():
            apply_mask(layer, torch.from_numpy(masks[name]).to(layer.weight.device))


def _densities(layers: Mapping[str, nn.Module]) -> dict[str, LayerDensity]:
    return {
        name: LayerDensity(weights=layer.weight.numel(), kept=int(current_mask(layer).sum()))
        for name, layer in layers.items()
    }
