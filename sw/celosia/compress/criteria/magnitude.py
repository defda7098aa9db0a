"""Magnitude: the baseline that other criteria must beat."""

from __future__ import annotations

from celosia.compress.criteria.registry import Scores, Scoring, criterion
from celosia.compress.options import NoOptions

__all__ = ["magnitude"]


@criterion("magnitude", of="weights")
def magnitude(scoring: Scoring, options: NoOptions) -> Scores:
    """Score a weight by its absolute value (Han et al., arXiv 1506.02626).

    Needs no inputs.
    """
    return {name: abs(layer.weight.detach().cpu().double().numpy())
            for name, layer in scoring.layers.items()}
