"""Descriptors: what the machine is told of one layer, and which of its blocks reads what."""

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from celosia_spec.isa.fields import Field, Word

if TYPE_CHECKING:
    from celosia_spec.isa.fields import Words

WORD_BITS = 16
"""Width of a descriptor's words, as of all of program memory."""

PHASE_BITS = 5
"""Width of the pool-window counter: at most 32 window positions."""


class Opcode(enum.IntEnum):
    """Field ``opcode`` of a descriptor."""

    LINEAR = 1


class Place(NamedTuple):
    """Where a field stands: index of its word, and its lowest bit there."""

    word: int
    low: int


@dataclass(frozen=True)
class Descriptor:
    """The layout of a descriptor: 16-bit words in the order in which they stand in memory, each cut
    into fields, the first in the lowest bits.

    early : words that are not used any more while a layer is being normalised; the next layer's
            replace them meanwhile.
    late  : words that are used until a walk's last result is written, while the next layer's early
            ones are being loaded.

    ``groups`` has what each block of the gateware reads, as a word with these fields: the shape of
    the block's side; ``places`` has where each field stands in memory. A field that several blocks
    read is in the groups of all of them. Names of fields are unique in a descriptor.
    """

    early: tuple[tuple[Field, ...], ...]
    late: tuple[tuple[Field, ...], ...]

    @cached_property
    def words(self) -> tuple[Word, ...]:
        """All words, the early ones first."""
        return tuple(Word("descriptor", fields) for fields in self.early + self.late)

    @cached_property
    def fields(self) -> tuple[Field, ...]:
        """All fields in the order in which they stand in memory."""
        return tuple(field for word in self.words for field in word.fields)

    @cached_property
    def places(self) -> dict[str, Place]:
        """Where each field stands, by its name."""
        return {field.name: Place(index, low) for index, word in enumerate(self.words)
                for field, low in word.places()}

    @cached_property
    def groups(self) -> dict[str, Word]:
        """What each block reads, by the block's name."""
        names = dict.fromkeys(name for field in self.fields for name in field.readers)
        return {name: Word(name, tuple(field for field in self.fields if name in field.readers))
                for name in names}

    def pack(self, **values: int) -> list[int]:
        """Return the words; fields that are not named are 0. ValueError: field, range and value of
        what does not fit."""
        if unknown := values.keys() - self.places.keys():
            raise ValueError(f"descriptor has no field {', '.join(sorted(unknown))}")
        return [word.pack(**{field.name: values.get(field.name, 0) for field in word.fields})
                for word in self.words]

    def unpack(self, words: "Sequence[int] | Words") -> dict[str, int]:
        """Return the values of all fields of a descriptor's words."""
        return {name: value for word, bits in zip(self.words, words, strict=True)
                for name, value in word.unpack(int(bits)).items()}


CONTROL, WEIGHTS, LANES, OUTPUT = "control", "weights", "lanes", "output"
"""Blocks that read descriptors: what issues steps and walks; what decodes weight words; what reads
maps in the banks, multiplies, and writes results there; the output stage."""

DESCRIPTOR = Descriptor(
    early=(
        (Field("input_slot", 8, readers=(CONTROL,), about="exponent slot of the input"),
         Field("output_slot", 8, readers=(CONTROL,), about="exponent slot of the output")),
        (Field("residual_slot", 16, readers=(CONTROL,),
               about="exponent slot of the tensor that is added"),),
        (Field("last_phase", 16, readers=(CONTROL, OUTPUT),
               about="max-pool window positions - 1, at most 31; 0 without pooling"),),
        (Field("line", 16, readers=(CONTROL, LANES), about="output line width, positions"),),
        (Field("tap_base", 16, readers=(WEIGHTS,), about="first tap-table entry of phase 0"),),
        (Field("tap_step", 16, readers=(WEIGHTS,),
               about="tap-table entries from one phase to the next"),),
        (Field("weight_base", 16, readers=(CONTROL,),
               about="first port row of the layer's weight words"),),
        (Field("length_base", 16, readers=(CONTROL,), about="first batch word in program memory"),),
        (Field("in_base", 16, readers=(LANES,), about="first bank row of the input map"),),
        (Field("in_channels", 16, readers=(LANES,),
               about="bank rows from one position group to the next"),),
        (Field("exponent", 8, True, readers=(CONTROL,),
               about="static exponent of the output; without `static`, with `clamp`: the largest"),
         Field("least_exponent", 8, True, readers=(CONTROL,),
               about="smallest exponent of the output")),
        (Field("clear_base", 16, readers=(CONTROL,),
               about="first bank row to clear before the layer starts"),),
        (Field("clear_rows", 16, readers=(CONTROL,), about="bank rows to clear"),),
        (Field("residual_from", 16, readers=(OUTPUT,),
               about="first beat in the residual store of the tensor that is added"),),
    ),
    late=(
        (Field("last_batch", 16, readers=(CONTROL, OUTPUT),
               about="row batches - 1; a batch is one row a group"),),
        (Field("last_tile", 16, readers=(CONTROL, OUTPUT),
               about="tiles - 1; a tile is lanes / groups output positions"),),
        (Field("last_position", 16, readers=(OUTPUT,), about="output positions of one row - 1"),),
        (Field("row_base", 16, readers=(OUTPUT,), about="first row-table word"),),
        (Field("write_base", 16, readers=(OUTPUT,), about="first write-table entry"),),
        (Field("write_step", 16, readers=(OUTPUT,),
               about="bank rows added to every write from one batch to the next"),),
        (Field("opcode", 4, readers=(CONTROL,), about="`Opcode`: 1, a linear layer"),
         Field("relu", 1, readers=(OUTPUT,), about="negative sums become 0"),
         Field("static", 1, readers=(CONTROL,),
               about="the output exponent is `exponent`, not the tensor's maximum"),
         Field("keep", 1, readers=(CONTROL,),
               about="the output exponent is the input's (select nodes)"),
         Field("residual_read", 1, readers=(OUTPUT,), about="a tensor is added"),
         Field("residual_write", 1, readers=(OUTPUT,),
               about="the output goes to the residual store too"),
         Field("wide", 1, readers=(OUTPUT,),
               about="16-bit results into the store; no bank is written"),
         Field("deinterleave", 1, readers=(LANES,),
               about="a beat's elements are written in the order 0, 2, 1, 3; those of its second "
                     "half go `plane_rows` further"),
         Field("direct", 1, readers=(CONTROL, OUTPUT),
               about="results go to the banks as they drain; no normalising pass"),
         Field("jump", 1, readers=(LANES,),
               about="lines are one position group apart: add `in_channels` at a line end"),
         Field("clamp", 1, readers=(CONTROL,),
               about="where the output has the exponent `exponent`, its mantissas are -`bound` to "
                     "`bound`; where the array has a clamp")),
        (Field("log2_groups", 4, readers=(CONTROL, WEIGHTS, LANES, OUTPUT),
               about="log2 of the row groups"),
         Field("log2_out_groups", 4, readers=(CONTROL, LANES),
               about="log2 of the row groups of the layer that reads the output"),
         Field("bound", 8, readers=(OUTPUT,),
               about="largest mantissa of a clamp, in the width of the activations")),
        (Field("write_carry", 16, readers=(LANES,),
               about="bank rows from one position group to the next in the output map"),),
        (Field("plane_rows", 16, readers=(LANES,),
               about="bank rows from the even to the odd plane of a deinterleaved map"),),
        (Field("residual_to", 16, readers=(OUTPUT,),
               about="first beat in the residual store of the output"),),
    ))
"""What every descriptor holds. All fields are unsigned but the two exponents."""

DESCRIPTOR_WORDS = len(DESCRIPTOR.words)
PREFETCH_WORDS = len(DESCRIPTOR.early)
