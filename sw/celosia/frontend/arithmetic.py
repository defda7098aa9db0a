"""Sums, differences, products and quotients: of two tensors of the network, or with a constant.

With a constant for each channel they are a BatchNorm of constants, ``y = x * scale + shift``.
"""

from collections.abc import Sequence
from itertools import count

import numpy as np

from celosia.frontend.call import Call, Value, map_shape
from celosia.graph import Add, BatchNorm, Multiply, Node
from celosia.spread import spread


def add(call: Call) -> Node | list[Node]:
    return _sum(call, 1.0, float(call.args["alpha"]))


def sub(call: Call) -> Node | list[Node]:
    return _sum(call, 1.0, -float(call.args["alpha"]))


def rsub(call: Call) -> Node | list[Node]:
    return _sum(call, -float(call.args["alpha"]), 1.0)


def neg(call: Call) -> Node:
    return _scaled(call, call.value("self"), -1.0)


def mul(call: Call) -> Node:
    for source, factor in (("self", "other"), ("other", "self")):
        value = call.args[source]
        if isinstance(value, Value) and not isinstance(call.args[factor], Value):
            return _scaled(call, value, call.constant(factor, "factor"))
    left, right = call.value("self"), call.value("other")
    if len(left.shape) != len(right.shape):
        raise call.refuse(f"shapes {left.shape} and {right.shape} differ in their axes",
                          "multiply tensors of one number of axes")
    return Multiply(name=call.name, left=left.name, right=right.name)


def square(call: Call) -> Node:
    source = call.value("self").name
    return Multiply(name=call.name, left=source, right=source)


def power(call: Call) -> Node:
    exponent = call.args["exponent"]
    if isinstance(exponent, Value) or np.any(call.constant("exponent", "exponent") != 2):
        raise call.refuse("its exponent is not the number 2",
                          "write powers as products, such as x * x * x")
    if call.shape != call.value("self").shape:
        raise call.refuse(f"a constant widens the shape {call.value('self').shape} to {call.shape}",
                          "give it the number 2")
    return square(call)


def div(call: Call) -> Node:
    if call.args.get("rounding_mode") is not None:
        raise call.refuse(f"it rounds ({call.args['rounding_mode']})", "divide without rounding")
    if isinstance(call.args["other"], Value):
        raise call.refuse("it divides by a tensor of the network",
                          "divide by constants only")
    divisor = call.constant("other", "divisor")
    if not np.all(divisor):
        raise call.refuse(f"{int(np.sum(divisor == 0))} of its {divisor.size} divisors are 0",
                          "repair the constants")
    return _scaled(call, call.value("self"), 1 / divisor)


def _sum(call: Call, left_factor: float, right_factor: float) -> Node | list[Node]:
    """Return ``self * left_factor + other * right_factor``."""
    left, right = call.args["self"], call.args["other"]
    if not isinstance(right, Value):
        return _scaled(call, call.value("self"), left_factor,
                       right_factor * call.constant("other", "summand"))
    if not isinstance(left, Value):
        return _scaled(call, right, right_factor,
                       left_factor * call.constant("self", "summand"))
    names, nodes = broadcast(call, (left, right), (left_factor, right_factor))
    return [*nodes, Add(name=call.name, left=names[0], right=names[1])]


def broadcast(call: Call, values: Sequence[Value], factors: Sequence[float] = (1.0, 1.0),
              ) -> tuple[list[str], list[Node]]:
    """Return tensors, so many times as large, all with the shape of the result; and the nodes that
    make them."""
    if len({len(value.shape) for value in values}) > 1:
        raise call.refuse(f"shapes {' and '.join(str(value.shape) for value in values)} differ in "
                          f"their axes", "give both the same number of axes")
    parts = (call.part("factor" if number == 0 else f"factor{number}") for number in count())
    found, nodes = [], list[Node]()
    for value, factor in zip(values, factors, strict=True):
        made = spread(value.name, map_shape(value.shape), map_shape(call.shape), factor, parts,
                      call.operator, "give both one shape")
        nodes += made
        found.append(made[-1].name if made else value.name)
    return found, nodes


def _scaled(call: Call, source: Value, scale: np.ndarray | float,
            shift: np.ndarray | float = 0.0) -> BatchNorm:
    if call.shape != source.shape:
        raise call.refuse(f"a constant widens the shape {source.shape} to {call.shape}",
                          "give it one value for each channel that there is")
    return BatchNorm(name=call.name, input=source.name, scale=_channels(call, source, scale),
                     shift=_channels(call, source, shift))


def _channels(call: Call, source: Value, constant: np.ndarray | float) -> np.ndarray:
    """Return a constant as float64 (C,); refused where it differs from place to place."""
    channels = source.shape[1]
    full = np.broadcast_to(np.float64(constant), source.shape).reshape(channels, -1)
    if not np.all(full == full[:, :1]):
        raise call.refuse(f"its constant of shape {np.shape(constant)} differs from place to place "
                          f"of the map {source.shape[1:]}", "use one value for each channel, or "
                          "apply it to the inputs on the host")
    return full[:, 0].copy()
