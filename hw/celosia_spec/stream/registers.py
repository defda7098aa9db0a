"""What the host reads of the second machine's state, how it starts a run, and error codes."""

import enum

from celosia_spec.isa.fields import Field, Word
from celosia_spec.isa.registers import COUNTER_BITS, Register

__all__ = ["COUNTER_BITS", "RUN", "STATUS", "Error", "Register"]


class Error(enum.IntEnum):
    """Why a run ended before its `halt`. The next start, or an abort, clears it."""

    NONE = 0
    COMMAND = 1     # a control word that is no command of this array


STATUS = Word("status", (
    Field("busy", 1, about="the machine runs"),
    Field("saturated", 1, about="a mantissa was clipped since the last start"),
    Field("_", 6),
    Field("error", 8, about="`Error` code; 0 for none"),
))
"""What ``Register.STATUS`` holds. ``Register.EVENTS`` has the cycles from start to the end."""

RUN = Word("start", (Field("list", 16, about="word of main memory where the list of chunks begins"),
                     Field("_", 8)))
"""Address bytes of a START."""
