"""Passes: the steps of a batch, for each tile and each phase of its pooling window."""

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from celosia_hw.lanes.reading import Steps
from celosia_hw.layouts import LAYER_LAYOUT
from celosia_hw.output.control import Passes
from celosia_hw.parts.delay import chain, delayed
from celosia_hw.parts.lookup import lookup
from celosia_hw.stream.executor import Batches
from celosia_hw.stream.rings import WeightReads, WeightsRing
from celosia_spec.isa.array import Array
from celosia_spec.isa.passes import pass_cycles


class Sequencer(wiring.Component):
    """Issue the steps of batches, a step a cycle, without a bubble between passes.

    A pass takes as many cycles as it has steps, or `pass_cycles` where that is more: it waits
    before its last step. On a batch's first pass a step waits for its entry. Where a residual
    operand is added, the first pass of a tile has one step, of the batch's first entry, and the
    second one all others; parts of a batch but the first have no such pass.

    Parameters
    ----------
    array : Array
    lag : int
        Cycles from a pass's last step to its ``start``, 0 to 3.

    Members
    -------
    layer : In(LAYER_LAYOUT)
        Stable while a batch runs, and two cycles before.
    batches : In(Batches)
    heads : In
        With ``taken``: where its heads lie in the controls' ring; else, the next word that is
        taken from there.
    reads : Out(WeightReads)
    steps : Out(Steps), phase : Out(1)
        `WeightsRing.LATENCY` cycles behind ``go``. Columns and sums begin with ``first``, and end
        with ``last``; those of a batch in parts only once. As soon as a pass's first step may come
        its tile begins, or with ``phase`` a phase of the same tile.
    passes : Out(Passes)
        What is said of a pass is said with ``start``, and for three cycles more. ``heads`` is the
        oldest word of the controls' ring that is still needed.
    draining : In(1)
        From the cycle behind a ``start`` on: passes are inside the output path.
    idle : Out(1)
        There is no batch.
    pending : Out(1)
        A pass has no ``start`` yet.
    room : In(1)
        Of several clusters: passes may end, see `WriteQueue`.

    Timing
    ------
    The first step is issued with ``taken``, where its entry is there; a batch is taken over with
    the last step of the batch before. Behind a batch of dense8 another one waits
    until all mantissas have been read.
    """

    def __init__(self, array: Array, lag: int) -> None:
        self.array, self.lag = array, lag
        # Least cycles of a pass, by the layer's groups, and signs, sums that are stored, residual.
        self.cycles = {}
        for log2_groups in range(array.groups_max.bit_length()):
            for flags in range(8):
                signed_in, wide, residual = (bool(flags >> k & 1) for k in range(3))
                self.cycles[log2_groups | flags << 2] = pass_cycles(
                    array, log2_groups=log2_groups, signed_in=signed_in, wide=wide,
                    residual=residual and array.residual)
        bits = (array.controls - 1).bit_length()
        super().__init__({
            "layer": In(LAYER_LAYOUT), "batches": In(Batches(array)), "heads": In(bits),
            "reads": Out(WeightReads()),
            "steps": Out(Steps()), "phase": Out(1),
            "passes": Out(Passes(array)),
            "draining": In(1), "idle": Out(1), "pending": Out(1),
            **({"room": In(1)} if array.clusters > 1 else {}),
        })

    def elaborate(self, platform: Any) -> Module:
        m, reads, batches = Module(), self.reads, self.batches
        batch = batches.batch
        # A pass's steps less two; behind a pass's first step those that are left, less one; both
        # negative.
        bits = len(batch.steps)
        steps = Signal(bits + 1, reset_less=True)
        left = Signal(bits, reset_less=True)
        joins, more, waits = Signal(reset_less=True), Signal(), Signal()
        running, first, taken = (Signal(name=name) for name in ("running", "first", "takes"))
        fresh, turn, dense = reads.fresh, reads.turn, reads.dense
        # Whether there is a step, and whether it is the last one, is found a cycle ahead, but for
        # its entry; so is what is compared: passes take four cycles at least.
        ready, final, last = (Signal(name=name) for name in ("ready", "ready_last", "last"))
        single = Signal(reset_less=True)
        one, free, onward = Signal(), Signal(), Signal(bits + 1)
        window, ends, closing, finished = self._passes(m, taken, turn)
        opens = Signal()
        aged = self._aged(m, opens)
        # Whether the pass has one step, which reads a residual operand; the next one; a batch's.
        residual = self.layer.residual if self.array.residual else Const(0)
        alone, then, begun = residual & window, residual & ends, residual & ~batch.joins
        m.d.comb += [
            # Loads stand as summands' bits, so that they go into the counters' own look-up tables.
            onward.eq(left + first.replicate(bits) + 1),
            one.eq(Mux(first, ~steps[-1], onward[-1])),
            free.eq(reads.available | ~fresh), turn.eq(final & free),
            reads.go.eq((ready | final) & free),
            self.idle.eq(~running),
            taken.eq(batches.offer & (~running | (turn & finished))),
            reads.ones.eq(dense & ~alone),
            reads.back.eq(turn & ~alone & ~finished), reads.between.eq(self.idle | batches.taken),
            # Mantissas of dense8 are read where steps of others are.
            waits.eq(dense ^ reads.late_dense),
        ]
        m.d.sync += [batches.taken.eq(taken),
                     ready.eq(running & ~(waits & reads.inside) & ~last),
                     final.eq(running & ~(waits & reads.inside) & last & aged)]
        with m.If(~reads.inside):
            m.d.sync += reads.late_dense.eq(Mux(self.idle, batch.dense, dense))
        with m.If(reads.go):
            m.d.sync += [first.eq(last), left.eq(Mux(first, steps, onward)), last.eq(one),
                         ready.eq(~one), final.eq(one & aged)]
        with m.If(turn):
            m.d.sync += [last.eq(single | then), fresh.eq(fresh & alone), running.eq(~finished),
                         ready.eq(~finished & ~(single | then)), final.eq(0)]
        with m.If(taken):
            m.d.sync += [steps.eq(~(batch.steps - 2)), joins.eq(batch.joins),
                         more.eq(batch.open), dense.eq(batch.dense),
                         first.eq(1), fresh.eq(1),
                         last.eq(batch.single | begun),
                         single.eq(batch.single), running.eq(1),
                         ready.eq(~(batch.single | begun) & (
                             (reads.late_dense == batch.dense) | (self.idle & ~reads.inside))),
                         final.eq(0)]
        captured, begins = Signal(), reads.begins
        m.d.sync += opens.eq(taken | (turn & ~finished))
        m.d.comb += [captured.eq(turn & (~more | alone)),
                     begins.eq(reads.go & first & ~joins)]
        self._drain(m, (batches.taken & ~joins) | (self.idle & ~more), captured,
                    Cat(fresh & window, window, ends))
        # A pass of one step has its tile before that step waits, too.
        given = Cat(reads.go, begins, captured, opens & ~joins & window, opens & ~joins & ~window)
        held = chain(m, given, WeightsRing.LATENCY, "step", reset_less=False)[-1]
        m.d.comb += [Cat(self.steps.step, self.steps.tile, self.phase).eq(held),
                     self.steps.again.eq(delayed(m, closing, WeightsRing.LATENCY - 1, "again"))]
        return m

    def _aged(self, m: Module, begins: Value) -> Value:
        """Return whether a pass, which ``begins``, may end in the cycle behind the next one."""
        layer, bits = self.layer, (max(self.cycles.values()) - 4).bit_length()
        most, age = Signal(bits), Signal(bits + 1)
        m.d.sync += most.eq(lookup(
            Cat(layer.log2_groups, layer.signed_in, layer.wide, layer.residual),
            {flags: cycles - 4 for flags, cycles in self.cycles.items()}, bits))
        with m.If(begins | age[-1]):
            m.d.sync += age.eq(Mux(begins, ~Cat(most, Const(0, 1)),
                                   age + begins.replicate(len(age)) + 1))
        aged = ~(begins | age[-1])
        return aged & self.room if self.array.clusters > 1 else aged

    def _passes(self, m: Module, taken: Value, turn: Value) -> tuple[Signal, ...]:
        """Count phases and tiles; return whether the window begins, and, from a pass's second cycle
        on, whether it ends, whether the tile is the last one, and whether the pass is."""
        batches = self.batches
        phase, tile = (Signal.like(value, name=name) for value, name in (
            (self.layer.last_phase, "phases"), (batches.last_tile, "tiles")))
        window, ends, final, finished, later = (Signal(name=name) for name in (
            "window", "ends", "final", "finished", "later"))
        m.d.comb += [
            later.eq(batches.batch.joins & self.layer.residual & bool(self.array.residual)),
            final.eq(tile.all())]
        m.d.sync += [ends.eq(phase.all() | self.idle), finished.eq(ends & final)]
        with m.If(turn | self.idle):
            m.d.sync += [window.eq(ends), phase.eq(Mux(
                ends, ~self.layer.last_phase, phase + ends.replicate(len(phase)) + 1))]
        with m.If((turn & ends) | batches.taken):
            m.d.sync += tile.eq(Mux(batches.taken, ~batches.last_tile,
                                    tile + batches.taken.replicate(len(tile)) + 1))
        with m.If(taken):
            m.d.sync += window.eq(~later)
            with m.If(later):           # of two phases the second one
                m.d.sync += phase[0].eq(1)
        return window, ends, final, finished

    def _drain(self, m: Module, keep: Value, comes: Value, flags: Value) -> None:
        """Begin a pass's output, and keep what the output path has to know of it: where heads lie
        is the batch's with ``keep``."""
        kept, empty, passes = Signal.like(self.heads, name="kept"), Signal(), self.passes
        with m.If(keep):
            m.d.sync += kept.eq(self.heads)
        strobes = chain(m, comes, WeightsRing.LATENCY + self.lag, "begins", reset_less=False)
        m.d.comb += passes.start.eq(strobes[-1])
        given: Value = Cat(delayed(m, flags, 1, "flags"), kept)
        # While nothing leaves, it goes on with the executor.
        m.d.comb += empty.eq(~self.pending & ~self.draining)
        # Where passes are shorter than what is to be kept takes, it moves on with the begin.
        short = min(self.cycles.values()) < self.lag + 4
        for k, strobe in enumerate([strobes[1], strobes[-2]][:1 + short]):
            place = Signal(len(given), name=f"place{k}")
            with m.If(strobe | empty):
                m.d.sync += place.eq(given)
            given = place
        m.d.comb += Cat(passes.fresh, passes.begins, passes.ends, passes.heads).eq(given)
        m.d.sync += self.pending.eq(comes | (self.pending & ~passes.start))
