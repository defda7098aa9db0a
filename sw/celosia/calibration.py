"""Calibration inputs: what users give as such, and what is told of them."""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

import numpy as np

from celosia_spec.block import block_exponents
from celosia_spec.errors import ArgumentError
from celosia_spec.inputs import as_array
from celosia_spec.isa.numbers import EXPONENT_MAX
from celosia_spec.network_inputs import Input, joined

MOST_INPUTS = 16
"""Of them, as many tell how large the tensors of a network are, and how right its outputs."""


def known_early(x: Any) -> bool:
    """Whether calibration inputs are of one input for sure: those of several may be in a tuple."""
    if isinstance(x, (tuple, list)):
        return not any(hasattr(part, "shape") for part in x)
    return not isinstance(x, Mapping)


def calibration_array(x: Any, takes: Sequence[Input] = (),
                      shape: tuple[int, ...] = ()) -> np.ndarray | None:
    """Return calibration inputs as `as_array` does, None as it is; ArgumentError if there are none,
    or where one holds a value that no input can have.

    takes, shape : the inputs of a network that takes several, which are joined, and the shape of
    all together, without the batch axis.
    """
    if x is None:
        return None
    samples = joined(takes, x, shape, "calibration") if takes else as_array(x, "calibration")
    if not samples.size:
        raise ArgumentError("calibration holds no inputs; give it at least one, or leave it out")
    largest = np.abs(samples).reshape(len(samples), -1).max(axis=1)
    exponents = block_exponents(largest[:, None])
    if exponents.max() > EXPONENT_MAX:
        first = int((exponents > EXPONENT_MAX).argmax())
        raise ArgumentError(f"calibration: input {first} needs the block exponent "
                            f"{exponents[first]}, above {EXPONENT_MAX}; scale the inputs down")
    return samples


def check_calibration(calibration: np.ndarray, wanted: tuple[int, ...]) -> None:
    """ArgumentError unless there are calibration inputs (N, *wanted)."""
    if len(calibration) == 0:
        raise ArgumentError("calibration holds no inputs; give it at least one")
    if calibration.shape[1:] != wanted:
        raise ArgumentError(f"calibration: shape {calibration.shape}, the network takes (N, "
                            f"{', '.join(map(str, wanted))}); reshape it")


def spread(samples: np.ndarray, most: int) -> np.ndarray:
    """Return so many of some inputs (N, ...) at most, evenly spread."""
    return samples[::-(-len(samples) // most)]


def different(samples: np.ndarray) -> np.ndarray:
    """Return inputs (N, ...) without those that are equal to an earlier one; 0 equals -0."""
    first: dict[bytes, int] = {}
    for at, sample in enumerate(samples):
        first.setdefault(sha256((sample + 0.0).tobytes()).digest(), at)
    return samples[list(first.values())]
