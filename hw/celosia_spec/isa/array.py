"""The parameters of an array, and the hash over them that a program and its machine share."""

import hashlib
import json
import operator
from dataclasses import asdict, dataclass, fields

from celosia_spec.isa.numbers import ACCUMULATORS, MANTISSA_BITS

ENTRY_BITS = 64
"""Width of a word of main memory, of an entry of the stream."""

CONTROL_BITS = 16
"""Width of a control word, and of an element of a map."""

ENTRY_WORDS = ENTRY_BITS // CONTROL_BITS
"""Control words, weight words or elements that an entry holds."""

MAIN_UNIT = 256
"""A main memory that is no power of two has a multiple of so many entries: a block memory of the
iCE40 has as many elements."""

MAIN_WORDS_MAX = 1 << CONTROL_BITS
"""Entries of main memory that an array has at most: a control word holds the number of one."""

QUAD = 4
"""Lanes of the smallest group."""

RING_GAP = 32
"""Entries of the weights' ring that may stay free, so that what is asked for has room."""

TAP_ROW_BITS = {8: 10, 16: 9}
"""Lanes, and the widest place of a bank row: it is in one control word with what lanes are turned
by, and a mask."""

BANK_ROW_BITS = max(TAP_ROW_BITS.values()) + 1
"""Of a number of bank rows, that of all of them included."""

PIECE_BITS = 2
PIECE = 1 << PIECE_BITS
"""Bank rows of a piece: bands, tiles, taps and position groups begin with a whole one."""

FLASH = {4: (4, 1), 8: (2, 1), 16: (2, 2)}
"""Cycles of an element from flash, to the wires that it comes on and the cycles of a clock."""

VERSION = 8
"""Counts up where streams or sections mean something else, or take other cycles."""


def kib(words: int) -> float:
    """Return what words of main memory are in KiB."""
    return words * ENTRY_BITS / 8192


@dataclass(frozen=True, kw_only=True)
class Array:
    """Parameters of one array: everything that a program must match.

    lanes       : multipliers, accumulators and activation banks of a cluster; 8 or 16.
    main_words  : depth of main memory, entries: a power of two or whole `MAIN_UNIT`s.
    bank_rows   : depth of an activation bank, codes; as `TAP_ROW_BITS` allows.
    ring        : depth of the weights' ring, entries.
    controls    : depth of the controls' ring, control words.
    taps        : depth of the tap table, words.
    tiles       : depth of the tile table, words; a tile is three.
    acc_bits    : accumulator width W, 24 or 32.
    weight_bits : width of weight mantissas, 4 to 9, of which a stream holds 8 at most.
    activation_bits : L of codes, 4 to 9.
    residual    : there is a residual operand.   clamp : outputs can be clamped.
    fill        : elements that are filled into the banks a cycle, 2 or 4; 8 of main memories with
                  `two_ports`, which several clusters need.
    flash       : cycles in which an element comes from the board's flash, one of `FLASH`; 0: none
                  is read.
    drain       : lanes whose sums leave a cycle, 1 (of 16) or 2.
    clusters    : arrays of ``lanes`` beside each other, around one main memory: 1, 2, 4 or 8; all
                  other parameters but ``main_words`` are those of each.
    """

    lanes: int = 16
    main_words: int = 16384
    bank_rows: int = 512
    ring: int = 256
    controls: int = 256
    taps: int = 256
    tiles: int = 256
    acc_bits: int = 24
    weight_bits: int = 8
    activation_bits: int = 8
    residual: bool = True
    clamp: bool = False
    fill: int = 4
    flash: int = 0
    drain: int = 2
    clusters: int = 1

    def __post_init__(self) -> None:
        _take(self)
        if self.lanes not in (8, 16):
            raise ValueError(f"lanes must be 8 or 16, not {self.lanes!r}")
        if self.fill not in (2, 4, 8):
            raise ValueError(f"fill must be 2, 4 or 8, not {self.fill!r}")
        if not (64 <= self.main_words <= MAIN_WORDS_MAX and (
                not self.main_words & self.main_words - 1 or self.main_words % MAIN_UNIT == 0)):
            raise ValueError(f"main_words must be a power of two, or a multiple of {MAIN_UNIT}, 64 "
                             f"to {MAIN_WORDS_MAX}, not {self.main_words!r}")
        for name, most in (("bank_rows", 1 << TAP_ROW_BITS[self.lanes]), ("ring", 1 << 12),
                           ("controls", 1 << 12), ("taps", 1 << 11), ("tiles", 1 << 12)):
            value = getattr(self, name)
            if not 64 <= value <= most or value & value - 1:
                raise ValueError(f"{name} must be a power of two, 64 to {most}, not {value!r}")
        if self.flash not in (0, *FLASH):
            raise ValueError(f"flash must be one of {', '.join(map(str, (0, *FLASH)))}, "
                             f"not {self.flash!r}")
        if self.drain not in (1, 2):
            raise ValueError(f"drain must be 1 or 2, not {self.drain!r}")
        if self.drain == 1 and (self.lanes != 16 or (self.residual and self.acc_bits != 24)):
            raise ValueError("drain must be 2 of 8 lanes, and of 32 bits with residual operands")
        if self.clusters not in (1, 2, 4, 8):
            raise ValueError(f"clusters must be 1, 2, 4 or 8, not {self.clusters!r}")
        if self.clusters > 1 and not self.two_ports:
            raise ValueError("fill must be 8 of several clusters")
        if self.clusters > 1 and self.drain == 1:
            raise ValueError("drain must be 2 of several clusters")
        _check_widths(self)

    @property
    def lanes_all(self) -> int:
        """Lanes of all clusters."""
        return self.lanes * self.clusters

    @property
    def two_ports(self) -> bool:
        """Whether main memory has a port for fills alone, and reads two words a cycle there."""
        return self.fill > ENTRY_WORDS

    @property
    def unit(self) -> int:
        """Elements of one word of main memory that are filled at once: all, or a half of it."""
        return min(self.fill, ENTRY_WORDS)

    @property
    def groups_max(self) -> int:
        """Row groups that the array can be split into: a group has `QUAD` lanes at least, and an
        entry has a weight word for each."""
        return min(self.lanes // QUAD, ENTRY_WORDS)

    @property
    def main_bits(self) -> int:
        """Width of the address of an entry of main memory."""
        return (self.main_words - 1).bit_length()

    @property
    def sum_bits(self) -> int:
        """Bits of a pass's sums. Accepted networks have none beyond 2^(W - 2); what comes to them
        behind the lanes takes one bit more."""
        return self.acc_bits - 1

    @property
    def hash(self) -> int:
        """32-bit hash over all parameters and the version; programs and gateware carry it."""
        return array_hash(self)

    def positions(self, log2_groups: int) -> int:
        """Return P', the lanes of a group, neighbouring output positions."""
        return self.lanes >> log2_groups


_LATER = ("clusters",)
"""Parameters that arrays have not always had: one with its default is as all were before."""


def array_hash(array: Array, version: int = VERSION) -> int:
    """Return the hash that gateware of a version carries for an array."""
    defaults = {part.name: part.default for part in fields(array)}
    parameters = {name: value for name, value in asdict(array).items()
                  if name not in _LATER or value != defaults[name]}
    text = json.dumps(["stream", version, parameters], sort_keys=True)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")


def _take(array: Array) -> None:
    """Make whole numbers of whatever type ints; ValueError for one that is none, and for a switch
    that is no bool."""
    for part in fields(array):
        value = getattr(array, part.name)
        if part.type is bool:
            if not isinstance(value, bool):
                raise ValueError(f"{part.name} must be True or False, not {value!r}")
        else:
            try:
                object.__setattr__(array, part.name, operator.index(value))
            except TypeError:
                raise ValueError(f"{part.name} must be a whole number, not {value!r}") from None


def _check_widths(array: Array) -> None:
    """ValueError for accumulators or mantissas of a width that no array has."""
    if array.acc_bits not in ACCUMULATORS:
        raise ValueError(f"acc_bits must be {' or '.join(map(str, ACCUMULATORS))}, "
                         f"not {array.acc_bits!r}")
    for name in ("weight_bits", "activation_bits"):
        value = getattr(array, name)
        if value not in MANTISSA_BITS:
            raise ValueError(f"{name} must be {MANTISSA_BITS[0]} to {MANTISSA_BITS[-1]}, "
                             f"not {value!r}")
