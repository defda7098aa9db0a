"""The lines of an SPI flash: a command and an address go out, nibbles come in."""

from collections.abc import Sequence
from typing import Any

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from celosia_hw.parts.compare import at_least
from celosia_hw.parts.delay import chain
from celosia_spec.isa.array import CONTROL_BITS
from celosia_spec.isa.controls import COPY
from celosia_spec.isa.image import (
    ADDRESS_BITS,
    COMMAND_BITS,
    HEADER_BYTES,
    READ_CLOCKS,
    UNIT_BYTES,
)

READ = {2: 0x3B, 4: 0x6B}
"""Read commands by the wires that data come on."""

_FIRST = 8
_DUMMY = _FIRST + COMMAND_BITS + ADDRESS_BITS
_DATA = _FIRST + READ_CLOCKS
"""Numbers of the clocks with which the command, dummy clocks and data begin. They are such that an
element's first clock has a multiple of its clocks."""

_UNIT_BITS, _ELEMENT_BITS = COPY["unit"].bits, CONTROL_BITS


class Pins(wiring.Signature):
    """Pins of a flash, seen from who reads it. All of them have a register at the pin.

    cs    : select, high when the chip is selected.
    clock : where the pin has a double-data-rate register, what it is in the second half of a cycle,
            low in the first; else the pin.
    copi, drive : data pin 0; it, and with 4 wires 1 at pins 2 and 3, are driven while ``drive``,
            pin 1 never.
    i     : the data pins.
    """

    def __init__(self, wires: int) -> None:
        super().__init__({"cs": Out(1), "clock": Out(1), "copi": Out(1), "drive": Out(1),
                          "i": In(wires)})


class Lines(wiring.Component):
    """One transaction at a time: a command that reads from an address on until it is ended, or a
    command that only does something.

    Parameters
    ----------
    wires : int
        Data pins of a read: 2, or 4, where the flash must have its quad enable bit set.
    base : int
        Address of the image, a multiple of 64 KiB. The image may be as long as the largest power of
        two that ``base`` is a multiple of.
    script : sequence of bytes
        Commands that wake the flash, of one or two bytes.
    cycles : int
        Cycles of a clock of the flash: 1 where the pin has a double-data-rate register, 2.

    Members
    -------
    pins : Out(Pins)
    begin : In(1), unit : In(16), busy : Out(1), stays : Out(1)
        Strobe, while ``busy`` is 0: read from the header on that ends this unit of the image.
        ``unit`` is stable until the first nibble. ``busy`` is 1 until the last nibble has come;
        ``stays`` is what it will be in the next cycle.
    wake : In(1), step : In
        With ``begin``: this command of the script instead. ``wake`` and ``step`` are stable.
    end : In(1)
        Strobe: nothing more is read. Nibbles that are on their way still come, and mean nothing.
    free : In(1)
        An element may be completed. Otherwise the clock stops before the element's last bits.
    come : Out(1), nibble : Out(4), part : Out(2)
        Strobe: the next four bits, the highest first; which of its element's nibbles they are.
    """

    def __init__(self, wires: int, base: int, script: Sequence[bytes] = (b"\xab",),
                 cycles: int = 1) -> None:
        if wires not in READ:
            raise ValueError(f"wires must be 2 or 4, not {wires!r}")
        if not 0 < base < 1 << ADDRESS_BITS or base % (1 << 16):
            raise ValueError(f"base must be a multiple of 64 KiB below 16 MiB, not {base:#x}")
        if cycles not in (1, 2):
            raise ValueError(f"cycles must be 1 or 2, not {cycles!r}")
        if not script or any(len(command) not in (1, 2) for command in script):
            raise ValueError("script must have commands of one or two bytes")
        self.wires, self.base, self.script = wires, base, tuple(script)
        self.cycles = cycles
        super().__init__({
            "pins": Out(Pins(wires)), "begin": In(1), "unit": In(_UNIT_BITS), "wake": In(1),
            "step": In(range(len(script))), "end": In(1), "free": In(1), "busy": Out(1),
            "stays": Out(1), "come": Out(1), "nibble": Out(4), "part": Out(2),
        })

    def elaborate(self, platform: Any) -> Module:
        m, pins = Module(), self.pins
        number, data, tick = Signal(6, reset_less=True), Signal(), Signal(init=1)
        last, done, pulse, active = Signal(), Signal(), Signal(), Signal()
        count = Signal(range(_ELEMENT_BITS // self.wires))      # clocks of an element, as they come
        if self.cycles == 2:
            m.d.sync += tick.eq(active & ~tick)
        lengths = [8 * len(command) for command in self.script]
        m.d.comb += [
            last.eq(number[:len(count)].all()),
            pulse.eq(active & tick & (~(data & last) | self.free)),
            done.eq(self.wake & pulse & (number == Array(
                [_FIRST + length - 1 for length in lengths])[self.step])),
        ]
        m.d.sync += [
            active.eq((active & ~done & ~self.end) | self.begin), pins.cs.eq(active),
            pins.clock.eq(pulse), pins.copi.eq(self._bit(number)),
            pins.drive.eq(active & ~data & (self.wake | ~at_least(number, _DUMMY))),
        ]
        m.d.sync += [number.eq(Mux(self.begin, _FIRST, number + pulse)),
                     data.eq(~self.begin & (data | (pulse & (number == _DATA - 1))))]
        # The registers of the clock, of its pin, and of the data's.
        came = chain(m, pulse & data, 3, "came", reset_less=False)[-1]
        was = chain(m, pins.cs, 2, "was", reset_less=False)
        m.d.comb += self.stays.eq(self.begin | active | Cat(*was[:-1]).any())
        m.d.sync += self.busy.eq(self.stays)
        with m.If(self.begin):
            m.d.sync += count.eq(0)
        with m.Elif(came):
            m.d.sync += count.eq(count + 1)
        if self.wires == 4:
            m.d.comb += [self.come.eq(came), self.nibble.eq(pins.i), self.part.eq(count)]
        else:
            before = Signal(2, reset_less=True)
            with m.If(came):
                m.d.sync += before.eq(pins.i)
            m.d.comb += [self.come.eq(came & count[0]), self.nibble.eq(Cat(pins.i, before)),
                         self.part.eq(count[1:])]
        return m

    def _bit(self, number: Signal) -> Value:
        """Return the bit that goes out with the clock of this number."""
        sent = READ[self.wires] << ADDRESS_BITS | self.base | UNIT_BYTES - HEADER_BYTES
        fixed = sum((sent >> _DUMMY - 1 - k & 1) << k for k in range(_FIRST, _DUMMY))
        first = _DUMMY - (UNIT_BYTES.bit_length() - 1) - _UNIT_BITS
        # The base has no lower ones.
        size = ((self.base & -self.base) // UNIT_BYTES).bit_length() - 1
        bits = [self.unit[k] if k < size else Const(0, 1) for k in range(_UNIT_BITS)]
        unit = Array([bits[(first - 1 - k) % _UNIT_BITS] for k in range(_UNIT_BITS)])[number[:4]]
        inside = at_least(number, first) & ~at_least(number, first + _UNIT_BITS)
        told = 0
        for step, command in enumerate(self.script):
            for k in range(8 * len(command)):
                bit = command[k // 8] >> 7 - k % 8 & 1
                told |= bit << 16 * step + (_FIRST + k) % 16
        wakes = Const(told, 16 * len(self.script)).bit_select(Cat(number[:4], self.step), 1)
        return Mux(self.wake, wakes, Const(fixed, 64).bit_select(number, 1) | (inside & unit))
