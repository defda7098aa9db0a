"""Blocks: exponents and mantissas of arrays of numbers (numerics, section 1)."""

from dataclasses import dataclass

import numpy as np

from celosia_spec.errors import ArgumentError
from celosia_spec.inputs import real_array
from celosia_spec.isa.numbers import EXPONENT_MAX, EXPONENT_MIN

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


@dataclass(frozen=True, kw_only=True)
class Format:
    """What the mantissas of a block are.

    bits : L, the sign included.   signed : False where no number of the block is below 0.
    """

    bits: int
    signed: bool = True

    @property
    def fraction(self) -> int:
        """Bits below the block exponent's: L - 2, or L - 1 where there is no sign."""
        return self.bits - 1 - self.signed

    @property
    def largest(self) -> int:
        """The largest mantissa: 2^(L-1) - 1, or 2^L - 1 where there is no sign."""
        return (2 << self.fraction) - 1

    @property
    def least(self) -> int:
        """The least mantissa: the most negative code is never used."""
        return -self.largest if self.signed else 0

    def lsb(self, exponents: np.ndarray) -> np.ndarray:
        """Return s, the exponents of the least significant bits of blocks, int64."""
        return np.asarray(exponents, dtype=np.int64) - self.fraction

    def mantissas(self, x: np.ndarray, exponents: np.ndarray,
                  rounding: str = "nearest-even") -> tuple[np.ndarray, np.ndarray]:
        """Return the mantissas of blocks ``x[i]`` at given exponents, and which were clipped.

        x : float64 (blocks, ...), finite.   exponents : int64 (blocks,), -16 ... 15.
        Returns int32 of x's shape, ``least`` to ``largest``, and bool (blocks,).
        """
        x = np.asarray(x, dtype=np.float64)
        shift = self.lsb(exponents)
        with np.errstate(over="ignore"):
            scaled = np.ldexp(x, -shift.reshape(-1, *[1] * (x.ndim - 1)))
        if rounding in ("up", "down"):      # what scales to nothing still lies on a side of 0
            scaled = np.where(scaled == 0, np.sign(x) / 2, scaled)
        rounded = ROUNDINGS[rounding](scaled)
        clipped = np.clip(rounded, self.least, self.largest)
        saturated = (rounded != clipped).any(axis=tuple(range(1, x.ndim)))
        return clipped.astype(np.int32), saturated


def bfp(array: np.ndarray, bits: int, axis: int | None = None, rounding: str = "nearest-even", *,
        exponent_min: int = EXPONENT_MIN) -> tuple[np.ndarray, np.ndarray]:
    """Return mantissas and block exponents; value = m * 2^(exponent - (bits - 2)).

    array        : finite numbers of any shape, numpy or torch.
    bits         : mantissa width, sign included, 2 to 24.
    axis         : None makes one block; else one block for each index of this axis (0: a row).
    rounding     : "nearest-even", "zero", "up" or "down".
    exponent_min : smallest block exponent; an all-zero block has it.

    Returns int32 of the array's shape with abs(m) <= 2^(bits-1) - 1, and int64 exponents of shape
    () or (blocks,). ArgumentError where an argument or a value is out of range, or a block needs
    an exponent above 15.
    """
    check_bits("bits", bits)
    if rounding not in ROUNDINGS:
        raise ArgumentError(f"rounding must be one of {', '.join(ROUNDINGS)}, not {rounding!r}")
    x = real_array(array, "array").astype(np.float64)
    if axis is not None and not -x.ndim <= axis < x.ndim:
        raise ArgumentError(f"axis must be None or an axis of the shape {x.shape}, not {axis!r}")
    if not np.all(np.isfinite(x)):
        raise ArgumentError("array must be finite, and holds infinite or undefined values")
    blocks = x[None] if axis is None else np.moveaxis(x, axis, 0)
    exponents = block_exponents(blocks, exponent_min)
    if exponents.max(initial=EXPONENT_MIN) > EXPONENT_MAX:
        raise ArgumentError(f"block {int(exponents.argmax())} needs the exponent "
                            f"{exponents.max()}, above {EXPONENT_MAX}; scale the array down")
    m, _ = Format(bits=bits).mantissas(blocks, exponents, rounding)
    if axis is None:
        return m[0], exponents[0]
    return np.moveaxis(m, 0, axis), exponents


def check_bits(name: str, bits: object) -> None:
    """ArgumentError unless ``bits`` is a mantissa width, sign included, 2 to 24."""
    if not isinstance(bits, int | np.integer):
        raise ArgumentError(f"{name} must be a whole number, not {bits!r}")
    if not 2 <= bits <= 24:
        raise ArgumentError(f"{name} must be 2 to 24, not {bits!r}")
