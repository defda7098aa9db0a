"""Maps whose size changes by any ratio: layers with fixed weights, of maps enlarged by zeros.

Where output ``i + up`` of an axis looks at what output ``i`` looks at, ``stride`` elements on, a
convolution does that: element ``k`` stands at ``k * up``, output ``i`` looks at ``i * stride``, and
so no two of the first ``up`` outputs have a weight in common.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from celosia.frontend.call import Call
from celosia.graph import Conv, Move, Node, Shape
from celosia_spec.qgraph import NodeKind


@dataclass(frozen=True)
class Axis:
    """A convolution along an axis.

    weights, up, stride, padding : of it (`Conv`).   around : how often the first and the last
    element stand again.
    """

    weights: np.ndarray
    up: int = 1
    stride: int = 1
    padding: tuple[int, int] = (0, 0)
    around: tuple[int, int] = (0, 0)


def axis(outputs: Sequence[Mapping[int, float]], before: int) -> Axis | None:
    """Return the convolution of an axis of ``before`` elements; None where outputs do not come
    again as they have to.

    outputs : of each its weights by the number of their element, which may lie beyond the ends,
    where the outermost elements stand again.
    """
    count = math.gcd(before, len(outputs))
    up, stride = len(outputs) // count, before // count
    if any(after != {at + stride: weight for at, weight in own.items()}
           for own, after in zip(outputs, outputs[up:], strict=False)):
        return None
    weights = {at * up - number * stride: weight for number, own in enumerate(outputs[:up])
               for at, weight in own.items()}
    low = max(0, -min(map(min, outputs)))
    high = max(0, max(map(max, outputs)) - before + 1)
    first, last = min(weights), max(weights)
    top = -first - up * low
    bottom = (len(outputs) - 1) * stride + last - first - (before + low + high - 1) * up - top
    kernel = np.array([weights.get(at, 0.0) for at in range(first, last + 1)])
    return Axis(kernel, up, stride, (top, bottom), (low, high))


def layer(call: Call, source: str, shape: Shape, axes: tuple[Axis, Axis],
          remedy: str) -> list[Node]:
    """Return a layer along both axes of a map of some shape (C, H, W), and what it reads."""
    (lines, columns), (channels, *sizes) = axes, shape
    nodes: list[Node] = []
    if any(lines.around + columns.around):
        index = np.arange(math.prod(shape)).reshape(channels, *sizes)
        inner = call.part("inner")
        nodes.append(Move(name=inner, inputs=(source,), operator=call.operator,
                          index=np.pad(index, ((0, 0), lines.around, columns.around), mode="edge"),
                          remedy=remedy))
        source = inner
    kernel = np.outer(lines.weights, columns.weights)
    return [*nodes, Conv(
        name=call.name, input=source, weight=np.tile(kernel, (channels, 1, 1, 1)), bias=None,
        groups=channels, kind=NodeKind.AVERAGE, live=np.tile(kernel != 0, (channels, 1, 1, 1)),
        up=(lines.up, columns.up), stride=(lines.stride, columns.stride),
        padding=(lines.padding[0], columns.padding[0], lines.padding[1], columns.padding[1]))]
