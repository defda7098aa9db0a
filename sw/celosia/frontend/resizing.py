"""Maps of another size, with straight lines between their elements or the nearest ones."""

import math
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from itertools import count

import numpy as np
import torch

from celosia.frontend.by_place import by_place
from celosia.frontend.call import Call, map_shape
from celosia.frontend.moves import repeats, spreads
from celosia.frontend.periodic import axis, layer
from celosia.graph import Move, Node, Shape
from celosia.spread import spread

_WAY_OUT = ("give it a size or a factor by which it becomes just that, with align_corners=False, "
            "or use a transposed convolution")


def of_one(call: Call, argument: str = "self") -> list[Node]:
    """Return the layers that make maps of one element of each channel."""
    source = call.value(argument)
    assert spreads(source.shape, call.shape)
    made = spread(source.name, map_shape(source.shape), map_shape(call.shape), 1.0,
                  (call.part(f"line{number}") for number in count()), call.operator, _WAY_OUT)
    return [*made[:-1], replace(made[-1], name=call.name)]


def linear(call: Call) -> list[Node]:
    """Return the layer that makes a map of another size, and what it reads."""
    if spreads(call.value("input").shape, call.shape):
        return of_one(call, "input")
    before, factors = call.value("input").shape, call.args["scale_factors"]
    shape = _as_map(before)
    sizes, after = shape[1:], _as_map(call.shape)[1:]
    told = [new / old for new, old in zip(after, sizes, strict=True)]
    # Places are counted with the factors that were given, whatever sizes come of them.
    given = told if factors is None else [1.0, *factors][-2:]
    if call.args["align_corners"] and any(
            1 < old != new for old, new in zip(sizes, after, strict=True)):
        lines, columns = (_corners(old, new) for old, new in zip(sizes, after, strict=True))
        return by_place(call, call.value("input"), (lines, columns),
                        "with align_corners=True weights differ from place to place", _WAY_OUT)
    if any(abs(one - other) > 1e-6 * one for one, other in zip(given, told, strict=True)):
        lines, columns = (_weights((np.arange(new) + 0.5) / factor - 0.5, old) for old, new, factor
                          in zip(sizes, after, given, strict=True))
        return by_place(call, call.value("input"), (lines, columns), f"it resizes {_size(before)} "
                        f"to {_size(call.shape)}, by other factors than it was given", _WAY_OUT)
    down, right = (axis([_between(at, old, new) for at in range(new)], old)
                      for old, new in zip(sizes, after, strict=True))
    assert down is not None and right is not None
    return layer(call, call.value("input").name, shape, (down, right), _WAY_OUT)


def nearest(call: Call) -> list[Node] | Move:
    return _nearest(call, exact=False)


def nearest_exact(call: Call) -> list[Node] | Move:
    return _nearest(call, exact=True)


def _nearest(call: Call, *, exact: bool) -> list[Node] | Move:
    """Return the layer that takes the elements that torch takes; a move where each stands as often
    as every other."""
    if spreads(call.value("input").shape, call.shape):
        return of_one(call, "input")
    before = call.value("input").shape
    shape = _as_map(before)
    size, factors = _as_map(call.shape)[1:], call.args["scale_factors"]
    at = torch.arange(shape[1] * shape[2], dtype=torch.float64).reshape(1, 1, *shape[1:])
    take = (torch.ops.aten._upsample_nearest_exact2d if exact else
            torch.ops.aten.upsample_nearest2d)
    taken = take(at, None if factors else size,
                 [1.0, *factors][-2:] if factors else None)[0, 0].long()
    every = Move(name=call.name, inputs=(call.value("input").name,), operator=call.operator,
                 index=np.arange(shape[0])[:, None, None] * at.numel() + taken.numpy(),
                 remedy=_WAY_OUT)
    if repeats(shape[1:], size):
        return every
    lines, columns = (axis([{int(one): 1.0} for one in of], old) for of, old in (
        (taken[:, 0] // shape[2], shape[1]), (taken[0], shape[2])))
    if lines is None or columns is None:
        return every
    return layer(call, call.value("input").name, shape, (lines, columns), _WAY_OUT)


def _between(at: int, before: int, after: int) -> Mapping[int, float]:
    """Return the weights of an output, of the elements before it and behind it."""
    if before == 1:
        return {0: 1.0}
    place = Fraction((2 * at + 1) * before - after, 2 * after)
    here = math.floor(place)
    behind = float(place - here)
    return {here: 1 - behind, here + 1: behind} if behind else {here: 1.0}


def _corners(before: int, after: int) -> np.ndarray:
    """Return the weights of the outputs of an axis whose first and last elements stay, float64
    (after, before)."""
    return _weights(np.linspace(0, before - 1, after) if after > 1 else np.zeros(1), before)


def _weights(places: np.ndarray, before: int) -> np.ndarray:
    """Return the weights of elements between those of an axis, float64 (places, before)."""
    inside = places.clip(0, before - 1)
    return np.maximum(0, 1 - abs(inside[:, None] - np.arange(before)))


def _as_map(shape: tuple[int, ...]) -> Shape:
    height, width = (1, *shape[2:])[-2:]
    return shape[1], height, width


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape[2:]))
