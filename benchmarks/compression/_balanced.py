"""A strong baseline: the same number of weights in every row of a layer, rates tuned by trials.

Equal rows are what a machine that runs rows in lockstep wants ("load-balance-aware pruning": Han
et al., "ESE", FPGA 2017, arXiv 1612.00694). How much each layer keeps is left to tuning there; here
it is the best of `TRIALS` short trials, at the very budget that the run is for.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from harness.pictures import top1
from torch import nn

from celosia import compress
from celosia.compress.layers import prunable_layers
from celosia.compress.masks.weights import apply_mask, current_mask
from celosia.compress.weights.prediction import Predictor

__all__ = ["TRIALS", "balanced_masks", "tuned_shares"]

TRIALS = 30
_EXPLORING = 10
_PICTURES, _HELD_OUT = 4_000, 2_000
_WIDE, _NEAR = 0.7, 0.25
"""Standard deviation of a share's logarithm, in the first trials and around the best so far."""

Shares = Mapping[str, float]
"""{layer: its density relative to the others'}."""


def balanced_masks(model: nn.Module, shares: Shares, predict: Predictor,
                   goal: int) -> dict[str, np.ndarray]:
    """Return masks within `goal` cycles, the densities as large as that allows.

    Of every row of a layer the same number of weights stays, those of largest magnitude, at least
    one; a weight removed before stays removed.
    """
    alive = {name: current_mask(layer).numpy() for name, layer in prunable_layers(model).items()}
    scores = compress.scores(model, "magnitude")
    attempt = predict.imported(model)

    def masks(factor: float) -> dict[str, np.ndarray]:
        return {name: _rows(scores[name], alive[name], factor * shares[name]) for name in alive}

    low, high = 0.0, 1 / min(shares.values())
    for _ in range(24):
        factor = (low + high) / 2
        found = attempt(masks(factor))
        within = found.problem is None and found.cycles <= goal
        low, high = (factor, high) if within else (low, factor)
    return masks(low)


def _rows(scores: np.ndarray, alive: np.ndarray, density: float) -> np.ndarray:
    rows, own = len(scores), scores[0].size
    count = max(1, min(own, round(density * own)))
    ranked = np.where(alive, scores, -1.0).reshape(rows, own)
    best = np.argsort(-ranked, axis=1, kind="stable")[:, :count]
    kept = np.zeros((rows, own), bool)
    np.put_along_axis(kept, best, True, axis=1)
    return kept.reshape(alive.shape) & alive


def tuned_shares(make: object, budget: int, predict: Predictor, train: tuple,
                 tune: Mapping[str, object], seed: int) -> Shares:
    """Return the shares of the best trial.

    A trial prunes the trained network to the budget at once, retrains it for one epoch on
    `_PICTURES` pictures and counts right answers on `_HELD_OUT` others of the training set. The
    first takes one share for all layers, the next ones any, the rest steps from the best so far.
    """
    rng, best, most = np.random.default_rng(seed), {}, -1.0
    for trial in range(TRIALS):
        model = make()                          # type: ignore[operator]
        names = list(prunable_layers(model))
        spread = 0.0 if trial == 0 else _WIDE if trial < _EXPLORING else _NEAR
        around = best if trial >= _EXPLORING else dict.fromkeys(names, 1.0)
        shares = {name: around[name] * float(np.exp(rng.normal(0, spread))) for name in names}
        for name, mask in balanced_masks(model, shares, predict, budget).items():
            apply_mask(model.get_submodule(name), torch.from_numpy(mask))
        compress.FineTune(inputs=train[0][:_PICTURES], labels=train[1][:_PICTURES], seed=seed,
                          **{**tune, "epochs": 1})(model, 0)
        right = top1(model, train[0][-_HELD_OUT:], train[1][-_HELD_OUT:])
        if right > most:
            best, most = shares, right
    return best
