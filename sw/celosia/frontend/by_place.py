"""Layers whose weights differ from place to place: one row for each element that they make."""

import numpy as np

from celosia.frontend.call import Call, Value, map_shape
from celosia.graph import Conv, Node, Reshape
from celosia.passes.one_by_one import MOST_ROWS, MOST_WEIGHTS
from celosia_spec.qgraph import NodeKind


def by_place(call: Call, source: Value, axes: tuple[np.ndarray, np.ndarray], problem: str,
             remedy: str) -> list[Node]:
    """Return a layer that does the same to all channels of a map.

    axes : float64 (outputs, inputs) of height and of width; a place has the products of theirs.
    problem, remedy : what is said where the layer would have too many rows.
    """
    channels, *_ = map_shape(source.shape)
    (high, height), (wide, width) = (axis.shape for axis in axes)
    rows, columns = channels * high * wide, channels * height * width
    if rows > MOST_ROWS:
        raise call.refuse(f"{problem}, and of a layer with weights for each place {MOST_ROWS:,} "
                          f"elements are made at most, not {rows:,}", remedy)
    if rows * columns > MOST_WEIGHTS:
        raise call.refuse(f"{problem}, and a layer with weights for each place has "
                          f"{MOST_WEIGHTS:,} places for them at most, not {rows * columns:,}",
                          remedy)
    weight = np.kron(np.eye(channels), np.kron(*axes))[:, :, None, None]
    flat, made = call.part("flat"), call.part("places")
    return [Reshape(name=flat, input=source.name, shape=(columns, 1, 1)),
            Conv(name=made, input=flat, weight=weight, bias=None, live=weight != 0,
                 kind=NodeKind.AVERAGE),
            Reshape(name=call.name, input=made, shape=call.map_result())]
