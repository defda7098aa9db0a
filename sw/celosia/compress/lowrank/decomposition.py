"""The ways to decompose a layer behind one face.

Ranks are tuples here, of one number for SVD and of two, (rank_out, rank_in), for Tucker-2.
"""

from __future__ import annotations

import abc
import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from celosia.compress.layers import held_weight
from celosia.compress.lowrank.evbmf import evbmf
from celosia.compress.lowrank.sites import Layer, Site
from celosia.compress.lowrank.svd import (
    as_matrix,
    check_rank,
    check_scheme,
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
from celosia.compress.spans import POSITIVE
from celosia.compress.trial import random_input, same_up_to_rounding
from celosia_spec.errors import ArgumentError, CelosiaError

__all__ = ["Decomposition", "Ranks", "Svd", "Tucker2", "decomposition", "largest_factor",
           "plain_copy", "product"]

_BISECTIONS = 40

Ranks = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Decomposition(abc.ABC):
    """One of the ways to decompose a layer.

    minimum : least rank that a rule or a budget gives; None is the way's own.
    """

    method: ClassVar[str]
    """What users call it."""
    scheme: str | None = None
    minimum: int | None = None

    def __post_init__(self) -> None:
        check_weakening(1, 1 if self.minimum is None else self.minimum)

    @abc.abstractmethod
    def takes(self, layer: nn.Module) -> bool:
        """Say whether this method has a decomposition for such a layer."""

    @abc.abstractmethod
    def full(self, layer: Layer) -> Ranks:
        """Return the ranks at which nothing is lost."""

    @abc.abstractmethod
    def check_ranks(self, layer: Layer, ranks: Ranks) -> None:
        """Refuse ranks that `split` cannot give a layer."""

    @abc.abstractmethod
    def parts(self, layer: Layer, ranks: Ranks) -> nn.Sequential:
        """Return the layers that take a layer's place."""

    @abc.abstractmethod
    def parameters(self, layer: Layer, ranks: Ranks) -> int:
        """Return the weights of the layers that `split` gives, biases not counted."""

    @abc.abstractmethod
    def macs(self, site: Site, ranks: Ranks) -> int:
        """Return their multiply-accumulates for one input of the network."""

    @abc.abstractmethod
    def least(self, layer: Layer) -> int:
        """Return the minimum rank for a layer."""

    @abc.abstractmethod
    def for_energy(self, layer: Layer, share: float) -> Ranks:
        """Return the smallest ranks that keep a share of the energy."""

    @abc.abstractmethod
    def for_speedup(self, layer: Layer, factor: float) -> Ranks:
        """Return the largest ranks with `factor` times fewer weights."""

    @abc.abstractmethod
    def for_noise(self, layer: Layer, weakening: float) -> Ranks:
        """Return the ranks that stand out of the noise, by `evbmf`."""

    def consistent(self, layer: Layer, ranks: Ranks) -> Ranks:
        """Return the ranks, each cut to what it can be beside the others."""
        return ranks

    def split(self, layer: Layer, ranks: Ranks) -> nn.Sequential:
        """Return the layers that take a layer's place; they are tried on random inputs.

        Raises CelosiaError if they compute something else than the product of their weights says.
        """
        parts = self.parts(layer, ranks)
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

    def check(self, name: str, layer: Layer, ranks: Ranks) -> None:
        """Refuse ranks that `split` cannot give a layer, called `name` in the message."""
        try:
            self.check_ranks(layer, ranks)
        except ArgumentError as problem:
            raise ArgumentError(f"layer {name!r}: {problem}") from None

    def largest_saving(self, layer: Layer) -> Ranks | None:
        """Return the largest scaled full ranks that save weights; None if the least do not."""
        return self.largest(layer, lambda ranks: self.saves(layer, ranks))

    def largest(self, layer: Layer, good: Callable[[Ranks], bool]) -> Ranks | None:
        """Return about the largest scaled full ranks that are good; None if the least are not."""
        full = self.full(layer)
        factor = largest_factor(lambda scale: good(self.scaled(layer, full, scale)))
        return None if factor is None else self.scaled(layer, full, factor)


@dataclass(frozen=True, kw_only=True)
class Svd(Decomposition):
    """`svd` by one of its schemes. The minimum is 2 in a convolution and 1 in a Linear."""

    method = "svd"
    scheme: str = "channel"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_scheme(self.scheme)

    def takes(self, layer: nn.Module) -> bool:
        return isinstance(layer, nn.Linear) or _ungrouped(layer)

    def full(self, layer: Layer) -> Ranks:
        return (svd_full_rank(layer, self.scheme),)

    def check_ranks(self, layer: Layer, ranks: Ranks) -> None:
        if len(ranks) != 1:
            raise ArgumentError(f"SVD takes one rank, not {ranks}")
        check_rank(layer, *ranks, self.scheme)

    def parts(self, layer: Layer, ranks: Ranks) -> nn.Sequential:
        return svd(layer, ranks[0], self.scheme)

    def parameters(self, layer: Layer, ranks: Ranks) -> int:
        return svd_parameters(layer, ranks[0], self.scheme)

    def macs(self, site: Site, ranks: Ranks) -> int:
        return sum(svd_macs(site.layer, ranks[0], self.scheme, size) for size in site.sizes)

    def least(self, layer: Layer) -> int:
        return self.minimum or (1 if isinstance(layer, nn.Linear) else 2)

    def for_energy(self, layer: Layer, share: float) -> Ranks:
        return self.scaled(layer, (rank_for_energy(layer, share, self.scheme),), 1)

    def for_speedup(self, layer: Layer, factor: float) -> Ranks:
        return self.scaled(layer, (rank_for_speedup(layer, factor, self.scheme),), 1)

    def for_noise(self, layer: Layer, weakening: float) -> Ranks:
        least = self.least(layer)
        check_weakening(weakening, least)
        found, _ = evbmf(as_matrix(layer, self.scheme))
        return (weakened(svd_full_rank(layer, self.scheme), found, weakening, least),)


@dataclass(frozen=True, kw_only=True)
class Tucker2(Decomposition):
    """`tucker2`. The minimum is 8; a speed-up has both ranks in proportion to the full ones."""

    method = "tucker"

    def takes(self, layer: nn.Module) -> bool:
        return _ungrouped(layer)

    def full(self, layer: Layer) -> Ranks:
        return tucker_full_ranks(layer)

    def check_ranks(self, layer: Layer, ranks: Ranks) -> None:
        check_ranks(layer, ranks)

    def parts(self, layer: Layer, ranks: Ranks) -> nn.Sequential:
        return tucker2(layer, ranks)

    def parameters(self, layer: Layer, ranks: Ranks) -> int:
        return tucker_parameters(layer, ranks)

    def macs(self, site: Site, ranks: Ranks) -> int:
        return sum(tucker_macs(site.layer, ranks, size) for size in site.sizes)

    def least(self, layer: Layer) -> int:
        return self.minimum or MINIMUM

    def for_energy(self, layer: Layer, share: float) -> Ranks:
        return self.scaled(layer, tucker_ranks_for_energy(layer, share), 1)

    def for_speedup(self, layer: Layer, factor: float) -> Ranks:
        POSITIVE.check("a speed-up", factor)
        most = layer.weight.numel() / factor
        found = self.largest(layer, lambda ranks: self.parameters(layer, ranks) <= most)
        return self.scaled(layer, self.full(layer), 0) if found is None else found

    def for_noise(self, layer: Layer, weakening: float) -> Ranks:
        return tucker_ranks(layer, weakening, self.least(layer))

    def consistent(self, layer: Layer, ranks: Ranks) -> Ranks:
        return consistent(layer, *ranks)


def decomposition(method: str, scheme: str, minimum: int | None) -> Decomposition:
    """Return the way of a name; of Tucker-2 the scheme is only checked."""
    check_scheme(scheme)
    if method == Svd.method:
        return Svd(scheme=scheme, minimum=minimum)
    if method == Tucker2.method:
        return Tucker2(minimum=minimum)
    raise ArgumentError(f"method must be one of {Svd.method}, {Tucker2.method}, not {method!r}")


def _ungrouped(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Conv2d) and layer.groups == 1


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
