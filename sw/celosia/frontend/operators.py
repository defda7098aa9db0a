"""Core ATen operators to nodes of the float graph, one function an operator.

Each takes a :class:`Call` and returns its node, nodes of which the last is its own, or the name
of the tensor that its result is the same as.
"""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from celosia.frontend import activations, adaptive, arithmetic, pooling, reductions, resizing
from celosia.frontend.by_place import by_place
from celosia.frontend.call import Call, Constant, Value
from celosia.frontend.refusals import REMEDIES
from celosia.graph import (
    AvgPool,
    BatchNorm,
    Conv,
    MaxPool,
    Node,
    Pad,
    Reshape,
)
from celosia_spec.epilogue import Pool
from celosia_spec.errors import CompileError
from celosia_spec.qgraph import NodeKind

Handler = Callable[[Call], Node | list[Node] | str]


def conv2d(call: Call) -> Node:
    source, weight = call.value("input"), call.constant("weight", "weight")
    stride, (top, left), dilation, (low, right) = (
        call.pair(name) for name in ("stride", "padding", "dilation", "output_padding"))
    if weight.ndim == 3:        # of lines
        weight, stride, top, dilation, low = (
            weight[:, :, None], (1, stride[1]), 0, (1, dilation[1]), 0)
    if weight.ndim != 4:
        raise call.refuse(f"the convolution has {weight.ndim - 2} spatial dimensions",
                          "use Conv2d or Conv1d")
    groups = int(call.args["groups"])
    conv = Conv(name=call.name, input=source.name, weight=weight, groups=groups, stride=stride,
                padding=(top, left, top, left), dilation=dilation,
                bias=call.optional("bias", "bias"))
    if not call.args["transposed"]:
        return conv
    y, x = ((kernel - 1) * apart - before for kernel, apart, before in
            zip(conv.kernel, dilation, (top, left), strict=True))
    own = weight.reshape(groups, -1, *weight.shape[1:]).swapaxes(1, 2)[..., ::-1, ::-1]
    return replace(conv, weight=own.reshape(-1, *own.shape[2:]).copy(), stride=(1, 1), up=stride,
                   padding=(y, x, y + low, x + right))


def _linear(call: Call, source: Value, weight: np.ndarray, bias: np.ndarray | None) -> Node:
    return Conv(name=call.name, input=source.name, weight=weight.T[:, :, None, None].copy(),
                bias=bias, kind=NodeKind.LINEAR)


def addmm(call: Call) -> Node:
    bias = call.constant("self", "bias") * float(call.args["beta"])
    weight = call.constant("mat2", "weight") * float(call.args["alpha"])
    return _linear(call, call.value("mat1"), weight, np.broadcast_to(bias, weight.shape[1:]).copy())


def mm(call: Call) -> Node:
    return _linear(call, call.value("self"), call.constant("mat2", "weight"), None)


def bmm(call: Call) -> Node:
    weights = call.args["mat2"]
    if not isinstance(weights, Constant) or bool((weights.value != weights.value[:1]).any()):
        raise call.refuse("not supported by this machine", REMEDIES["bmm"])
    return _linear(call, call.value("self"), call.constant("mat2", "weight")[0], None)


def batch_norm(call: Call) -> Node:
    mean = call.constant("running_mean", "running mean")
    variance = call.constant("running_var", "running variance")
    weight, bias = call.optional("weight", "weight"), call.optional("bias", "bias")
    variance = variance + float(call.args["eps"])
    if not np.all(variance > 0):
        raise call.refuse("a channel's variance is zero or negative", "train the layer again")
    scale = (1.0 if weight is None else weight) / np.sqrt(variance)
    shift = (0.0 if bias is None else bias) - mean * scale
    return BatchNorm(name=call.name, input=call.value("input").name, scale=scale, shift=shift,
                     trained=True)


def batch_norm_training(call: Call) -> Node:
    raise call.refuse("it takes its statistics from the batch",
                      "export the model after model.eval(), with track_running_stats=True")


def dropout_training(call: Call) -> Node:
    raise call.refuse("it is on in evaluation, too",
                      "make it an nn.Dropout, or F.dropout(x, p, self.training); a program "
                      "is exported after model.eval()")


def max_pool2d(call: Call) -> Node | list[Node]:
    source, window = call.value("self"), call.pair("kernel_size")
    stride, (top, left) = call.pair("stride", window), call.pair("padding")
    if call.pair("dilation") != (1, 1):
        lines, columns = (pooling.dilated(-before, *own) for before, *own in zip(
            (top, left), call.pair("dilation"), window, stride, call.shape[-2:], strict=True))
        return pooling.pooled(call, (lines, columns), "use dilation=1")
    # With ceil_mode windows reach beyond the map.
    bottom, right = (
        max((count - 1) * step + wide - size - before, 0) for count, step, wide, size, before in
        zip(call.shape[-2:], stride, window, source.shape[-2:], (top, left), strict=True))
    return MaxPool(name=call.name, input=source.name, pool=Pool(window=window, stride=stride),
                   padding=(top, left, bottom, right))


def avg_pool2d(call: Call) -> Node | list[Node]:
    window, (top, left) = call.pair("kernel_size"), call.pair("padding")
    stride, sizes = call.pair("stride", window), call.value("self").shape[-2:]
    below, right = (
        max((count - 1) * step + wide - size - before, before) for count, step, wide, size, before
        in zip(call.shape[-2:], stride, window, sizes, (top, left), strict=True))
    divisor, counted = call.args["divisor_override"], call.args["count_include_pad"]
    if not divisor and ((below, right) != (top, left) or ((top, left) != (0, 0) and not counted)):
        if not counted and (found := pooling.within(call)) is not None:
            return found
        return by_place(call, call.value("self"), _clipped(call, counted=counted),
                        "its windows differ in how many elements count",
                        "use ceil_mode=False, and padding=0 or count_include_pad=True")
    return AvgPool(name=call.name, input=call.value("self").name, window=window, stride=stride,
                   padding=(top, left, below, right), divisor=int(divisor or math.prod(window)))


def _clipped(call: Call, *, counted: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return what places of an average pool count along height and width: elements within the map,
    their weights such that the sum is divided by all of the window that is in the map, or within
    its padding where that is counted."""
    window = call.pair("kernel_size")
    found = []
    for size, count, wide, step, before in zip(
            call.value("self").shape[-2:], call.shape[-2:], window, call.pair("stride", window),
            call.pair("padding"), strict=True):
        own = np.zeros((count, size))
        for place in range(count):
            begin = place * step - before
            inside = np.arange(max(begin, 0), min(begin + wide, size))
            own[place, inside] = 1 / (min(begin + wide, size + before) - begin if counted
                                      else len(inside))
        found.append(own)
    return found[0], found[1]


def pad(call: Call) -> Node | list[Node]:
    amounts = [int(v) for v in call.args["pad"]] + [0] * 8
    sides = 2 * (len(call.shape) - 2)
    value = float(call.args["value"])
    if value and min(amounts[:sides]) < 0:
        raise call.refuse(f"pads {call.args['pad']} with {value:g}, and a side below zero cuts "
                          "lines or columns off", "cut them off by a slice, and pad what is left")
    if not abs(value) < activations.BEYOND or min(amounts) < 0 or any(amounts[sides:]):
        raise call.refuse(f"pads {call.args['pad']} with {value:g}",
                          "pad height and width with zeros or another number")
    left, right, top, bottom = amounts[:4]
    source = call.value("self")
    padded = Pad(name=call.name, input=source.name, padding=(top, left, bottom, right))
    if value == 0:
        return padded
    one, shift = np.ones(source.shape[1]), np.full(source.shape[1], value)
    shifted, inner = call.part("factor"), call.part("inner")
    return [BatchNorm(name=shifted, input=source.name, scale=one, shift=-shift),
            replace(padded, name=inner, input=shifted),
            BatchNorm(name=call.name, input=inner, scale=one, shift=shift)]


def reshape(call: Call) -> Node:
    return Reshape(name=call.name, input=call.value("self").name, shape=call.map_result())


def same(call: Call) -> str:
    return call.value("self").name


def copy(call: Call) -> str:
    if call.args.get("dtype") is not None:
        without = ", without torch.autocast" * ("autocast" in call.operator)
        raise call.refuse(f"converts to {call.args['dtype']}",
                          f"keep the network in float32{without}")
    return same(call)


def first(call: Call) -> str:
    source = call.value("input")
    if call.args["index"] != 0:
        raise CompileError(source.name, call.operator, "its second result (the indices) is used",
                           "use the pooled values only", call.source)
    return source.name


HANDLERS: dict[str, tuple[str, Handler]] = {
    "convolution": ("conv2d", conv2d),
    "addmm": ("linear", addmm),
    "mm": ("linear", mm),
    "bmm": ("bmm", bmm),
    "_native_batch_norm_legit_no_training": ("batch_norm", batch_norm),
    "_native_batch_norm_legit": ("batch_norm", batch_norm_training),
    "_native_batch_norm_legit_functional": ("batch_norm", batch_norm_training),
    "native_dropout": ("dropout", dropout_training),
    "relu": ("relu", activations.relu),
    "leaky_relu": ("leaky_relu", activations.leaky_relu),
    "where": ("where", activations.where),
    "hardsigmoid": ("hardsigmoid", activations.hardsigmoid),
    "clamp": ("clamp", activations.clamp),
    "clamp_min": ("clamp", activations.clamp),
    "clamp_max": ("clamp", activations.clamp),
    "maximum": ("maximum", activations.maximum),
    "fmax": ("fmax", activations.maximum),
    "fmin": ("fmin", activations.minimum),
    "minimum": ("minimum", activations.minimum),
    "hardtanh": ("hardtanh", activations.hardtanh),
    "max_pool2d_with_indices": ("max_pool2d", max_pool2d),
    "avg_pool2d": ("avg_pool2d", avg_pool2d),
    "_adaptive_avg_pool2d": ("adaptive_avg_pool2d", adaptive.average),
    "adaptive_max_pool2d": ("adaptive_max_pool2d", adaptive.largest),
    "mean": ("mean", reductions.mean),
    "sum": ("sum", reductions.total),
    "amax": ("amax", reductions.largest),
    "max": ("max", reductions.largest),
    "amin": ("amin", reductions.smallest),
    "min": ("min", reductions.smallest),
    "add": ("add", arithmetic.add),
    "sub": ("sub", arithmetic.sub),
    "rsub": ("rsub", arithmetic.rsub),
    "neg": ("neg", arithmetic.neg),
    "mul": ("mul", arithmetic.mul),
    "div": ("div", arithmetic.div),
    "square": ("square", arithmetic.square),
    "pow": ("pow", arithmetic.power),
    "constant_pad_nd": ("pad", pad),
    "upsample_nearest1d": ("interpolate", resizing.nearest),
    "upsample_nearest2d": ("interpolate", resizing.nearest),
    "_upsample_nearest_exact1d": ("interpolate", resizing.nearest_exact),
    "_upsample_nearest_exact2d": ("interpolate", resizing.nearest_exact),
    "upsample_linear1d": ("interpolate", resizing.linear),
    "upsample_bilinear2d": ("interpolate", resizing.linear),
    "expand": ("expand", resizing.of_one),
    "repeat": ("repeat", resizing.of_one),
    "view": ("reshape", reshape),
    "_unsafe_view": ("reshape", reshape),
    "squeeze": ("squeeze", reshape),
    "unsqueeze": ("unsqueeze", reshape),
    "clone": ("clone", same),
    "alias": ("alias", same),
    "detach": ("detach", same),
    "_to_copy": ("to", copy),
    "getitem": ("max_pool2d", first),
}
"""ATen operator to its name in PyTorch's own words and its handler."""
