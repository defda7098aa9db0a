"""How important is each filter? Scores for removing whole filters."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import nn

from celosia.compress.criteria.registry import Scores, Scoring, criterion, finite, lookup
from celosia.compress.entry import entry
from celosia.compress.masks.filters import filter_masks
from celosia.compress.options import NoOptions, resolve
from celosia_spec.errors import ArgumentError
from celosia_spec.inputs import as_tensor

__all__ = ["filter_scores"]


@criterion("std", of="filters")
def std(scoring: Scoring, options: NoOptions) -> Scores:
    """Score a filter by the standard deviation of its weights (P2).

    ``s_j = std(W[j])`` over the I kh kw numbers, divided by their number (P2: Li, Zhao, Han,
    J. Zhejiang Univ. Eng. Sci. 53(10), 2019). Unbiased or not, the order is the same.
    """
    return {name: _rows(layer.weight).std(axis=1) for name, layer in scoring.layers.items()}


@criterion("l1", of="filters")
def l1(scoring: Scoring, options: NoOptions) -> Scores:
    """Score a filter by the sum of its weights' absolute values (arXiv 1608.08710).

    Li, Kadav, Durdanovic, Samet, Graf, section 3.1.
    """
    return {name: np.abs(_rows(layer.weight)).sum(axis=1)
            for name, layer in scoring.layers.items()}


@criterion("mask", of="filters")
def mask(scoring: Scoring, options: NoOptions) -> Scores:
    """Score a filter by its trained mask's absolute value (P3, 6.4.1); layers without have none."""
    return {name: np.abs(_rows(found)[:, 0]) for name, found in filter_masks(scoring.model).items()}


@entry
def filter_scores(
    model: nn.Module, method: str, inputs: Any | None = None, **options: Any
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
    options
        What the method understands besides; these three have none.

    Returns
    -------
    {layer name: float64 array (output channels,)}; larger is more important.

    Raises
    ------
    ArgumentError
        Unknown method; no convolution, or with "mask" no mask; a score that is not finite.
    TypeError
        An option that the method does not have.
    """
    found = lookup(method, "filters")
    resolved = resolve(method, found.options, options)
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d)}
    if not layers:
        raise ArgumentError("nothing to score: the model has no convolutions")
    result = found.score(Scoring(model=model, layers=layers, inputs=None if inputs is None
                                 else as_tensor(inputs, "inputs")), resolved)
    if not result:
        raise ArgumentError("nothing to score: the model has no filter masks; add them with "
                            "add_masks")
    return finite(method, result)


def _rows(parameter: Any) -> np.ndarray:
    """Return a parameter as float64 (O, rest)."""
    array: np.ndarray = parameter.detach().cpu().double().numpy()
    return array.reshape(len(array), -1)
