"""Operators that make one number of many: means, sums and maxima over axes of a tensor."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from celosia.frontend.call import Call, map_shape
from celosia.frontend.refusals import REMEDIES
from celosia.graph import Activate, AvgPool, BatchNorm, Conv, MaxPool, Move, Node, Reshape
from celosia_spec.epilogue import Pool, Relu
from celosia_spec.qgraph import NodeKind


def mean(call: Call) -> Node | list[Node]:
    axes = call.args["dim"] or ()
    if {axis % len(call.value("self").shape) for axis in axes} & {0, 1}:
        return _summed(call, "mean", axes, mean=True)
    window = _reduced(call, "mean", axes)
    return _without_axis(call, window, AvgPool(
        name=call.name, input=call.value("self").name, window=window, stride=window,
        divisor=window[0] * window[1]))


def total(call: Call) -> Node | list[Node]:
    return _summed(call, "sum", call.args.get("dim") or (), mean=False)


def _summed(call: Call, what: str, given: Sequence[int], *, mean: bool) -> Node | list[Node]:
    """Return the layer that sums up over some axes, channels perhaps among them."""
    shape = call.value("self").shape
    axes = sorted(axis % len(shape) for axis in given)
    if 0 in axes or not axes or call.args.get("dtype") not in (None, torch.float32):
        raise call.refuse(f"the {what} over axes {axes} of shape {shape} is not supported",
                          f"take the {what} over channels, height and width, without a dtype")
    whole = map_shape(shape)
    reduced = {1: 0, **({2: 1, 3: 2} if len(shape) == 4 else {2: 2})}
    over = [axis in {reduced[own] for own in axes} for axis in range(3)]
    window = [size if own else 1 for size, own in zip(whole, over, strict=True)]
    rows, groups = (1, 1) if over[0] else (whole[0], whole[0])
    weight = np.full((rows, window[0], *window[1:]), 1 / math.prod(window) if mean else 1.0)
    made = tuple(1 if own else size for size, own in zip(whole, over, strict=True))
    name = call.name if made == call.map_result() else call.part("kept")
    layer = Conv(name=name, input=call.value("self").name, weight=weight, bias=None, groups=groups,
                 kind=NodeKind.AVERAGE)
    if name == call.name:
        return layer
    return [layer, Reshape(name=call.name, input=name, shape=call.map_result())]


def largest(call: Call) -> Node | list[Node]:
    if call.args.get("dim") is None:
        raise call.refuse("it compares all elements, or two tensors", "use a max-pool, or amax "
                          "over the axes (2, 3)")
    axes = call.args["dim"]
    axes = axes if isinstance(axes, (list, tuple)) else [axes]
    rank = len(call.value("self").shape)
    if 1 in (over := {axis % rank for axis in axes}) and 0 not in over and rank in (3, 4):
        return _largest_of_channels(call, over)
    window = _reduced(call, "maximum", axes)
    return _without_axis(call, window, MaxPool(
        name=call.name, input=call.value("self").name, pool=Pool(window=window, stride=window)))


def smallest(call: Call) -> list[Node]:
    """Return what makes ``-max(-x)``."""
    source, negative, inner = call.value("self"), call.part("negative"), call.part("inner")
    made = largest(replace(call, name=inner,
                           args={**call.args, "self": replace(source, name=negative)}))
    before, after = np.ones(map_shape(source.shape)[0]), np.ones(call.map_result()[0])
    return [BatchNorm(name=negative, input=source.name, scale=-before, shift=0 * before),
            *(made if isinstance(made, list) else [made]),
            BatchNorm(name=call.name, input=inner, scale=-after, shift=0 * after)]


def _largest_of_channels(call: Call, axes: set[int]) -> list[Node]:
    """Return the layers that compare channels, after places: of halves a and b, each time,
    ``b + relu(a - b)``."""
    source = call.value("self")
    count, *sizes = map_shape(source.shape)
    axes = axes if len(source.shape) == 4 else {axis + (axis > 1) for axis in axes}
    window = sizes[0] if 2 in axes else 1, sizes[1] if 3 in axes else 1
    name, nodes = source.name, list[Node]()
    if window != (1, 1):
        pooled = call.part("pooled")
        nodes.append(MaxPool(name=pooled, input=name, pool=Pool(window=window, stride=window)))
        name, sizes = pooled, [size // own for size, own in zip(sizes, window, strict=True)]
    while count > 1:
        half, pairs = (count + 1) // 2, count // 2
        own = np.arange(pairs)
        difference = np.zeros((pairs, count))
        difference[own, own], difference[own, half + own] = 1, -1
        beyond, number = np.zeros((half, pairs + count)), f".{count}"
        beyond[own, own] = beyond[own, pairs + half + own] = 1
        beyond[pairs:, pairs + pairs:pairs + half] = 1      # an odd one
        less, larger, both = (call.part(f"{part}{number}") for part in
                              ("difference", "inner", "both"))
        elements = np.arange((pairs + count) * math.prod(sizes)).reshape(-1, *sizes)
        made = call.name if half == 1 and (1, *sizes) == call.map_result() else call.part(
            f"largest{number}")
        nodes += [_fixed(less, name, difference),
                  Activate(name=larger, input=less, activation=Relu()),
                  Move(name=both, inputs=(larger, name), index=elements, operator=call.operator,
                       remedy=REMEDIES["amax"]),
                  _fixed(made, both, beyond)]
        name, count = made, half
    if name != call.name:
        nodes.append(Reshape(name=call.name, input=name, shape=call.map_result()))
    return nodes


def _fixed(name: str, source: str, weight: np.ndarray) -> Conv:
    """Return a layer of one place with weights (rows, channels) that are no parameters."""
    weight = weight[:, :, None, None]
    return Conv(name=name, input=source, weight=weight, bias=None, live=weight != 0, fixed=True)


def _without_axis(call: Call, window: tuple[int, int], layer: AvgPool | MaxPool
                  ) -> Node | list[Node]:
    """Return a layer over such windows of a map, and what takes their axis away."""
    shape = map_shape(call.value("self").shape)
    if (shape[0], shape[1] // window[0], shape[2] // window[1]) == call.map_result():
        return layer
    name = call.part("kept")
    return [replace(layer, name=name), Reshape(name=call.name, input=name, shape=call.map_result())]


def _reduced(call: Call, what: str, given: Sequence[int]) -> tuple[int, int]:
    """Return the window over which a mean or maximum is taken: height, width or both of a map, or
    the length of lines."""
    shape = call.value("self").shape
    axes = sorted(axis % len(shape) for axis in given)
    if len(shape) == 3 and axes == [2]:
        return 1, shape[2]
    if len(shape) != 4 or axes not in ([2], [3], [2, 3]):
        raise call.refuse(f"the {what} over axes {axes} of shape {shape} is not supported",
                          f"take the {what} over the axes (2, 3) of a map")
    return shape[2] if 2 in axes else 1, shape[3] if 3 in axes else 1
