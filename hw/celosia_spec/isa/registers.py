"""What the host reads of a machine's state, and the error codes that it may find there."""

import enum

from celosia_spec.isa.fields import Field, Word

COUNTER_BITS = 24
"""Width of the counter behind ``Register.EVENTS``; it goes on from 0 behind its end."""


class Register(enum.IntEnum):
    """Registers of ``Space.REGISTERS``. Reading changes nothing."""

    ARRAY_HASH = 0     # low 32 bits of ArrayConfig.hash
    STATUS = 1         # a STATUS word
    EVENTS = 2         # cycles since start with the event that the host selected (Event)


class Event(enum.IntEnum):
    """What ``Register.EVENTS`` counts: written to ``Space.REGISTERS``, whatever the address."""

    CYCLE = 0          # every cycle from the edge that accepts start to the one that raises done
    STEP = 1           # a weight word was issued
    BUBBLE = 2         # a pass waited for the drain of the one before
    NORMALISE = 3      # normalising passes


class Error(enum.IntEnum):
    """Error codes. The machine stops at the descriptor that raised one; ``start`` clears it."""

    NONE = 0
    OPCODE = 1      # unknown opcode
    GROUPS = 2      # more row groups than the array has, or output groups likewise
    COUNT = 3       # a line of no positions
    PASS = 4        # a pass ended before the sums of the one before had drained
    RANGE = 5       # first descriptor after last, or a table address past its end


STATUS = Word("status", (
    Field("busy", 1, about="the machine runs"),
    Field("saturated", 1, about="a result was clipped since the last start"),
    Field("_", 6),
    Field("error", 8, about="`Error` code; 0 for none"),
    Field("descriptor", 8, about="the descriptor that runs, ran last, or raised the error"),
))
"""What ``Register.STATUS`` holds."""
