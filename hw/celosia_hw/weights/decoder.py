"""The decoder of weight words: mantissas, and where in the banks their operands lie."""

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from celosia_hw.layouts import layout
from celosia_hw.parts.delay import chain, delayed
from celosia_hw.parts.table_memory import TableMemory
from celosia_hw.signatures import HostMemory, Operands, Peek, RowSource, Steps
from celosia_spec.isa import BLOCK_BITS, DESCRIPTOR, ArrayConfig, tap_word, weight_word
from celosia_spec.isa.timing import Timing


class Decoder(wiring.Component):
    """Decode one weight word a cycle for every row group.

    A column index is the sum of the steps since the pass began. Its low ``BLOCK_BITS`` bits are a
    channel inside a block, the bits above, plus the phase's base, an entry of the tap table, which
    holds the block's bank-row offset and rotation.

    Parameters
    ----------
    array : ArrayConfig

    Members
    -------
    steps : In(Steps)
        The row of a step goes on to ``rows`` in the same cycle.
    rows : In(RowSource)
    operands : Out(Operands)
    layer : In(descriptor group "weights")
        Stable while steps are in flight.
    peek : In(Peek)
        Works a cycle later.
    host_taps : In(HostMemory)
        Writes only: of the tap table; every quad holds the same contents.

    Timing
    ------
    ``operands`` are valid ``latency`` cycles after ``steps``; a deep array has one more register
    behind the weight memory and one behind the tap table.
    """

    def __init__(self, array: ArrayConfig) -> None:
        self.array, self.deep = array, array.deep
        self.latency = Timing.of(array).stream
        super().__init__({
            "steps": In(Steps(array)), "rows": In(RowSource.of(array)),
            "operands": Out(Operands(array)), "layer": In(layout(DESCRIPTOR.groups["weights"])),
            "peek": In(Peek(array)), "host_taps": In(HostMemory(readable=False)),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        array = self.array
        quads = array.groups_max
        flags = chain(m, self.steps.flags, self.latency, "flags", reset_less=False)
        m.d.comb += [self.rows.row.eq(self.steps.row), self.operands.flags.eq(flags[-1]),
                     self.operands.ahead.eq(flags[-2])]
        at = 1 + self.deep                          # cycles from a step to its words
        slot = delayed(m, self.steps.slot, at, "slot")
        words = [delayed(m, self.rows.words[q], at - 1, f"words{q}") for q in range(quads)]

        # Tap base of the phase; used two cycles after the word is selected.
        tap_base = Signal(range(array.taps))
        selected = at + (self.deep or not array.replicate)
        step = flags[selected]
        with m.If(step.valid & step.first):
            m.d.sync += tap_base.eq(Mux(step.tile_first, self.layer.tap_base[:len(tap_base)],
                                        tap_base + self.layer.tap_step[:len(tap_base)]))

        for q in range(quads):
            chosen = words[q]
            if not array.replicate:
                chosen = Signal(weight_word(array).bits, name=f"chosen{q}")
                self._choose(m, q, chosen, words, slot)
            word = delayed(m, chosen, selected - at, f"word{q}")
            self._decode(m, q, data.View(layout(weight_word(array)), word), step, tap_base)
        return m

    def _choose(self, m: Module, q: int, chosen: Value, words: list[Value], slot: Value) -> None:
        """The word of a quad: the slot of its group."""
        quads, slot_bits = self.array.groups_max, self.array.groups_max.bit_length() - 1
        word_layout = data.ArrayLayout(weight_word(self.array).bits, quads)
        with m.Switch(self.layer.log2_groups[:3]):
            for groups in range(slot_bits + 1):
                with m.Case(groups):
                    offset = Const(q >> (slot_bits - groups), max(1, groups))
                    index = Cat(offset[:groups], slot[groups:slot_bits])
                    m.d.comb += chosen.eq(data.View(word_layout, Cat(words))[index]
                                          if slot_bits else words[0])

    def _decode(self, m: Module, q: int, word: data.View, step: data.View,
                tap_base: Value) -> None:
        """Index, tap table and operand of one quad; ``word`` belongs to ``step``."""
        array = self.array
        index = Signal(array.index_bits, name=f"index{q}")
        with m.If(step.valid):
            m.d.sync += index.eq(Mux(step.first, word.step, index + word.step))
        m.submodules[f"taps{q}"] = taps = TableMemory(
            array.taps, layout(tap_word(array)), output_register=self.deep)
        m.d.comb += [taps.written_by(self.host_taps),
                     taps.read.addr.eq(tap_base + index[BLOCK_BITS:])]
        channel = delayed(m, index[:BLOCK_BITS], taps.latency, f"channel{q}")
        operand, entry = self.operands.operand[q], taps.read.data
        row = Signal.like(operand.row, name=f"row{q}", reset_less=True)
        rotation = Signal.like(operand.rotation, name=f"rotation{q}", reset_less=True)
        m.d.sync += [row.eq(Mux(self.peek.valid, 0, entry.row + channel)),
                     rotation.eq(Mux(self.peek.valid, self.peek.rotation, entry.rotation))]
        m.d.comb += [operand.row.eq(row), operand.rotation.eq(rotation), operand.mantissa.eq(
            delayed(m, word.mantissa, taps.latency + 2, f"mantissa{q}"))]
