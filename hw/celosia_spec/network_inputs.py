"""Several tensors that a network takes, joined along axis 1 into the one that the array reads.

Where they are maps of several sizes, all get the largest height and width, with zeros below and to
the right; a vector beside maps fills these one behind another, with zeros behind.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from celosia_spec.errors import ArgumentError
from celosia_spec.inputs import as_array, real_array, wrong_shape
from celosia_spec.preprocessing import of_pictures

__all__ = ["INPUTS_MAX", "Input", "channels", "check_inputs", "joined", "joined_shape", "numbers",
           "places", "size_of"]

INPUTS_MAX = 64
"""Most tensors that a network takes."""
_AXES = 3
_OF_SEVERAL = ("numbers, and nothing says how they become one of several inputs; give it as it was "
               "trained, in float32")


@dataclass(frozen=True, kw_only=True)
class Input:
    """One of the tensors that a network takes.

    name : as its forward pass calls it.   shape : without the batch axis.
    """

    name: str
    shape: tuple[int, ...]


def numbers(x: Any, what: str = "input", pixels: str | None = None) -> np.ndarray:
    """Return a network's inputs as `celosia_spec.inputs.as_array` does; ArgumentError for uint8,
    too, where these are pixels.

    what   : what a refusal calls them.
    pixels : what it says of uint8, as `scaled_by` does; None where these are numbers, too.
    """
    array = real_array(x, what)
    if pixels is not None and array.dtype == np.uint8 and array.ndim:
        raise ArgumentError(f"{what}: uint8 {pixels}")
    return as_array(array, what)


def joined(inputs: Sequence[Input], given: Any, shape: tuple[int, ...],
           what: str = "input") -> np.ndarray:
    """Return several inputs as the one that the array takes, float32 (N, *shape).

    inputs : in their order.
    given  : a tuple or list of arrays, (N, ...) each, or a mapping of names to such; what is joined
             already is returned as it is.
    shape  : without the batch axis, of all together: a map, a line or a vector.
    what   : what a refusal calls them.

    ArgumentError where they are others.
    """
    names = [one.name for one in inputs]
    wanted = ", ".join(f"{one.name} (N, {', '.join(map(str, one.shape))})" for one in inputs)
    if isinstance(given, Mapping):
        if set(given) != set(names):
            raise ArgumentError(f"{what}: arrays {', '.join(map(str, given))[:200]}, the network "
                                f"takes {wanted}")
        parts = [given[name] for name in names]
    elif isinstance(given, (tuple, list)):
        parts = list(given)
    else:
        array = numbers(given, what)
        if array.shape[1:] == shape:
            return array
        raise ArgumentError(f"{what}: one array, the network takes {wanted}; give them in a tuple, "
                            f"or by their names")
    if len(parts) != len(inputs):
        raise ArgumentError(f"{what}: {len(parts)} arrays, the network takes {wanted}")
    arrays = [numbers(part, f"{what} {one.name}", _OF_SEVERAL if of_pictures(one.shape) else None)
              for part, one in zip(parts, inputs, strict=True)]
    for array, one in zip(arrays, inputs, strict=True):
        if array.shape[1:] != one.shape:
            raise ArgumentError(f"{what} {one.name}: "
                                f"{wrong_shape(array.shape, one.shape, one.name)}")
    if len({len(array) for array in arrays}) > 1:
        counts = ", ".join(f"{len(array)} of {one.name}"
                           for array, one in zip(arrays, inputs, strict=True))
        raise ArgumentError(f"{what}: {counts}; give as many of each")
    count, found, first = len(arrays[0]), np.zeros((len(arrays[0]), *shape), np.float32), 0
    flat, size = found.reshape(count, math.prod(shape)), size_of(shape)
    for array, one in zip(arrays, inputs, strict=True):
        place = first + places(one.shape, size).ravel()
        flat[:, place] = array.reshape(count, len(place))
        first += channels(one.shape, size) * math.prod(size)
    return found


def size_of(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return height and width of what is a map, a line (C, L) or a vector (F,)."""
    height, width = (1, 1, *shape[1:])[-2:]
    return height, width


def channels(shape: tuple[int, ...], size: tuple[int, int]) -> int:
    """Return how many maps of a size an input of a shape takes."""
    if size_of(shape) == (1, 1):
        return -(-math.prod(shape) // math.prod(size))
    return shape[0]


def places(shape: tuple[int, ...], size: tuple[int, int]) -> np.ndarray:
    """Return which element of its maps each of an input's is, int64 (*shape).

    size : of these maps, in which they lie in the order c, y, x.
    """
    if size_of(shape) == (1, 1):
        return np.arange(math.prod(shape)).reshape(shape)
    high, wide = size_of(shape)
    found = np.arange(shape[0] * math.prod(size)).reshape(shape[0], *size)[:, :high, :wide]
    return found.reshape(shape)


def joined_shape(shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """Return the shape of several inputs together: a vector where all are vectors, a line where
    all are lines, else a map.

    shapes : of 1 to 3 axes, without the batch axis.
    """
    sizes = [size_of(shape) for shape in shapes]
    size = max(high for high, _ in sizes), max(wide for _, wide in sizes)
    found = sum(channels(shape, size) for shape in shapes), *size
    ranks = {len(shape) for shape in shapes}
    return found[:1] if ranks == {1} else (found[0], found[2]) if ranks == {2} else found


def check_inputs(inputs: Sequence[Input], shape: tuple[int, ...]) -> None:
    """ValueError unless the inputs are several, each with a name of its own, and together of a
    shape. Names themselves are checked by who reads them."""
    if not 2 <= len(inputs) <= INPUTS_MAX:
        raise ValueError(f"{len(inputs)} parts of the input, 2 to {INPUTS_MAX} can be")
    if len({one.name for one in inputs}) < len(inputs):
        raise ValueError("two parts of the input have one name")
    shapes = [one.shape for one in inputs]
    if any(not 1 <= len(own) <= _AXES or min(own) < 1 for own in shapes) or (
            joined_shape(shapes) != shape):
        raise ValueError(f"the parts of the input are no input of the shape {shape}")
