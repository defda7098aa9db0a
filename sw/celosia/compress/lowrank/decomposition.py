"""The ways to decompose a layer behind one face, and the layers of a network that may be.

Ranks are tuples here, of one number for SVD and of two, (rank_out, rank_in), for Tucker-2.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import nn

from celosia.compress.layers import held_weight, obstacle, prunable_layers, weight_sharers
from celosia.compress.lowrank.evbmf import evbmf
from celosia.compress.lowrank.svd import (
    as_matrix,
    check_rank,
    output_size,
    rank_for_energy,
    rank_for_speedup,
    svd,
    svd_full_rank,
    svd_macs,
    svd_parameters,
)
from celosia.compress.lowrank.tucker import (
    MINIMUM,
    check_ranks,
    check_weakening,
    consistent,
    tucker2,
    tucker_full_ranks,
    tucker_macs,
    tucker_parameters,
    tucker_ranks,
    tucker_ranks_for_energy,
    weakened,
)
from celosia.compress.masks.weights import Mask
from celosia.compress.promise import example_for, run_once
from celosia.compress.readings import Readings
from celosia.compress.spans import POSITIVE
from celosia.compress.trial import random_input, same_up_to_rounding
from celosia.compress.words import SCHEMES
from celosia_spec.errors import ArgumentError, CelosiaError

__all__ = [
    "METHODS",
    "Decomposition",
    "Layer",
    "Ranks",
    "Site",
    "find_sites",
    "largest_factor",
    "plain_copy",
    "product",
]

METHODS = ("svd", "tucker")

_BISECTIONS = 40

Ranks = tuple[int, ...]
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


@dataclass(frozen=True, kw_only=True)
class Decomposition:
    """One of the ways to decompose a layer: method "svd" with a scheme, or "tucker".

    minimum : least rank that a rule or a budget gives; None is 8 for Tucker-2, and for SVD 2 in a
              convolution and 1 in a Linear.
    """

    method: str
    scheme: str = "channel"
    minimum: int | None = None

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ArgumentError(f"method must be one of {', '.join(METHODS)}, not {self.method!r}")
        if self.scheme not in SCHEMES:
            raise ArgumentError(f"scheme must be one of {', '.join(SCHEMES)}, not {self.scheme!r}")
        check_weakening(1, 1 if self.minimum is None else self.minimum)

    def takes(self, layer: nn.Module) -> bool:
        """Say whether this method has a decomposition for such a layer."""
        if isinstance(layer, nn.Linear):
            return self.method == "svd"
        return isinstance(layer, nn.Conv2d) and layer.groups == 1

    def split(self, layer: Layer, ranks: Ranks) -> nn.Sequential:
        """Return the layers that take a layer's place; they are tried on random inputs.

        Raises CelosiaError if they compute something else than the product of their weights says.
        """
        parts = svd(layer, ranks[0], self.scheme) if self.method == "svd" else tucker2(layer, ranks)
        whole, x = plain_copy(layer).double(), random_input(layer)
        row, sums = copy.deepcopy(parts).double(), copy.deepcopy(parts).double()
        with torch.no_grad():
            whole.weight.copy_(product(parts).reshape(whole.weight.shape))
            for part in sums.parameters():
                part.abs_()
            if not same_up_to_rounding(whole(x), row(x), sums(x.abs()), torch.float64):
                raise CelosiaError(f"the layers that take the place of {layer} compute something "
                                   "else; leave it out, and please report this layer")
        return parts

    def lost(self, layer: Layer, parts: nn.Sequential) -> float:
        """Return the Frobenius norm of what the parts of a layer lose, over that of its weight."""
        weight = layer.weight.detach().double()
        difference = product(parts).reshape(weight.shape) - weight
        return float(difference.norm() / weight.norm()) if weight.any() else 0.0

    def full(self, layer: Layer) -> Ranks:
        """Return the ranks at which nothing is lost."""
        if self.method == "svd":
            return (svd_full_rank(layer, self.scheme),)
        return tucker_full_ranks(layer)

    def parameters(self, layer: Layer, ranks: Ranks) -> int:
        """Return the weights of the layers that `split` gives, biases not counted."""
        if self.method == "svd":
            return svd_parameters(layer, ranks[0], self.scheme)
        return tucker_parameters(layer, ranks)

    def macs(self, site: Site, ranks: Ranks) -> int:
        """Return their multiply-accumulates for one input of the network."""
        if self.method == "tucker":
            return sum(tucker_macs(site.layer, ranks, size) for size in site.sizes)
        return sum(svd_macs(site.layer, ranks[0], self.scheme, size) for size in site.sizes)

    def saves(self, layer: Layer, ranks: Ranks) -> bool:
        """Say whether the decomposed layer has fewer weights than the layer."""
        return self.parameters(layer, ranks) < int(layer.weight.numel())

    def scaled(self, layer: Layer, ranks: Ranks, factor: float) -> Ranks:
        """Return the ranks times a factor, rounded, within the minimum and the full ranks."""
        least = self.least(layer)
        tops = self.full(layer)
        found = tuple(
            min(max(math.floor(factor * rank + 0.5), least), top)
            for rank, top in zip(ranks, tops, strict=True)
        )
        return self.consistent(layer, found)

    def consistent(self, layer: Layer, ranks: Ranks) -> Ranks:
        """Return the ranks, those of Tucker-2 cut to what each can be beside the other."""
        return ranks if self.method == "svd" else consistent(layer, *ranks)

    def check(self, name: str, layer: Layer, ranks: Ranks) -> None:
        """Refuse ranks that `split` cannot give a layer, called `name` in the message."""
        try:
            if self.method == "tucker":
                check_ranks(layer, ranks)
            elif len(ranks) == 1:
                check_rank(layer, *ranks, self.scheme)
            else:
                raise ArgumentError(f"SVD takes one rank, not {ranks}")
        except ArgumentError as problem:
            raise ArgumentError(f"layer {name!r}: {problem}") from None

    def least(self, layer: Layer) -> int:
        """Return the minimum rank for a layer."""
        if self.minimum is not None:
            return self.minimum
        if self.method == "tucker":
            return MINIMUM
        return 1 if isinstance(layer, nn.Linear) else 2

    def largest_saving(self, layer: Layer) -> Ranks | None:
        """Return the largest scaled full ranks that save weights; None if the least do not."""
        full = self.full(layer)
        return self._largest(layer, lambda ranks: self.saves(layer, ranks), full)

    def for_energy(self, layer: Layer, share: float) -> Ranks:
        """Return the smallest ranks that keep a share of the energy."""
        if self.method == "svd":
            found: Ranks = (rank_for_energy(layer, share, self.scheme),)
        else:
            found = tucker_ranks_for_energy(layer, share)
        return self.scaled(layer, found, 1)

    def for_speedup(self, layer: Layer, factor: float) -> Ranks:
        """Return the largest ranks with `factor` times fewer weights; Tucker's in proportion."""
        if self.method == "svd":
            return self.scaled(layer, (rank_for_speedup(layer, factor, self.scheme),), 1)
        POSITIVE.check("a speed-up", factor)
        most = layer.weight.numel() / factor
        full = self.full(layer)
        found = self._largest(layer, lambda ranks: self.parameters(layer, ranks) <= most, full)
        return self.scaled(layer, full, 0) if found is None else found

    def for_noise(self, layer: Layer, weakening: float) -> Ranks:
        """Return the ranks that stand out of the noise, by `evbmf`."""
        least = self.least(layer)
        if self.method == "tucker":
            return tucker_ranks(layer, weakening, least)
        check_weakening(weakening, least)
        found, _ = evbmf(as_matrix(layer, self.scheme))
        return (weakened(svd_full_rank(layer, self.scheme), found, weakening, least),)

    def _largest(
        self, layer: Layer, good: Callable[[Ranks], bool], ranks: Ranks
    ) -> Ranks | None:
        factor = largest_factor(lambda scale: good(self.scaled(layer, ranks, scale)))
        return None if factor is None else self.scaled(layer, ranks, factor)


def largest_factor(good: Callable[[float], bool], most: float = 1.0) -> float | None:
    """Return about the largest factor in [0, most] that is good; None if 0 is not.

    good : true up to some factor and false above it.
    """
    if not good(0.0):
        return None
    if good(most):
        return most
    low, high = 0.0, most
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if good(middle) else (low, middle)
    return low


def find_sites(model: nn.Module, example_input: Any) -> dict[str, Site]:
    """Return the Conv2d and Linear layers by name, with the sizes of their inputs.

    The model runs once on `example_input` (1, ...), in eval mode and without gradients.
    """
    layers = prunable_layers(model)
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


def product(parts: nn.Sequential) -> torch.Tensor:
    """Return the float64 weights (O, I, kh, kw) of the one layer that equals several in a row.

    Of two neighbours, one has a height of 1 and one a width of 1.
    """
    weights = [part.weight.detach().double() for part in parts]
    weights = [weight if weight.ndim == 4 else weight[:, :, None, None] for weight in weights]
    found = weights[0]
    for weight in weights[1:]:
        joined = torch.einsum("orab,ricd->oiacbd", weight, found)
        outputs, inputs, a, c, b, d = joined.shape
        found = joined.reshape(outputs, inputs, a * c, b * d)
    return found


def plain_copy(layer: Layer) -> Layer:
    """Return a copy of a layer without parametrisations, hooks or gradients."""
    like = {"device": layer.weight.device, "dtype": layer.weight.dtype}
    bias = layer.bias is not None
    if isinstance(layer, nn.Linear):
        made = nn.Linear(layer.in_features, layer.out_features, bias=bias, **like)
    else:
        made = nn.Conv2d(
            layer.in_channels, layer.out_channels, layer.kernel_size, stride=layer.stride,
            padding=layer.padding, dilation=layer.dilation, bias=bias,
            padding_mode=layer.padding_mode, **like,
        )  # fmt: skip
    with torch.no_grad():
        made.weight.copy_(layer.weight)
        if bias:
            made.bias.copy_(layer.bias)
            made.bias.requires_grad_(layer.bias.requires_grad)
    made.weight.requires_grad_(held_weight(layer).requires_grad)
    return made
