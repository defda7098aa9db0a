"""Tensors whose channels are told apart, and what is noted while they are followed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import nn
from torch.utils import _pytree

from celosia.compress.filters.couples import Couples
from celosia.compress.filters.owners import Owners
from celosia.compress.filters.record import ALIASED, Record, Ref, Step

__all__ = ["Cut", "Found", "Map", "Tracks", "Unfollowed", "apply", "numbers"]


@dataclass(frozen=True, kw_only=True)
class Map:
    """A tensor whose channels are told apart.

    axis   : of the channels.   labels : (n,), 0 where a channel is of no filter that can go.
    values : (n,), the number that a channel is everywhere once its filter is zero; NaN where it is
             no single number.
    known  : (n,), True where that number depends on no parameter.
    """

    axis: int
    labels: np.ndarray
    values: torch.Tensor
    known: np.ndarray

    @classmethod
    def zeros(cls, axis: int, labels: np.ndarray) -> Map:
        """Return the map that is 0 once its filters are."""
        return cls(axis=axis, labels=labels, known=np.ones(len(labels), bool),
                   values=torch.zeros(len(labels), dtype=torch.float64))

    @property
    def zero(self) -> np.ndarray:
        """(n,), True where a zeroed filter's channel is 0 whatever the parameters are."""
        zero: np.ndarray = self.known & (self.values == 0).numpy()
        return zero

    @property
    def lost(self) -> np.ndarray:
        """(n,), True where a zeroed filter's channel is no single number."""
        lost: np.ndarray = self.values.double().isnan().numpy()
        return lost

    def at(self, axis: int, places: np.ndarray) -> Map:
        """Return the map with the channels at these places, along another axis."""
        return Map(axis=axis, labels=self.labels[places], values=self.values[places],
                   known=self.known[places])


Found: TypeAlias = "list[Map | None] | str"
"""Maps of a step's results, None for a tensor without channels to remove; or, in words that follow
"its map", why channels cannot be followed through the step."""


@dataclass(frozen=True, kw_only=True)
class Cut:
    """What a layer loses with filters: index i goes with the filter of ``labels[i]``, 0 for none.

    layer, kind : its name, and what it loses (`celosia.compress.filters.structure.CUTS`).
    values      : (n,), the number that channel i is everywhere once its filter is zero; NaN where
                  that is no single number, or none that a reader can hold.
    zero        : (n,), True where that is 0 whatever the parameters are.
    """

    layer: str
    kind: str
    labels: np.ndarray
    values: np.ndarray
    zero: np.ndarray


class Unfollowed(Exception):
    """An operator does not take what stands for a tensor here."""


class Tracks:
    """All that is known, on the way through a recorded run.

    drop    : let filters go whose map, zeroed, is no number that a reader can hold.
    maps    : {number of a tensor: its map} of those that have channels to remove.
    norms   : {convolution or linear layer: the batch normalisation that alone reads it, or
              None}.
    couples : all filters under their labels.
    """

    def __init__(self, model: nn.Module, record: Record, *, drop: bool) -> None:
        self.drop = drop
        self.record = record
        self.owners = Owners(model, record)
        self.couples = Couples(self.owners.outputs())
        self.maps: dict[int, Map] = {}
        self.cuts: list[Cut] = []
        self.norms: dict[str, str | None] = {}
        self.readers: dict[int, list[Step]] = {}
        for step in record.steps:
            for number in step.reads:
                self.readers.setdefault(number, []).append(step)

    def map(self, given: Any) -> Map | None:
        """Return the map of what a step is given."""
        return self.maps.get(given.index) if isinstance(given, Ref) else None

    def shape(self, given: Ref | int) -> tuple[int, ...]:
        """Return the shape of a tensor."""
        return self.record.shapes[given if isinstance(given, int) else given.index]

    def words(self, step: Step) -> str:
        """Return words for a step: its operator, and where it stands."""
        if step.name == ALIASED:
            return step.name
        return f"{step.name} in {self.owners.describe(step.place)}"

    def block(self, labels: np.ndarray, reason: str) -> None:
        """Keep filters; the reason follows the layer's name and "skipped: "."""
        if labels.any():
            self.couples.block(labels, reason)

    def spoil(self, given: Map, where: np.ndarray, why: str) -> Map:
        """Keep the filters whose map, zeroed, cannot be told any more, or drop what it would be.

        where : (n,), True for those.   why : words that follow "zeroed, its map is".
        """
        if not (given.labels * where).any():
            return given
        if not self.drop:
            self.block(given.labels * where, f"zeroed, its map is {why}; "
                                             "prune_filters(constants='drop') lets it go")
            return given
        values = given.values.double().clone()
        values[torch.from_numpy(where)] = torch.nan
        return replace(given, values=values, known=given.known & ~where)

    def join(self, maps: list[Map], how: str) -> np.ndarray:
        """Couple the channels of maps that meet; return the labels of what they make."""
        labels = maps[0].labels.copy()
        for other in maps[1:]:
            both = (labels > 0) & (other.labels > 0)
            self.couples.join(labels[both], other.labels[both])
            self.block(np.where(both, 0, labels + other.labels),
                       f"its map is {how} channels that stay")
            labels = np.maximum(labels, other.labels)
        return labels

    def cut(self, layer: str, kind: str, given: Map) -> None:
        """Note that a layer loses channels with those of a map."""
        infinite = ~given.values.double().isfinite().numpy()
        given = self.spoil(given, infinite, f"infinite or NaN in {layer!r}")
        self.cuts.append(Cut(layer=layer, kind=kind, labels=given.labels, zero=given.zero,
                             values=given.values.double().numpy()))


def apply(step: Step, fill: Callable[[Ref], torch.Tensor]) -> Any:
    """Call a step's operator with other tensors in the place of its own."""
    args, kwargs = _pytree.tree_map_only(Ref, fill, (step.args, dict(step.kwargs)))
    try:
        with torch.no_grad():
            return step.function(*args, **kwargs)
    except (RuntimeError, TypeError, ValueError, IndexError) as problem:
        raise Unfollowed from problem


def numbers(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor's numbers, in float64 on the CPU."""
    return tensor.detach().cpu().double()
