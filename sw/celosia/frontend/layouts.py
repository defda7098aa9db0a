"""Layers over tensors whose axes stand in another order than those of the map that is stored.

They work on that map, and what they make is moved as it was.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from celosia.frontend.call import Call, Constant, Moved, Value, map_shape
from celosia.frontend.examples import RANKS
from celosia.graph import Shape
from celosia.passes.views import View, seen_as

ELEMENTWISE = frozenset({
    "add", "clamp", "clamp_max", "clamp_min", "div", "fmax", "fmin", "hardsigmoid", "hardtanh",
    "leaky_relu", "maximum", "minimum", "mul", "neg", "pow", "relu", "rsub", "square", "sub",
    "where"})
REDUCING = frozenset({"amax", "amin", "mean", "sum"})
LINEAR = {"addmm": "mat1", "bmm": "self", "mm": "self"}
"""Operators that work on such tensors; of the last, the argument that is one."""

Given = Callable[[Moved], Value]
"""Makes a tensor of the network (1, C, H, W) of what was moved."""


@dataclass(frozen=True, eq=False)
class Layout:
    """Every element of a stored map, once, in another order.

    name, shape : of the map, (C, H, W).   elements : int64 as PyTorch sees the tensor, which of its
    elements each is.
    """

    name: str
    shape: Shape
    elements: np.ndarray

    @classmethod
    def of(cls, operand: object, shapes: Mapping[str, Shape], made: Collection[str]
           ) -> "Layout | None":
        """Return an operand's layout; None where it has none, or layers read the map so.

        made : maps that were made in place of what was moved: only as they are layers read them.
        """
        if (not isinstance(operand, Moved) or len(operand.names) != 1
                or not isinstance(operand.elements, torch.Tensor)):
            return None
        shape, elements = shapes[operand.names[0]], operand.elements.long().numpy() - 1
        if (elements.size != math.prod(shape)
                or (np.sort(elements, axis=None) != np.arange(elements.size)).any()):
            return None
        found = cls(operand.names[0], shape, elements)
        return None if found._is_view(as_it_is=found.name in made) else found

    def _is_view(self, *, as_it_is: bool) -> bool:
        sizes = self.elements.shape
        if len(sizes) not in RANKS or sizes[0] != 1:
            return False
        channels, *size = self.shape
        view = View.found(self.elements.reshape(map_shape(sizes)), self.shape, seen_as(
            self.name, channels, (size[0], size[1]), (1, 1)))
        return view is not None and not (
            as_it_is and (view.phases != (1, 1) or view.shift is not None))

    def arranged(self, numbers: np.ndarray) -> np.ndarray:
        """Return numbers that are broadcast with the tensor, in the order of the map, (1, C, H, W);
        one along an axis along which they are the same."""
        found = np.empty(self.elements.size, numbers.dtype)
        found[self.elements.ravel()] = np.broadcast_to(numbers, self.elements.shape).ravel()
        found = found.reshape(1, *self.shape)
        for axis in range(1, 4):
            if (found == found.take([0], axis)).all():
                found = found.take([0], axis)
        return found

    def channels(self, axes: Sequence[int]) -> np.ndarray | None:
        """Return the channel of which all elements lie along some axes of the tensor, int64 for
        each place along the others; None where it is not one."""
        rank = self.elements.ndim
        over = sorted({axis % rank for axis in axes})
        kept = [axis for axis in range(rank) if axis not in over]
        whole = self.elements.transpose(*kept, *over).reshape(
            [self.elements.shape[axis] for axis in kept] + [-1])
        count = self.shape[1] * self.shape[2]
        channel: np.ndarray = whole // count
        if whole.shape[-1] != count or (channel != channel[..., :1]).any():
            return None
        return channel[..., 0]


Work = Callable[[Call, Given], tuple[Call, np.ndarray]]
"""Makes, of a call on what was moved, the call on the map, and tells which elements of what that
makes the result has, int64 as PyTorch sees it."""


def work(kind: str, args: Mapping[str, Any], shape: tuple[int, ...], shapes: Mapping[str, Shape],
         made: Collection[str]) -> Work | None:
    """Return how an operator works on the map that its operand was before it was moved; None where
    it does not.

    kind, args : of the operator.   shape : of its result.   shapes : of maps.   made : as
    `Layout.of` has it.
    """
    if kind in LINEAR:
        source, weights = args[LINEAR[kind]], args["mat2"]
        if not isinstance(source, Value | Moved) or not isinstance(weights, Constant) or (
                shape[0] == 1 and kind != "bmm"):
            return None
        return partial(linear, LINEAR[kind], shapes)
    if kind in REDUCING:
        found, axes = Layout.of(args["self"], shapes, made), args.get("dim")
        return (None if found is None or not axes or found.channels(axes) is None
                else partial(reduced, found))
    slope = args.get("weight")
    if kind not in ELEMENTWISE or (isinstance(slope, Constant) and slope.value.numel() > 1):
        return None                 # one for each channel is no axis to be broadcast
    layouts = (Layout.of(operand, shapes, made) for operand in args.values())
    return next((partial(elementwise, found) for found in layouts
                 if found is not None and found.elements.shape == shape), None)


def elementwise(found: Layout, call: Call, given: Given) -> tuple[Call, np.ndarray]:
    """Return a call on every element as one of the map; the rest as `Work` has it."""
    args: dict[str, Any] = {}
    for name, operand in call.args.items():
        args[name] = operand
        if isinstance(operand, Constant):       # of one number, too, with more axes than the map
            value = operand.value.detach().cpu()
            args[name] = replace(operand, value=value.reshape(-1) if value.numel() == 1 else
                                 torch.from_numpy(found.arranged(value.numpy())))
        elif isinstance(operand, Value | Moved):
            moved = as_moved(operand, call)
            args[name] = given(replace(moved, elements=torch.from_numpy(
                found.arranged(moved.elements.numpy()))))
    return replace(call, args=args, shape=(1, *found.shape)), found.elements


def reduced(found: Layout, call: Call, given: Given) -> tuple[Call, np.ndarray]:
    """Return a call over axes as one over height and width of the map; the rest likewise."""
    channels = found.channels(call.args["dim"])
    assert channels is not None
    whole = Moved((found.name,), torch.arange(1.0, 1 + found.elements.size, dtype=torch.float64)
                  .reshape(1, *found.shape), call, "")
    args = {**call.args, "self": given(whole), "dim": [2, 3], "keepdim": True}
    return replace(call, args=args, shape=(1, found.shape[0], 1, 1)), channels.reshape(call.shape)


def linear(argument: str, shapes: Mapping[str, Shape], call: Call, given: Given
           ) -> tuple[Call, np.ndarray]:
    """Return a linear layer of a tensor (..., F) as one of a map of F channels; the rest likewise.
    """
    moved = as_moved(call.args[argument], call)
    moved = replace(moved, elements=moved.elements.flatten(0, -2))
    count, features = moved.elements.shape
    sizes = _sizes(moved, shapes)
    elements = moved.elements.T.reshape(1, features, *sizes)
    args = {**call.args, argument: given(replace(moved, elements=elements))}
    rows = call.shape[-1]
    return (replace(call, args=args, shape=(1, rows, *sizes)),
            np.arange(rows * count).reshape(rows, count).T.reshape(call.shape))


def _sizes(moved: Moved, shapes: Mapping[str, Shape]) -> tuple[int, int]:
    """Return height and width of a map whose places are the first axis of a tensor."""
    count, features = moved.elements.shape
    one, other, last = shapes[moved.names[0]] if len(moved.names) == 1 else (0, 0, 0)
    for channels, height, width in ((one, other, last), (last, one, other)):
        if (channels, height * width) == (features, count):
            return height, width
    return 1, count


def as_moved(operand: Value | Moved, call: Call) -> Moved:
    """Return a tensor as what nothing has moved yet."""
    if isinstance(operand, Moved):
        return operand
    count = math.prod(operand.shape)
    return Moved((operand.name,), torch.arange(1.0, 1 + count, dtype=torch.float64).reshape(
        operand.shape), call, "give both the same order of axes")
