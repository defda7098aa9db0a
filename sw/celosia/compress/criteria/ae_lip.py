"""AE-LIP's criterion: how much a connection contributes, times how much it tells.

P1: Chen, Mao, Wang, "CNN model compression by activation-entropy layer-wise iterative pruning",
J. Computer Applications 40(5), 2020. Its other half, layer after layer in rounds with retraining,
is the schedule: ``prune(..., order="forward", rounds=I)``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from celosia.compress.criteria.registry import Scores, Scoring, criterion
from celosia.compress.criteria.statistics import calibration_inputs, observe, patches
from celosia.compress.options import option
from celosia_spec.errors import ArgumentError

__all__ = ["FORMS", "SPANS", "ae_lip"]

FORMS = ("product", "normalised_sum")
"""How contribution and entropy make one score."""

SPANS = ("own", "layer")
"""What range the intervals of a histogram divide."""

_CHUNK = 2**22
"""Interval limits that are looked up at once."""


@dataclass(frozen=True, kw_only=True)
class AeLipOptions:
    """Options of "ae-lip"; ArgumentError where one is out of range.

    score      : "product": ``C * H``. "normalised_sum": ``C / max C + H / max H``, the maxima over
                 the layer. P1's own formula (7) is not available; both rise with C and with H.
    intervals  : D, at least 2; P1 does not give it.
    samples    : K, at least 1; P1 does not give it.
    span       : "own": the intervals divide the range of each product by itself, so that
                 H(w x) = H(x) for any w but 0, and an input has one entropy. "layer": they divide
                 the range of all products of the layer, so that a smaller weight has a smaller
                 entropy too; slower.
    batch_size : samples that the model gets at once.
    """

    score: str = option("product", about="product, or normalised_sum of contribution and entropy")
    intervals: int = option(16, about="of the histograms, at least 2")
    samples: int = option(1000, about="drawn from the calibration inputs")
    span: str = option("own", about="own, or layer: the range that the intervals divide")
    batch_size: int = option(64, about="samples that the network gets at once")

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        if self.score not in FORMS:
            raise ArgumentError(f"score must be one of {FORMS}, not {self.score!r}")
        if self.span not in SPANS:
            raise ArgumentError(f"span must be one of {SPANS}, not {self.span!r}")
        if self.intervals < 2 or self.samples < 1:
            raise ArgumentError(f"intervals must be at least 2 and samples at least 1, not "
                                f"{self.intervals!r}, {self.samples!r}")


@criterion("ae-lip", of="weights", options=AeLipOptions)
def ae_lip(scoring: Scoring, options: AeLipOptions) -> Scores:
    """Score a weight by the mean and the entropy of its product with its input (P1 eq. 4 to 7).

    Over `samples` inputs drawn from the calibration set (at least 1; all are used if there are not
    more), weight w on input x has the contribution ``C = |E(w x)|`` and the entropy
    ``H = - sum_z p_z log p_z`` (natural), p_z the share of the products w x that lies in interval
    z. A weight of 0 and an input that is always 0 score 0.

    A Conv2d is our extension, P1 prunes linear layers: x is then an element of the patch that an
    output position sees, at one position drawn at random for each of the inputs drawn.

    Memory is `samples` numbers for each input of each layer. Scores are at least 0.

    Raises ArgumentError without inputs, and for a layer that never runs.
    """
    inputs = calibration_inputs("ae-lip", scoring.inputs, least=1)
    generator = torch.Generator().manual_seed(scoring.seed)
    drawn = torch.randperm(len(inputs), generator=generator)[:options.samples].sort().values
    seen: dict[str, list[torch.Tensor]] = {name: [] for name in scoring.layers}

    def use(name: str, layer: nn.Module, x: torch.Tensor, a: torch.Tensor) -> None:
        if isinstance(layer, nn.Linear):
            values = x.reshape(-1, 1, x.shape[-1])
        else:
            count = a.shape[2] * a.shape[3]
            place = torch.randint(count, (len(x), 1), generator=generator)
            values = patches(layer, x, place)[:, 0]
        seen[name].append(values.to("cpu", copy=True))

    observe(scoring.model, scoring.layers, inputs[drawn], use, activation="pre",
            batch_size=options.batch_size)
    return {name: _score(layer, torch.cat(seen.pop(name)).double().numpy(), options)
            for name, layer in scoring.layers.items()}


def _score(
    layer: nn.Conv2d | nn.Linear, x: np.ndarray, options: AeLipOptions
) -> np.ndarray:
    """Return the scores of a layer's weight, given its inputs x (samples, groups, K)."""
    weight = layer.weight.detach().cpu().double().numpy()
    grouped = weight.reshape(x.shape[1], -1, x.shape[2])
    contribution = np.abs(grouped * x.mean(0)[:, None, :])
    x = np.sort(x, axis=0)
    if options.span == "own":
        entropy = np.where(grouped != 0, _own_entropy(x, options.intervals)[:, None, :], 0.0)
    else:
        entropy = _layer_entropy(grouped, x, options.intervals)
    if options.score == "product":
        result = contribution * entropy
    else:
        result = sum(part / (part.max() or 1.0) for part in (contribution, entropy))
    return result.reshape(weight.shape)


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
    return np.sum(share * np.log(1 / np.where(share > 0, share, 1.0)), axis=-1)
