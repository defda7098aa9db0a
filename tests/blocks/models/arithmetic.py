"""Rounding and alignment, in exact fractions."""

from fractions import Fraction


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
