"""What the host reads of the machine's state, how it starts a run, and error codes."""

import enum

from celosia_spec.isa.fields import Field, Word

COUNTER_BITS = 24
"""Width of the counter behind ``Register.EVENTS``; it goes on from 0 behind its end."""


class Register(enum.IntEnum):
    """Registers of ``Space.REGISTERS``. Reading changes nothing."""

    ARRAY_HASH = 0     # low 32 bits of `Array.hash`
    STATUS = 1         # a `STATUS` word
    EVENTS = 2         # cycles from the start of the last run to its end


class Fault(enum.IntEnum):
    """Why there is no program in flash, or why a section is not right."""

    NONE = 0
    ABSENT = 1      # there is no header
    FOREIGN = 2     # it is for another array
    DAMAGED = 3     # a checksum is wrong, or a later header is not there


_FLASH = 4
"""Bit of the error codes that have a `Fault` in the bits below it."""


class Error(enum.IntEnum):
    """Why a run ended before its `halt`, or did not begin. The next start, or an abort, clears it.

    A start is refused until the image in flash is checked, and if that is not right. An abort
    forgives what was wrong: who has written main memory by other means starts behind one.
    """

    NONE = 0
    COMMAND = 1     # a control word that is no command of this array
    EARLY = _FLASH + Fault.NONE         # the image is not checked yet
    ABSENT = _FLASH + Fault.ABSENT
    FOREIGN = _FLASH + Fault.FOREIGN
    DAMAGED = _FLASH + Fault.DAMAGED


FLASH_ERRORS = frozenset({Error.ABSENT, Error.FOREIGN, Error.DAMAGED})
"""Those of what the flash holds."""

_COMPILE = "compile the program again for this array"
_WRITE = "write the program's image there: celosia flash BUILD --program PROGRAM.celo"

WAYS_OUT: dict[int, str] = {
    Error.COMMAND: f"a word of the stream is no command; {_COMPILE}",
    Error.EARLY: "its flash is still being read; wait",
    Error.ABSENT: f"there is no program in its flash; {_WRITE}",
    Error.FOREIGN: f"what is in its flash is for another array; {_WRITE}",
    Error.DAMAGED: f"what is in its flash is damaged; {_WRITE}",
}
"""What errors mean, and what helps."""


STATUS = Word("status", (
    Field("busy", 1, about="the machine runs"),
    Field("saturated", 1, about="a mantissa was clipped since the last start"),
    Field("checking", 1, about="the image in flash is being checked, and what is resident copied"),
    Field("ready", 1, about="the image in flash is whole"),
    Field("fault", 2, about="`Fault`, until a start or an abort"),
    Field("_", 2),
    Field("error", 8, about="`Error` code; 0 for none"),
))
"""What ``Register.STATUS`` holds. ``Register.EVENTS`` has the cycles from start to the end."""
