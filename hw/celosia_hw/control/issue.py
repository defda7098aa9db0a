"""The steps of a layer: batches of tiles of phases of weight words."""

from typing import Any

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from celosia_hw.layouts import layout
from celosia_hw.signatures import Steps
from celosia_spec.isa import BATCH, DESCRIPTOR, PHASE_BITS, ArrayConfig


class Issue(wiring.Component):
    """Issue a step a cycle, without a bubble between passes; a pass that is too short waits before
    its first step, so that sums are never ready too early.

    Members
    -------
    layer : In(descriptor group "control")
    load : In(1)
        Strobe: begin at the layer's first step.
    begin : In(1), run : In(1)
        Strobe: take over the first batch word. From the next cycle on issue steps, while ``run``.
    word : In(batch word), take : Out(1)
        The next batch word, there from the cycle after ``take`` on but for one: strobe, it was
        taken over.
    steps : Out(Steps)
    done : Out(1)
        Strobe: this is the layer's last step.

    Timing
    ------
    See :class:`Steps`; the flags are zero in every other cycle.
    """

    def __init__(self, array: ArrayConfig) -> None:
        self.array = array
        super().__init__({
            "layer": In(layout(DESCRIPTOR.groups["control"])), "load": In(1), "begin": In(1),
            "run": In(1), "word": In(layout(BATCH)), "take": Out(1), "steps": Out(Steps(array)),
            "done": Out(1),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        array, layer, flags = self.array, self.layer, self.steps.flags
        slot_bits = 0 if array.replicate else array.groups_max.bit_length() - 1
        word = Signal(len(self.steps.row) + slot_bits)
        batch_word = Signal.like(word)
        last_step, pass_wait, wait = (Signal.like(field, name=name) for field, name in (
            (self.word.steps, "last_step"), (self.word.wait, "pass_wait"),
            (self.word.wait, "left")))
        index, phase = Signal.like(last_step), Signal(PHASE_BITS)
        tile, batch = (Signal(array.count_bits, name=n) for n in ("tile", "batch"))
        first, end, last_phase = Signal(), Signal(), Signal()
        m.d.comb += [
            self.steps.row.eq(word[slot_bits:]), self.steps.slot.eq(word[:slot_bits]),
            first.eq((index == 0) & (phase == 0)),
            end.eq((wait == 0) & (index == last_step)),
            last_phase.eq(phase == layer.last_phase[:PHASE_BITS]),
        ]
        stride = 1 if array.replicate else 1 << layer.log2_groups[:3]
        with m.If(self.run):
            m.d.comb += [flags.valid.eq(wait == 0), flags.first.eq(index == 0),
                         flags.last.eq(end), flags.tile_first.eq(first),
                         flags.tile_last.eq(tile == layer.last_tile[:len(tile)])]
            with m.If(flags.valid):
                m.d.sync += [index.eq(index + 1), word.eq(word + stride)]
            with m.Else():
                m.d.sync += wait.eq(wait - 1)
            with m.If(first & (tile == 0)):
                m.d.sync += batch_word.eq(word)
            with m.If(end):
                m.d.sync += [index.eq(0), wait.eq(pass_wait), phase.eq(phase + 1)]
                with m.If(last_phase):
                    m.d.sync += [phase.eq(0), tile.eq(tile + 1)]
                with m.If(last_phase & flags.tile_last):
                    m.d.sync += [tile.eq(0), batch.eq(batch + 1)]
                    m.d.comb += [self.take.eq(1),
                                 self.done.eq(batch == layer.last_batch[:len(batch)])]
                with m.Else():
                    m.d.sync += word.eq(Mux(first & (tile == 0), word, batch_word))
        with m.If(self.begin):
            m.d.comb += self.take.eq(1)
        with m.If(self.take):
            m.d.sync += [last_step.eq(self.word.steps), pass_wait.eq(self.word.wait),
                         wait.eq(self.word.wait)]
        with m.If(self.load):
            m.d.sync += [index.eq(0), phase.eq(0), tile.eq(0), batch.eq(0),
                         word.eq(layer.weight_base << slot_bits)]
        return m
