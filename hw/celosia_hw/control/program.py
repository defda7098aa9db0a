"""The program memory, and what control reads there: descriptors, exponents, batch words."""

from typing import Any

from amaranth.hdl import Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from celosia_hw.layouts import layout
from celosia_hw.parts.table_memory import TableMemory
from celosia_hw.signatures import HostMemory
from celosia_spec.isa import (
    DESCRIPTOR,
    DESCRIPTOR_WORDS,
    EXPONENT_SLOTS,
    ArrayConfig,
    Space,
    memory_of,
)
from celosia_spec.isa.descriptor import WORD_BITS
from celosia_spec.isa.timing import Timing

DESCRIPTORS = data.StructLayout(
    {name: layout(group) for name, group in DESCRIPTOR.groups.items()})
"""The fields of a descriptor, by the block that reads them."""

SLOT_BITS = (EXPONENT_SLOTS - 1).bit_length()
"""Width of an exponent slot's number."""

FETCH = data.StructLayout({
    "word": 1,       # word number ``count`` of the descriptor; the one before is taken over
    "again": 1,      # with ``word``: the last word to be prefetched, which is number count - 1
    "input": 1,      # the exponent of the layer's input
    "residual": 1,   # the exponent of its residual operand
    "batch": 1,      # the batch word
})
"""What is read in this cycle: one of these, or nothing, and then what the host addresses."""


class Program(wiring.Component):
    """Memory of descriptors and batch words, with exponents at its end. It holds the descriptor
    that is loaded word by word, and goes through the layer's batch words.

    Members
    -------
    start : In(1), first : In(8), following : In(1)
        Strobes: the descriptor that is read is number ``first``; it is the one behind it.
    fetch : In(FETCH), count : In(range(DESCRIPTOR_WORDS + 1))
    take : In(1)
        Strobe: the batch word was taken over; the next one is read.
    write : In(1), exponent : In(signed(8))
        Strobe: the exponent goes into the output's slot.
    word : Out(16)
        What was read in the cycle before.
    descriptors : Out(DESCRIPTORS)
    host_program, host_exponents : In(HostMemory)
        Addresses of words and of slots. While a layer runs, neither.

    Timing
    ------
    The host's values come a cycle after their addresses. Reset leaves the memory alone.
    """

    def __init__(self, array: ArrayConfig) -> None:
        self.array = array
        super().__init__({
            "start": In(1), "first": In(8), "following": In(1), "fetch": In(FETCH),
            "count": In(range(DESCRIPTOR_WORDS + 1)), "take": In(1),
            "write": In(1), "exponent": In(signed(8)),
            "word": Out(WORD_BITS), "descriptors": Out(DESCRIPTORS),
            "host_program": In(HostMemory(readable=True)),
            "host_exponents": In(HostMemory(readable=True)),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.memory = memory = TableMemory(self.array.program_words, WORD_BITS)
        read, write, layer = memory.read, memory.write, self.descriptors.control
        base, batch = Signal.like(read.addr), Signal.like(read.addr)

        def place(slot: Value) -> Value:
            """Return where the exponent of a slot stands."""
            return memory_of(Space.PROGRAM).depth(self.array) + slot[:SLOT_BITS]

        exponent, program = self.host_exponents, self.host_program
        host = Mux(exponent.select, place(exponent.address), program.address)
        m.d.comb += [
            self.word.eq(read.data), read.addr.eq(host), write.addr.eq(host),
            write.en.eq(program.write | exponent.write), write.data.eq(program.data),
            *(port.value.eq(read.data.as_signed()) for port in (program, exponent)),
        ]
        for name, address in (("word", base + self.count),
                              ("again", base + (Timing.of(self.array).prefetch - 1)),
                              ("input", place(layer.input_slot)),
                              ("residual", place(layer.residual_slot)), ("batch", batch)):
            with m.If(self.fetch[name]):
                m.d.comb += read.addr.eq(address)
        with m.If(self.write):
            m.d.comb += [write.en.eq(1), write.addr.eq(place(layer.output_slot)),
                         write.data.eq(self.exponent)]
        with m.If(self.start):
            m.d.sync += base.eq(self.first * DESCRIPTOR_WORDS)
        with m.If(self.following):
            m.d.sync += base.eq(base + DESCRIPTOR_WORDS)
        with m.If(self.take):
            m.d.sync += batch.eq(batch + 1)
        with m.If(self._arrives(DESCRIPTOR.places["length_base"].word)):
            m.d.sync += batch.eq(self.word)
        self._hold(m)
        return m

    def _arrives(self, number: int) -> Value:
        """Return whether that word of the descriptor arrives in this cycle."""
        return self.fetch.word & (self.count == number + 1)

    def _hold(self, m: Module) -> None:
        """Hold the descriptor's words, cut into fields."""
        words = Signal(data.ArrayLayout(WORD_BITS, DESCRIPTOR_WORDS))
        for number in range(DESCRIPTOR_WORDS):
            with m.If(self._arrives(number)):
                m.d.sync += words[number].eq(self.word)
        for group in DESCRIPTOR.groups.values():
            for field in group.fields:
                word, low = DESCRIPTOR.places[field.name]
                m.d.comb += self.descriptors[group.name][field.name].eq(
                    words[word][low:low + field.bits])
