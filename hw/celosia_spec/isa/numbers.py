"""Number formats that do not depend on the array: widths, and the range of exponents."""

DELTA_BITS = 8
"""Width of the column-index step in a weight word (unsigned, 0 ... 255)."""

OUTPUT_BITS = 16
"""Mantissa width of tensors that leave the network, and of bias mantissas."""

MANTISSA_BITS = range(4, 10)
"""Widths of weights' and activations' mantissas that an array can be made for."""

ACCUMULATORS = (24, 32)
"""Accumulator widths W that an array can have, narrowest first."""

EXPONENT_MIN, EXPONENT_MAX = -16, 15
"""Range of a block exponent."""

EXPONENT_BITS = (EXPONENT_MAX - EXPONENT_MIN).bit_length()
"""Bits of an exponent, of one + 16 likewise."""

EXPONENT_SLOTS = 32
"""Block exponents that the machine holds, of the tensors that wait for a reader."""

SLOT_BITS = (EXPONENT_SLOTS - 1).bit_length()
"""Bits of the number of such a slot."""

WEIGHT_UNITS = range(-32, 32)
"""Exponents s_w of the unit of a row's weight mantissas."""

BIAS_UNITS = range(-128, 128)
"""Exponents of the unit of a row's bias mantissa, less s_w."""

ELEMENT_BITS = 16
"""Width of an element of a map in main memory (`celosia_spec.floats`)."""

SIGNIFICAND_BITS = 11
"""Significant bits of an element that has no sign; one less with a sign."""

UNIT_MARGIN = -EXPONENT_MIN - 2
"""A sum's unit is 2^-(W + UNIT_MARGIN) at least, W the accumulator's width: so its highest bit is
worth 2^-16 or more, and normalising never moves a sum to the right."""
