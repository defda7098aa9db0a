"""Blocks: exponents and mantissas of arrays of numbers (numerics, section 1)."""

import numpy as np

from celosia_hw.isa import EXPONENT_MIN

ROUNDINGS = {"nearest-even": np.rint, "zero": np.trunc, "up": np.ceil, "down": np.floor}
"""Roundings of x * 2^-s to a mantissa. The machine has nearest-even only."""


def floor_log2(values: np.ndarray) -> np.ndarray:
    """Return floor(log2(abs x)) exactly, int64; -2^31 where x is 0. x : finite float64 or int."""
    values = np.asarray(values, dtype=np.float64)
    return np.where(values == 0, -(1 << 31), np.frexp(values)[1].astype(np.int64) - 1)


def block_exponents(x: np.ndarray, exponent_min: int = EXPONENT_MIN) -> np.ndarray:
    """Return the exponent of each block ``x[i]``, int64 (blocks,), clamped up to exponent_min.

    x : float64 (blocks, ...), finite. An all-zero block has exponent_min. Above 15 the result is
    not a block exponent any more: the caller names what it belongs to and refuses.
    """
    magnitude = np.abs(np.asarray(x, dtype=np.float64))
    largest: np.ndarray = magnitude.max(axis=tuple(range(1, magnitude.ndim)), initial=0.0)
    return floor_log2(largest).clip(min=exponent_min)


def lsb(exponents: np.ndarray, bits: int) -> np.ndarray:
    """Return s = epsilon - (L - 2), the exponent of the least significant bit, int64."""
    return np.asarray(exponents, dtype=np.int64) - (bits - 2)


def limit(bits: int) -> int:
    """Return the largest mantissa, 2^(L-1) - 1."""
    return (1 << bits - 1) - 1


def mantissas(x: np.ndarray, exponents: np.ndarray, bits: int,
              rounding: str = "nearest-even") -> tuple[np.ndarray, np.ndarray]:
    """Return the mantissas of blocks ``x[i]`` at given exponents, and which blocks were clipped.

    x : float64 (blocks, ...), finite.   exponents : int64 (blocks,), -16 ... 15.
    Returns int32 of x's shape with abs(m) <= 2^(bits-1) - 1, and bool (blocks,).
    """
    x = np.asarray(x, dtype=np.float64)
    shift = lsb(exponents, bits)
    with np.errstate(over="ignore"):
        scaled = np.ldexp(x, -shift.reshape(-1, *[1] * (x.ndim - 1)))
    rounded = ROUNDINGS[rounding](scaled)
    clipped = np.clip(rounded, -limit(bits), limit(bits))
    saturated = (rounded != clipped).any(axis=tuple(range(1, x.ndim)))
    return clipped.astype(np.int32), saturated
