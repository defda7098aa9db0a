"""Layers whose weights differ from place to place: one row for each element that they make."""


import numpy as np

from celosia.frontend.call import Call, Value, map_shape
from celosia.graph import Conv, Node, Reshape
from celosia_spec.qgraph import NodeKind

MOST_ROWS, _MOST_WEIGHTS = 4096, 1 << 24
"""Most elements that a layer makes, each by a row of its own, and most places for their weights."""


def by_place(call: Call, source: Value, axes: tuple[np.ndarray, np.ndarray], problem: str,
             remedy: str) -> list[Node]:
    """Return a layer that does the same to all channels of a map.

    axes : float64 (outputs, inputs) of height and of width; a place has the products of theirs.
    problem, remedy : what is said where the layer would have too many rows.
    """
    channels, *_ = map_shape(source.shape)
    place = np.kron(*axes)
    rows, columns = (channels * size for size in place.shape)
    if rows > MOST_ROWS or rows * columns > _MOST_WEIGHTS:
        raise call.refuse(f"{problem}, and of a layer with weights for each place {MOST_ROWS:,} "
                          f"elements are made at most, not {rows:,}", remedy)
    weight = np.kron(np.eye(channels), place)[:, :, None, None]
    flat, made = call.part("flat"), call.part("places")
    return [Reshape(name=flat, input=source.name, shape=(columns, 1, 1)),
            Conv(name=made, input=flat, weight=weight, bias=None, live=weight != 0,
                 kind=NodeKind.AVERAGE),
            Reshape(name=call.name, input=made, shape=call.map_result())]
