"""Rounding, alignment and block exponents, in exact fractions."""

from collections.abc import Iterable
from fractions import Fraction

NOTHING = -128
"""Block exponent while every element was zero."""


def scaled(value: int, shift: int) -> int:
    """Return value * 2^shift rounded to nearest, ties to even."""
    return round(value * Fraction(2) ** shift)


def requantise(a: int, shift: int, bits: int, bound: int | None = None) -> tuple[int, bool]:
    """Return the mantissa of accumulator ``a`` and whether clipping changed it.

    shift : block exponent of the result minus the exponent of the accumulator's unit.
    bits  : width L of the mantissa, which stays within 2^(L-1) - 1 in magnitude.
    bound : of a clamp, a mantissa of that width: the result stays within it, which is no clipping.
    """
    limit = (1 << bits - 1) - 1 if bound is None else bound
    rounded = scaled(a, bits - 2 - shift)
    return max(-limit, min(limit, rounded)), bound is None and abs(rounded) > limit


def align_residual(r: int, shift: int, acc_bits: int) -> int:
    """Return r * 2^shift, rounded, within 2^(acc_bits - 3) - 1 in magnitude."""
    limit = (1 << acc_bits - 3) - 1
    return max(-limit, min(limit, scaled(r, shift)))


def block_exponent(elements: Iterable[tuple[int, int]]) -> int:
    """Return the largest floor(log2 abs a) + sw over (a, sw); NOTHING if all a are zero."""
    return max((abs(a).bit_length() - 1 + sw for a, sw in elements if a), default=NOTHING)
