"""Sums, differences, products and quotients: of two tensors of the network, or with a constant.

With a constant for each channel they are a BatchNorm of constants, ``y = x * scale + shift``; with
one for each place likewise of the vector that the map is then taken for.
"""

import math
from collections.abc import Sequence
from itertools import count

import numpy as np

from celosia.frontend.call import Call, Constant, Value, map_shape
from celosia.graph import Add, BatchNorm, Conv, Multiply, Node, Reshape
from celosia.passes.one_by_one import MOST_ROWS, few
from celosia.spread import spread


def add(call: Call) -> Node | list[Node]:
    return _sum(call, 1.0, float(call.args["alpha"]))


def sub(call: Call) -> Node | list[Node]:
    return _sum(call, 1.0, -float(call.args["alpha"]))


def rsub(call: Call) -> Node | list[Node]:
    return _sum(call, -float(call.args["alpha"]), 1.0)


def neg(call: Call) -> Node | list[Node]:
    return scaled(call, call.value("self"), -1.0)


def mul(call: Call) -> Node | list[Node]:
    for source, factor in (("self", "other"), ("other", "self")):
        value = call.args[source]
        if isinstance(value, Value) and not isinstance(call.args[factor], Value):
            return scaled(call, value, call.constant(factor, "factor"))
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


def div(call: Call) -> Node | list[Node]:
    if call.args.get("rounding_mode") is not None:
        raise call.refuse(f"it rounds ({call.args['rounding_mode']})", "divide without rounding")
    if isinstance(call.args["other"], Value):
        raise call.refuse("it divides by a tensor of the network",
                          "divide by constants only")
    divisor = call.constant("other", "divisor")
    if not np.all(divisor):
        raise call.refuse(f"{int(np.sum(divisor == 0))} of its {divisor.size} divisors are 0",
                          "repair the constants")
    return scaled(call, call.value("self"), 1 / divisor)


def _sum(call: Call, left_factor: float, right_factor: float) -> Node | list[Node]:
    """Return ``self * left_factor + other * right_factor``."""
    left, right = call.args["self"], call.args["other"]
    if not isinstance(right, Value):
        return scaled(call, call.value("self"), left_factor,
                       right_factor * call.constant("other", "summand"))
    if not isinstance(left, Value):
        return scaled(call, right, right_factor,
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


def scaled(call: Call, source: Value, scale: np.ndarray | float,
            shift: np.ndarray | float = 0.0) -> Node | list[Node]:
    """Return ``source * scale + shift``, where the constants differ from place to place, too."""
    if call.shape != source.shape:
        return _widened(call, source, scale, shift)
    full = [np.broadcast_to(np.float64(constant), call.shape) for constant in (scale, shift)]
    places = [constant.reshape(call.shape[1], -1) for constant in full]
    if all(np.all(constant == constant[:, :1]) for constant in places):
        scale, shift = (constant[:, 0].copy() for constant in places)
        return BatchNorm(name=call.name, input=source.name, scale=scale, shift=shift,
                         trained=any(isinstance(own, Constant) for own in call.args.values()))
    flat, made = call.part("flat"), call.part("places")
    scale, shift = (constant.flatten() for constant in full)
    return [Reshape(name=flat, input=source.name, shape=(scale.size, 1, 1)),
            BatchNorm(name=made, input=flat, scale=scale, shift=shift),
            Reshape(name=call.name, input=made, shape=call.map_result())]


def _widened(call: Call, source: Value, scale: np.ndarray | float,
             shift: np.ndarray | float) -> list[Node]:
    """Return a layer with weights for each element of a result that is larger than the tensor: for
    each channel, where one becomes several."""
    whole = map_shape(source.shape)
    taken = np.broadcast_to(np.arange(math.prod(whole)).reshape(source.shape), call.shape)
    full = [np.broadcast_to(np.float64(constant), call.shape) for constant in (scale, shift)]
    places = [constant.reshape(call.shape[1], -1) for constant in full]
    if whole[0] == 1 and call.map_result()[1:] == whole[1:] and all(
            np.all(constant == constant[:, :1]) for constant in places):
        weight, bias = (constant[:, 0].copy() for constant in places)
        return [Conv(name=call.name, input=source.name, weight=weight[:, None, None, None],
                     bias=bias)]
    rows, columns = taken.size, math.prod(whole)
    if not few(rows, columns):
        raise call.refuse(f"a constant widens the shape {source.shape} to {call.shape}, and of a "
                          f"layer with weights for each place {MOST_ROWS:,} elements are made at "
                          "most", "give it one value for each channel that there is")
    live = taken.reshape(-1, 1) == np.arange(columns)
    flat, made = call.part("flat"), call.part("places")
    return [Reshape(name=flat, input=source.name, shape=(columns, 1, 1)),
            Conv(name=made, input=flat, weight=(live * full[0].reshape(-1, 1))[:, :, None, None],
                 bias=full[1].flatten(), live=live[:, :, None, None]),
            Reshape(name=call.name, input=made, shape=call.map_result())]
