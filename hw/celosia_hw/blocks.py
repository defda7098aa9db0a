"""What the hard blocks hold that the gateware instantiates. Plain Python: imports no Amaranth.

Sources: Lattice FPGA-TN-02022 (SPRAM), FPGA-TN-02007 (SB_MAC16), FPGA-TN-02205 (MULT18X18D).
"""

__all__ = ["MULTIPLIER_BITS", "SPRAM_BITS", "SPRAM_ROWS"]

MULTIPLIER_BITS = {"generic": 18, "mac16": 8, "mult18": 18}
"""Widest signed operand of each kind of multiplier, bits; "generic" multipliers are logic."""

SPRAM_ROWS, SPRAM_BITS = 16384, 16
"""Words of one SB_SPRAM256KA and their width, bits."""
