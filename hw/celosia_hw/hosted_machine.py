"""The machine behind the host bus."""

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import Out

from celosia_hw.flash.reader import FlashReader
from celosia_hw.layouts import layout
from celosia_hw.machine import Machine
from celosia_hw.signatures import HOST_BUS, connect_members, flipped_members
from celosia_spec.isa.array import CONTROL_BITS, ENTRY_WORDS, Array
from celosia_spec.isa.fabric import GENERIC, Fabric
from celosia_spec.isa.memories import UPPER_HALF, Space, memory_of
from celosia_spec.isa.numbers import EXPONENT_BITS
from celosia_spec.isa.registers import COUNTER_BITS, STATUS, Error, Register


class HostedMachine(wiring.Component):
    """Run streams out of main memory, on the host's bus.

    Parameters
    ----------
    array : Array
        Its hash is readable as ``Register.ARRAY_HASH``.
    fabric, main_memory, reader
        See `Machine`. While the host's space is main memory and nothing runs, its port is the
        host's: the reader waits.

    Members
    -------
    mem_space, mem_address, mem_write, mem_wdata, mem_read, mem_rdata, mem_rvalid
        Memories, see `celosia_spec.isa.memories.Space`. A write is a strobe with address and
        data; its space stands from the cycle before it on, and all three for a cycle more, but for
        the element's place in its word. Space and address of a read
        hold from the cycle before the strobe ``mem_read`` until ``mem_rvalid``, a strobe that comes
        with the data, 3 cycles later, 4 of several clusters. Of a word of main memory the first
        element is read first, and the others in their order; nothing is written or kept between.
        Registers can be read always, other memories while not busy. Writes while busy are ignored.
        A register has 32 bits, the upper half of them where address + 4 is; an exponent has five.
    mem_keep, mem_kept
        Four elements that are kept: see `BitPort`. They stay until a read or a start.
    start, start_list : In(1), In(16)
        Strobe, while not busy: run the stream whose list of chunks begins in this word of main
        memory.    busy : Out(1), done : Out(1)
        From the cycle behind ``start`` until the one behind the machine's last. Strobe: that last
        one, unless the run was aborted or an error ended it. A start that is refused, see `Error`,
        is not followed by either.
    error : Out(8), saturated : Out(1)
        `Error` code of the last run, and whether a mantissa was clipped.
    abort : In(1)
        Strobe: stop at once; main memory and exponents keep what they have. From two cycles behind
        it on memories can be accessed, and a run be started.
    flash_cs, flash_clock, flash_copi, flash_drive, flash_i, checking, ready, fault
        See `Pins` and `Image`; only with a reader.
    """

    def __init__(self, array: Array, *, fabric: Fabric = GENERIC, main_memory: str = "bram",
                 reader: FlashReader | None = None) -> None:
        self.array = array
        self.machine = Machine(array, fabric=fabric, main_memory=main_memory, reader=reader)
        self.pins = dict(reader.pins.signature.members) if reader else {}
        self.image = dict(reader.image.signature.members) if reader else {}
        super().__init__({**flipped_members(HOST_BUS), "done": Out(1), **self.image,
                          **{f"flash_{name}": member for name, member in self.pins.items()}})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        machine, stop, ran = self.machine, Signal(), Signal()
        # What is wrong with the flash: a start is refused then, and a run ends.
        fault, refused, failed = Signal(STATUS["fault"].bits), Signal(), Signal()
        m.submodules.machine = machine
        if self.image:
            connect_members(m, machine.image, self, self.image)
            connect_members(m, machine.flash, self, self.pins, "flash_")
            m.d.comb += [fault.eq(self.fault), failed.eq(self.busy & fault.any()),
                         refused.eq(self.checking | fault.any())]
        ends = self.abort | machine.wrong | failed
        # The machine's own busy hangs on much: the host's is a register, and falls a cycle later.
        goes = machine.run.start | (self.busy & machine.busy & ~ends)
        m.d.sync += [stop.eq(ends), ran.eq(self.busy), self.busy.eq(goes)]
        m.d.comb += [
            self.saturated.eq(machine.saturated), self.done.eq(self.busy & ~machine.busy & ~ends),
            machine.run.start.eq(self.start & ~refused), machine.stop.eq(stop),
            machine.run.list.eq(self.start_list),
        ]
        with m.If((self.start & refused) | failed):
            m.d.sync += self.error.eq(Error.EARLY | fault)
        with m.Elif(self.start | self.abort):
            m.d.sync += self.error.eq(Error.NONE)
        with m.Elif(machine.wrong):
            m.d.sync += self.error.eq(Error.COMMAND)
        self._memories(m, ran, goes)
        return m

    def _memories(self, m: Module, ran: Value, goes: Value) -> None:
        """Read and write while the machine stands still: then the port is the host's."""
        machine, port = self.machine, self.machine.host
        slots, kept = machine.slots, machine.elements
        ours, exponents = Signal(), Signal()
        element = Signal(range(ENTRY_WORDS))
        late = int(self.machine.array.clusters > 1)     # words of main memory come a cycle later
        read = Signal(2 + late)     # as many cycles ago
        m.d.comb += [
            port.request.eq(ours), Cat(element, port.address).eq(self.mem_address),
            # A word is taken apart with its first element; the others move on to where it was.
            kept.split.eq(read[late] & (element == 0)),
            kept.push.eq(self.mem_keep | (read[late] & (element != 0))),
            kept.pushed.eq(self.mem_wdata), slots.write.eq(self.mem_write & exponents),
            port.data.eq(self.mem_wdata),
            # Inside, exponents are + 16.
            slots.slot.eq(self.mem_address), slots.exponent.eq(self.mem_wdata ^ _SIGN),
        ]
        m.d.sync += [ours.eq((self.mem_space == Space.MAIN) & ~goes),
                     exponents.eq((self.mem_space == Space.EXPONENTS) & ~goes),
                     port.enable.eq(self.mem_write << element),
                     Cat(read, self.mem_rvalid).eq(Cat(self.mem_read, read))]
        registers = self._registers(m, ran)
        with m.If((self.mem_space == Space.MAIN) | self.mem_kept):
            m.d.sync += self.mem_rdata.eq(kept.word)
        with m.Elif(self.mem_space == Space.EXPONENTS):
            m.d.sync += self.mem_rdata.eq(machine.stored ^ _SIGN)
        with m.Else():
            m.d.sync += self.mem_rdata.eq(registers)

    def _registers(self, m: Module, ran: Value) -> Value:
        """Return the half of a register that is addressed."""
        cycles, status = Signal(COUNTER_BITS), Signal(layout(STATUS))
        m.d.sync += cycles.eq(cycles + (self.busy & ran))
        with m.If(self.start):
            m.d.sync += cycles.eq(0)
        m.d.comb += [getattr(status, name).eq(getattr(self, name))
                     for name in ("busy", "saturated", "error")]
        m.d.comb += [getattr(status, name).eq(getattr(self, name)) for name in self.image]
        upper, number = self.mem_address[_UPPER], self.mem_address[:_UPPER]
        halves = [value.word_select(upper, CONTROL_BITS)
                  for value in (Const(self.array.hash, _REGISTER_BITS), cycles)]
        return Mux(number == Register.STATUS, status.as_value(),
                   Mux(number == Register.ARRAY_HASH, *halves))


_UPPER = UPPER_HALF.bit_length() - 1
"""Bit of an address that tells the halves of a register apart."""

_REGISTER_BITS = memory_of(Space.REGISTERS).word.bits

_SIGN = 1 << EXPONENT_BITS - 1
"""Bit of an exponent in which it differs from the exponent + 16."""
