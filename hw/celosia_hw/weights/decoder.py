"""The decoder of weight words: mantissas, and where in the banks their operands lie."""

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from celosia_hw.layouts import operand_layout, step_layout
from celosia_spec.isa import BLOCK_BITS, ArrayConfig
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
    step : In(step_layout)
        Flags of the word whose address the weight memory samples in this cycle.
    slot : In
        First slot of the port row that belongs to the step (a multiple of the group count); not
        used by arrays that replicate.
    words : In(groups_max weight words)
        Read data of the weight memory: the port row of the step one cycle before.
    log2_groups, tap_base, tap_step : In
        Of the layer; stable while steps are in flight.
    flags : Out(step_layout), operand : Out(groups_max x operand_layout)
        Decoded step; ``flags_early`` is ``flags`` one cycle ahead.
    host_valid, host_rotation : In
        While ``host_valid``: operands have bank row 0 and this rotation (for the host's reads).
    write_enable, write_address, write_data : In
        Write port of the tap table; every quad holds the same contents.

    Timing
    ------
    ``operand`` is valid ``latency`` cycles after ``step``; a deep array has one more register
    behind the weight memory and one behind the tap table.
    """

    def __init__(self, array: ArrayConfig) -> None:
        self.array, self.deep = array, array.deep
        self.latency = Timing.of(array).stream
        quads = array.groups_max
        super().__init__({
            "step": In(step_layout),
            "slot": In(max(1, quads.bit_length() - 1)),
            "words": In(data.ArrayLayout(array.weight_word_bits, quads)),
            "log2_groups": In(3),
            "tap_base": In(16), "tap_step": In(16),
            "flags": Out(step_layout), "flags_early": Out(step_layout),
            "operand": Out(data.ArrayLayout(operand_layout(array), quads)),
            "host_valid": In(1), "host_rotation": In(array.lane_bits),
            "write_enable": In(1), "write_address": In(range(array.taps)),
            "write_data": In(array.tap_word_bits),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        array = self.array
        quads = array.groups_max
        flags = [self.step]                         # flags[k]: k cycles after the step
        for k in range(1, self.latency + 1):
            after = Signal(step_layout, name=f"flags{k}")
            m.d.sync += after.eq(flags[-1])
            flags.append(after)
        m.d.comb += [self.flags.eq(flags[-1]), self.flags_early.eq(flags[-2])]

        slot = Signal.like(self.slot, name="slot1")
        m.d.sync += slot.eq(self.slot)
        words, at = [self.words[q] for q in range(quads)], 1
        if self.deep:
            held = [Signal(array.weight_word_bits, name=f"held{q}") for q in range(quads)]
            slot2 = Signal.like(slot)
            m.d.sync += [h.eq(w) for h, w in zip(held, words, strict=True)]
            m.d.sync += slot2.eq(slot)
            words, slot, at = held, slot2, 2

        # Tap base of the phase; used two cycles after the word is selected.
        tap_base = Signal(range(array.taps))
        selected = at + (self.deep or not array.replicate)
        step = flags[selected]
        with m.If(step.valid & step.first):
            m.d.sync += tap_base.eq(Mux(step.tile_first, self.tap_base, tap_base + self.tap_step))

        for q in range(quads):
            word = Signal(array.weight_word_bits, name=f"word{q}")
            chosen = Signal(array.weight_word_bits, name=f"chosen{q}")
            if array.replicate:
                m.d.comb += chosen.eq(words[q])
            else:
                self._choose(m, q, chosen, words, slot)
            if selected > at:
                m.d.sync += word.eq(chosen)
            else:
                m.d.comb += word.eq(chosen)
            self._decode(m, q, word, step, tap_base)
        return m

    def _choose(self, m: Module, q: int, chosen: Value, words: list[Value], slot: Value) -> None:
        """The word of a quad: the slot of its group."""
        quads, slot_bits = self.array.groups_max, self.array.groups_max.bit_length() - 1
        word_layout = data.ArrayLayout(self.array.weight_word_bits, quads)
        with m.Switch(self.log2_groups):
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
            delta = word[array.weight_bits:]
            m.d.sync += index.eq(Mux(step.first, delta, index + delta))
        m.submodules[f"taps{q}"] = taps = Memory(
            shape=array.tap_word_bits, depth=array.taps, init=[],
            attrs={"ram_style": "block"})
        write, read = taps.write_port(), taps.read_port()
        m.d.comb += [
            write.en.eq(self.write_enable), write.addr.eq(self.write_address),
            write.data.eq(self.write_data),
            read.addr.eq(tap_base + index[BLOCK_BITS:]),
        ]
        channel = Signal(BLOCK_BITS, name=f"channel{q}")
        m.d.sync += channel.eq(index[:BLOCK_BITS])
        entry = read.data
        if self.deep:
            entry = Signal.like(read.data, name=f"entry{q}")
            channel_held = Signal(BLOCK_BITS, name=f"channel_held{q}")
            m.d.sync += [entry.eq(read.data), channel_held.eq(channel)]
            channel = channel_held
        mantissa = word[:array.weight_bits].as_signed()
        for k in range(3 + self.deep):
            held = Signal(signed(array.weight_bits), name=f"mantissa{q}_{k}")
            m.d.sync += held.eq(mantissa)
            mantissa = held
        operand = self.operand[q]
        row = Signal.like(operand.row, name=f"row{q}", reset_less=True)
        rotation = Signal.like(operand.rotation, name=f"rotation{q}", reset_less=True)
        m.d.sync += [
            row.eq(Mux(self.host_valid, 0, entry[array.lane_bits:] + channel)),
            rotation.eq(Mux(self.host_valid, self.host_rotation, entry[:array.lane_bits])),
        ]
        m.d.comb += [operand.row.eq(row), operand.rotation.eq(rotation),
                     operand.mantissa.eq(mantissa)]
