"""How important is each filter? Scores for removing whole filters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import nn

from celosia.compress.entry import entry
from celosia.compress.masks.filters import filter_masks
from celosia_spec.errors import ArgumentError

__all__ = ["FILTER_METHODS", "filter_scores"]


def _std(weight: np.ndarray) -> np.ndarray:
    """Return the standard deviation of each filter's weights, (O,), of a weight (O, I, kh, kw).

    ``s_j = std(W[j])`` over the I kh kw numbers, divided by their number (P2: Li, Zhao, Han,
    J. Zhejiang Univ. Eng. Sci. 53(10), 2019). Unbiased or not, the order is the same.
    """
    return weight.reshape(len(weight), -1).std(axis=1)


def _l1(weight: np.ndarray) -> np.ndarray:
    """Return the sum of the absolute values of each filter's weights, (O,).

    Li, Kadav, Durdanovic, Samet, Graf, arXiv 1608.08710, section 3.1.
    """
    return np.abs(weight).reshape(len(weight), -1).sum(axis=1)


_BY_WEIGHT: dict[str, Callable[[np.ndarray], np.ndarray]] = {"std": _std, "l1": _l1}

FILTER_METHODS = (*_BY_WEIGHT, "mask")
"""Names of the methods that score filters."""


@entry
def filter_scores(
    model: nn.Module, method: str, inputs: Any | None = None
) -> dict[str, np.ndarray]:
    """Score every filter of a model.

    Parameters
    ----------
    model
        Any module; its `Conv2d` layers are scored. It is not changed.
    method
        "std": standard deviation of a filter's weights (P2). "l1": sum of their absolute values
        (Li et al., arXiv 1608.08710). "mask": absolute value of the filter's mask (P3, 6.4.1), for
        the layers that have one (`celosia.compress.add_masks`).
    inputs
        Calibration inputs (N, ...), for a method that looks at activations; these three look at
        parameters alone and do without.

    Returns
    -------
    {layer name: float64 array (output channels,)}; larger is more important.

    Raises
    ------
    ArgumentError
        Unknown method; no convolution, or with "mask" no mask; a score that is not finite.
    """
    if method not in FILTER_METHODS:
        raise ArgumentError(
            f"unknown method {method!r}; filters are scored by {', '.join(FILTER_METHODS)}")
    if method == "mask":
        result = {name: np.abs(_array(mask)) for name, mask in filter_masks(model).items()}
    else:
        result = {name: _BY_WEIGHT[method](_array(layer.weight))
                  for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d)}
    if not result:
        what = "filter masks; add them with add_masks" if method == "mask" else "convolutions"
        raise ArgumentError(f"nothing to score: the model has no {what}")
    for name, values in result.items():
        if not np.isfinite(values).all():
            raise ArgumentError(f"method {method!r} gives layer {name!r} a score that is not "
                                "finite; check its weights for NaN and infinity")
    return result


def _array(parameter: Any) -> np.ndarray:
    return parameter.detach().cpu().double().numpy()
