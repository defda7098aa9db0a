"""The output path where one lane leaves a cycle."""

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib.wiring import connect, flipped

from celosia_hw.layouts import layout
from celosia_hw.output.beats import Lanes
from celosia_hw.output.clamp import Clamp
from celosia_hw.output.heads import Heads
from celosia_hw.output.lane_writer import LaneWriter
from celosia_hw.output.normalise import Normalise
from celosia_hw.output.pool import LanePool
from celosia_hw.output.sums_path import SumsPath
from celosia_hw.parts.count import counted
from celosia_hw.parts.delay import chain, delayed
from celosia_hw.parts.table_memory import TableMemory
from celosia_spec.isa.array import CONTROL_BITS
from celosia_spec.isa.controls import HEAD
from celosia_spec.isa.numbers import EXPONENT_BITS, EXPONENT_SLOTS, SIGNIFICAND_BITS


class LanePath(SumsPath):
    """As `OutputPath`, of arrays whose `Array.drain` is 1.

    fabric : what it is built of.

    Members
    -------
    Those of `OutputPath`, but:

    control : In(OutputControl)
        Passes follow each other by 16 cycles or more. What is said of a pass is said from the
        second cycle behind its ``start`` until the fourteenth; a cycle more of arrays with residual
        operands.
    write : Out(Write)
        Registers.

    Timing
    ------
    No stalls. Row r of a pass has its first sum r * `row_cycles` behind the pass's first. An
    element is written ``latency`` cycles behind its sum, its pair's upper one, or its row's last
    one; in a layer whose sums are stored two cycles behind it. Passes of a layer with a residual
    operand are in turns of the first phase and of the second: sums of the first are codes.
    """

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        layer, passes = self.layer, self.control.passes
        m.submodules.heads = heads = Heads(self.array, self.lead() + self.latency - 4)
        connect(m, heads.reads, flipped(self.control.heads))
        m.d.comb += [
            heads.layer.eq(layer), heads.exponent.eq(self.exponents.input),
            heads.start.eq(passes.start), heads.heads.eq(passes.heads),
        ]
        m.submodules.drained, m.submodules.ahead, m.submodules.lanes = drained, ahead, lanes = [
            Lanes(self.array) for _ in range(3)]
        over = Signal()                         # with a pass's last lane
        m.d.comb += over.eq(lanes.active & lanes.lane.all())
        wide = layer.wide
        if self.array.residual:         # no register: rows of codes and of sums follow each other
            wide = wide & ~self._residual(m, heads, drained, over)
        m.submodules.pool, m.submodules.writer = pool, writer = (
            LanePool(self.array, self.fabric), LaneWriter(self.array))
        total, element = self._sums(m, heads, drained)
        # From three cycles before a row's first lane reaches the writer, to that.
        rows = chain(m, Mux(wide, heads.drained[0], heads.drained[-1]), 3, "late",
                     reset_less=False)
        left, first = Signal(2), Signal(2)      # of the pass's rows, two cycles before, and one
        with m.If(rows[1]):
            m.d.sync += left.eq(Mux(first[0], (1 << layer.log2_groups) - 1, left - 1))
        m.d.comb += first[0].eq(rows[1] & (left == 0))
        loads, kept = Signal(), Signal()
        m.d.sync += [kept.eq(lanes.active), first[1].eq(first[0]),
                     loads.eq(first[0] & passes.fresh)]
        read = self._queued(m, heads, rows, first[0])
        begins, counts, takes, puts, at = self._flags(m, lanes, read, rows, first)
        m.d.comb += [
            *(block.log2_groups.eq(layer.log2_groups) for block in (drained, ahead, lanes)),
            drained.row.eq(heads.drained[2]), lanes.row.eq(rows[3]),
            # A cycle behind a lane its number is the next one's: so it is read, and kept.
            ahead.row.eq(rows[0]), pool.lane.eq(ahead.lane), pool.place.eq(lanes.lane),
            pool.keep.eq(kept), pool.kept.eq(writer.stored),
            pool.signed.eq(layer.signed_out), pool.element.eq(element), pool.first.eq(begins),
            writer.wide.eq(wide), writer.position.eq(self.control.position),
            writer.clear.eq(wide & layer.relu & total[-1]),
            writer.fresh.eq(loads), writer.row.eq(rows[3]),
            writer.word.eq(read), writer.takes.eq(takes), writer.counts.eq(counts),
            writer.puts.eq(puts), writer.last.eq(lanes.active & lanes.last),
            writer.larger.eq(pool.largest), writer.sums.eq(total),
        ]
        if self.array.residual:
            m.d.comb += [heads.code.eq(pool.read), pool.first.eq(begins | layer.residual)]
            with m.If(layer.residual):
                m.d.comb += ahead.row.eq(heads.at[1])
        m.d.comb += writer.element.eq(at)
        connect(m, writer.write, flipped(self.write))
        self._top(m, writer, puts)
        self._inside(m, heads, over, first[1])
        return m

    def _residual(self, m: Module, heads: Heads, drained: Lanes, over: Value) -> Value:
        """Find whether a pass is of the first phase of a layer with a residual operand: then its
        sums are codes, and their elements wait for the second phase."""
        codes, layer = Signal(init=1), self.layer
        # Sums that are stored overtake elements, so there the second one comes later.
        with m.If(Mux(layer.wide, over, drained.active & drained.lane.all())):
            m.d.sync += codes.eq(~(layer.residual & codes))
        alone = layer.residual & codes
        m.d.comb += [heads.other.eq(self.exponents.residual), heads.alone.eq(alone)]
        return alone

    def _sums(self, m: Module, heads: Heads, drained: Lanes) -> tuple[Signal, Value]:
        """Drain the shadow; return a lane's sum with its bias, and its element."""
        layer = self.layer
        total = Signal(signed(self.array.acc_bits), reset_less=True)
        m.d.comb += self.shadow.shift.eq(drained.active)
        addend = heads.addend if self.array.residual else heads.bias
        m.d.sync += total.eq((Cat(heads.up, self.shadow.sums[0]).as_signed()
                              + Cat(heads.up, addend).as_signed())[1:])
        m.submodules.normalise = normalise = Normalise(self.array.acc_bits)
        connect(m, heads.unit, normalise.unit)
        m.d.comb += [
            normalise.sum.eq(total), normalise.relu.eq(layer.relu),
            normalise.signed.eq(layer.signed_out),
        ]
        if not self.array.clamp:
            return total, normalise.element
        m.submodules.clamp = clamp = Clamp()
        m.d.comb += [clamp.element.eq(normalise.element), clamp.use.eq(layer.clamp),
                     clamp.signed.eq(layer.signed_out), clamp.bound.eq(layer.bound)]
        return total, clamp.clamped

    def _queued(self, m: Module, heads: Heads, rows: list[Value], first: Value) -> Value:
        """Keep a pass's mask, and two words of each row's head, in a memory; return what is read
        of it: a row's first word two cycles before its first lane, the mask one cycle before that
        of the pass, where the row's channel lies with it."""
        begun = chain(m, heads.first, 2, "pass", reset_less=False)[-1]
        # Behind the queue's words lie the exponents, for those who use them between passes.
        slots, busy = self.control.slots, self.state.busy
        m.submodules.queue = queue = TableMemory(2 * EXPONENT_SLOTS, CONTROL_BITS,
                                                 block=self.fabric.lut_memory is None)
        puts, gets = heads.at[1] | begun | heads.at[Heads.WORD], rows[0] | first | rows[2]
        m.d.comb += [
            queue.write.en.eq(puts | (slots.keep & ~busy)),
            queue.read.en.eq(1),
            queue.write.data.eq(Mux(begun, self.shadow.written,
                                    Mux(busy, heads.reads.word, slots.kept))),
            slots.held.eq(queue.read.data),
        ]
        for name, port, moves in (("put", queue.write, puts), ("get", queue.read, gets)):
            at = Signal(4, name=name)
            m.d.sync += at.eq(counted(at, moves))
            m.d.comb += port.addr.eq(Mux(busy, at, EXPONENT_SLOTS | slots.slot))
        return queue.read.data

    def _flags(self, m: Module, lanes: Lanes, read: Value, rows: list[Value],
               first: Value) -> tuple[Signal, ...]:
        """Return whether the window begins; whether it ends, and it is the pass's last row; and
        whether the lane takes a place, and is written there; and which element of a word is
        its first."""
        layer, passes = self.layer, self.control.passes
        head = layout(HEAD.words[0])(read[:HEAD.words[0].bits])
        real, element = Signal(reset_less=True), Signal(2, reset_less=True)
        begins, ends, then, writes = (Signal(name=name, reset_less=True) for name in (
            "begins", "ends", "then", "writes"))
        with m.If(rows[1]):
            m.d.sync += [real.eq(head.real), element.eq(head.element)]
        m.d.comb += then.eq(Mux(first[1], passes.ends, ends))
        with m.If(first[1]):
            m.d.sync += [begins.eq(passes.begins), ends.eq(then)]
        with m.If(rows[2]):
            m.d.sync += writes.eq(real & then)
        mask = Signal(self.array.lanes, reset_less=True)
        with m.If(first[1] | lanes.active):
            m.d.sync += mask.eq(Mux(first[1], read, mask >> 1))
        counts, takes, puts = Signal(), Signal(), Signal()
        final = (Const(self.array.lanes - 1) >> layer.log2_groups) | lanes.lane
        m.d.comb += [takes.eq(lanes.active & mask[0]), puts.eq(takes & writes),
                     counts.eq(ends & final.all())]
        return begins, counts, takes, puts, element

    def _top(self, m: Module, writer: LaneWriter, puts: Value) -> None:
        """Find the largest exponent of what is written."""
        counts = delayed(m, puts & ~self.layer.wide, 1, "counts")
        exponent = Signal(EXPONENT_BITS)
        m.d.comb += exponent.eq(writer.stored[SIGNIFICAND_BITS:])
        # Kept inverted, as it is compared.
        nothing = (1 << EXPONENT_BITS) - 1
        below = Signal(EXPONENT_BITS, init=nothing)
        m.d.comb += self.state.top.eq(~below)
        clear = self.exponents.closed
        with m.If(clear | (counts & (exponent + below)[-1])):
            m.d.sync += below.eq(Mux(clear, nothing, ~exponent))

    def _inside(self, m: Module, heads: Heads, over: Value, placed: Value) -> None:
        """Count the passes that are inside, and find whether one has no position yet.

        over : with a pass's last lane.   placed : a pass gets it, if it is not the one of the pass
        before.
        """
        begun = chain(m, heads.first, 1, "begun", reset_less=False)[1]
        unplaced, inside, passes = Signal(), Signal(2), self.control.passes
        m.d.comb += self.state.placed.eq(~unplaced)
        m.d.sync += [
            unplaced.eq(passes.start | (unplaced & ~((begun & ~passes.fresh) | placed))),
            inside.eq(inside + passes.start - over),
            self.state.busy.eq(passes.start | inside.any()),
        ]
