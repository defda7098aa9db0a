"""Core ATen operators to nodes of the float graph, one function an operator.

Each takes a :class:`Call` and returns its node, nodes of which the last is its own, or the name
of the tensor that its result is the same as.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch

from celosia.frontend import adaptive, arithmetic, pooling, resizing
from celosia.frontend.by_place import by_place
from celosia.frontend.call import Call, Constant, Value, map_shape
from celosia.frontend.refusals import REMEDIES
from celosia.graph import (
    Activate,
    Add,
    AvgPool,
    BatchNorm,
    Conv,
    Curve,
    Leaky,
    MaxPool,
    Move,
    Node,
    Pad,
    Reshape,
)
from celosia.pieces import fit
from celosia_spec.epilogue import Pool, Relu, within
from celosia_spec.errors import CompileError
from celosia_spec.isa.numbers import EXPONENT_MAX
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
    return BatchNorm(name=call.name, input=call.value("input").name, scale=scale, shift=shift)


def batch_norm_training(call: Call) -> Node:
    raise call.refuse("it takes its statistics from the batch",
                      "export the model after model.eval(), with track_running_stats=True")


def dropout_training(call: Call) -> Node:
    raise call.refuse("the model was exported in training mode",
                      "call model.eval() before torch.export.export, or give a dropout of the "
                      "forward pass training=self.training")


_BEYOND = float(2 << EXPONENT_MAX)
"""No number of the machine is as large."""


def relu(call: Call) -> Node:
    return Activate(name=call.name, input=call.value("self").name, activation=Relu())


def clamp(call: Call) -> Node | list[Node] | str:
    if call.shape != call.value("self").shape:
        raise _widens(call, "self")
    low, high = (_number(call, end) for end in ("min", "max"))
    if low is not None and high is not None and (math.isnan(low + high) or low >= high):
        raise call.refuse(f"clamps to {low:g} ... {high:g}", REMEDIES["clip"])
    return _clamp(call, low, high)


def hardtanh(call: Call) -> Node | list[Node] | str:
    return _clamp(call, float(call.args["min_val"]), float(call.args["max_val"]))


def maximum(call: Call) -> Node | list[Node] | str:
    return _larger(call, above=False)


def minimum(call: Call) -> Node | list[Node] | str:
    return _larger(call, above=True)


def _number(call: Call, argument: str) -> float | None:
    """Return a bound, None where it is left out; CompileError where it is not one number."""
    value = call.args.get(argument)
    if value is None or isinstance(value, int | float):
        return value if value is None else float(value)
    tensor = value.value if isinstance(value, Constant) else None
    if not isinstance(tensor, torch.Tensor) or tensor.is_complex() or len(tensor.unique()) != 1:
        raise call.refuse("it compares with several numbers", REMEDIES["maximum"])
    return float(tensor.unique())


def _larger(call: Call, *, above: bool) -> Node | list[Node] | str:
    """Return the larger of a tensor and a number or another tensor, element by element; the smaller
    where above."""
    source, bound = ("self", "other") if isinstance(call.args["self"], Value) else ("other", "self")
    if isinstance(call.args[bound], Value):
        return _larger_of_two(call, call.value("self"), call.value("other"), above=above)
    number = _number(call, bound)
    if call.value(source).shape != call.shape:
        raise _widens(call, source)
    assert number is not None
    return _bounded(call, call.value(source), number, above=above)


def _larger_of_two(call: Call, one: Value, other: Value, *, above: bool) -> list[Node]:
    """Return ``other + relu(one - other)``; where above, ``other - relu(other - one)``."""
    names, nodes = arithmetic.broadcast(call, (one, other))
    less, more = names if above else names[::-1]
    channels = map_shape(call.shape)[0]
    negative, difference, beyond = map(call.part, ("negative", "difference", "inner"))
    nodes += [_negative(negative, less, channels),
              Add(name=difference, left=more, right=negative),
              Activate(name=beyond, input=difference, activation=Relu())]
    if above:
        taken = call.part("taken")
        nodes.append(_negative(taken, beyond, channels))
        beyond = taken
    return [*nodes, Add(name=call.name, left=names[1], right=beyond)]


def _negative(name: str, source: str, channels: int) -> BatchNorm:
    """Return a tensor of so many channels with the other sign."""
    one = np.ones(channels)
    return BatchNorm(name=name, input=source, scale=-one, shift=0 * one)


def _widens(call: Call, argument: str) -> CompileError:
    return call.refuse(f"a constant widens the shape {call.value(argument).shape} to {call.shape}",
                       "give it one number")


def _clamp(call: Call, low: float | None, high: float | None) -> Node | list[Node] | str:
    """Return the clamp between bounds, or at one: no number is as large as `_BEYOND`. The machine
    has those between 0 and h, and -h and h. Two that do not lie around 0 are shifted there and
    back; of two that do, the nearer one is a clamp of its own."""
    source = call.value("self")
    low = None if low is None or low <= -_BEYOND else low
    high = None if high is None or high >= _BEYOND else high
    if low is None or high is None:
        bound = high if low is None else low
        return source.name if bound is None else _bounded(call, source, bound, above=low is None)
    even = low in (0, -high)
    largest, centre = max(-low, high), (low + high) / 2
    try:
        limits = (within(low, high) if even else within(-largest, largest) if low < 0 < high else
                  within(centre - high, high - centre))
    except ValueError as problem:
        raise call.refuse(f"clamps to {low:g} ... {high:g}: {problem}",
                          "scale the layer before it, or leave the clamp out") from None
    if even:
        return Activate(name=call.name, input=source.name, activation=limits)
    if low < 0 < high:
        inner = call.part("inner")
        return [Activate(name=inner, input=source.name, activation=limits),
                Leaky(name=call.name, input=inner, slope=np.zeros(source.shape[1]),
                      knee=high if high < -low else low, above=high < -low)]
    one, shift = np.ones(source.shape[1]), np.full(source.shape[1], centre)
    shifted, inner = call.part("factor"), call.part("inner")
    return [BatchNorm(name=shifted, input=source.name, scale=one, shift=-shift),
            Activate(name=inner, input=shifted, activation=limits),
            BatchNorm(name=call.name, input=inner, scale=one, shift=shift)]


def _bounded(call: Call, source: Value, bound: float, *, above: bool) -> Node | list[Node] | str:
    """Return ``max(x, bound)``; where above, ``min(x, bound)``. What is always as large as its
    bound is shifted there and back."""
    if math.isnan(bound) or (bound <= -_BEYOND if above else bound >= _BEYOND):
        raise call.refuse(f"clamps at {bound:g}, and the machine's numbers are below {_BEYOND:g}",
                          REMEDIES["clip"])
    if abs(bound) >= _BEYOND:
        return source.name
    if bound == 0 and not above:
        return Activate(name=call.name, input=source.name, activation=Relu())
    one, shift = np.ones(source.shape[1]), np.full(source.shape[1], bound)
    if (bound > 0) == above:
        return Leaky(name=call.name, input=source.name, slope=0 * one, knee=bound, above=above)
    sign = -one if above else one
    shifted, inner = call.part("factor"), call.part("inner")
    return [BatchNorm(name=shifted, input=source.name, scale=sign, shift=-sign * shift),
            Activate(name=inner, input=shifted, activation=Relu()),
            BatchNorm(name=call.name, input=inner, scale=sign, shift=shift)]


def leaky_relu(call: Call) -> Node:
    return _leaky(call, np.full(1, float(call.args["negative_slope"])), fixed=True)


def where(call: Call) -> Node:
    if "weight" not in call.args:
        raise call.refuse("it chooses between tensors element by element", REMEDIES["where"])
    return _leaky(call, call.constant("weight", "slope").ravel(), fixed=False)


def _leaky(call: Call, slope: np.ndarray, *, fixed: bool) -> Node:
    source = call.value("self")
    channels = source.shape[1]
    if slope.size not in (1, channels):
        raise call.refuse(f"it has {slope.size} slopes for {channels} channels",
                          "give it one slope, or one for each channel")
    return Leaky(name=call.name, input=source.name, fixed=fixed,
                 slope=np.broadcast_to(slope, channels).copy())


def curve(call: Call) -> Node:
    source = call.value("self")
    if source.shape != call.shape:
        raise call.refuse("not supported by this machine", REMEDIES["silu"])
    try:
        pieces, off = fit(call.args["function"])
    except (ValueError, RuntimeError) as problem:
        raise call.refuse(str(problem), REMEDIES["silu"]) from None
    if (pieces.below, pieces.above) == (0, 1) and not np.any(pieces.values):
        return relu(call)
    return Curve(name=call.name, input=source.name, pieces=pieces, operator=call.operator, off=off,
                 function=call.args["function"])


def hardsigmoid(call: Call) -> list[Node]:
    source = call.value("self")
    one = np.ones(source.shape[1])
    sixth = call.part("factor")
    return [BatchNorm(name=sixth, input=source.name, scale=one / 6, shift=one / 2),
            Activate(name=call.name, input=sixth, activation=within(0, 1))]


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


def mean(call: Call) -> Node | list[Node]:
    axes = call.args["dim"] or ()
    if {axis % len(call.value("self").shape) for axis in axes} & {0, 1}:
        return _summed(call, "mean", axes, mean=True)
    window = _reduced(call, "mean", axes)
    return AvgPool(name=call.name, input=call.value("self").name, window=window, stride=window,
                   divisor=window[0] * window[1])


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
    return MaxPool(name=call.name, input=call.value("self").name,
                   pool=Pool(window=window, stride=window))


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


def _reduced(call: Call, what: str, given: Sequence[int]) -> tuple[int, int]:
    """Return the window over which a mean or maximum is taken: height, width or both of a map, or
    the length of lines."""
    shape = call.value("self").shape
    axes = sorted(axis % len(shape) for axis in given)
    if len(shape) == 3 and axes == [2]:
        return 1, shape[2]
    # A map of one column is no line.
    as_it_was = len(call.shape) != 3 or axes == [2] or shape[2] == 1
    if len(shape) != 4 or axes not in ([2], [3], [2, 3]) or not as_it_was:
        raise call.refuse(f"the {what} over axes {axes} of shape {shape} is not supported",
                          f"take the {what} over the axes (2, 3) of a map")
    return shape[2] if 2 in axes else 1, shape[3] if 3 in axes else 1


def pad(call: Call) -> Node:
    amounts = [int(v) for v in call.args["pad"]] + [0] * 8
    sides = 2 * (len(call.shape) - 2)
    if call.args["value"] != 0 or min(amounts) < 0 or any(amounts[sides:]):
        raise call.refuse(f"pads {call.args['pad']} with {call.args['value']:g}",
                          "pad height and width with zeros only")
    left, right, top, bottom = amounts[:4]
    return Pad(name=call.name, input=call.value("self").name, padding=(top, left, bottom, right))


def reshape(call: Call) -> Node:
    return Reshape(name=call.name, input=call.value("self").name, shape=call.map_result())


def same(call: Call) -> str:
    return call.value("self").name


def copy(call: Call) -> str:
    if call.args.get("dtype") is not None:
        raise call.refuse(f"converts to {call.args['dtype']}", "keep the network in float32")
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
    "relu": ("relu", relu),
    "leaky_relu": ("leaky_relu", leaky_relu),
    "where": ("where", where),
    "hardsigmoid": ("hardsigmoid", hardsigmoid),
    "clamp": ("clamp", clamp),
    "clamp_min": ("clamp", clamp),
    "clamp_max": ("clamp", clamp),
    "maximum": ("maximum", maximum),
    "fmax": ("fmax", maximum),
    "fmin": ("fmin", minimum),
    "minimum": ("minimum", minimum),
    "hardtanh": ("hardtanh", hardtanh),
    "max_pool2d_with_indices": ("max_pool2d", max_pool2d),
    "avg_pool2d": ("avg_pool2d", avg_pool2d),
    "_adaptive_avg_pool2d": ("adaptive_avg_pool2d", adaptive.average),
    "adaptive_max_pool2d": ("adaptive_max_pool2d", adaptive.largest),
    "mean": ("mean", mean),
    "sum": ("sum", total),
    "amax": ("amax", largest),
    "max": ("max", largest),
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
