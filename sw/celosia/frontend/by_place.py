"""Layers whose weights differ from place to place: one row for each element that they make."""

import math

import numpy as np

from celosia.frontend.call import Call, Value, map_shape
from celosia.graph import Conv, Node, Reshape, Shape
from celosia.passes.one_by_one import MOST_ROWS, MOST_WEIGHTS, few
from celosia_spec.qgraph import NodeKind


def constant(call: Call, name: str, source: str, before: Shape, values: np.ndarray,
             ) -> list[Node]:
    """Return a layer that makes a constant, whatever it reads: rows without weights.

    source, before : a tensor of the network, and its map.   values : float64, batch axis first.
    """
    shape, columns = map_shape(values.shape), math.prod(before)
    places = values.reshape(shape[0], -1)
    if shape[1:] == before[1:] and np.all(places == places[:, :1]):
        weight = np.zeros((shape[0], before[0], 1, 1))
        return [Conv(name=name, input=source, weight=weight, bias=places[:, 0].copy(),
                     live=weight != 0)]
    if not few(values.size, columns):
        raise call.refuse(f"it joins a constant of {values.size:,} elements to a tensor of the "
                          f"network, of {columns:,}, which takes a layer with weights for each "
                          "place, and that would be too large",
                          "join one value for each channel, or give the network the constant as a "
                          "second input")
    flat, made = call.part("flat"), call.part("constant")
    weight = np.zeros((values.size, columns, 1, 1))
    return [Reshape(name=flat, input=source, shape=(columns, 1, 1)),
            Conv(name=made, input=flat, weight=weight, bias=values.flatten(), live=weight != 0),
            Reshape(name=name, input=made, shape=shape)]


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
