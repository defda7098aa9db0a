"""The output path: from the shadow's sums to writes of main memory."""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from celosia_hw.output.beats import Beats
from celosia_hw.output.heads import Heads, layer_layout
from celosia_hw.output.normalise import Normalise
from celosia_hw.output.pool import Largest, Pool
from celosia_hw.output.writer import Writer
from celosia_hw.parts.delay import chain, delayed
from celosia_hw.parts.table_memory import TableMemory
from celosia_spec.isa import SIGNIFICAND_BITS
from celosia_spec.stream.array import CONTROL_BITS, ENTRY_BITS, ENTRY_WORDS, Array
from celosia_spec.stream.passes import WIDE_GAP


class OutputPath(wiring.Component):
    """Sums of a pass: bias, excess, ReLU, normaliser, maximum of the pooling window, main memory.

    Members
    -------
    layer : In(layer_layout), exponent : In(5)
        Exponent of its input + 16. Stable while a pass is inside, and two cycles before the first.
    position : In(16)
        Of the band: first element of a row that is written.
    start : In(1)
        A pass begins: its sums are in the shadow `LEAD` cycles later. Passes follow each other
        by groups * `row_cycles` or more.
    heads : In
        With ``start``: where its rows' heads lie in the controls' ring.
    fresh, begins, ends, written : In(1), In(1), In(1), In(lanes)
        From the cycle behind ``start`` on, for three cycles: the pass is that of its batch's first
        tile and begins its window, its window begins, its window ends; the lanes that are written,
        the same ones in each group.
    read : Out(1), address : Out, word : In(16)
        Read port of the controls' ring; ``word`` comes a cycle behind.
    sums : In(2 x signed(acc_bits)), shift : Out(1)
        The next two lanes of the shadow; the two behind them are there in the cycle behind
        ``shift``.
    request : Out(1), place : Out, enables : Out(4), data : Out(64)
        A write to main memory, which is granted at once.
    clear : In(1), top : Out(5)
        Exponent + 16 of the largest element written since ``clear``; that of 0 while there is none.
    busy : Out(1)
        A pass is inside. When it falls, everything is written, and ``top`` is right.

    Timing
    ------
    An element is written `LATENCY` cycles behind its sum at the earliest, and two cycles behind the
    element that completes its word or ends its row at most. Row r of a pass has its first sums r *
    `row_cycles` behind the pass's first; rows of sums that are stored `WIDE_GAP` cycles later.
    """

    LEAD = 8
    LATENCY = 7

    def __init__(self, array: Array) -> None:
        if array.residual or array.clamp:
            raise ValueError("the output path is that of arrays without residual operand and clamp")
        self.array = array
        self.word_bits = (array.main_words - 1).bit_length()
        ring = (array.controls - 1).bit_length()
        super().__init__({
            "layer": In(layer_layout), "exponent": In(5), "position": In(CONTROL_BITS),
            "start": In(1), "heads": In(ring), "fresh": In(1), "begins": In(1), "ends": In(1),
            "written": In(array.lanes), "read": Out(1), "address": Out(ring),
            "word": In(CONTROL_BITS),
            "sums": In(data.ArrayLayout(signed(array.acc_bits), 2)), "shift": Out(1),
            "request": Out(1), "place": Out(self.word_bits), "enables": Out(ENTRY_WORDS),
            "data": Out(ENTRY_BITS), "clear": In(1), "top": Out(5), "busy": Out(1),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        layer = self.layer
        single = layer.wide
        m.submodules.heads = heads = Heads(self.array)
        m.submodules.pool = pool = Pool(self.array)
        late = self.LEAD - 1 + self.LATENCY                 # of a row, where it is written
        at = chain(m, heads.row, late, "row", reset_less=False)
        m.d.comb += [
            heads.layer.eq(layer), heads.exponent.eq(self.exponent), heads.start.eq(self.start),
            heads.heads.eq(self.heads), heads.word.eq(self.word), self.read.eq(heads.read),
            self.address.eq(heads.address), heads.now.eq(at[self.LEAD - 2]),
            heads.then.eq(at[self.LEAD - 1]),
        ]
        self._sums(m, heads, pool, Mux(layer.wide, at[self.LEAD - 1 + WIDE_GAP],
                                       at[self.LEAD - 1]))
        self._write(m, heads, pool, single, at)
        return m

    def _sums(self, m: Module, heads: Heads, pool: Pool, row: Any) -> None:
        """Drain the shadow: sums with bias, as elements or as they are."""
        layer = self.layer
        m.submodules.beats = beats = Beats(self.array)
        m.d.comb += [
            beats.log2_groups.eq(layer.log2_groups), beats.single.eq(layer.wide),
            beats.row.eq(row), self.shift.eq(beats.done),
        ]
        totals = []
        for e in range(2):
            total = Signal(signed(self.array.acc_bits), name=f"total{e}", reset_less=True)
            m.d.sync += total.eq(self.sums[e] + heads.bias)
            m.submodules[f"normalise{e}"] = normalise = Normalise(self.array.acc_bits)
            m.d.comb += [
                normalise.sum.eq(total), normalise.room.eq(heads.room),
                normalise.relu.eq(layer.relu), normalise.signed.eq(layer.signed_out),
                pool.elements[e].eq(normalise.element),
            ]
            totals.append(total)
        odd = delayed(m, beats.odd, 1, "odd")
        total = Mux(odd, totals[1], totals[0])
        m.d.comb += [
            pool.signed.eq(layer.signed_out), pool.wide.eq(layer.wide), pool.sums.eq(total),
            pool.clear.eq(layer.wide & layer.relu & total[-1]),
            pool.ahead.eq(delayed(m, beats.done, Normalise.LATENCY - 1, "beat")),
        ]

    def _write(self, m: Module, heads: Heads, pool: Pool, single: Any, at: list[Signal]) -> None:
        """Gather what is written; a queue holds masks and words until then."""
        layer, late = self.layer, len(at) - 1
        m.submodules.beats_late = beats = Beats(self.array)
        m.submodules.writer = writer = Writer(self.array)
        m.submodules.largest = largest = Largest()
        m.d.comb += [beats.log2_groups.eq(layer.log2_groups), beats.single.eq(single),
                     beats.row.eq(at[late])]
        queue = self._queued(m, heads, at)
        # Where beats take two cycles, all is a cycle earlier.
        ask, left, first = Signal(), Signal(2), Signal()
        m.d.comb += [ask.eq(Mux(single, at[late - 4], at[late - 3])), first.eq(ask & (left == 0))]
        with m.If(ask):
            m.d.sync += left.eq(Mux(first, (1 << layer.log2_groups) - 1, left - 1))
        firsts, asks = chain(m, first, 2, "first", reset_less=False), chain(
            m, ask, 3, "ask", reset_less=False)
        get, load = asks[2], asks[3]
        m.d.comb += queue.read.en.eq(first | firsts[1] | get)
        with m.If(queue.read.en):
            m.d.sync += queue.read.addr.eq(queue.read.addr + 1)
        flags = [Signal(name=name, reset_less=True) for name in ("fresh", "begins", "ends")]
        final, mask = Signal(), Signal(self.array.lanes, reset_less=True)
        with m.If(firsts[1]):
            m.d.sync += [flag.eq(queue.read.data[k]) for k, flag in enumerate(flags)]
        with m.If(firsts[2]):
            m.d.sync += [final.eq(flags[2]), mask.eq(queue.read.data)]
        with m.Elif(beats.done):
            m.d.sync += mask.eq(mask >> 2)
        # From row to row it takes three cycles at least: what a head says waits in places.
        own = Cat(heads.element, heads.real)
        for tap in range(4, late, 3):
            waits = Signal(3, name=f"own{tap}", reset_less=True)
            with m.If(Mux(single, at[tap - 1], at[tap]) if tap == late - 1 else at[tap]):
                m.d.sync += waits.eq(own)
            own = waits
        write = Signal()
        m.d.comb += [
            write.eq(final & own[2]), writer.element.eq(own[:2]),
            pool.first.eq(flags[1]), pool.keep.eq(writer.turn), pool.done.eq(beats.done),
            writer.position.eq(self.position), writer.begin.eq(firsts[2]),
            writer.again.eq(flags[0]), writer.moves.eq(flags[1]), writer.load.eq(load),
            writer.word.eq(queue.read.data), writer.pair.eq(layer.wide), writer.mask.eq(mask),
            writer.turn.eq(Cat(beats.active & ~beats.odd, beats.active & (beats.odd | ~single))),
            writer.last.eq(beats.last), writer.write.eq(write),
            writer.elements.eq(pool.largest), self.request.eq(writer.request),
            self.place.eq(writer.address), self.enables.eq(writer.enables),
            self.data.eq(writer.data), largest.clear.eq(self.clear),
            largest.valid.eq(writer.turn & writer.mask & (write & ~layer.wide).replicate(2)),
            *(largest.exponents[e].eq(pool.largest[e][SIGNIFICAND_BITS:]) for e in range(2)),
            self.top.eq(largest.top),
        ]
        inside = Signal(4)                                  # rows
        m.d.sync += [inside.eq(inside + (self.start << layer.log2_groups) - beats.last),
                     self.busy.eq(self.start | (inside != 0))]

    def _queued(self, m: Module, heads: Heads, at: list[Signal]) -> TableMemory:
        """Return the memory in which a pass's flags and mask lie, then the words of its rows."""
        first = chain(m, heads.first, 2, "pass", reset_less=False)
        queue = TableMemory(16, max(self.array.lanes, CONTROL_BITS))
        m.submodules.queue = queue
        write = queue.write
        m.d.comb += [
            write.en.eq(first[1] | first[2] | at[Heads.WORD]),
            write.data.eq(Mux(first[2], self.written, self.word)),
        ]
        with m.If(first[1]):
            m.d.comb += write.data.eq(Cat(self.fresh, self.begins, self.ends))
        with m.If(write.en):
            m.d.sync += write.addr.eq(write.addr + 1)
        return queue
