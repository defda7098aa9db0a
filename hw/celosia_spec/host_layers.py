"""The end of a network that the host computes: softmax, sigmoid, arg-max and such.

The array computes up to the last layer that it has; the host takes that output's values, float64,
and computes the rest, image by image.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

__all__ = ["ALONG", "MOVES", "OPERATORS", "HostLayer", "Scoring", "check_host", "compute",
           "host_remark", "scoring"]

OPERATORS = ("argmax", "hardsigmoid", "log_sigmoid", "log_softmax", "movedim", "pixel_shuffle",
             "reshape", "sigmoid", "softmax", "tanh")
"""What a :class:`HostLayer` may be, in the words of PyTorch."""

ALONG = ("argmax", "log_softmax", "softmax")
"""Those of them that work over an axis."""

MOVES = ("movedim", "pixel_shuffle", "reshape")
"""Those that change no value."""

_MOST = 16
"""Most layers that a program leaves to the host."""
AXES_MAX = 8
"""Axes of a tensor of the network."""


@dataclass(frozen=True, kw_only=True)
class HostLayer:
    """One layer that the host computes from the one before it, for each image alone.

    name     : as the user's model has it.   operator : one of `OPERATORS`.
    axis     : of softmax, log_softmax and argmax, without the batch axis, and of movedim, which
               makes it the last one; None elsewhere, and for an argmax over all elements.
    shape    : of its result, without the batch axis; () is one number an image.
    """

    name: str
    operator: str
    axis: int | None
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return self.name if self.name == self.operator else f"{self.name} ({self.operator})"


def compute(layers: Sequence[HostLayer], values: np.ndarray) -> np.ndarray:
    """Return what a network returns.

    values : float64 (N, ...), the array's output.

    Returns float64 (N, *shape of the last layer), int64 behind an argmax, whose ties go to the
    lowest index. Formulas and names are PyTorch's; hardsigmoid is clip(x / 6 + 1 / 2, 0, 1), and
    pixel_shuffle may take other factors for height and width.
    """
    from scipy import special

    for layer in layers:
        axis = None if layer.axis is None else layer.axis + 1
        match layer.operator:
            case "softmax":
                values = special.softmax(values, axis=axis)
            case "log_softmax":
                values = special.log_softmax(values, axis=axis)
            case "sigmoid":
                values = special.expit(values)
            case "log_sigmoid":
                values = special.log_expit(values)
            case "hardsigmoid":
                values = np.clip(values / 6 + 0.5, 0, 1)
            case "tanh":
                values = np.tanh(values)
            case "movedim":
                assert axis is not None, layer
                values = np.moveaxis(values, axis, -1)
            case "pixel_shuffle":
                values = _shuffled(values, layer.shape)
            case "argmax" if axis is None:
                values = np.asarray(values.reshape(len(values), -1).argmax(axis=1))
            case "argmax":
                values = np.asarray(values.argmax(axis=axis))
            case _:
                assert layer.operator == "reshape", layer
        values = values.reshape(len(values), *layer.shape)
    return values


def _shuffled(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return maps (N, C * f * g, H, W) as (N, C, H * f, W * g), channels as neighbours."""
    count, _, height, width = values.shape
    rows, columns = shape[1] // height, shape[2] // width
    parts = values.reshape(count, shape[0], rows, columns, height, width)
    return parts.transpose(0, 1, 4, 2, 5, 3).reshape(count, *shape)


class Scoring(NamedTuple):
    """Where the classes of a network's answer are told apart.

    layers  : of the host, up to the scores.   shape : of the scores, without the batch axis.
    axis    : of it, along which classes lie; None for one score, which is above a threshold or not.
    classes : how many there are.
    threshold : the score above which the second of two classes is meant, or None.
    """

    layers: tuple[HostLayer, ...]
    shape: tuple[int, ...]
    axis: int | None
    classes: int
    threshold: float | None


def scoring(layers: Sequence[HostLayer], shape: tuple[int, ...]) -> Scoring:
    """Return how a network tells classes apart; shape : of the array's output.

    They lie along the axis of an argmax or a softmax, else along the first: features of a vector,
    channels of a map. One number tells two classes apart if a sigmoid ends the network.
    """
    kept: list[HostLayer] = []
    axis, threshold = 0, None
    for layer in layers:
        if layer.operator == "movedim" and layer.axis is not None:
            axis = len(shape) - 1 if axis == layer.axis else axis - (axis > layer.axis)
        elif layer.axis is not None:
            axis = layer.axis
        if layer.operator == "argmax":
            if layer.axis is None:      # over all elements, which are the classes then
                axis, shape = 0, (math.prod(shape),)
            break
        kept.append(layer)
        shape = layer.shape
        if layer.operator not in MOVES:
            threshold = 0.5 if layer.operator in ("sigmoid", "hardsigmoid") else None
    axis = min(axis, len(shape) - 1)
    count = shape[axis] if shape else 1
    if math.prod(shape) == 1:
        return Scoring(tuple(kept), shape, None, 1 if threshold is None else 2, threshold)
    return Scoring(tuple(kept), shape, axis, count, None)


def host_remark(layers: Sequence[HostLayer]) -> str:
    """Return what the host computes, for reports: "the host computes layer 3 (softmax)"."""
    return f"the host computes layer{'s' * (len(layers) > 1)} {', '.join(map(str, layers))}"


def check_host(layers: Sequence[HostLayer], shape: tuple[int, ...]) -> None:
    """ValueError unless `compute` can compute the layers from images of a shape.

    shape : of the array's output, without the batch axis. Names are checked by who reads them.
    """
    if len(layers) > _MOST:
        raise ValueError(f"{len(layers)} layers of the host, at most {_MOST} are made")
    for layer in layers:
        problem = _problem(layer, shape)
        if problem:
            raise ValueError(f"{layer.name[:40]!r}: {problem}")
        shape = layer.shape


def _problem(layer: HostLayer, shape: tuple[int, ...]) -> str | None:
    """Return what is wrong with a layer that reads images of a shape."""
    word, axis = layer.operator, layer.axis
    if word not in OPERATORS:
        return f"the host has no operator {word[:40]!r}"
    if axis is None and word in ("softmax", "log_softmax", "movedim"):
        return f"{word} without an axis"
    if axis is not None and not (word in (*ALONG, "movedim") and 0 <= axis < len(shape)):
        return f"{word} over axis {axis} of the shape {shape}"
    elements = math.prod(shape)
    if word == "argmax":
        elements = 1 if axis is None else elements // shape[axis]
    same = word in ("argmax", *MOVES) or layer.shape == shape
    if word == "movedim":
        assert axis is not None
        same = layer.shape == (*shape[:axis], *shape[axis + 1:], shape[axis])
    if word == "pixel_shuffle":
        same = len(shape) == len(layer.shape) == 3 and min(layer.shape) > 0 and not (
            layer.shape[1] % shape[1] or layer.shape[2] % shape[2])
    if (not same or len(layer.shape) > AXES_MAX or min(layer.shape, default=1) < 1
            or math.prod(layer.shape) != elements):
        return f"{word} makes no {str(layer.shape)[:60]} of {shape}"
    return None
