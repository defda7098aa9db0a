"""Exponents of maps, by their slots, and how a slot gets its own."""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from celosia_hw.layouts import layout
from celosia_hw.output.control import LayerExponents, SlotMemory
from celosia_hw.parts.compare import larger
from celosia_spec.isa.array import CONTROL_BITS
from celosia_spec.isa.controls import CLOSE, JOIN
from celosia_spec.isa.numbers import EXPONENT_BITS, SLOT_BITS


class HostSlots(wiring.Signature):
    """The host's use of slots, seen from the host.

    write, slot, exponent : strobe: the slot gets its exponent, + 16.
    """

    def __init__(self) -> None:
        super().__init__({"write": Out(1), "slot": Out(SLOT_BITS), "exponent": Out(EXPONENT_BITS)})


class SlotOrders(wiring.Signature):
    """What happens to slots, seen from who says it.

    word          : control word, for all others; a slot stands in its lowest bits.
    first, second : strobes: it has the slot of the layer's input, or of a join's first exponent; of
                    its residual operand, or of the second one, and its room.
    set, join     : until the cycle behind ``closed``: its slot gets the largest exponent that was
                    written since the last ``closed``, with ``join``, which is there from the
                    strobes on, the larger one of the last two that these asked for, within the
                    word's bounds.
    closed        : strobe: it has it.
    """

    def __init__(self) -> None:
        super().__init__({"word": Out(CONTROL_BITS), "first": Out(1), "second": Out(1),
                          "set": Out(1), "join": Out(1), "closed": In(1)})


class Exponents(wiring.Component):
    """Slots with an exponent each. All exponents are stored, and handed on, + 16.

    Members
    -------
    orders : In(SlotOrders), top : In(5)
        ``top`` is the largest exponent that was written.
    layer : Out(LayerExponents)
        What the slots of the last ``first`` and ``second`` held, three cycles behind, until the
        next ``set``.
    idle : In(1), host : In(HostSlots), stored : Out(5)
        The host's, while ``idle``; ``stored`` is the exponent of its slot a cycle later.
    memory : Out(SlotMemory)

    Timing
    ------
    ``closed`` follows ``set`` in five cycles; it comes in the cycle behind ``second`` or later.
    """

    def __init__(self) -> None:
        super().__init__({
            "orders": In(SlotOrders()), "top": In(EXPONENT_BITS), "layer": Out(LayerExponents()),
            "memory": Out(SlotMemory()), "idle": In(1), "host": In(HostSlots()),
            "stored": Out(EXPONENT_BITS),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        memory, orders, closed = self.memory, self.orders, self.layer.closed
        bound = data.View(layout(CLOSE.words[0]), orders.word[:CLOSE.words[0].bits])
        m.d.comb += [
            self.stored.eq(memory.held), orders.closed.eq(closed),
            memory.slot.eq(Mux(self.idle, self.host.slot, orders.word[:SLOT_BITS])),
        ]
        # No layer runs while a slot is set: so it is done in the registers of the layer's own
        # exponents. What was found, then not below the least, then not above the most, then it is
        # written. Each of them is held, and compared a cycle later. Less its room an exponent may
        # be too large for a slot in between, and where it is below all, it is not taken.
        value, other, step = (Signal(EXPONENT_BITS + 1, name="value"),
                              Signal(EXPONENT_BITS + 1, name="other"), Signal(2))
        room, moved = Signal(signed(JOIN["room"].bits)), Signal(signed(EXPONENT_BITS + 2))
        second = data.View(layout(JOIN.words[1]), orders.word[:JOIN.words[1].bits])
        taken, takes_it, takes_larger, takes_smaller, found, written = (
            Signal(name=name) for name in (
                "taken", "takes_it", "takes_larger", "takes_smaller", "found", "written"))
        first = Signal()
        # Bounds have a sign: their top bit says whether they are less than 16.
        least, most = (Cat(number[:-1], ~number[-1]) for number in (bound.least, bound.most))
        m.d.comb += [
            found.eq(orders.set & ~orders.join & (step == 0)), moved.eq(memory.held - room),
            self.layer.input.eq(value), self.layer.residual.eq(other),
        ]
        m.d.sync += [
            first.eq(orders.first), taken.eq(orders.first | orders.second), takes_it.eq(first),
            room.eq(Mux(orders.second & orders.join, second.room, 0)),
            takes_larger.eq((step == 1) | (taken & ~first & orders.join & ~moved[-1])),
            takes_smaller.eq(step == 2), written.eq(step == 3), closed.eq(written),
            step.eq(step + (orders.set & ~written & ~closed)),
        ]
        with m.If(taken | orders.set):
            m.d.sync += other.eq(Mux(step[0], least, Mux(step[1], most, moved[:-1])))
        with m.If(found | takes_it | Mux(larger(other, value), takes_larger, takes_smaller)):
            m.d.sync += value.eq(Mux(found, self.top, other))
        m.d.comb += [
            memory.keep.eq(written | (self.idle & self.host.write)),
            memory.kept.eq(Mux(self.idle, self.host.exponent, value)),
        ]
        return m
