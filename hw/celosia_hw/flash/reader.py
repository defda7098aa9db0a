"""Sections of flash, copied to main memory: at the start the resident ones, later others."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import xor
from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from celosia_hw.flash.lines import Lines, Pins
from celosia_hw.memory.main_memory import Access
from celosia_hw.parts.compare import at_least
from celosia_hw.parts.count import counted
from celosia_hw.parts.delay import chain
from celosia_spec.isa.array import CONTROL_BITS, FLASH, Array
from celosia_spec.isa.image import (
    CHECKSUM_BYTES,
    CHECKSUM_INIT,
    CHECKSUM_TERMS,
    HEADER,
    HEADER_BYTES,
    MAGIC,
    TAIL_BYTES,
    UNIT_BYTES,
    UNIT_WORDS,
)
from celosia_spec.isa.registers import Fault

WAKE_SECONDS = 4e-6
"""How long at least the flash is left alone before and behind each command that wakes it."""

_ELEMENTS = UNIT_BYTES * 8 // CONTROL_BITS
_HEADER = _ELEMENTS - HEADER_BYTES * 8 // CONTROL_BITS
_PLACES = {field.name: _HEADER + low // CONTROL_BITS for field, low in HEADER.places()}

_TAIL = TAIL_BYTES * 8 // CONTROL_BITS
assert _TAIL <= _ELEMENTS // 2 <= _HEADER


class Copies(wiring.Signature):
    """Sections that are to be copied, seen from who asks for them.

    copy, unit : strobe, while ``copying`` is 0: copy the section whose header ends that unit, and
                 those behind it as it says.
    copying    : sections are copied; 1 from reset on, until the image is checked.
    """

    def __init__(self) -> None:
        super().__init__({"copy": Out(1), "unit": Out(CONTROL_BITS), "copying": In(1, init=1)})


class Image(wiring.Signature):
    """The state of the image in flash, seen from who reads it.

    checking : from reset on until it is checked.
    ready    : it is whole, and what is resident is in main memory.
    fault    : Fault: otherwise, or where a section that was to be copied is not right, why.
    """

    def __init__(self) -> None:
        super().__init__({"checking": Out(1), "ready": Out(1), "fault": Out(Fault)})


@dataclass(frozen=True)
class _Section:
    """A section that is read.

    unit, element : of main memory, and which of that unit's elements comes next.
    held   : what came last.   boot : the image is checked.
    writes : it goes to main memory.   last : none follows it.
    """

    unit: Signal
    element: Signal
    held: Signal
    boot: Signal
    writes: Signal
    last: Signal


class FlashReader(wiring.Component):
    """Wake the flash, check its image section by section and copy what is resident to main memory;
    then copy section after section on demand.

    Parameters
    ----------
    array : Array
        One with flash.
    clock_hz : float
        Frequency of ``sync``.
    base, script
        See `Lines`.

    Members
    -------
    pins : Out(Pins)
        `FLASH` says how many.
    memory : Out(Access)
        Its side of main memory's port.
    copies : In(Copies)
    copied : Out(1)
        Strobe: a section is in main memory, and its checksum is right.
    stop : In(1)
        Strobe: what is copied on demand is of no use any more. It is not ``copied``, from two
        cycles later on nothing is written, and ``copying`` falls soon. There is no ``fault`` then.
    image : Out(Image)
        ``fault`` stays until ``stop``; a section that is not right is not ``copied``.

    Timing
    ------
    `copy_cycles` from ``copy`` to ``copied`` where the port is free. Where an element comes in 4
    cycles, as many more as elements wait for it, beyond the cycle in which they ask; where it comes
    in more, waiting is free for so many cycles more.
    """

    def __init__(self, array: Array, *, clock_hz: float, base: int,
                 script: Sequence[bytes] = (b"\xab",)) -> None:
        if not array.flash:
            raise ValueError("the array has no flash")
        self.array = array
        wires, cycles = FLASH[array.flash]
        self.lines = Lines(wires, base, script, cycles)
        self.pause = math.ceil(math.log2(WAKE_SECONDS * clock_hz))
        super().__init__({
            "pins": Out(Pins(wires)), "memory": Out(Access(array.main_words, CONTROL_BITS)),
            "copies": In(Copies()), "copied": Out(1), "stop": In(1), "image": Out(Image())})

    def elaborate(self, platform: Any) -> Module:
        m, image = Module(), self.image
        m.submodules.lines = lines = self.lines
        connect(m, lines.pins, flipped(self.pins))
        # Sections are read; what comes are words. Between them stand a section's checksum and, in
        # the unit's last elements, the next one's header.
        going, body = Signal(name="going"), Signal(name="body")
        # The image is checked; the section goes to main memory; none follows it.
        boot = Signal(init=1)
        writes, last = Signal(name="writes", reset_less=True), Signal(name="last", reset_less=True)
        element = Signal(range(_ELEMENTS))
        unit = Signal(self._unit_bits)
        held = Signal(CONTROL_BITS)
        whole, done, turn, begin, end, head = (Signal(name=name) for name in (
            "whole", "done", "turn", "begin", "end", "head"))
        request, grant = self.memory.request, self.memory.grant
        # What the executor asks for has a cycle across the die; what is stopped counts no more.
        asked = Signal()
        goes = self.copies.copy & ~self.stop
        m.d.sync += [asked.eq(goes), self.copies.copying.eq(boot | lines.stays | goes)]
        checks, pausing = self._wake(m, Cat(element, unit), asked)
        m.d.comb += [
            lines.unit.eq(held), lines.free.eq(~request | grant),
            begin.eq(checks | asked), whole.eq(lines.come & lines.part.all()),
            # Words that are written are done when they are, others when they have come.
            done.eq((whole & ~(body & writes)) | (request & grant)),
            image.checking.eq(boot),
            self.memory.address.eq(Cat(element[2:], unit)),
            self.memory.enable.eq(1 << element[:2]), self.memory.data.eq(held),
            lines.end.eq(end), head.eq(going & ~body & at_least(element, _HEADER)),
        ]
        m.d.sync += [
            request.eq(((body & writes & whole) | (request & ~grant)) & ~end),
            # In the cycle behind a unit's last element.
            turn.eq((done | pausing) & element.all()),
        ]
        self._hold(m, whole, held)
        m.d.sync += element.eq(Mux(begin, _HEADER, counted(element, done | pausing)))
        empty = self._header(m, _Section(unit, element, held, boot, writes, last), whole & head,
                             moves=turn & (body | ~going), counts=turn & body)
        wrong = self._compare(m, head, Cat(lines.part, element))
        # From well behind a checksum on until a header, sums begin anew.
        right = self._checksum(m, ~going | (
            ~body & element[-1] & ~at_least(element, _HEADER)))
        summed = chain(m, going & ~body & (element == _TAIL - 1) & whole, 2, "summed",
                       reset_less=False)[-1]
        known, stops = Signal(), Signal()
        m.d.comb += stops.eq(self.stop & ~boot)
        m.d.sync += [end.eq(stops), self.copied.eq(0)]
        with m.If(turn):
            m.d.sync += body.eq(going & ~(body & empty))
        with m.If(turn & going & ~body & wrong.any()):
            m.d.sync += [end.eq(1), image.ready.eq(0), image.fault.eq(Mux(
                wrong[0], Mux(known, Fault.DAMAGED, Fault.ABSENT), Fault.FOREIGN))]
        with m.If(summed):
            m.d.sync += [
                end.eq(last | ~right), known.eq(known | right),
                self.copied.eq(right & ~boot & ~self.stop & ~end),
                image.ready.eq(right & (image.ready | (boot & last)))]
            with m.If(~right):
                m.d.sync += image.fault.eq(Fault.DAMAGED)
        with m.If(stops):
            m.d.sync += image.fault.eq(Fault.NONE)
        with m.If(end):
            m.d.sync += [body.eq(0), boot.eq(0)]
        m.d.sync += going.eq(begin | (going & ~end))
        return m

    def _header(self, m: Module, section: _Section, comes: Value, *, moves: Value,
                counts: Value) -> Value:
        """Take the header's fields, each when it is held; ``comes``: one does. Move the unit on,
        count the section's units, and return with ``counts`` whether that one was the last."""
        held, boot = section.held, section.boot
        here = {name: Signal(name=f"{name}_is_there") for name in ("resident", "first", "units")}
        m.d.sync += [there.eq(comes & (section.element == _PLACES[name]))
                     for name, there in here.items()]
        with m.If(here["resident"]):
            m.d.sync += [section.writes.eq(held[0] | ~boot),
                         section.last.eq(Mux(boot, held[1], ~held[2]))]
        left = Signal(self._unit_bits, reset_less=True)
        for name, counter, step in (("first", section.unit, moves), ("units", left, counts)):
            bits, load = len(counter), here[name]
            # What is added beside the step lets a cell of the sum load, too.
            total = counter + Cat(step, load.replicate(bits - 1), Const(0, 1))
            m.d.sync += counter.eq(Mux(load, held[:bits], total[:bits]))
        return total[bits]

    @property
    def _unit_bits(self) -> int:
        """Width of a unit of main memory; with the elements of one, it counts pauses."""
        return max((self.array.main_words // UNIT_WORDS - 1).bit_length(),
                   self.pause - (_ELEMENTS - 1).bit_length())

    def _wake(self, m: Module, count: Value, asked: Value) -> tuple[Signal, Signal]:
        """Pause, and carry out the script's commands, each with a pause behind it; return the
        strobe that the image is checked, and whether ``count`` counts a pause."""
        lines = self.lines
        pausing, over, checks = Signal(init=1), Signal(), Signal()
        step = Signal(range(len(lines.script) + 1))
        m.d.comb += [
            lines.step.eq(step),
            lines.begin.eq(over | asked), lines.wake.eq(step != len(lines.script)),
            checks.eq(over & ~lines.wake),
        ]
        m.d.sync += over.eq(pausing & ~over & count[:self.pause].all())
        with m.If(over):
            m.d.sync += pausing.eq(0)
        with m.If(lines.wake & ~pausing & ~lines.busy):
            m.d.sync += [pausing.eq(1), step.eq(step + 1)]
        return checks, pausing

    def _hold(self, m: Module, whole: Value, held: Signal) -> None:
        """Keep the section's unit while its address goes out, then each element."""
        lines, before = self.lines, Signal(CONTROL_BITS - 4, reset_less=True)
        with m.If(lines.come):
            m.d.sync += before.eq(Cat(lines.nibble, before))
        with m.If(~self.copies.copying):
            m.d.sync += held.eq(self.copies.unit)
        with m.Elif(whole):         # the byte that came first is the lower one
            m.d.sync += held.eq(Cat(before[4:], lines.nibble, before[:4]))

    def _checksum(self, m: Module, begins: Value) -> Signal:
        """Return whether the checksum was right a cycle ago. `amaranth.lib.crc` takes four cells
        of an iCE40 more, with `start`, and five with a reset of its own."""
        lines, bits = self.lines, 8 * CHECKSUM_BYTES
        sum_, right = Signal(bits, name="sum"), Signal(name="right")
        feeds = sum_[bits - 4:] ^ lines.nibble
        with m.If(lines.come):
            m.d.sync += sum_.eq((sum_ << 4) ^ _product(feeds, CHECKSUM_TERMS))
        with m.If(begins):
            m.d.sync += sum_.eq(CHECKSUM_INIT)
        m.d.sync += right.eq(sum_ == 0)
        return right

    def _compare(self, m: Module, head: Value, place: Value) -> Signal:
        """Return what is wrong with a header: its magic number, the array's hash."""
        data = HEADER.pack(magic=MAGIC, array=self.array.hash).to_bytes(
            HEADER_BYTES, "little")
        size = (HEADER["magic"].bits + HEADER["array"].bits) // 4
        wanted = sum((data[k // 2] >> 4 * (1 - k % 2) & 0xF) << 4 * k for k in range(size))
        wrong, number = Signal(2), Signal(range(HEADER_BYTES * 2))
        m.d.comb += number.eq(place)
        differs = Signal(2)             # in the nibble before
        first = number < HEADER["magic"].bits // 4
        m.d.sync += differs.eq(Mux(first, 1, 2) & (
            head & self.lines.come & ~at_least(number, size)
            & (self.lines.nibble != Const(wanted, 4 * size).word_select(number, 4))).replicate(2))
        with m.If(head):
            m.d.sync += wrong.eq(wrong | differs)
        with m.Else():
            m.d.sync += wrong.eq(0)
        return wrong


def _product(value: Value, terms: Sequence[int]) -> Value:
    """Return the polynomial ``value`` times the sum of x to these exponents."""
    return reduce(xor, (value << term for term in terms))
