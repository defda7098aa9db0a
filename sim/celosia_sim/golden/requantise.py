"""Exact scaling of integers by powers of two, rounded to nearest even."""

import numpy as np


def scale_rne(values: np.ndarray, shift: np.ndarray | int, bits: int) -> np.ndarray:
    """Return RNE(values * 2^shift), int64, in integer arithmetic only.

    values : int64, abs < 2^bits.   shift : int64, broadcast; negative shifts right.
    A left shift is cut at 62 - bits, where any value but 0 has left every range that a mantissa,
    a bias or a residual operand may have; callers clip.
    """
    values = np.asarray(values, dtype=np.int64)
    shift = np.asarray(shift, dtype=np.int64)
    left = np.clip(shift, 0, 62 - bits)
    right = np.clip(-shift, 0, 62)
    # Adding half minus one, plus one where the quotient is odd, rounds ties to even.
    half_less_one = np.left_shift(1, np.maximum(right - 1, 0)) - 1
    bump = np.where(right > 0, half_less_one + (values >> right & 1), 0)
    scaled: np.ndarray = np.left_shift(values + bump >> right, left)
    return scaled


def clip(values: np.ndarray, largest: int) -> tuple[np.ndarray, np.ndarray]:
    """Return values within +-largest, and whether clipping changed any, by index of axis 0."""
    clipped = np.clip(values, -largest, largest)
    return clipped, (clipped != values).any(axis=tuple(range(1, clipped.ndim)))


def clip_each(values: np.ndarray, largest: int) -> tuple[np.ndarray, np.ndarray]:
    """Return values within +-largest, and which of them clipping changed."""
    clipped: np.ndarray = np.clip(values, -largest, largest)
    return clipped, np.not_equal(clipped, values)
