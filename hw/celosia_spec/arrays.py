"""Parameters of an array, whichever machine's."""

from celosia_spec.isa import ArrayConfig
from celosia_spec.stream.array import Array

AnyArray = ArrayConfig | Array
"""The first machine's, or the second's: both have lanes, widths, and a hash, which is in
``Register.ARRAY_HASH``."""
