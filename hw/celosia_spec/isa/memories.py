"""The memories of a machine, as its host and its programs see them."""

import enum

EXPONENT_SLOTS = 32
"""Block exponents that the machine holds, one for each tensor of a program."""


class Space(enum.IntEnum):
    """Memory spaces of the host bus (``mem_space``). Unit of ``mem_address`` in the comment."""

    REGISTERS = 0  # Register
    PROGRAM = 1    # 16-bit words: descriptors and batch lengths
    WEIGHTS = 2    # weight words; address = port row * groups_max + slot
    ROWS = 3       # 32-bit row-table words
    TAPS = 4       # tap-table words (written to every group's copy)
    WRITES = 5     # write-table words
    BANKS = 6      # activation mantissas; address = bank row * lanes + bank
    STORE = 7      # accumulators, sign-extended to 32 bits; address = beat number * beat + element
    EXPONENTS = 8  # 8-bit signed block exponents; address = tensor slot
    RESIDUAL = 9   # residual mantissas; address = beat * beat_elements + element
