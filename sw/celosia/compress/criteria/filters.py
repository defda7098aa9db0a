"""How important is each filter? Criteria that look at its own numbers alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celosia.compress.criteria.registry import Scores, Scoring, criterion
from celosia.compress.options import NoOptions

if TYPE_CHECKING:
    import numpy as np

__all__ = ["l1", "mask", "std"]


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
    return {name: abs(_rows(layer.weight)).sum(axis=1) for name, layer in scoring.layers.items()}


@criterion("mask", of="filters", masks=True)
def mask(scoring: Scoring, options: NoOptions) -> Scores:
    """Score a filter by its trained mask's absolute value (P3, 6.4.1); layers without have none."""
    from celosia.compress.masks.filters import filter_masks

    return {name: abs(_rows(found)[:, 0]) for name, found in filter_masks(scoring.model).items()}


def _rows(parameter: Any) -> np.ndarray:
    """Return a parameter as float64 (O, rest)."""
    array: np.ndarray = parameter.detach().cpu().double().numpy()
    return array.reshape(len(array), -1)
