"""Exponents of maps, by their slots, and the rule by which a layer's output gets its own."""

from typing import Any

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from celosia_hw.layouts import layout
from celosia_hw.parts.table_memory import TableMemory
from celosia_spec.isa import EXPONENT_MIN, EXPONENT_SLOTS
from celosia_spec.stream.controls import LAYER, Rule

SLOT_BITS = (EXPONENT_SLOTS - 1).bit_length()


class Exponents(wiring.Component):
    """Slots with an exponent each. All exponents are stored, and handed on, + 16.

    Members
    -------
    layer : In(LAYER), load : In(1)
        Strobe: its slots are there from the next cycle on.
    exponent, residual : Out(5)
        Of the layer's input and of its residual operand.
    fill : In(1), slot : In(5), filled : Out(5)
        Strobe: a fill begins, and wants the exponent of ``slot``.
    close, join : In(1), top : In(5), closed : Out(1)
        Strobes: the output's slot gets its exponent, by the layer's `Rule`; it has it. ``top`` is
        the largest that was written since the last ``closed``. With ``join``, from ``close`` to
        ``closed``, it is the largest of ``exponent``, ``residual`` and the layer's least one;
        ``load`` was in the cycle before, or earlier.
    idle : In(1), write : In(1), address : In(5), value : In(5), stored : Out(5)
        The host's, while ``idle``: strobe, a slot gets its exponent; ``stored`` is that of
        ``address`` a cycle later.

    Timing
    ------
    ``filled`` follows ``fill`` in three cycles, ``exponent`` and ``residual`` follow ``load`` in
    six, if there is no more than one ``fill`` among them. ``closed`` follows ``close`` in eight.
    """

    def __init__(self) -> None:
        super().__init__({
            "layer": In(layout(*LAYER.words)), "load": In(1), "exponent": Out(SLOT_BITS),
            "residual": Out(SLOT_BITS), "fill": In(1), "slot": In(SLOT_BITS),
            "filled": Out(SLOT_BITS), "close": In(1), "join": In(1), "top": In(SLOT_BITS),
            "closed": Out(1),
            "idle": In(1), "write": In(1), "address": In(SLOT_BITS), "value": In(SLOT_BITS),
            "stored": Out(SLOT_BITS),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.slots = slots = TableMemory(EXPONENT_SLOTS, SLOT_BITS)
        layer, read, write = self.layer, slots.read, slots.write
        # Who wants to read, the first one first; and whose word it is that was read.
        wants = {name: Signal(name=f"want_{name}") for name in ("input", "residual", "output")}
        takes = {name: Signal(name=f"take_{name}") for name in ("fill", *wants)}
        slot_of = {"input": layer.in_slot, "residual": layer.residual_slot,
                   "output": layer.out_slot}
        m.d.comb += [read.en.eq(1), read.addr.eq(self.slot), self.stored.eq(read.data)]
        m.d.sync += takes["fill"].eq(self.fill)
        before: Value = self.fill
        with m.If(self.idle):
            m.d.comb += read.addr.eq(self.address)
        for name, want in wants.items():
            now = want & ~before
            with m.If(now):
                m.d.comb += read.addr.eq(slot_of[name])
            m.d.sync += [want.eq(want & before), takes[name].eq(now)]
            before = before | want
        with m.If(self.load):
            m.d.sync += [wants["input"].eq(1), wants["residual"].eq(1)]
        with m.If(self.close):
            m.d.sync += wants["output"].eq(1)
        for name, register in (("fill", self.filled), ("input", self.exponent),
                               ("residual", self.residual)):
            with m.If(takes[name]):
                m.d.sync += register.eq(read.data)
        self._close(m, takes["output"], write)
        return m

    def _close(self, m: Module, begin: Signal, write: Any) -> None:
        """Choose the output's exponent, in three cycles from ``begin`` on."""
        layer, value = self.layer, Signal(SLOT_BITS, reset_less=True)
        least, most, chosen = Signal(SLOT_BITS), Signal(SLOT_BITS), Signal(SLOT_BITS)
        current, bound, larger = Signal(SLOT_BITS), Signal(SLOT_BITS), Signal()
        stages = [Signal(name=f"stage{k}") for k in range(2)]
        m.d.comb += [
            # Exponents that a layer has lie in the range of slots.
            least.eq(layer.least - EXPONENT_MIN), most.eq(layer.exponent - EXPONENT_MIN),
            current.eq(Mux(begin, Mux(self.join, self.exponent, self.top), value)),
            bound.eq(Mux(begin & self.join, self.residual, least)), larger.eq(bound > current),
        ]
        m.d.sync += [stages[0].eq(begin), stages[1].eq(stages[0]), self.closed.eq(stages[1]),
                     value.eq(Mux(larger, bound, current))]
        with m.If(self.join):
            m.d.comb += chosen.eq(value)
        with m.Elif(layer.rule == Rule.STATIC):
            m.d.comb += chosen.eq(most)
        with m.Elif(layer.rule == Rule.KEPT):
            m.d.comb += chosen.eq(self.exponent)
        with m.Else():
            m.d.comb += chosen.eq(Mux(value > most, most, value))
        m.d.comb += [
            write.en.eq(stages[1] | (self.idle & self.write)),
            write.addr.eq(Mux(self.idle, self.address, layer.out_slot)),
            write.data.eq(Mux(self.idle, self.value, chosen)),
        ]
