"""A program in flash: sections, each for a piece of main memory.

A section begins with its header, in the last bytes of a unit. Its words follow, whole units; then
comes its checksum, in the first bytes of the unit behind, whose end may be the next header. All
else is FF. Bytes of a word, and words, lie lowest first.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from celosia_spec.isa.array import CONTROL_BITS, ENTRY_BITS, FLASH, Array
from celosia_spec.isa.fields import Field, Word

UNIT_WORDS = 16
"""Words of main memory that a unit has; sections go to multiples of it."""

UNIT_BYTES = UNIT_WORDS * ENTRY_BITS // 8

HEADER = Word("section", (
    Field("magic", 16, False, "`MAGIC`"),
    Field("array", 32, False, "hash of the array that it is for"),
    Field("resident", 1, False, "goes to main memory when the machine starts"),
    Field("last", 1, False, "no other section follows"),
    Field("more", 1, False, "who copies it copies the next section, too"),
    Field("_", 13),
    Field("first", 16, False, "unit of main memory where it begins"),
    Field("units", 16, True, "its words, units, less than 0"),
    Field("_", 32),
))

MAGIC = 0x6CEC

HEADER_BYTES = HEADER.bits // 8

CHECKSUM_BYTES, TAIL_BYTES = 3, 4
"""A CRC of header and words, its highest byte first; behind it zeros, up to a whole element."""

CHECKSUM_TERMS = (0, 4, 13, 19)
"""Exponents of the CRC's polynomial below 24. It is primitive: errors of two bits show up to 2^24
bits apart, which is longer than any section, all bursts of 24, and of anything else all but one in
2^24. With four bits a cycle it takes a cell of an iCE40 a bit."""

CHECKSUM_INIT = (1 << 8 * CHECKSUM_BYTES) - 1
"""What the CRC begins with: ones."""

COMMAND_BITS, ADDRESS_BITS, DUMMY_CLOCKS = 8, 24, 8
"""What goes out to the flash, bit by bit, and clocks then until data come."""

READ_CLOCKS = COMMAND_BITS + ADDRESS_BITS + DUMMY_CLOCKS
"""Clocks of the flash before data come."""

_AROUND = 7
"""Cycles around what the clocks of a section take."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Section:
    """Words for a piece of main memory.

    first : its unit there.   words : uint64, whole units.   resident : it is there from the start
    on; others are copied when the stream says so.   more : the next section behind it.
    """

    first: int
    words: np.ndarray
    resident: bool = False
    more: bool = False

    @property
    def units(self) -> int:
        return len(self.words) // UNIT_WORDS


def _after(byte: int) -> int:
    """Return what a byte makes of a checksum of zero."""
    found = byte << 8 * CHECKSUM_BYTES
    for bit in reversed(range(8)):
        if found >> bit + 8 * CHECKSUM_BYTES & 1:
            found ^= 1 << bit + 8 * CHECKSUM_BYTES
            found ^= sum(1 << term for term in CHECKSUM_TERMS) << bit
    return found


_AFTER = [_after(byte) for byte in range(256)]


def checksum(data: bytes) -> int:
    """Return the CRC of ``data``, the highest bit of a byte first."""
    found = CHECKSUM_INIT
    for byte in data:
        found = (found << 8) % (1 << 8 * CHECKSUM_BYTES) ^ _AFTER[
            found >> 8 * CHECKSUM_BYTES - 8 ^ byte]
    return found


def places(sections: Sequence[Section]) -> list[int]:
    """Return the unit that ends with the header of each section, counted from the image's begin."""
    found = [0]
    for section in sections:
        found.append(found[-1] + section.units + 1)
    return found[:-1]


def copy_cycles(array: Array, units: int) -> int:
    """Return the cycles in which a section of so many units is copied, where nothing else uses the
    port of main memory: from the strobe that tells the reader to the one that tells the fetcher. If
    it is not the first one of several, the units from the first one's on count, and one more for
    each before it."""
    _, clock = FLASH[array.flash]
    elements = (HEADER_BYTES + units * UNIT_BYTES + TAIL_BYTES) * 8 // CONTROL_BITS
    return READ_CLOCKS * clock + elements * array.flash + _AROUND


def pack(array: Array, sections: Sequence[Section]) -> bytes:
    """Return the image of an array's sections. ValueError where one is empty, is no whole units, or
    does not fit main memory."""
    image = bytearray()
    for at, section in enumerate(sections):
        if len(section.words) % UNIT_WORDS or not section.units:
            raise ValueError(f"section {at} has {len(section.words)} words, it must have whole "
                             f"units of {UNIT_WORDS}")
        if (section.first + section.units) * UNIT_WORDS > array.main_words:
            raise ValueError(f"section {at} ends behind main memory")
        header = HEADER.pack(magic=MAGIC, array=array.hash, resident=int(section.resident),
                             last=int(at == len(sections) - 1), more=int(section.more),
                             first=section.first,
                             units=-section.units)
        image += b"\xff" * (-(len(image) + HEADER_BYTES) % UNIT_BYTES)
        data = header.to_bytes(HEADER_BYTES, "little") + section.words.astype("<u8").tobytes()
        image += data + checksum(data).to_bytes(CHECKSUM_BYTES, "big")
        image += bytes(TAIL_BYTES - CHECKSUM_BYTES)
    return bytes(image)
