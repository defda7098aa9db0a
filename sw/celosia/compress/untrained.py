"""Weights that look as if nobody had trained them."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy import special
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from celosia.compress.layers import Prunable, prunable_layers

__all__ = ["looks_untrained"]

LEAST = 100
"""Fewest weights of a layer that tell anything of their distribution."""

MOST = 1_000_000
"""Most weights of a layer that are looked at, evenly far apart."""

_CHANCE = 0.001
"""Of an untrained network that it is not taken for one."""


def looks_untrained(model: nn.Module) -> bool:
    """Whether a network's weights look as torch and its users draw them before training.

    That is so where everything that training would have moved stands where it began:

    - in each convolution and linear layer of `LEAST` weights or more, their sizes are spread as if
      drawn from a uniform distribution around 0 or from a normal one (of their own width), as far
      as Kolmogorov and Smirnov's test can tell, which rejects one untrained network in a thousand;
    - biases are one number in a layer, or spread evenly within 1 / sqrt(inputs of a row), torch's
      own bound, by the same test of all of them together;
    - every normalisation has mean 0, variance 1, weights 1 and bias 0.

    A network without such a layer does not look untrained.
    """
    layers = [layer for layer in prunable_layers(model).values() if layer.weight.numel() >= LEAST]
    norms = [norm for norm in model.modules() if isinstance(norm, _BatchNorm)]
    if not layers or not all(_fresh(norm) for norm in norms):
        return False
    # The test's limiting distribution, its chance shared among the layers.
    limit = math.sqrt(math.log(2 * (len(layers) + 1) / _CHANCE) / 2)
    return (_distance(np.sort(np.concatenate([_levels(layer) for layer in layers]))) < limit
            and all(_drawn(layer.weight, limit) for layer in layers))


def _levels(layer: Prunable) -> np.ndarray:
    """Return the sizes of a layer's biases against torch's bound, 1 at most if inside; none where
    the layer has one bias for all rows or none."""
    bias = np.empty(0) if layer.bias is None else _values(layer.bias)
    if not bias.size or not np.ptp(bias):
        return np.empty(0)
    return np.abs(bias) * math.sqrt(layer.weight.numel() / len(layer.weight))


def _drawn(tensor: torch.Tensor, limit: float) -> bool:
    """Whether weights are spread as a sample; limit : of `_distance`."""
    size = np.sort(np.abs(_values(tensor.detach().flatten()[::-(-tensor.numel() // MOST)])))
    if not np.isfinite(size).all() or not size.any():
        return False
    uniform = size / size.max()
    normal = special.erf(size / math.sqrt(2 * np.square(size).mean()))
    return min(_distance(uniform), _distance(normal)) < limit


def _values(tensor: torch.Tensor) -> np.ndarray:
    """Return a tensor's values as float64, flat."""
    array: np.ndarray = tensor.detach().cpu().double().numpy().ravel()
    return array


def _distance(levels: np.ndarray) -> float:
    """Return the distance of sorted values from a uniform distribution on 0 to 1, times sqrt(n)."""
    n = len(levels)
    if not n:
        return 0.0
    steps = np.arange(n + 1) / n
    return float(max((steps[1:] - levels).max(), (levels - steps[:-1]).max()) * math.sqrt(n))


def _fresh(norm: _BatchNorm) -> bool:
    """Whether a normalisation has seen no batch and learnt nothing."""
    starts = ((norm.running_mean, 0), (norm.running_var, 1), (norm.weight, 1), (norm.bias, 0))
    return all(tensor is None or bool((tensor == start).all()) for tensor, start in starts)
