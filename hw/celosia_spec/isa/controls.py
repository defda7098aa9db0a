"""Control words: what the stream tells the machine to do, and their fields."""

import enum
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from celosia_spec.isa.array import BANK_ROW_BITS, CONTROL_BITS, ENTRY_WORDS, MAIN_WORDS_MAX, Array
from celosia_spec.isa.fields import Field, Value, Word
from celosia_spec.isa.numbers import EXPONENT_BITS, SLOT_BITS

BATCH = Word("batch", (
    Field("command", 1, False, "0"),
    Field("dense", 1, False, "its entries are dense8"),
    Field("joins", 1, False, "its sums go on from the part before; it has no heads"),
    Field("open", 1, False, "another part follows; nothing is drained"),
    Field("single", 1, False, "it has one step"),
    Field("steps", 11, False, "steps of a pass", offset=1),
))
"""One batch of rows; its heads follow, then its entries."""

CHUNK = Word("chunk", (
    Field("first", 16, False, "word of its first entry"),
    Field("entries", 16, False, "how many entries", offset=1),
    Field("final", 1, False, "no other chunk follows"),
    Field("copied", 1, False, "its entries come from flash: it waits until one more section is "
                              "copied than chunks before it have waited for"),
    Field("next", 16, False, "of arrays of several clusters: word of the next chunk"),
))
"""What the fetcher reads next, a word of main memory. Chunks lie one behind the other; those of
several clusters wherever the one before says, the first one of the k-th in the list's k-th word."""


class Op(enum.IntEnum):
    """Field ``op`` of a command. Words follow those below `HALT`, and no others. `NOTHING` fills an
    entry up. The bits of each say what it is like, see `OPCODE`."""

    LAYER = 0b0000001
    CLOSE = 0b0000010
    JOIN = 0b0000011
    TAPS = 0b0000100
    TILES = 0b0001000
    FILL = 0b0010000
    BAND = 0b0100000
    COPY = 0b0110000
    HALT = 0b1000000
    NOTHING = 0b1010000
    WAIT = 0b1100000


OPCODE = Word("op", (
    Field("slots", 1, False, "its words name the slots that are read"),
    Field("exponent", 1, False, "its last word sets an exponent"),
    Field("taps", 1, False, "words of the table of taps follow"),
    Field("tiles", 1, False, "words of the table of tiles follow"),
    Field("moves", 1, False, "words of main memory move: it waits until they can"),
    Field("steps", 1, False, "it waits until all steps are issued; with `moves`, until the flash "
                             "reader is free; without either, until all is written"),
    Field("bare", 1, False, "no words follow"),
))
"""What the bits of an `Op` say."""

COMMAND = Word("command", (
    Field("command", 1, False, "1"),
    Field("op", OPCODE.bits, False, "`Op`"),
    Field("argument", 8, False, "words that follow, where any do", offset=1),
))
"""A command; the words of its `Record` follow, and behind those of a table its words."""

_COMMAND = COMMAND.pack(command=1)


def is_command(word: int) -> bool:
    """Return whether a control word is a command; else it is a batch."""
    return bool(word & _COMMAND)


@dataclass(frozen=True)
class Record:
    """Control words with fields, in the order in which they stand in the stream."""

    words: tuple[Word, ...]

    def pack(self, **values: Value) -> list[Value]:
        """Return the words of these values, ints or int64 arrays of one shape; fields that are not
        named are 0. ValueError: word, field, range and value of what does not fit, or a name that
        no word has."""
        if unknown := values.keys() - self._word_of.keys():
            raise ValueError(f"{self.words[0].name} has no field {', '.join(sorted(unknown))}")
        given: list[dict[str, Value]] = [{} for _ in self.words]
        for name, value in values.items():
            given[self._word_of[name]][name] = value
        nothing: Any = 0
        return [word.pack(**own) if own else nothing
                for word, own in zip(self.words, given, strict=True)]

    @cached_property
    def _word_of(self) -> dict[str, int]:
        """The number of the word that has a field, by its name."""
        return {name: number for number, word in enumerate(self.words) for name in word.named}

    def __getitem__(self, name: str) -> Field:
        """The field of a name; KeyError where there is none."""
        return self.words[self._word_of[name]][name]

    def unpack(self, words: Sequence[int]) -> dict[str, int]:
        """Return the values of all fields."""
        return {name: value for word, bits in zip(self.words, words, strict=True)
                for name, value in word.unpack(bits).items()}


def _record(name: str, *words: tuple[Field, ...]) -> Record:
    made = tuple(Word(name, fields) for fields in words)
    assert all(word.bits <= CONTROL_BITS for word in made)
    return Record(made)


LAYER = _record(
    "layer",
    (Field("log2_groups", 2, False, "log2 of the row groups"),
     Field("signed_in", 1, False, "the input's mantissas have signs"),
     Field("signed_out", 1, False, "the output's elements have signs"),
     Field("relu", 1, False, "negative sums become 0"),
     Field("wide", 1, False, "sums are stored, 32 bits each"),
     Field("residual", 1, False, "a tensor is added: of two phases the first one reads it"),
     Field("clamp", 1, False, "elements beyond `bound` become `bound`, with its sign"),
     Field("last_phase", 5, False, "positions of the pooling window - 1; 1 with `residual`"),
     Field("residual_signed", 1, False, "elements of the tensor that is added have signs; "
                                        "0 where there is none")),
    (Field("in_slot", SLOT_BITS, False, "exponent slot of the input"),
     Field("rows", BANK_ROW_BITS, False, "bank rows from one position group of the input to the "
                                         "next")),
    (Field("residual_slot", SLOT_BITS, False, "exponent slot of the tensor that is added"),
     Field("tap_step", 11, False, "taps from one phase to the next, whole groups")),
    (Field("bound", 16, False, "element of a clamp's bound"),),
)
"""What stays the same until `close`."""

PHASES_MAX = LAYER["last_phase"].most + 1
"""Positions of a pooling window."""

HEAD = _record(
    "head",
    (Field("room", 7, True, "exponent of its sums' unit + W + `UNIT_MARGIN`, where its input has "
                            "exponent -16"),
     Field("right", 6, False, "places that its bias moves to the right of where it is shifted "
                              "from (`bias_left`), where its input has exponent -16", offset=-32),
     Field("element", 2, False, "its channel's first element in `word`"),
     Field("real", 1, False, "there is such a row")),
    (Field("bias", 16, True, "bias mantissa"),),
    (Field("word", 16, False, "where its channel of the output begins"),),
)
"""One row of a batch. `celosia_spec.isa.heads` makes them."""

EXCESS = _record("excess", (Field("sum", 16, True, "minus the sum of the row's mantissas"),))
"""Behind the head of a row whose input has signs."""

LONG_EXCESS = _record(
    "long excess",
    (Field("low", 16, False, "minus 2^(L-1) times the sum of the row's mantissas, lower half"),),
    (Field("high", 16, True, "upper half"),),
)
"""Instead of it where sums have 32 bits."""

TABLE = _record("table", (Field("place", 16, False, "first word"),))
"""Taps or tiles; the words follow."""

BAND = _record("band", (Field("row", 16, False, "bank row that its tiles count from"),),
               (Field("tile", 16, False, "first word of its first tile"),),
               (Field("last_tile", 16, False, "tiles - 1"),),
               (Field("position", 16, False, "first element of a row that its tiles write"),))

PLACE = Word("place", (Field("row", BANK_ROW_BITS, False, "bank rows"),
                       Field("bank", 5, False, "banks")))
"""Where a fill goes in the banks, or how far it moves on there."""


def _place(name: str, about: str) -> tuple[Field, ...]:
    row, bank = PLACE.fields
    return (replace(row, name=f"{name}_row", about=f"{row.about} {about}"),
            replace(bank, name=f"{name}_bank", about=f"{bank.about}, likewise"))


FILL = _record(
    "fill",
    (Field("run", 16, True, "n - elements of a line, where n of a word are filled a cycle; with "
                            "`apart` 2 n - 1 - n times their number"),),
    (Field("lines", 16, True, "minus the lines"),),
    (Field("rows", BANK_ROW_BITS, False, "bank rows from one position group to the next"),),
    (Field("element", 16, False, "number of the first element in main memory, lower bits"),),
    _place("a", "of the first element; with `pair`, and where two are filled a cycle, of the first "
                "one with an even number, `apart` ones excepted"),
    _place("b", "of `a` and four positions on; likewise of the first one with an odd number"),
    (Field("step", 16, False, "with `apart` elements from one to the next, else 0"),),
    (Field("line_element", 16, True, "elements from behind a line to the next one"),),
    _place("line_a", "from behind the elements of `a` to those of the next line"),
    _place("line_b", "likewise for `b`; alike where `b` is `a` and four on"),
    (Field("signed", 1, False, "its elements have signs"),
     Field("zero", 1, False, "nothing is read, all codes are that of 0"),
     Field("pair", 1, False, "even and odd elements go to different places"),
     Field("apart", 1, False, "only every `step`th element is read"),
     Field("log2_groups", 2, False, "log2 of the row groups that read it"),
     Field("page", (MAIN_WORDS_MAX * ENTRY_WORDS >> CONTROL_BITS).bit_length() - 1, False,
           "number of the first element in main memory, upper bits"),
     Field("residual", 1, False, "it is the layer's residual operand, and has its exponent; else "
                                 "its input")),
    (Field("channel_element", 16, True, "elements from behind a channel's last line to the next "
                                        "channel"),),
    _place("channel_a", "from behind the elements of `a` of a channel's last line to the next "
                        "channel"),
    _place("channel_b", "likewise for `b`; alike where `b` is `a` and four on"),
    (Field("channels", 16, True, "minus the channels"),),
)
"""Lines and channels of a map, and where they go in the banks, as moves from what was done last to
what comes next; `celosia_spec.isa.fills` makes them. A place moves on by (rows, banks): banks
beyond a group's last wrap to its first, ``rows`` bank rows on. Bank rows are modulo the banks'
depth, elements modulo main memory."""

_SET = (Field("slot", SLOT_BITS, False, "exponent slot that is set"),
        Field("least", EXPONENT_BITS, True, "smallest exponent that it gets"),
        Field("most", EXPONENT_BITS, True, "largest exponent that it gets"))

CLOSE = _record("close", _SET)
"""Exponent of an output: that of the largest element written since the last `close` or `join`."""

JOIN = _record(
    "join",
    (Field("first", SLOT_BITS, False, "slot of an exponent, where a layer has its input's"),),
    (Field("second", SLOT_BITS, False, "slot of another, where a layer has its residual "
                                       "operand's"),
     Field("room", 6, True, "by how much the second may be the larger one"),),
    _SET,
)
"""The larger one of two exponents, the second less `room`: of a reading of several tensors, or
beside a residual operand, or of an output that keeps its input's, instead of its `close`. The maps
are closed."""

COPY = _record("copy", (Field("unit", 16, False, "unit of flash that ends with its header"),))
"""A section of flash is copied to main memory (`celosia_spec.isa.image`), beside everything
else, when those before it are; and then those behind it, as their headers say."""

COPIES = 15
"""Sections that can be copied ahead of the chunks that wait for them, at most."""

RECORDS = {Op.LAYER: LAYER, Op.TAPS: TABLE, Op.TILES: TABLE, Op.FILL: FILL, Op.BAND: BAND,
           Op.JOIN: JOIN, Op.COPY: COPY, Op.CLOSE: CLOSE}
"""What follows a command; nothing follows the others."""


def head_words(array: Array, *, signed_in: bool) -> int:
    """Return the control words of a row's head."""
    return len(HEAD.words) + signed_in * len(excess_record(array).words)


def excess_record(array: Array) -> Record:
    """Return what stands behind heads of rows whose input has signs."""
    return LONG_EXCESS if array.acc_bits == 32 else EXCESS
