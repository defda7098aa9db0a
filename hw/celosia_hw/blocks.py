"""What the devices' hard blocks hold. Plain Python: imports no Amaranth.

Sources: Lattice FPGA-TN-02002 (iCE40 block RAM), FPGA-TN-02022 (SPRAM), FPGA-TN-02007 (SB_MAC16),
FPGA-TN-02204 (ECP5 block RAM), FPGA-TN-02205 (MULT18X18D).
"""

__all__ = ["MEMORY_SHAPES", "MULTIPLIER_BITS", "MULTIPLIER_LANES", "SPRAM_BITS", "SPRAM_ROWS",
           "memory_blocks"]

MULTIPLIER_BITS = {"generic": 18, "mac16": 8, "mult18": 18}
"""Widest signed operand of each kind of multiplier, bits."""

MULTIPLIER_LANES = {"mac16": 2, "mult18": 1}
"""Lanes that one multiplier block serves; "generic" multipliers are logic."""

SPRAM_ROWS, SPRAM_BITS = 16384, 16
"""Words of one SB_SPRAM256KA and their width, bits."""

MEMORY_SHAPES = {
    "ice40": ((256, 16), (512, 8), (1024, 4), (2048, 2)),
    "ecp5": ((512, 36), (1024, 18), (2048, 9), (4096, 4), (8192, 2), (16384, 1)),
}
"""Depth and width that one block memory can have with one read and one write port."""


def memory_blocks(family: str, depth: int, width: int) -> int:
    """Return how many block memories a memory of ``depth`` words of ``width`` bits takes."""
    return min(-(-depth // rows) * -(-width // bits) for rows, bits in MEMORY_SHAPES[family])
