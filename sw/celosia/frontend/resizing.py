"""Maps whose size changes by a whole number, with straight lines between their elements: layers
with fixed weights, of maps around which their outermost elements stand again."""

import math
from dataclasses import dataclass

import numpy as np

from celosia.frontend.call import Call
from celosia.graph import Conv, Move, Node, Shape
from celosia_spec.qgraph import NodeKind

_WAY_OUT = ("enlarge maps by whole numbers, with align_corners=False, or with a transposed "
            "convolution")

@dataclass(frozen=True)
class _Axis:
    """A convolution along an axis.

    weights, up, stride, padding : of it (`Conv`).   around : how often the first and the last
    element stand again.
    """

    weights: np.ndarray
    up: int = 1
    stride: int = 1
    padding: tuple[int, int] = (0, 0)
    around: tuple[int, int] = (0, 0)


def linear(call: Call) -> list[Node]:
    """Return the layer that makes a map of another size, and what it reads."""
    before, factors = call.value("input").shape, call.args["scale_factors"]
    channels, *sizes = _as_map(before)
    after = _as_map(call.shape)[1:]
    told = [new / old for new, old in zip(after, sizes, strict=True)]
    # Places are counted with the factors that were given, whatever sizes come of them.
    given = told if factors is None else [1.0, *factors][-2:]
    if call.args["align_corners"] and any(
            1 < old != new for old, new in zip(sizes, after, strict=True)):
        raise call.refuse("with align_corners=True weights differ from place to place", _WAY_OUT)
    lines, columns = (_axis(old, new) for old, new in zip(sizes, after, strict=True))
    if lines is None or columns is None or not np.allclose(given, told):
        raise call.refuse(f"it resizes {_size(before)} to {_size(call.shape)}, by no whole number",
                          _WAY_OUT)
    source, nodes = call.value("input").name, list[Node]()
    if any(lines.around + columns.around):
        index = np.arange(channels * math.prod(sizes)).reshape(channels, *sizes)
        nodes.append(Move(name=call.between, inputs=(source,), operator=call.operator,
                          index=np.pad(index, ((0, 0), lines.around, columns.around), mode="edge"),
                          remedy=_WAY_OUT))
        source = call.between
    kernel = np.outer(lines.weights, columns.weights)
    return [*nodes, Conv(
        name=call.name, input=source, weight=np.tile(kernel, (channels, 1, 1, 1)), bias=None,
        groups=channels, kind=NodeKind.AVERAGE, live=np.tile(kernel != 0, (channels, 1, 1, 1)),
        up=(lines.up, columns.up), stride=(lines.stride, columns.stride),
        padding=(lines.padding[0], columns.padding[0], lines.padding[1], columns.padding[1]))]


def _axis(before: int, after: int) -> _Axis | None:
    """Return how an axis gets another size; None where neither size divides the other."""
    if before == after:
        return _Axis(np.ones(1))
    if before == 1:
        return _Axis(np.ones(after), up=after, padding=(after - 1, after - 1))
    up, stride = max(after // before, 1), max(before // after, 1)
    if after * stride != before * up:
        return None
    weights: dict[int, float] = {}      # by how far behind an output's place an element lies
    near: list[int] = []
    for phase in range(up):
        place = (phase + 0.5) * stride / up - 0.5
        here, behind = math.floor(place), place - math.floor(place)
        for number, weight in ((here, 1 - behind), (here + 1, behind)):
            if weight:
                near.append(number)
                weights[number * up - phase] = weight
    last = before - 1 - (after // up - 1) * stride
    low, high = max(0, -min(near)), max(0, max(near) - last)
    first, count = min(weights), max(weights) - min(weights) + 1
    kernel = np.array([weights.get(first + at, 0.0) for at in range(count)])
    top = -first - up * low
    bottom = (after - 1) * stride + count - ((before + low + high - 1) * up + 1) - top
    return _Axis(kernel, up, stride, (top, bottom), (low, high))


def _as_map(shape: tuple[int, ...]) -> Shape:
    height, width = (1, *shape[2:])[-2:]
    return shape[1], height, width


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape[2:]))
