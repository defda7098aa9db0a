"""Latencies of the machine, in cycles: the gateware builds them, the cycle model adds."""

TAP = 2
"""A step to its tap."""

BANK = TAP + 2
"""A step to the codes that banks give."""

MANTISSA = BANK + 1
"""A step to its mantissas: so much later they are read from the ring."""

MULTIPLY = 2
"""Mantissa and code to product."""

SUMS = MANTISSA + MULTIPLY + 2
"""A pass's last step to its sums in the shadow."""

WRITTEN = 4
"""The cycle in which a tile begins to that in which its written lanes are shown. Tiles begin so
many cycles apart, or more."""

READ = 2
"""A step that is issued to its index, read from the ring."""

BIAS = 7
"""A row of a pass in the output path to its aligned bias."""

NORMALISE = 5
"""A sum to its element."""
