"""The output path: from the shadow's sums to writes of main memory."""

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib.wiring import connect, flipped

from celosia_hw.output.beats import Beats
from celosia_hw.output.clamp import Clamp
from celosia_hw.output.heads import Heads
from celosia_hw.output.lane_path import LanePath
from celosia_hw.output.normalise import Normalise
from celosia_hw.output.operand import Align
from celosia_hw.output.pool import Largest, Pool
from celosia_hw.output.sums_path import SumsPath
from celosia_hw.output.writer import Writer
from celosia_hw.parts.delay import chain, delayed
from celosia_hw.parts.table_memory import TableMemory
from celosia_spec.isa.array import CONTROL_BITS
from celosia_spec.isa.numbers import EXPONENT_SLOTS, SIGNIFICAND_BITS
from celosia_spec.isa.passes import WIDE_GAP


class OutputPath(SumsPath):
    """Sums of a pass: bias, excess, residual operand, ReLU, normaliser, clamp, maximum of the
    pooling window, main memory.

    Members
    -------
    layer : In(LAYER_LAYOUT), exponents : In(LayerExponents)
        Stable while a pass is inside, and two cycles before the first.
    control : In(OutputControl)
        A pass's sums are in the shadow `lead` cycles behind its ``start``. Passes follow each other
        by groups * `row_cycles` or more. What is said of a pass is said from the second cycle
        behind ``start`` on, for two cycles.
    shadow : In(Shadow)
        Lanes that are written from the third cycle behind ``start`` on, for two cycles.
    write : Out(Write)
    state : Out(OutputState)

    Timing
    ------
    No stalls. Row r of a pass has its first sums r * `row_cycles` behind the pass's first; where
    sums are stored, they leave `WIDE_GAP` cycles later. An element is written `latency` cycles
    behind its sum (less `WIDE_GAP` where sums are stored) at the earliest, and two cycles later
    than that behind the element that completes its word or ends its row at most.

    Where a tensor is added, passes alternate. Sums of the first one are its codes, moved to the
    left by one where elements have signs: what the normalisers make of them, with a unit of their
    own, is the code, which waits in the pool's memories for the second pass. So from a first pass
    to its second one it takes `RESIDUAL_PASS` cycles at least.
    """

    # Cycle of a row in which its first lane's code of a residual operand is there.
    _CODE = 3

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        passes = self.control.passes
        sums, late = self.lead() - 1, self.lead() - 1 + self.latency
        m.submodules.pool = pool = Pool(self.array, self.fabric)
        m.submodules.heads = heads = Heads(self.array, late + 1)
        connect(m, heads.reads, flipped(self.control.heads))
        m.d.comb += [
            heads.layer.eq(self.layer), heads.exponent.eq(self.exponents.input),
            heads.start.eq(passes.start), heads.heads.eq(passes.heads),
        ]
        self._sums(m, heads, pool, sums)
        self._write(m, heads, pool, late)
        return m

    def _single(self) -> Value:
        return self.layer.wide | self.layer.residual if self.array.residual else self.layer.wide

    def _sums(self, m: Module, heads: Heads, pool: Pool, first: int) -> None:
        """Drain the shadow: sums with bias, as elements or as they are.

        first : cycle of a row in which its first sums leave.
        """
        layer = self.layer
        addend, up, alone = self._addend(m, heads, pool)
        row = Mux(layer.wide & ~alone, heads.at[first + WIDE_GAP], heads.at[first])
        m.submodules.beats = beats = Beats(self.array)
        m.d.comb += [
            beats.log2_groups.eq(layer.log2_groups), beats.single.eq(self._single()),
            beats.row.eq(row), self.shadow.shift.eq(beats.done),
        ]
        m.d.comb += heads.alone.eq(alone)
        totals = []
        for e in range(2):
            total = Signal(signed(self.array.acc_bits), name=f"total{e}", reset_less=True)
            m.d.sync += total.eq((Cat(up, self.shadow.sums[e]).as_signed()
                                  + Cat(up, addend).as_signed())[1:])
            m.submodules[f"normalise{e}"] = normalise = Normalise(self.array.acc_bits)
            connect(m, heads.unit, normalise.unit)
            m.d.comb += [
                normalise.sum.eq(total), normalise.relu.eq(layer.relu),
                normalise.signed.eq(layer.signed_out),
            ]
            element = normalise.element
            if self.array.clamp:
                m.submodules[f"clamp{e}"] = clamp = Clamp()
                m.d.comb += [clamp.element.eq(element), clamp.use.eq(layer.clamp),
                             clamp.signed.eq(layer.signed_out), clamp.bound.eq(layer.bound)]
                element = clamp.clamped
            m.d.comb += pool.elements[e].eq(element)
            totals.append(total)
        odd = delayed(m, beats.odd, 1, "odd")
        total = delayed(m, Mux(odd, totals[1], totals[0]), int(self.array.clamp), "total")
        m.d.comb += [
            pool.signed.eq(layer.signed_out), pool.wide.eq(layer.wide),
            pool.sums.eq(total.as_signed()), pool.clear.eq(layer.wide & layer.relu & total[-1]),
        ]
        ahead = chain(m, beats.done, self.latency - 3, "beat", reset_less=False)[-1]
        if self.array.residual:
            lanes = delayed(m, heads.lane & heads.odd, 1, "lane_ahead")
            ahead = Mux(layer.residual, lanes, ahead)
        m.d.comb += pool.ahead.eq(ahead)

    def _addend(self, m: Module, heads: Heads, pool: Pool) -> tuple[Value, Value, Value]:
        """Return what is added to a lane's sum, and 1 with it, and whether its row belongs to the
        first phase of a layer with a residual operand: then nothing is."""
        if not self.array.residual:
            return heads.bias, heads.up, Const(0, 1)
        layer, exponents, bits = self.layer, self.exponents, self.array.activation_bits
        # Rows alternate: those of all groups in the first phase, then those in the second one.
        count = Signal(range(2 * self.array.groups_max), init=2 * self.array.groups_max - 1)
        m.d.sync += count.eq((count + heads.at[heads.sums - 2])
                             | exponents.closed.replicate(len(count)))
        alone = layer.residual & ~count.bit_select(layer.log2_groups, 1)
        m.submodules.align = align = Align(bits, self.array.acc_bits)
        apart, code = Signal(range(128)), Signal(bits, reset_less=True)
        odd = chain(m, heads.odd, 2, "lane_odd")[-1]
        m.d.sync += [
            apart.eq(exponents.residual + layer.residual_signed + self.array.acc_bits - bits - 1),
            code.eq(Mux(odd, pool.held[1][:bits], pool.held[0][:bits])),
        ]
        with m.If(~layer.residual):
            m.d.sync += code.eq(0)
        m.d.comb += [
            align.code.eq(code), align.signed.eq(layer.residual_signed),
            align.shift.eq(apart - heads.reach), align.right.eq(heads.at[self._CODE - 1]),
            align.left.eq(heads.at[self._CODE + 1]),
        ]
        addend = Signal.like(heads.bias, name="addend", reset_less=True)
        up = Signal(reset_less=True)
        m.d.sync += [addend.eq(heads.bias + align.aligned), up.eq(heads.up)]
        with m.If(alone):
            m.d.sync += [addend.eq(0), up.eq(0)]
        return addend, up, alone

    def _write(self, m: Module, heads: Heads, pool: Pool, late: int) -> None:
        """Gather what is written; a queue holds masks and words until then.

        late : cycle of a row in which its first elements are written, if two lanes leave a cycle.
        """
        layer = self.layer
        m.submodules.writer = writer = Writer(self.array)
        m.submodules.largest = largest = Largest()
        read, firsts, get, load = self._queued(m, heads, heads.at[late - 4])
        fresh, begins, ends = flags = [Signal(name=name, reset_less=True)
                                       for name in ("fresh", "begins", "ends")]
        with m.If(firsts[1]):
            m.d.sync += [flag.eq(read[k]) for k, flag in enumerate(flags)]
        beats, turns, taken = self._turns(m, read, firsts[2], heads.at[late - 1])
        own = self._own(m, heads, late)
        final, write, real = Signal(), Signal(), Signal()
        turn, takes, done, last, puts = Signal(2), Signal(2), Signal(), Signal(), Signal(2)
        with m.If(firsts[2]):
            m.d.sync += final.eq(ends)
        m.d.comb += write.eq(Mux(get, own[2] & Mux(firsts[2], ends, final), real))
        m.d.sync += [turn.eq(turns), takes.eq(taken), done.eq(beats.done), last.eq(beats.last),
                     real.eq(write), puts.eq(taken & write.replicate(2))]
        m.d.comb += [
            writer.element.eq(own[:2]), writer.puts.eq(puts),
            pool.first.eq(self._first(begins)), pool.keep.eq(turn), pool.done.eq(done),
            writer.position.eq(self.control.position), writer.begin.eq(firsts[2]),
            writer.again.eq(fresh), writer.moves.eq(begins), writer.load.eq(load),
            writer.row.eq(get), writer.word.eq(read), writer.takes.eq(takes),
            writer.last.eq(last), writer.elements.eq(pool.largest),
            largest.clear.eq(self.exponents.closed),
            largest.valid.eq(puts & (~layer.wide).replicate(2)),
            *(largest.exponents[e].eq(pool.largest[e][SIGNIFICAND_BITS:]) for e in range(2)),
            self.state.top.eq(largest.top),
        ]
        connect(m, writer.write, flipped(self.write))
        self._inside(m, heads, last, firsts[2] & fresh)

    def _first(self, begins: Value) -> Value:
        """Return whether elements are taken as they are, whatever was before them."""
        if not self.array.residual:
            return begins & ~self.layer.wide
        return Mux(self.layer.residual, begins | ~self.layer.wide, begins & ~self.layer.wide)

    def _turns(self, m: Module, word: Value, begins: Value,
               row: Value) -> tuple[Beats, Signal, Signal]:
        """Count the beats that are written; return them, the lanes whose turn it is, and those of
        them that take a place.

        word : the mask of a pass, where it ``begins``.   row : a row does in the next cycle.
        """
        m.submodules.beats_late = beats = Beats(self.array)
        layer, single = self.layer, self._single()
        mask, done = Signal(self.array.lanes, reset_less=True), Signal()
        turns, lanes, taken = Signal(2), Signal(2), Signal(2)
        m.d.sync += done.eq(beats.done)
        with m.If(begins):
            m.d.sync += mask.eq(word)
        with m.Elif(done):
            m.d.sync += mask.eq(mask >> 2)
        m.d.comb += [
            beats.log2_groups.eq(layer.log2_groups), beats.single.eq(single), beats.row.eq(row),
            turns.eq(Cat(beats.active & ~beats.odd, beats.active & (beats.odd | ~single))),
            lanes.eq(turns & Mux(begins, word[:2], Mux(done, mask[2:4], mask[:2]))),
            taken.eq(lanes | (lanes.any() & layer.wide).replicate(2)),
        ]
        return beats, turns, taken

    def _own(self, m: Module, heads: Heads, late: int) -> Value:
        """Return what a row's head says of its place, as late as it is written: from row to row it
        takes three cycles at least, so it waits in places."""
        own: Value = Cat(heads.element, heads.real)
        taps = range(4, late - 3, 3)
        strobes = [*(heads.at[tap] for tap in taps)]
        if late - 1 - taps[-1] > 3:
            strobes.append(heads.at[late - 3])
        for k, strobe in enumerate(strobes):
            waits = Signal(3, name=f"own{k}", reset_less=True)
            with m.If(strobe):
                m.d.sync += waits.eq(own)
            own = waits
        return own

    def _inside(self, m: Module, heads: Heads, last: Value, placed: Value) -> None:
        """Count the passes that have no position yet, and the rows that are inside.

        last : a row's last beat.   placed : a pass gets the band's position.
        """
        begun = chain(m, heads.first, 1, "begun", reset_less=False)[1]
        unplaced, inside, passes = Signal(3), Signal(4), self.control.passes
        m.d.sync += unplaced.eq(unplaced + passes.start - (begun & ~passes.fresh) - placed)
        m.d.comb += self.state.placed.eq(unplaced == 0)
        m.d.sync += [inside.eq(inside + (passes.start << self.layer.log2_groups) - last),
                     self.state.busy.eq(passes.start | inside.any())]

    def _queued(self, m: Module, heads: Heads,
                asks: Value) -> tuple[Value, list[Signal], Signal, Signal]:
        """Keep a pass's flags and mask, then the words of its rows, in a memory. Return what is
        read of it, strobes from that which asks for the flags on, and with which a row's word is
        asked for, and there.

        asks : a row's word is asked for in three cycles.
        """
        first = chain(m, heads.first, 2, "pass", reset_less=False)
        # Behind the queue's words lie the exponents, for those who use them between passes.
        queue = TableMemory(2 * EXPONENT_SLOTS, max(self.array.lanes, CONTROL_BITS),
                            block=self.fabric.lut_memory is None)
        m.submodules.queue = queue
        write, read, slots, busy = queue.write, queue.read, self.control.slots, self.state.busy
        passes = self.control.passes
        puts, gets = Signal(), Signal()
        m.d.comb += [
            puts.eq(first[1] | first[2] | heads.at[Heads.WORD]),
            write.en.eq(puts | (slots.keep & ~busy)), read.en.eq(gets | ~busy),
            write.data.eq(Mux(first[2], self.shadow.written,
                              Mux(busy, heads.reads.word, slots.kept))),
            slots.held.eq(read.data),
        ]
        with m.If(first[1]):
            m.d.comb += write.data.eq(Cat(passes.fresh, passes.begins, passes.ends))
        ask, left, begins = Signal(), Signal(2), Signal()
        m.d.sync += ask.eq(asks)
        m.d.comb += begins.eq(ask & (left == 0))
        with m.If(ask):
            m.d.sync += left.eq(Mux(begins, (1 << self.layer.log2_groups) - 1, left - 1))
        firsts = chain(m, begins, 2, "first_late", reset_less=False)
        *_, get, load = chain(m, ask, 3, "ask", reset_less=False)
        m.d.comb += gets.eq(begins | firsts[1] | get)
        for port, moves in ((write, puts), (read, gets)):
            at = Signal(4, name="written_at" if port is write else "read_at")
            with m.If(moves):
                m.d.sync += at.eq(at + 1)
            m.d.comb += port.addr.eq(Mux(busy, at, EXPONENT_SLOTS | slots.slot))
        return read.data, firsts, get, load


OUTPUT_PATHS: dict[int, type[OutputPath] | type[LanePath]] = {1: LanePath, 2: OutputPath}
"""An array's output path, by its `Array.drain`."""
