"""The memories of the machine: what the host sees of them, and what they are built of."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from celosia_spec.isa.array import CONTROL_BITS, ENTRY_BITS, ENTRY_WORDS, Array
from celosia_spec.isa.controls import FILL
from celosia_spec.isa.fabric import GENERIC, Fabric
from celosia_spec.isa.fields import Field, Value, Word
from celosia_spec.isa.numbers import ELEMENT_BITS, EXPONENT_BITS, EXPONENT_SLOTS
from celosia_spec.isa.registers import Register
from celosia_spec.isa.words import tap_word

if TYPE_CHECKING:
    import numpy as np


class Space(enum.IntEnum):
    """A memory's number on the host bus (``mem_space``); `MEMORIES` has all about it."""

    REGISTERS = 0
    MAIN = 1
    EXPONENTS = 2


@dataclass(frozen=True, kw_only=True)
class Memory:
    """One memory that the host sees. It can read them all, and write those with ``writable``, while
    the machine does not run.

    about   : what it is.   address : what an address counts.   depth : addresses.
    word    : what one address holds.
    """

    space: Space
    about: str
    address: str
    depth: Callable[[Array], int]
    word: Word
    writable: bool = True

    @property
    def name(self) -> str:
        """Its name in files, tables and messages."""
        return self.space.name.lower()

    @property
    def element_bytes(self) -> int:
        """The smaller one of a frame's elements, 2 or 4 bytes, that holds a word."""
        return 2 if self.word.bits <= 16 else 4

    @property
    def has_halves(self) -> bool:
        """Whether a word takes two of the bus, the upper one `UPPER_HALF` addresses further on."""
        return self.word.bits > CONTROL_BITS


def _plain(name: str, bits: int, signed: bool = False) -> Word:
    return Word(name, (Field(name, bits, signed),))


MEMORIES = (
    Memory(space=Space.REGISTERS, about="registers of the machine", address="a `Register`",
           depth=lambda _: len(Register), word=_plain("register", 32), writable=False),
    Memory(space=Space.MAIN, about="main memory: maps, stream and list of chunks",
           address="word x 4 + element", depth=lambda a: a.main_words * ENTRY_WORDS,
           word=_plain("element", ELEMENT_BITS)),
    Memory(space=Space.EXPONENTS, about="block exponents", address="an exponent slot",
           depth=lambda _: EXPONENT_SLOTS, word=_plain("exponent", EXPONENT_BITS, True)),
)
"""All that the host sees, in the order of their numbers."""


def exponent_word(exponent: Value) -> Value:
    """Return what the host writes for an exponent, in a frame zeros stand above; ints, or int64 of
    any shape."""
    return exponent & (1 << EXPONENT_BITS) - 1


def exponents_of(words: np.ndarray) -> np.ndarray:
    """Return the exponents of words that the host has read, int64 of any shape."""
    sign = 1 << EXPONENT_BITS - 1
    return (words.astype("int64") & 2 * sign - 1 ^ sign) - sign


UPPER_HALF = 1 << (len(Register) - 1).bit_length()
"""Added to a register's address on the host's bus, which is half as wide, for its upper half."""


def memory_of(space: Space) -> Memory:
    """The memory of a number; KeyError where there is none."""
    return {memory.space: memory for memory in MEMORIES}[space]


@dataclass(frozen=True)
class Blocks:
    """``count`` memories of ``depth`` words of ``width`` bits, as they are built."""

    name: str
    count: int
    depth: int
    width: int


TAPS = "taps"

FILL_RECORDS, FILL_WORDS = 4, len(FILL.words) + 1
"""Records of fills that their memory has places for, and words of a place: the first one stays
empty."""


WRITES, WRITES_AHEAD = 64, 24
"""Writes of a cluster that can wait where several share main memory's port, and how many of them
may still come when the sequencer is told that there is no room."""


def main_blocks(array: Array) -> Blocks:
    """Return what main memory is built of, where it stands in block memory."""
    if array.two_ports:     # words with even and with odd numbers
        return Blocks("main memory", 2, array.main_words // 2, ENTRY_BITS)
    return Blocks("main memory", 1, array.main_words, ENTRY_BITS)


def block_banks(array: Array, fabric: Fabric) -> int:
    """Return how many banks of a cluster, the first ones, stand in block memory."""
    luts = fabric.lut_memory
    if luts is None or array.bank_rows > luts.bank_rows:
        return array.lanes
    return 0 if array.clusters == 1 else array.lanes - luts.banks


def addresses(array: Array) -> dict[str, int]:
    """Return how many addresses each memory has that programs fill, by its name; a table's are
    those of one of its copies."""
    main, exponents = main_blocks(array), memory_of(Space.EXPONENTS)
    taps = next(table for table in blocks(array) if table.name == TAPS)
    return {main.name: main.count * main.depth, taps.name: taps.depth,
            exponents.name: exponents.depth(array)}


def lut_banks(array: Array, fabric: Fabric) -> Blocks:
    """Return the banks of all clusters that stand in look-up tables."""
    return Blocks("banks", (array.lanes - block_banks(array, fabric)) * array.clusters,
                  array.bank_rows, array.activation_bits)


def blocks(array: Array, fabric: Fabric = GENERIC) -> tuple[Blocks, ...]:
    """Return all other memories of an array that stand in block memory. Where look-up tables are
    memories, small tables and some banks stand in them.
    """
    inside, small = array.drain == 1 and fabric.adds, fabric.lut_memory is None
    of_cluster = [
        Blocks("banks", block_banks(array, fabric), array.bank_rows, array.activation_bits),
        Blocks(TAPS, array.groups_max, array.taps, tap_word(array).bits),
        Blocks("tiles", 1, array.tiles, CONTROL_BITS),
        Blocks("weights' ring", 2, array.ring, ENTRY_BITS // 2),
        Blocks("controls' ring", 1, array.controls, CONTROL_BITS),
        *([Blocks("pool", array.drain, array.lanes // array.drain, ELEMENT_BITS),
           Blocks("queue and exponents", 1, 2 * EXPONENT_SLOTS,
                  max(array.lanes, CONTROL_BITS))] if small else []),
        *([Blocks("sums that passes begin with", 1, 2 * array.lanes, 16)] if inside else []),
    ]
    return (*(replace(memory, count=memory.count * array.clusters) for memory in of_cluster),
            *([Blocks("fills", 1, FILL_RECORDS * FILL_WORDS, CONTROL_BITS)] if small else []))
