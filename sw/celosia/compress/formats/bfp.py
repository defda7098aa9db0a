"""Block floating point of any array: the quantiser that the compiler itself uses."""

import numpy as np

from celosia.errors import ArgumentError
from celosia.inputs import real_array
from celosia_hw.isa import EXPONENT_MAX, EXPONENT_MIN
from celosia_sim.golden.block import ROUNDINGS, block_exponents, mantissas


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
    m, _ = mantissas(blocks, exponents, bits, rounding)
    if axis is None:
        return m[0], exponents[0]
    return np.moveaxis(m, 0, axis), exponents


def check_bits(name: str, bits: object) -> None:
    """ArgumentError unless ``bits`` is a mantissa width, sign included, 2 to 24."""
    if not isinstance(bits, int | np.integer):
        raise ArgumentError(f"{name} must be a whole number, not {bits!r}")
    if not 2 <= bits <= 24:
        raise ArgumentError(f"{name} must be 2 to 24, not {bits!r}")
