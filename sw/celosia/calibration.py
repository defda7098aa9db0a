"""Calibration inputs: what users give as such, and what is told of them."""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

import numpy as np

from celosia_spec.block import block_exponents
from celosia_spec.errors import ArgumentError
from celosia_spec.inputs import wrong_shape
from celosia_spec.isa.numbers import EXPONENT_MAX
from celosia_spec.network_inputs import Input, joined, numbers
from celosia_spec.preprocessing import Preprocessing, of_pictures, scaled_by, unscaled

MOST_INPUTS = 16
"""Of them, as many tell how large the tensors of a network are, and how right its outputs."""


def known_early(x: Any) -> bool:
    """Whether calibration inputs are of one input for sure, and numbers: those of several may be
    in a tuple, and uint8 are pixels where the network takes pictures."""
    if str(getattr(x, "dtype", "")).endswith("uint8"):
        return False
    if isinstance(x, (tuple, list)):
        return not any(hasattr(part, "shape") for part in x)
    return not isinstance(x, Mapping)


def calibration_array(x: Any, takes: Sequence[Input] = (), shape: tuple[int, ...] = (),
                      preprocessing: Preprocessing | None = None) -> np.ndarray | None:
    """Return calibration inputs as `celosia_spec.network_inputs.numbers` does, None as it is;
    ArgumentError if there are none, or where one holds a value that no input can have.

    takes : the inputs of a network that takes several, which are joined; () of one.
    shape : of the input, or of all together, without the batch axis; () where it is not known.
    preprocessing : what the program will know of pixels.
    """
    if x is None:
        return None
    samples = joined(takes, x, shape, "calibration") if takes else numbers(
        x, "calibration", scaled_by(preprocessing, "preprocessing")
        if of_pictures(shape, preprocessing) else None)
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
        raise ArgumentError(f"calibration: {wrong_shape(calibration.shape, wanted, 'calibration')}")


def calibration_remarks(samples: np.ndarray | None,
                        preprocessing: Preprocessing | None) -> tuple[str, ...]:
    """Return what is told of calibration inputs that seem to be pixels as they are."""
    if samples is None or preprocessing is None or not unscaled(samples, preprocessing.largest):
        return ()
    return (f"calibration: numbers from {samples.min():g} to {samples.max():g}, and pixels become "
            f"inputs up to {preprocessing.largest:.3g}; if these are pixels, make inputs of them: "
            f"preprocessing.inputs(pixels)",)


def spread(samples: np.ndarray, most: int) -> np.ndarray:
    """Return so many of some inputs (N, ...) at most, evenly spread."""
    return samples[::-(-len(samples) // most)]


def different(samples: np.ndarray) -> np.ndarray:
    """Return inputs (N, ...) without those that are equal to an earlier one; 0 equals -0."""
    first: dict[bytes, int] = {}
    for at, sample in enumerate(samples):
        first.setdefault(sha256((sample + 0.0).tobytes()).digest(), at)
    return samples[list(first.values())]
