"""Magnitude: the baseline that other criteria must beat."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from celosia.compress.criteria.registry import Layers, Scores, criterion

__all__ = ["magnitude"]


@criterion("magnitude")
def magnitude(model: nn.Module, layers: Layers, inputs: torch.Tensor | None) -> Scores:
    """Score a weight by its absolute value (Han et al., arXiv 1506.02626). Needs no inputs."""
    return {
        name: np.abs(layer.weight.detach().cpu().double().numpy())
        for name, layer in layers.items()
    }
