"""What blocks hand each other. All members are seen from the block that gives: an ``Out`` of the
signature is the giver's to drive. Streams carry one item a cycle and are never held up; who takes
them, and how many cycles later, is in the contract of the blocks."""

from collections.abc import Mapping
from typing import Any

from amaranth.hdl import Module, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Member, Out

from celosia_hw.layouts import layout
from celosia_spec.isa import ArrayConfig, tap_word, weight_word, write_word
from celosia_spec.isa.frames import ADDRESS_BITS
from celosia_spec.stream.array import CONTROL_BITS

FLAGS = data.StructLayout({
    "valid": 1,        # a weight word was issued
    "first": 1,        # of its pass: the product loads the accumulators, the taps change phase
    "last": 1,         # of its pass: the sums are complete
    "tile_first": 1,   # a new tile begins: the bank addresses move on
    "tile_last": 1,    # the tile is the last of its batch
})
"""Flags that travel down the pipeline beside a weight word. All zero in a bubble."""


def row_bits(array: ArrayConfig) -> int:
    """Return the width of a port row's number."""
    return (array.weight_rows - 1).bit_length()


def operand_layout(array: ArrayConfig) -> data.StructLayout:
    """Return what one quad's decoder says of a non-zero: mantissa, and where its operands lie."""
    return data.StructLayout({"mantissa": signed(array.weight_bits), "row": array.bank_row_bits,
                              "rotation": array.lane_bits})


def beat_layout(array: ArrayConfig) -> data.ArrayLayout:
    """Return a beat of accumulators."""
    return data.ArrayLayout(signed(array.acc_bits), array.beat)


class Steps(wiring.Signature):
    """Steps, from control to the decoder.

    flags : of the step.   row : port row of its weight words.   slot : the first of them there, a
    multiple of the group count; arrays that replicate do not use it.
    """

    def __init__(self, array: ArrayConfig) -> None:
        super().__init__({"flags": Out(FLAGS), "row": Out(row_bits(array)),
                          "slot": Out(max(1, array.groups_max.bit_length() - 1))})


class RowSource(wiring.Signature):
    """Port rows, from the weight memory to the decoder.

    row : the one that is asked for.   words : its weight words, slot 0 in the lowest bits, a cycle
    later.
    """

    def __init__(self, rows: int, words: int, word_bits: int) -> None:
        super().__init__({"row": In(range(rows)),
                          "words": Out(data.ArrayLayout(word_bits, words))})

    @classmethod
    def of(cls, array: ArrayConfig) -> "RowSource":
        """Return the signature of an array's weight memory."""
        return cls(array.weight_rows, array.groups_max, weight_word(array).bits)


class Operands(wiring.Signature):
    """Decoded steps, from the decoder to the lanes: ``operand`` of each quad, ``flags`` of the
    step, and ``ahead``, those of the step after it."""

    def __init__(self, array: ArrayConfig) -> None:
        super().__init__({"flags": Out(FLAGS), "ahead": Out(FLAGS), "operand": Out(
            data.ArrayLayout(operand_layout(array), array.groups_max))})


class Factors(wiring.Signature):
    """What the lanes multiply, from the banks to the multipliers: ``x`` of each lane, ``weights``
    of each quad, and the step's ``flags``."""

    def __init__(self, array: ArrayConfig) -> None:
        super().__init__({
            "flags": Out(FLAGS),
            "x": Out(data.ArrayLayout(signed(array.activation_bits), array.lanes)),
            "weights": Out(data.ArrayLayout(signed(array.weight_bits), array.groups_max))})


class Sums(wiring.Signature):
    """Sums of a pass, from the lanes to the output stage.

    drain : strobe, ``Timing.drain_lead`` cycles before the pass's first beat.   values : a beat,
    until ``shift``, a strobe, asks for the next one in the following cycle.
    """

    def __init__(self, array: ArrayConfig) -> None:
        super().__init__({"drain": Out(1), "values": Out(beat_layout(array)), "shift": In(1)})


class Results(wiring.Signature):
    """Placed mantissas, from the output stage to the lanes.

    valid : there is one write-table entry, ``place``.   element : first element of the beat that
    it takes.   mantissas : the beat.   real : which of its elements are to be written at all.
    """

    def __init__(self, array: ArrayConfig) -> None:
        super().__init__({
            "valid": Out(1), "place": Out(layout(write_word(array))),
            "element": Out(array.beat_bits), "real": Out(array.beat),
            "mantissas": Out(data.ArrayLayout(array.activation_bits, array.beat))})


class Writes(wiring.Signature):
    """Writes into the banks: ``enable`` of each; banks ``j``, ``j + beat``, ``j + 2 * beat`` ...
    share ``row`` and ``data`` ``j``."""

    def __init__(self, array: ArrayConfig) -> None:
        super().__init__({
            "enable": Out(array.lanes),
            "row": Out(data.ArrayLayout(array.bank_row_bits, array.beat)),
            "data": Out(data.ArrayLayout(array.activation_bits, array.beat))})


class Prepare(wiring.Signature):
    """What control asks of the lanes before a layer's first step: ``load``, a strobe, to begin at
    the first tile; while ``clear``, to write zero into row ``clear_row`` of every bank."""

    def __init__(self, array: ArrayConfig) -> None:
        super().__init__({"load": Out(1), "clear": Out(1), "clear_row": Out(array.bank_row_bits)})


class Walks(wiring.Signature):
    """Control and the output stage.

    load : strobe before a layer's first step.   normalise : strobe, walk over the whole layer.
    input_lsb, residual_lsb : exponents s_x and s_r of the least significant bits of input and
                 residual mantissas.
    shift_base : output block exponent minus s_x; known a cycle before the first rounding.
    clamping   : the output's exponent is the one that the layer's ``bound`` is for; with
                 ``shift_base``.
    done       : strobe, the last beat of a walk entered in the cycle before. ``top`` is complete
                 ``Timing.flush`` cycles later, everything else ``Timing.settle`` cycles later.
    overrun    : strobe, a pass ended before the beats of the one before were walked.
    top        : the largest magnitude, see `BlockExponent`.
    clipped    : strobe, clipping changed a value.
    """

    def __init__(self) -> None:
        super().__init__({
            "load": Out(1), "normalise": Out(1), "input_lsb": Out(signed(8)),
            "residual_lsb": Out(signed(8)), "shift_base": Out(signed(9)),
            "clamping": Out(1), "done": In(1), "overrun": In(1), "top": In(signed(8)),
            "clipped": In(1)})


class Peek(wiring.Signature):
    """Where the host reads the banks, from the lanes to the decoder: while ``valid``, operands
    have bank row 0 and this ``rotation``."""

    def __init__(self, array: ArrayConfig) -> None:
        super().__init__({"valid": Out(1), "rotation": Out(tap_word(array)["rotation"].bits)})


class HostMemory(wiring.Signature):
    """The host's side of one memory, from the host bus to the block that owns it.

    idle    : the machine does not run: the memory is the host's.
    select  : space and address of the bus are of this memory.
    write   : strobe, at most while idle: ``data`` goes to ``address``; a memory takes the low bits
              that it has, of both.
    value   : the word at ``address``, sign-extended if it is signed, while idle and selected:
              within ``MemoryBus.latency`` cycles after ``address``. Not there where the host
              cannot read.
    """

    def __init__(self, *, readable: bool) -> None:
        super().__init__({"idle": Out(1), "select": Out(1), "write": Out(1),
                          "address": Out(ADDRESS_BITS), "data": Out(32),
                          **({"value": In(32)} if readable else {})})


MEMORY_ACCESS: dict[str, Member] = {
    "mem_space": Out(4), "mem_address": Out(ADDRESS_BITS), "mem_write": Out(1),
    "mem_wdata": Out(32), "mem_read": Out(1), "mem_rdata": In(32), "mem_rvalid": In(1)}
RUNS: dict[str, Member] = {
    "start": Out(1), "start_first": Out(8), "start_last": Out(8),
    "busy": In(1), "error": In(8), "saturated": In(1)}
HOST_BUS = {**MEMORY_ACCESS, **RUNS, "abort": Out(1)}
"""The machine's host bus, seen from the host: members of their own, not of a nested signature, so
that they have these names around the machine too. See `HostPort` and `Core`."""
KEEPING_BUS = {**HOST_BUS, "mem_wdata": Out(CONTROL_BITS), "mem_rdata": In(CONTROL_BITS),
               "mem_keep": Out(1), "mem_kept": Out(1)}
"""The second machine's, likewise. See `BitPort` and `HostedMachine`."""


def flipped_members(members: Mapping[str, Member]) -> dict[str, Member]:
    """Return members as the other side sees them."""
    return {name: member.flip() for name, member in members.items()}


def connect_members(m: Module, giver: Any, taker: Any, members: Mapping[str, Member]) -> None:
    """Connect members of two components; an ``Out`` is ``giver``'s to drive."""
    for name, member in members.items():
        given, taken = getattr(giver, name), getattr(taker, name)
        m.d.comb += taken.eq(given) if member.flow is Out else given.eq(taken)
