"""ONNX's operators that move elements, as modules of torch."""

import functools
import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from celosia.frontend.onnx.node import First, Node


def split(node: Node) -> nn.Module:
    axis, count = node.attribute("axis", 0), len(node.proto.output)
    size = node.shape()[axis]
    sizes = node.setting(1, "split", None)
    if sizes is None:
        each = -(-size // count)
        sizes = [min(each, size - each * k) for k in range(count)]
    return First(lambda x: torch.split(x, list(sizes), axis))


def cut(node: Node) -> nn.Module:
    starts, ends = node.setting(1, "starts", []), node.setting(2, "ends", [])
    axes = node.setting(3, "axes", list(range(len(starts))))
    steps = node.setting(4, "steps", [1] * len(starts))
    index, turned = [slice(None)] * len(node.shape()), list[int]()
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        taken = range(*slice(start, end, step).indices(node.shape()[axis]))
        if step < 0:
            taken = taken[::-1]
            turned.append(axis)
        index[axis] = slice(taken.start, taken.stop, taken.step)
    if not turned:
        return First(lambda x: x[tuple(index)])
    return First(lambda x: x[tuple(index)].flip(turned))


def gather(node: Node) -> nn.Module:
    axis, places = node.attribute("axis", 0), node.tensor(1)
    before = node.shape()
    places = torch.where(places < 0, places + before[axis], places)
    if places.ndim == 0:
        return First(lambda x: x.select(axis, int(places)))
    if places.ndim == 1:
        return node.does(lambda x, _: x.index_select(axis, places))
    after = (*before[:axis], *places.shape, *before[axis % len(before) + 1:])
    return node.does(lambda x, _: _of_batch(
        x, lambda sizes: x.index_select(axis, places.flatten()).reshape(sizes), after))


def reshape(node: Node) -> nn.Module:
    sizes = node.setting(1, "shape", [])
    if 0 in sizes and not node.attribute("allowzero", 0):
        sizes = [own or node.shape()[at] for at, own in enumerate(sizes)]
    _check_batch(node, sizes)
    return First(lambda x: _of_batch(x, x.reshape, sizes))


def flatten(node: Node) -> nn.Module:
    before = node.shape()
    axis = node.attribute("axis", 1)
    at = axis + len(before) if axis < 0 else axis
    if at == 1:
        return nn.Flatten()
    sizes = math.prod(before[:at]), math.prod(before[at:])
    return First(lambda x: x.reshape(sizes))


def transpose(node: Node) -> nn.Module:
    order = node.attribute("perm", list(reversed(range(len(node.shape())))))
    return First(lambda x: x.permute(*order))


def squeeze(node: Node) -> nn.Module:
    axes = node.setting(1, "axes", [at for at, size in enumerate(node.shape()) if size == 1])
    return First(lambda x: x.squeeze(tuple(axes)))


def unsqueeze(node: Node) -> nn.Module:
    axes, rank = node.setting(1, "axes", []), len(node.shape())
    places = sorted(axis % (rank + len(axes)) for axis in axes)

    def widened(x: torch.Tensor) -> torch.Tensor:
        for axis in places:
            x = x.unsqueeze(axis)
        return x
    return First(widened)


def expand(node: Node) -> nn.Module:
    sizes = torch.broadcast_shapes(node.shape(), node.setting(1, "shape", []))
    _check_batch(node, sizes)
    return First(lambda x: _of_batch(x, x.expand, sizes) if x.ndim == len(sizes) else
                 x.expand(sizes))


def tile(node: Node) -> nn.Module:
    times = node.setting(1, "repeats", [])
    _check_batch(node, times)
    return First(lambda x: x.repeat(times))


def _of_batch(x: torch.Tensor, made: Callable[[Sequence[int]], torch.Tensor],
              sizes: Sequence[int]) -> torch.Tensor:
    """Return what is made of the sizes in a file, where these have a batch of 1 and what the
    module is given has another: `prune` and `tune` run several inputs at once."""
    return made((x.shape[0], *sizes[1:]) if len(sizes) > 1 and sizes[0] == 1 else sizes)


def _check_batch(node: Node, sizes: Sequence[int]) -> None:
    if sizes and sizes[0] > 1:
        raise node.refuse(f"it makes {sizes[0]} of one input",
                          "export the model with one input instead of a batch")


_PADS = {"constant": "constant", "edge": "replicate", "reflect": "reflect", "wrap": "circular"}
"""Modes of padding, and torch's words for them."""


def pad(node: Node) -> nn.Module:
    rank = len(node.shape())
    given = node.setting(1, "pads", [])
    axes = node.setting(3, "axes", list(range(rank)))
    value, mode = node.setting(2, "value", 0.0), node.attribute("mode", "constant")
    if mode not in _PADS:
        raise node.refuse(f"padding of mode {mode}", f"use one of {', '.join(_PADS)}")
    sides = {axis % rank: (given[at], given[len(axes) + at]) for at, axis in enumerate(axes)}
    order = [side for axis in reversed(range(rank)) for side in sides.get(axis, (0, 0))]
    while order[-2:] == [0, 0]:
        del order[-2:]
    if mode == "constant":
        return First(lambda x: F.pad(x, order, value=value))
    if len(order) > 2 * (rank - 2):
        raise node.refuse(f"it pads the channels in mode {mode}", "pad height and width")
    order += [0] * (2 * (rank - 2) - len(order))
    return First(lambda x: F.pad(x, order, mode=_PADS[mode]))


_PLACES = ("half_pixel", "align_corners")
"""Where elements of an enlarged map lie between those before, as torch has it."""


class _Ahead(nn.Module):
    """Elements between one and the next, the last one again behind the last: ``asymmetric``.

    factors : along each axis.   Forward: (1, channels, ...).
    """

    def __init__(self, factors: list[Fraction], channels: int) -> None:
        super().__init__()
        self.up, self.steps = [f.numerator for f in factors], [f.denominator for f in factors]
        weight = torch.ones(())
        for factor in self.up:
            weight = weight[..., None] * (1 - (torch.arange(2 * factor) - factor).abs() / factor)
        self.register_buffer("weight", weight.expand(channels, 1, *weight.shape).clone())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if max(self.up) > 1:
            spread = F.conv_transpose2d if len(self.up) == 2 else F.conv_transpose1d
            x = F.pad(x, [0, 1] * len(self.up), mode="replicate")
            x = spread(x, self.weight, stride=self.up, padding=self.up, groups=x.shape[1])
        return x[(slice(None), slice(None), *(slice(None, None, step) for step in self.steps))]


def _scales(node: Node, rank: int) -> list[float]:
    """Return by how much a resize says that axes become larger; [] where it gives sizes. That there
    are such axes, shape inference has seen."""
    at = 1 if node.opset < 11 else 2
    found = [float(one) for one in (node.constant(at).ravel() if node.has(at) else
                                    node.attribute("scales", ()))]
    axes = node.attribute("axes", None)
    if not found or axes is None:
        return found
    scales = [1.0] * rank
    for axis, scale in zip(axes, found, strict=False):
        scales[axis] = scale
    return scales


def resize(node: Node) -> nn.Module:
    before = node.shape()
    after = node.shapes.get(node.proto.output[0], ())
    mode = node.attribute("mode", "nearest")
    place, rounding = (("asymmetric", "floor") if node.opset < 11 else
                       (node.attribute("coordinate_transformation_mode", "half_pixel"),
                        node.attribute("nearest_mode", "round_prefer_floor")))
    if node.attribute("antialias", 0):
        raise node.refuse("it smooths what it makes smaller (antialias)", "pool it before")
    if list(after[:2]) != list(before[:2]) or len(before) not in (3, 4):
        raise node.refuse(f"it resizes {before} to {after}", "resize height and width of maps, or "
                          "lines")
    sizes, told = after[2:], [new / old for new, old in zip(after, before, strict=True)]
    given = _scales(node, len(before)) or told
    own = [scale if abs(scale - factor) > 1e-6 * factor else None
           for scale, factor in zip(given[2:], told[2:], strict=True)]
    # Without the factors that were given torch finds them of the sizes.
    factors = None if not any(own) else given[2:]
    how = {"size": sizes} if factors is None else {"scale_factor": factors}
    if mode == "nearest":
        try:
            return _repeated([_nearest(old, new, scale, place, rounding) for old, new, scale in
                              zip(before[2:], sizes, given[2:], strict=True)], before[2:], how)
        except KeyError:        # another way to look them up
            pass
    elif mode == "linear" and place == "asymmetric" and factors is None:
        return _Ahead([Fraction(new, old) for new, old in zip(sizes, before[2:], strict=True)],
                      before[1])
    elif mode == "linear" and (place in _PLACES or (place == "pytorch_half_pixel" and all(
            new > 1 or old == 1 for old, new in zip(before, after, strict=True)))):
        kind = "bilinear" if len(before) == 4 else "linear"
        corners = place == "align_corners"
        return First(lambda x: F.interpolate(x, mode=kind, align_corners=corners, **(
            {"size": sizes} if corners else how)))
    other = ", by other factors than it was given" if factors else ""
    raise node.refuse(f"it resizes {before} to {after}{other} ({mode}, {place}, {rounding})",
                      "use mode nearest, or linear with half_pixel or asymmetric and sizes that "
                      "its factors give exactly")


def _nearest(before: int, after: int, scale: float, place: str, rounding: str) -> np.ndarray:
    """Return which element each one of a resized axis is, int64 (after,); KeyError where a way to
    look them up is not known. In float32, as onnxruntime has it."""
    at, step = np.arange(after, dtype=np.float32), np.float32(scale)
    middle = (at + np.float32(0.5)) / step - np.float32(0.5)
    found = {"asymmetric": at / step, "half_pixel": middle,
             "pytorch_half_pixel": middle if after > 1 else 0 * at,
             "align_corners": at * np.float32(before - 1) / np.float32(max(after - 1, 1))}[place]
    half = np.float32(0.5)
    rounded = {"floor": np.floor(found), "ceil": np.ceil(found),
               "round_prefer_floor": np.ceil(found - half),
               "round_prefer_ceil": np.floor(found + half)}[rounding]
    return np.asarray(rounded.clip(0, before - 1), np.int64)


def _repeated(taken: Sequence[np.ndarray], before: Sequence[int], how: dict[str, Any]) -> nn.Module:
    """Return what takes these elements along each axis: torch's own way, where it takes the same.
    """
    at = torch.arange(math.prod(before), dtype=torch.float64).reshape(1, 1, *before)
    wanted = at
    for axis, places in enumerate(taken):
        wanted = wanted.index_select(axis + 2, torch.from_numpy(places))
    for mode in ("nearest", "nearest-exact"):
        if torch.equal(F.interpolate(at, mode=mode, **how), wanted):
            return First(functools.partial(_interpolated, mode=mode, how=how))

    def chosen(x: torch.Tensor) -> torch.Tensor:
        for axis, places in enumerate(taken):
            if not np.array_equal(places, np.arange(before[axis])):
                x = x.index_select(axis + 2, torch.from_numpy(places))
        return x
    return First(chosen)


def _interpolated(x: torch.Tensor, mode: str, how: dict[str, Any]) -> torch.Tensor:
    return F.interpolate(x, mode=mode, **how)


def depth_to_space(node: Node) -> nn.Module:
    size = node.attribute("blocksize", 1)
    if node.attribute("mode", "DCR") == "CRD":
        return nn.PixelShuffle(size)
    batch, channels, high, wide = node.shape()
    parts = (batch, size, size, channels // size ** 2, high, wide)
    return First(lambda x: x.reshape(parts).permute(0, 3, 4, 1, 5, 2).reshape(
        batch, parts[3], high * size, wide * size))


def space_to_depth(node: Node) -> nn.Module:
    size = node.attribute("blocksize", 1)
    if node.attribute("mode", "DCR") == "CRD":
        return nn.PixelUnshuffle(size)
    batch, channels, high, wide = node.shape()
    parts = (batch, channels, high // size, size, wide // size, size)
    return First(lambda x: x.reshape(parts).permute(0, 3, 5, 1, 2, 4).reshape(
        batch, channels * size ** 2, parts[2], parts[4]))
