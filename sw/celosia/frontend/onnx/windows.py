"""ONNX's convolutions and pools as modules of torch."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import nn

from celosia.frontend.onnx.node import Does, First, Node, filled


def pads(node: Node, kernel: Sequence[int], dilation: Sequence[int],
         stride: Sequence[int]) -> list[int]:
    """Return a window's padding, all starts and then all ends."""
    axes, how = len(kernel), node.attribute("auto_pad", "NOTSET")
    if how in ("NOTSET", ""):
        return list(node.attribute("pads", [0] * 2 * axes))
    if how == "VALID":
        return [0] * 2 * axes
    starts, ends = [], []
    for size, k, d, s in zip(node.shape()[2:], kernel, dilation, stride, strict=True):
        total = max(0, (-(-size // s) - 1) * s + (k - 1) * d + 1 - size)
        low, high = total // 2, total - total // 2
        starts.append(low if how == "SAME_UPPER" else high)
        ends.append(high if how == "SAME_UPPER" else low)
    return starts + ends


def padded(amounts: list[int], layer: Callable[[tuple[int, ...]], nn.Module],
           value: float = 0.0) -> nn.Module:
    """Return the layer made with a padding, behind a layer of its own where sides differ."""
    axes = len(amounts) // 2
    starts, ends = amounts[:axes], amounts[axes:]
    if starts == ends:
        return layer(tuple(starts))
    order = [side for axis in reversed(range(axes)) for side in (starts[axis], ends[axis])]
    return nn.Sequential(First(lambda x: F.pad(x, order, value=value)), layer((0,) * axes))


def conv(node: Node) -> nn.Module:
    weight, bias = node.tensor(1), node.optional(2)
    axes = weight.ndim - 2
    kind = {1: nn.Conv1d, 2: nn.Conv2d}.get(axes)
    if kind is None:
        raise node.refuse(f"a convolution of {axes} axes", "use one of 1 or 2")
    stride, dilation = (node.attribute(name, [1] * axes) for name in ("strides", "dilations"))
    kernel, groups = weight.shape[2:], node.attribute("group", 1)
    return padded(pads(node, kernel, dilation, stride), lambda padding: filled(
        kind(weight.shape[1] * groups, weight.shape[0], tuple(kernel), tuple(stride), padding,
             tuple(dilation), groups, bias is not None, device="meta"), weight, bias))


def conv_transpose(node: Node) -> nn.Module:
    weight, bias = node.tensor(1), node.optional(2)
    axes = weight.ndim - 2
    function = {1: F.conv_transpose1d, 2: F.conv_transpose2d}.get(axes)
    if function is None:
        raise node.refuse(f"a transposed convolution of {axes} axes", "use one of 1 or 2")
    ones = [1] * axes
    stride, dilation = node.attribute("strides", ones), node.attribute("dilations", ones)
    extra, groups = node.attribute("output_padding", [0] * axes), node.attribute("group", 1)
    before, after = node.shape()[2:], node.shapes[node.proto.output[0]][2:]
    how, starts, ends = node.attribute("auto_pad", "NOTSET"), [], []
    amounts = node.attribute("pads", [0] * 2 * axes)
    if node.attribute("output_shape", None) is None and how in ("NOTSET", "VALID", ""):
        starts, ends = amounts[:axes], amounts[axes:]
    else:
        for size, new, k, d, s, more in zip(before, after, weight.shape[2:], dilation, stride,
                                            extra, strict=True):
            total = s * (size - 1) + more + (k - 1) * d + 1 - new
            low, high = total // 2, total - total // 2
            starts.append(low if how == "SAME_UPPER" else high)
            ends.append(high if how == "SAME_UPPER" else low)
    if min(*starts, *ends) < 0:
        raise node.refuse(f"its padding of {starts} in front and {ends} behind adds places that "
                          "nothing writes", "make the map larger by a Pad behind it")
    # torch cuts as much off at the end, less at most a stride: zeros around the kernel do the rest.
    sides, padding, beyond = list[int](), list[int](), list[int]()
    for start, end, more, d, s in zip(starts, ends, extra, dilation, stride, strict=True):
        first = max(0, -(-(end - more - start) // d))
        left = start + first * d + more - end
        last = max(0, -(-(left - max(s, d) + 1) // d))
        sides = [first, last, *sides]
        padding.append(start + first * d)
        beyond.append(left - last * d)
    weight = F.pad(weight, sides)
    return Does(lambda x, w, b=None: function(x, w, b, stride, padding, beyond, groups, dilation),
                [None, weight.numpy(), *([] if bias is None else [bias.numpy()])])


def max_pool(node: Node) -> nn.Module:
    kernel, stride, dilation, amounts = _window(node)
    ceil = bool(node.attribute("ceil_mode", 0))
    if len(node.proto.output) > 1:
        raise node.refuse("its indices are asked for", "use its values alone")
    kind = (nn.MaxPool1d, nn.MaxPool2d)[len(kernel) - 1]

    def layer(padding: tuple[int, ...], ceil: bool = ceil) -> nn.Module:
        return kind(tuple(kernel), tuple(stride), padding, tuple(dilation), ceil_mode=ceil)

    starts = tuple(amounts[:len(kernel)])
    wanted = node.shapes.get(node.proto.output[0], ())
    rounded_up = tuple(
        1 - -(before + 2 * start - (k - 1) * d - 1) // s for before, start, k, d, s in
        zip(node.shape()[2:], starts, kernel, dilation, stride, strict=True))
    if rounded_up == wanted[2:]:        # more padding at the ends is windows beyond the map
        return layer(starts, ceil=True)
    return padded(amounts, layer, -torch.inf)


def average_pool(node: Node) -> nn.Module:
    kernel, stride, dilation, amounts = _window(node)
    axes, counted = len(kernel), bool(node.attribute("count_include_pad", 0))
    if (amounts[:axes] != amounts[axes:] and not counted) or any(d != 1 for d in dilation):
        raise node.refuse("an average pool with dilation, or with padding that differs from side "
                          "to side and does not count", "pad by a Pad in front")
    kind = (nn.AvgPool1d, nn.AvgPool2d)[axes - 1]
    return padded(amounts, lambda padding: kind(
        tuple(kernel), tuple(stride), padding, bool(node.attribute("ceil_mode", 0)),
        counted or not any(amounts)))


def _window(node: Node) -> tuple[list[int], list[int], list[int], list[int]]:
    """Return kernel, stride, dilation and padding of a pool."""
    kernel = node.attribute("kernel_shape", [])
    if len(kernel) not in (1, 2):
        raise node.refuse(f"a pool of {len(kernel)} axes", "use one of 1 or 2")
    ones = [1] * len(kernel)
    stride, dilation = node.attribute("strides", ones), node.attribute("dilations", ones)
    return kernel, stride, dilation, pads(node, kernel, dilation, stride)


def global_pool(node: Node) -> nn.Module:
    axes = len(node.shape()) - 2
    if axes not in (1, 2):
        raise node.refuse(f"an operand of shape {node.shape()}", "pool maps of 1 or 2 axes")
    kinds = {"GlobalMaxPool": (nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d),
             "GlobalAveragePool": (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d)}
    return kinds[node.proto.op_type][axes - 1](1)
