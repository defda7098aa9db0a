"""The layers of a network that may be decomposed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import nn

from celosia.compress.layers import obstacle, plain_layers, weight_sharers
from celosia.compress.lowrank.svd import output_size
from celosia.compress.masks.weights import Mask
from celosia.compress.promise import example_for, run_once
from celosia.compress.readings import Readings
from celosia_spec.errors import ArgumentError

__all__ = ["Layer", "Site", "find_sites"]

Layer: TypeAlias = nn.Conv2d | nn.Linear


@dataclass(frozen=True, kw_only=True, eq=False)
class Site:
    """A layer that may be decomposed, and the inputs that it sees for one input of the network.

    sizes  : height and width of its input at each call; of a Linear the number of
             vectors, and 1.
    reason : why no other layers can take its place, in words that follow its name, or "".
    """

    layer: Layer
    sizes: tuple[tuple[int, int], ...]
    reason: str = ""

    @property
    def parameters(self) -> int:
        """Weights of the layer, biases not counted."""
        return int(self.layer.weight.numel())

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the layer for one input of the network."""
        if isinstance(self.layer, nn.Linear):
            return self.parameters * sum(math.prod(size) for size in self.sizes)
        return self.parameters * sum(
            math.prod(output_size(self.layer, size)) for size in self.sizes
        )


def find_sites(model: nn.Module, example_input: Any) -> dict[str, Site]:
    """Return the Conv2d and Linear layers by name, with the sizes of their inputs.

    The model runs once on `example_input` (1, ...), in eval mode and without gradients.
    """
    layers = plain_layers(model)
    if not layers:
        raise ArgumentError("the model has no Conv2d or Linear layer, so nothing can be decomposed")
    sizes: dict[str, list[tuple[int, int]]] = {name: [] for name in layers}
    readings = Readings(layers)

    def record(name: str, layer: nn.Module, shape: torch.Size) -> None:
        conv = isinstance(layer, nn.Conv2d)
        sizes[name].append(tuple(shape[-2:]) if conv else (math.prod(shape[1:-1]), 1))

    x = example_for(model, example_input)
    with readings.watched(record):
        run_once(model, x)
    found = {}
    for name, layer in layers.items():
        sharers = weight_sharers(model, layer)
        reason = obstacle(layer, allowed=[Mask]) or ""
        if not reason and sharers:
            reason = f"holds a tensor that {sharers[0]!r} holds too; give it a copy of its own"
        elif not reason and name in readings.strangers:
            reason = "has a weight that is read without calling it; leave it out"
        elif not reason and not sizes[name]:
            reason = "is not called; leave it out"
        found[name] = Site(layer=layer, sizes=tuple(sizes[name]), reason=reason)
    return found
