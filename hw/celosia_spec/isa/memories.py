"""The memories of a machine: one table with all that anybody asks about them."""

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from celosia_spec.isa.array import ArrayConfig
from celosia_spec.isa.fields import Field, Word
from celosia_spec.isa.registers import Register
from celosia_spec.isa.words import ROW, tap_word, weight_word, write_word

EXPONENT_SLOTS = 32
"""Block exponents that the machine holds, one for each tensor of a program. They stand at the end
of program memory."""


class Space(enum.IntEnum):
    """A memory's number on the host bus (``mem_space``). :data:`MEMORIES` has all about it."""

    REGISTERS = 0
    PROGRAM = 1
    WEIGHTS = 2
    ROWS = 3
    TAPS = 4
    WRITES = 5
    BANKS = 6
    STORE = 7
    EXPONENTS = 8
    RESIDUAL = 9


@dataclass(frozen=True)
class Blocks:
    """``count`` memories of ``depth`` words of ``width`` bits, as they are built."""

    count: int
    depth: int
    width: int


Of = Callable[[ArrayConfig], int]


@dataclass(frozen=True, kw_only=True)
class Memory:
    """One memory of the machine.

    space    : its number on the host bus; its name in files and messages.
    about    : what it is.
    address  : what an address of the host bus counts.
    depth    : addresses that a program may use.
    word     : what one address holds.
    blocks   : the memories that it is built of; None where it stands in another one's.
    holds    : what fills it: "image" (a section of a program's file), "tensors" (their mantissas),
               "exponents" (a slot for each tensor), "state" (the machine alone).
    readable, writable : whether the host can read and write it, while no program runs.
    need, unit, one : what a network needs of it and the unit of that, as users know them, and how
               many units a word is.
    way_out  : what a user can do where it is too small, "there" where a layer is named.
    """

    space: Space
    about: str
    address: str
    depth: Of
    word: Callable[[ArrayConfig], Word]
    blocks: Callable[[ArrayConfig], Blocks] | None
    holds: Literal["image", "tensors", "exponents", "state"]
    readable: bool = False
    writable: bool = True
    need: str = ""
    unit: str = "words"
    one: Callable[[ArrayConfig], float] = lambda _: 1
    way_out: str = ""

    @property
    def name(self) -> str:
        """Its name in files, tables and messages."""
        return self.space.name.lower()

    def bits(self, array: ArrayConfig) -> int:
        """Width of what an address holds."""
        return self.word(array).bits

    def amount(self, words: int, array: ArrayConfig) -> float:
        """So many words, in its unit."""
        return words * self.one(array)

    def capacity(self, array: ArrayConfig) -> float:
        """What it holds, in its unit."""
        return self.amount(self.depth(array), array)

    def element_bytes(self, array: ArrayConfig) -> int:
        """The smallest element of a frame, 1, 2 or 4 bytes, that holds a word."""
        bits = self.bits(array)
        return 1 if bits <= 8 else 2 if bits <= 16 else 4


def _plain(name: str, bits: int, signed: bool = False) -> Word:
    return Word(name, (Field(name, bits, signed),))


def _mantissa(array: ArrayConfig) -> Word:
    return _plain("mantissa", array.activation_bits, True)


MEMORIES = (
    Memory(space=Space.REGISTERS, about="registers of the machine", address="a register",
           depth=lambda _: len(Register), word=lambda _: _plain("register", 32), blocks=None,
           holds="state", readable=True),
    Memory(space=Space.PROGRAM, about="descriptors, then batch words", address="a 16-bit word",
           depth=lambda a: a.program_words - EXPONENT_SLOTS, word=lambda _: _plain("word", 16),
           blocks=lambda a: Blocks(1, a.program_words, 16), holds="image", readable=True,
           need="layers and their row batches", way_out="use fewer or narrower layers"),
    Memory(space=Space.WEIGHTS, about="weight words", address="port row x words of a row + slot",
           depth=lambda a: a.weight_rows * a.groups_max, word=weight_word,
           blocks=lambda a: Blocks(a.groups_max, a.weight_rows, weight_word(a).bits),
           holds="image", need="weights", unit="KiB", one=lambda a: a.weight_bits / (8 * 1024),
           way_out="prune it further"),
    Memory(space=Space.ROWS, about="row table: bias and exponents of every row",
           address="a row", depth=lambda a: a.table_rows, word=lambda _: ROW,
           blocks=lambda a: Blocks(1, a.table_rows, ROW.bits), holds="image",
           need="rows of all layers", unit="rows", way_out="use fewer output channels"),
    Memory(space=Space.TAPS, about="tap table: where inputs lie, a copy for each group",
           address="an entry", depth=lambda a: a.taps, word=tap_word,
           blocks=lambda a: Blocks(a.groups_max, a.taps, tap_word(a).bits), holds="image",
           need="kernel positions", unit="table entries",
           way_out="use smaller kernels or fewer channels"),
    Memory(space=Space.WRITES, about="write table: where results go", address="an entry",
           depth=lambda a: a.writes, word=write_word,
           blocks=lambda a: Blocks(1, a.writes, write_word(a).bits), holds="image",
           need="positions of maps", unit="table entries", way_out="use smaller maps"),
    Memory(space=Space.BANKS, about="activation banks", address="bank row x lanes + bank",
           depth=lambda a: a.bank_rows * a.lanes, word=_mantissa,
           blocks=lambda a: Blocks(a.lanes, a.bank_rows, a.activation_bits), holds="tensors",
           readable=True, need="maps", unit="KiB",
           one=lambda a: a.activation_bits / (8 * 1024),
           way_out="use fewer channels or smaller maps"),
    Memory(space=Space.STORE, about="accumulator store, read as 32 bits with sign",
           address="beat x elements of a beat + element",
           depth=lambda a: a.store_beats * a.beat, word=lambda _: _plain("accumulator", 32, True),
           blocks=lambda a: Blocks(1, a.store_beats, a.beat * a.acc_bits), holds="tensors",
           readable=True, writable=False, need="sums that wait to be rounded", unit="sums",
           way_out="use fewer channels or smaller maps"),
    Memory(space=Space.EXPONENTS, about="block exponents", address="an exponent slot",
           depth=lambda _: EXPONENT_SLOTS, word=lambda _: _plain("exponent", 8, True),
           blocks=None, holds="exponents", readable=True, need="tensors", unit="tensors",
           way_out="use fewer layers"),
    Memory(space=Space.RESIDUAL, about="residual store",
           address="beat x elements of a beat + element",
           depth=lambda a: a.residual_beats * a.beat, word=_mantissa,
           blocks=lambda a: Blocks(1, a.residual_beats, a.beat * a.activation_bits),
           holds="tensors", readable=True, writable=False, need="tensors to be added",
           unit="values", way_out="use fewer channels or smaller maps"),
)
"""All memories, in the order of their numbers."""


def memory_of(space: Space) -> Memory:
    """The memory of a number; KeyError where there is none."""
    return {memory.space: memory for memory in MEMORIES}[space]
