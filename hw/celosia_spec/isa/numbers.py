"""Number formats that do not depend on the array: widths, and the range of exponents."""

DELTA_BITS = 8
"""Width of the column-index step in a weight word (unsigned, 0 ... 255)."""

OUTPUT_BITS = 16
"""Mantissa width of tensors that leave the network, and of bias mantissas."""

ACCUMULATORS = (24, 32)
"""Accumulator widths W that an array can have, narrowest first."""

EXPONENT_MIN, EXPONENT_MAX = -16, 15
"""Range of a block exponent."""
