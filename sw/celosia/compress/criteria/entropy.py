"""What connections contribute and tell, from samples of their inputs: the arithmetic of AE-LIP."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn

from celosia.compress.criteria.registry import Scores, Scoring
from celosia.compress.criteria.statistics import calibration_inputs, observe, patches
from celosia.compress.layers import Prunable

__all__ = ["contribution_and_entropy"]

_CHUNK = 2**22
"""Interval limits that are looked up at once."""


def contribution_and_entropy(scoring: Scoring, *, score: str, intervals: int, samples: int,
                             span: str, batch_size: int) -> Scores:
    """Return the scores of `celosia.compress.criteria.ae_lip`, whose options these are."""
    inputs = calibration_inputs("ae-lip", scoring.inputs, least=1)
    generator = torch.Generator().manual_seed(scoring.seed)
    drawn = torch.randperm(len(inputs), generator=generator)[:samples].sort().values
    seen: dict[str, list[torch.Tensor]] = {name: [] for name in scoring.layers}

    def use(name: str, layer: nn.Module, x: torch.Tensor, a: torch.Tensor) -> None:
        if isinstance(layer, nn.Linear):
            values = x.reshape(-1, 1, x.shape[-1])
        else:
            count = math.prod(a.shape[2:])
            place = torch.randint(count, (len(x), 1), generator=generator)
            values = patches(layer, x, place)[:, 0]
        seen[name].append(values.to("cpu", copy=True))

    observe(scoring.model, scoring.layers, inputs[drawn], use, activation="pre",
            batch_size=batch_size)
    return {name: _score(layer, torch.cat(seen.pop(name)).double().numpy(), score, intervals, span)
            for name, layer in scoring.layers.items()}


def _score(
    layer: Prunable, x: np.ndarray, score: str, intervals: int, span: str
) -> np.ndarray:
    """Return the scores of a layer's weight, given its inputs x (samples, groups, K)."""
    weight = layer.weight.detach().cpu().double().numpy()
    grouped = weight.reshape(x.shape[1], -1, x.shape[2])
    contribution = np.abs(grouped * x.mean(0)[:, None, :])
    x = np.sort(x, axis=0)
    if span == "own":
        entropy = np.where(grouped != 0, _own_entropy(x, intervals)[:, None, :], 0.0)
    else:
        entropy = _layer_entropy(grouped, x, intervals)
    if score == "product":
        result = contribution * entropy
    else:
        result = sum(part / (part.max() or 1.0) for part in (contribution, entropy))
    scores: np.ndarray = result.reshape(weight.shape)
    return scores


def _own_entropy(x: np.ndarray, intervals: int) -> np.ndarray:
    """Return the entropy of each input over its own range; x sorted, (samples, groups, K)."""
    columns = x.reshape(len(x), -1)
    below = np.stack([
        np.searchsorted(column, np.linspace(column[0], column[-1], intervals + 1)[1:-1])
        for column in columns.T
    ])
    return _entropy(below, len(x)).reshape(x.shape[1:])


def _layer_entropy(weight: np.ndarray, x: np.ndarray, intervals: int) -> np.ndarray:
    """Return the entropy of each product w x over the range of all products of the layer.

    weight : (groups, out, K).   x : sorted, (samples, groups, K).

    How many products lie below a limit is found by looking limit / w up among the inputs.
    """
    ends = weight[None] * x[[0, -1]][:, :, None, :]
    limits = np.linspace(ends.min(), ends.max(), intervals + 1)[1:-1]
    result = np.zeros(weight.shape)
    step = max(1, _CHUNK // (weight.shape[1] * len(limits)))
    for group, start in np.ndindex(weight.shape[0], -(-weight.shape[2] // step)):
        part = slice(start * step, (start + 1) * step)
        w = weight[group, :, part].T
        columns = torch.from_numpy(np.ascontiguousarray(x[:, group, part].T))
        with np.errstate(divide="ignore", invalid="ignore"):
            asked = torch.from_numpy((limits / w[:, :, None]).reshape(len(w), -1))
        under = torch.searchsorted(columns, asked).numpy().reshape(*w.shape, -1)
        over = torch.searchsorted(columns, asked, right=True).numpy().reshape(*w.shape, -1)
        below = np.where(w[:, :, None] > 0, under, len(x) - over)
        result[group, :, part] = np.where(w != 0, _entropy(below, len(x)), 0.0).T
    return result


def _entropy(below: np.ndarray, count: int) -> np.ndarray:
    """Return the entropy of histograms, natural logarithm.

    below : (..., intervals - 1), how many of `count` values lie below each inner limit.
    """
    shape = (*below.shape[:-1], 1)
    edges = np.concatenate([np.zeros(shape), below, np.full(shape, count)], axis=-1)
    share = np.diff(edges, axis=-1) / count
    entropy: np.ndarray = np.sum(share * np.log(1 / np.where(share > 0, share, 1.0)), axis=-1)
    return entropy
