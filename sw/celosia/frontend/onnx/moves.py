"""ONNX's operators that move elements, as modules of torch."""

from collections.abc import Sequence

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
    if min(steps, default=1) < 1:
        raise node.refuse("it goes backwards", "use steps above 0")
    index = [slice(None)] * len(node.shape())
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        index[axis] = slice(start, end, step)
    return First(lambda x: x[tuple(index)])


def gather(node: Node) -> nn.Module:
    axis, places = node.attribute("axis", 0), node.tensor(1)
    size = node.shape()[axis]
    if places.ndim > 1:
        raise node.refuse(f"its indices have {places.ndim} axes", "use one axis of indices")
    places = torch.where(places < 0, places + size, places)
    if places.ndim == 0:
        return First(lambda x: x.select(axis, int(places)))
    return node.does(lambda x, _: x.index_select(axis, places))


def reshape(node: Node) -> nn.Module:
    sizes = node.setting(1, "shape", [])
    if 0 in sizes and not node.attribute("allowzero", 0):
        sizes = [own or node.shape()[at] for at, own in enumerate(sizes)]
    _check_batch(node, sizes)
    return First(lambda x: x.reshape(sizes))


def flatten(node: Node) -> nn.Module:
    if node.attribute("axis", 1) != 1:
        raise node.refuse("it joins the batch with other axes, or leaves some apart", "use axis 1")
    return nn.Flatten()


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
    return First(lambda x: x.expand(sizes))


def tile(node: Node) -> nn.Module:
    times = node.setting(1, "repeats", [])
    _check_batch(node, times)
    return First(lambda x: x.repeat(times))


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


_REPEATING = {("asymmetric", "floor"), ("half_pixel", "round_prefer_floor"),
              ("half_pixel", "round_prefer_ceil"), ("pytorch_half_pixel", "round_prefer_floor")}
"""Ways to look an enlarged map's elements up that repeat each as often, for whole factors."""


_PLACES = ("half_pixel", "pytorch_half_pixel", "align_corners")
"""Where elements of an enlarged map lie between those before, as torch has it."""


class _Ahead(nn.Module):
    """Elements between one and the next, the last one again behind the last: ``asymmetric``.

    factors : along each axis.   Forward: (1, channels, ...).
    """

    def __init__(self, factors: list[int], channels: int) -> None:
        super().__init__()
        self.factors = factors
        weight = torch.ones(())
        for factor in factors:
            weight = weight[..., None] * (1 - (torch.arange(2 * factor) - factor).abs() / factor)
        self.register_buffer("weight", weight.expand(channels, 1, *weight.shape).clone())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        spread = F.conv_transpose2d if len(self.factors) == 2 else F.conv_transpose1d
        x = F.pad(x, [0, 1] * len(self.factors), mode="replicate")
        return spread(x, self.weight, stride=self.factors, padding=self.factors,
                      groups=x.shape[1])


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
    factors = [new / old for new, old in zip(after, before, strict=False)]
    mode = node.attribute("mode", "nearest")
    whole = (len(factors) == len(before) and factors[:2] == [1, 1]
             and all(f == int(f) >= 1 for f in factors))
    how = (("asymmetric", "floor") if node.opset < 11 else
           (node.attribute("coordinate_transformation_mode", "half_pixel"),
            node.attribute("nearest_mode", "round_prefer_floor")))
    given = _scales(node, len(before))
    if any(not abs(scale - factor) <= 1e-6 * factor
           for scale, factor in zip(given, factors, strict=False)):
        raise node.refuse(f"it resizes {before} to {after}, by other factors than it was given",
                          "give it the sizes")
    if node.attribute("antialias", 0):
        raise node.refuse("it smooths what it makes smaller (antialias)", "pool it before")
    if mode == "linear" and whole and len(before) < 5 and how[0] == "asymmetric":
        return _Ahead([int(f) for f in factors[2:]], before[1])
    sized = (list(after[:2]) == list(before[:2]) and len(before) < 5
             and (how[0] != "pytorch_half_pixel" or all(
                 new > 1 or old == 1 for old, new in zip(before, after, strict=False))))
    if sized and mode == "linear" and how[0] in _PLACES:
        kind = "bilinear" if len(before) == 4 else "linear"
        return First(lambda x: F.interpolate(x, after[2:], mode=kind,
                                             align_corners=how[0] == "align_corners"))
    if mode != "nearest" or not whole or how not in _REPEATING:
        raise node.refuse(f"it resizes {before} to {after} ({mode}, {', '.join(how)})",
                          "enlarge maps by whole numbers, nearest, or linear and half_pixel")
    return First(lambda x: F.interpolate(x, scale_factor=[float(f) for f in factors[2:]]))


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
