"""Operators of one number or two: ReLU, clamps, the larger of two, slopes, functions in pieces."""

import math
from dataclasses import replace

import numpy as np
import torch

from celosia.frontend import arithmetic
from celosia.frontend.call import Call, Constant, Value, map_shape
from celosia.frontend.patterns import Function
from celosia.frontend.refusals import REMEDIES
from celosia.graph import Activate, Add, BatchNorm, Curve, Leaky, Node
from celosia.pieces import fit
from celosia_spec.epilogue import Relu, within
from celosia_spec.errors import CompileError
from celosia_spec.isa.numbers import EXPONENT_MAX

BEYOND = float(2 << EXPONENT_MAX)
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
    """Return the clamp between bounds, or at one: no number is as large as `BEYOND`. The machine
    has those between 0 and h, and -h and h. Two that do not lie around 0 are shifted there and
    back; of two that do, the nearer one is a clamp of its own."""
    source = call.value("self")
    low = None if low is None or low <= -BEYOND else low
    high = None if high is None or high >= BEYOND else high
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
    if math.isnan(bound) or (bound <= -BEYOND if above else bound >= BEYOND):
        raise call.refuse(f"clamps at {bound:g}, and the machine's numbers are below {BEYOND:g}",
                          REMEDIES["clip"])
    if abs(bound) >= BEYOND:
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


def where(call: Call) -> Node | list[Node]:
    if "weight" in call.args:
        return _leaky(call, call.constant("weight", "slope").ravel(), fixed=False)
    chosen = call.constant("condition", "condition") != 0
    one, other = call.args["self"], call.args["other"]
    if not isinstance(one, Value):
        return arithmetic.scaled(call, call.value("other"), ~chosen,
                                 np.where(chosen, call.constant("self", "first value"), 0))
    if not isinstance(other, Value):
        return arithmetic.scaled(call, one, chosen,
                                 np.where(chosen, 0, call.constant("other", "second value")))
    names, nodes = [call.part("one"), call.part("other")], list[Node]()
    for name, value, kept in zip(names, (one, other), (chosen, ~chosen), strict=True):
        made = arithmetic.scaled(replace(call, name=name), value, kept)
        nodes += made if isinstance(made, list) else [made]
    return [*nodes, Add(name=call.name, left=names[0], right=names[1])]


def _leaky(call: Call, slope: np.ndarray, *, fixed: bool) -> Node:
    source = call.value("self")
    channels = source.shape[1]
    if slope.size not in (1, channels):
        raise call.refuse(f"it has {slope.size} slopes for {channels} channels",
                          "give it one slope, or one for each channel")
    return Leaky(name=call.name, input=source.name, fixed=fixed,
                 slope=np.broadcast_to(slope, channels).copy())


def _way_out(function: Function, source: str) -> str:
    """Return what to do about a function that has no pieces: where these are enough, clamp.

    source : the tensor that its first step takes.
    """
    with np.errstate(all="ignore"):
        finite = np.isfinite(function(np.linspace(-4, 4, 17))).all()
    low, high = (-4.0, 4.0) if finite else (0.25, 8.0)

    def clamped(x: np.ndarray) -> np.ndarray:
        return function(np.clip(x, low, high))

    try:
        fit(clamped)
    except (ValueError, RuntimeError):
        return REMEDIES["silu"]
    what = "what it takes to where it is needed" if len(function.steps) == 1 else (
        f"{source}, the tensor that it is computed from, before anything else")
    return f"clamp {what}, such as x.clamp({low:g}, {high:g}), or {REMEDIES['silu']}"


def curve(call: Call) -> Node:
    source = call.value("self")
    if source.shape != call.shape:
        raise call.refuse("not supported by this machine", REMEDIES["silu"])
    try:
        pieces, off = fit(call.args["function"])
    except (ValueError, RuntimeError) as problem:
        raise call.refuse(str(problem),
                          _way_out(call.args["function"], source.name)) from None
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
