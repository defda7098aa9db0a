"""Passes: the steps of a batch, for each tile and each phase of its pooling window."""

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from celosia_hw.lanes.reading import STEP
from celosia_hw.layouts import layout
from celosia_hw.parts.delay import chain, delayed
from celosia_hw.parts.lookup import lookup
from celosia_hw.stream.rings import WeightsRing
from celosia_spec.stream.array import Array
from celosia_spec.stream.controls import BATCH, LAYER
from celosia_spec.stream.passes import pass_cycles

PASS = data.StructLayout({
    "fresh": 1,     # its batch's first tile, and its window begins
    "begins": 1,    # its window begins
    "ends": 1,      # its window ends
})
"""Flags of a pass that is drained, as the output path wants them."""


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
        Cycles from a pass's last ``step`` to ``start``, 0 to 3.

    Members
    -------
    layer : In(LAYER)
        Stable while a batch runs, and two cycles before.
    last_tile : In
        Tiles of the band - 1; with ``offer``.
    offer : In(1), batch : In(BATCH), single : In(1), taken : Out(1)
        There is a batch, and it has one step; ``taken`` in the cycle behind that in which it is
        taken over; in it ``offer`` says nothing.
    heads : In, kept : Out
        With ``taken``: where its heads lie in the controls' ring. It stays from the next cycle on.
    began : Out(1)
        The batch's first step, or the first one behind that of a residual operand, was issued in
        the cycle before: so its heads are in the ring.
    available, inside : In(1)
        The entry of the next step is in the weights' ring; mantissas are still to be read there.
    go, last, done : Out(1), begins, dense : Out(1)
        A step, and with it what `WeightsRing` wants.
    step : Out(STEP), tile, again, phase : Out(1)
        `WeightsRing.LATENCY` cycles behind ``go``. Columns and sums begin with ``first``, and end
        with ``last``; those of a batch in parts only once. Strobes as soon as a pass's first step
        may come: its tile begins, and is the band's last; a phase of the same tile begins.
    start : Out(1), drained : Out(PASS), drained_heads : Out
        Strobe: the output path begins with a pass; with ``start``, and for three cycles more.
    idle : Out(1)
        There is no batch.
    pending : Out(1)
        A pass has no ``start`` yet.

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
            "layer": In(layout(*LAYER.words)), "last_tile": In((array.tiles - 1).bit_length()),
            "offer": In(1), "batch": In(layout(BATCH)), "single": In(1), "taken": Out(1),
            "heads": In(bits), "kept": Out(bits),
            "began": Out(1), "available": In(1), "inside": In(1), "go": Out(1), "last": Out(1),
            "done": Out(1), "begins": Out(1), "dense": Out(1),
            "step": Out(STEP), "tile": Out(1), "again": Out(1), "phase": Out(1),
            "start": Out(1), "drained": Out(PASS), "drained_heads": Out(bits), "idle": Out(1),
            "pending": Out(1),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        batch = self.batch
        steps, left = (Signal.like(batch.steps, name=name, reset_less=True)
                       for name in ("steps", "left"))
        joins, more, waits = Signal(reset_less=True), Signal(reset_less=True), Signal()
        running, fresh, first, taken = Signal(), Signal(), Signal(), Signal()
        # Whether there is a step, and whether it is the last one, is found a cycle ahead, but for
        # its entry; so is what is compared: passes take four cycles at least.
        ready, final = Signal(), Signal()
        last, single, dense = Signal(), Signal(reset_less=True), Signal()
        least, aged, one, turn, free = self._least(m), Signal(), Signal(), Signal(), Signal()
        window, ends, closing, finished = self._passes(m, taken, turn)
        age = Signal.like(least, name="age")
        # Whether the pass has one step, which reads a residual operand; the next one; a batch's.
        residual = self.layer.residual if self.array.residual else Const(0)
        alone, then, begun = residual & window, residual & ends, residual & ~batch.joins
        m.d.comb += [
            one.eq(left == 1), free.eq(self.available | ~fresh), turn.eq(final & free),
            self.go.eq((ready | final) & free),
            self.idle.eq(~running),
            taken.eq(self.offer & (~running | (turn & finished))),
            aged.eq(~age[1:].any()), self.dense.eq(dense & ~alone),
            self.last.eq(final & ~alone), self.done.eq(alone | (final & finished)),
        ]
        m.d.sync += [self.taken.eq(taken), self.began.eq(self.go & fresh & first),
                     age.eq(age - age.any()), waits.eq(waits & self.inside),
                     ready.eq(running & ~(waits & self.inside) & ~last),
                     final.eq(running & ~(waits & self.inside) & last & aged)]
        with m.If(self.go):
            m.d.sync += [first.eq(last), left.eq(left - 1), last.eq(one), ready.eq(~one),
                         final.eq(one & aged)]
        with m.If(turn):
            m.d.sync += [left.eq(steps), last.eq(single | then), fresh.eq(fresh & alone),
                         age.eq(least), running.eq(~finished),
                         ready.eq(~finished & ~(single | then)), final.eq(0)]
        with m.If(self.idle & ~self.inside):        # a batch does not wait for what is long gone
            m.d.sync += dense.eq(0)
        with m.If(taken):
            m.d.sync += [steps.eq(batch.steps), left.eq(batch.steps), joins.eq(batch.joins),
                         more.eq(batch.open), dense.eq(batch.dense),
                         waits.eq(dense & ~batch.dense), first.eq(1), fresh.eq(1),
                         age.eq(least), last.eq(self.single | begun),
                         single.eq(self.single), running.eq(1),
                         ready.eq(~(self.single | begun) & (~dense | batch.dense)), final.eq(0)]
        captured, begins, opens = Signal(), self.begins, Signal()
        m.d.sync += opens.eq(taken | (turn & ~finished))
        m.d.comb += [captured.eq(turn & (~more | alone)),
                     begins.eq(self.go & first & ~joins)]
        self._drain(m, joins, captured, Cat(fresh & window, window, ends))
        # A pass of one step has its tile before that step waits, too.
        given = Cat(self.go, begins, captured, opens & ~joins & window, closing,
                    opens & ~joins & ~window)
        held = chain(m, given, WeightsRing.LATENCY, "step", reset_less=False)[-1]
        m.d.comb += Cat(self.step, self.tile, self.again, self.phase).eq(held)
        return m

    def _least(self, m: Module) -> Signal:
        """Return the cycles of a pass less one."""
        least, layer = Signal(range(max(self.cycles.values()))), self.layer
        m.d.sync += least.eq(lookup(
            Cat(layer.log2_groups, layer.signed_in, layer.wide, layer.residual),
            {flags: cycles - 1 for flags, cycles in self.cycles.items()}, len(least)))
        return least

    def _passes(self, m: Module, taken: Value, turn: Value) -> tuple[Signal, ...]:
        """Count phases and tiles; return whether the window begins, whether it ends, from a pass's
        second cycle on, whether the tile is the last one, and whether the pass is."""
        phase, tile = Signal.like(self.layer.last_phase, name="phase"), Signal.like(self.last_tile)
        window, ends, tiles, final = Signal(), Signal(), Signal(), Signal()
        finished, later = Signal(), Signal()
        m.d.comb += later.eq(self.batch.joins & self.layer.residual & bool(self.array.residual))
        m.d.comb += final.eq(tile == 0)
        m.d.sync += [ends.eq(phase == self.layer.last_phase), tiles.eq(final),
                     finished.eq(ends & tiles)]
        with m.If(turn):
            m.d.sync += [phase.eq(Mux(ends, 0, phase + 1)), window.eq(ends),
                         tile.eq(tile - ends)]
        with m.If(taken):
            m.d.sync += [window.eq(~later), phase.eq(later), tile.eq(self.last_tile)]
        return window, ends, final, finished

    def _drain(self, m: Module, joins: Signal, comes: Value, flags: Value) -> None:
        """Begin a pass's output, and keep what the output path has to know of it."""
        with m.If(self.taken & ~joins):
            m.d.sync += self.kept.eq(self.heads)
        strobes = chain(m, comes, WeightsRing.LATENCY + self.lag, "begins", reset_less=False)
        m.d.comb += self.start.eq(strobes[-1])
        given: Value = Cat(delayed(m, flags, 1, "flags"), self.kept)
        # Where passes are shorter than what is to be kept takes, it moves on with the begin.
        short = min(self.cycles.values()) < self.lag + 4
        for k, strobe in enumerate([strobes[1], strobes[-2]][:1 + short]):
            place = Signal(len(given), name=f"place{k}", reset_less=True)
            with m.If(strobe):
                m.d.sync += place.eq(given)
            given = place
        m.d.comb += [self.drained.eq(given), self.drained_heads.eq(given[len(flags):])]
        m.d.sync += self.pending.eq(comes | (self.pending & ~self.start))
