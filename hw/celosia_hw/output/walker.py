"""The walk over output beats: which row, which positions, which place in the output map."""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from celosia_hw.layouts import layout
from celosia_hw.output.places import Places
from celosia_hw.parts.compare import at_least
from celosia_hw.signatures import HostMemory
from celosia_spec.isa import DESCRIPTOR, PHASE_BITS, ArrayConfig, write_word


class Walker(wiring.Component):
    """Walk over the beats of a layer's output: once while it drains, once to normalise it.

    A beat is ``beat`` neighbouring output positions of one row. Order: batch, tile, phase (only
    while draining), beat of the tile. A tile has ``pass_beats`` beats whatever the group count;
    normalising passes over beats of a group that hold no output position, behind its first.
    While ``placing``, a beat takes one cycle for each of its write-table entries, otherwise one.

    Members
    -------
    load : In
        Strobe: begin at the first beat, take over the layer's parameters. The first ``drain``
        comes at least ``AHEAD`` cycles later.
    drain : In
        Strobe: a pass ends; its beats are walked from the next cycle on.
    normalise : In
        Strobe: walk over the whole layer from the next cycle on, without phases.
    layer : In(descriptor group "output")
        With ``direct`` a draining final phase places its beats; with ``wide`` not even the
        normalising walk does.
    draining, normalising, final, first_phase, placing : Out
        Which walk is active; the beat belongs to the last phase; to the first one; it is placed.
    row, store, place, element : Out
        Row-table address; store address; where the entry goes (its row includes the batch's
        offset); first element of the beat that the entry takes.
    valid : Out(beat)
        Which elements are real output positions.
    beat_done, done, overrun : Out
        Strobes: this is the beat's last cycle; the walk's last cycle; a pass ended before the
        beats of the one before were walked.
    host_writes : In(HostMemory)
        Writes only: of the write table.

    Timing
    ------
    All outputs belong to the same cycle.
    """

    AHEAD = Places.AHEAD

    def __init__(self, array: ArrayConfig) -> None:
        self.array = array
        super().__init__({
            **{name: In(1) for name in ("load", "drain", "normalise")},
            **{name: Out(1) for name in ("draining", "normalising", "final", "first_phase",
                                         "placing", "beat_done", "done", "overrun")},
            "layer": In(layout(DESCRIPTOR.groups["output"])),
            "row": Out(range(array.table_rows)), "store": Out(range(array.store_beats)),
            "place": Out(layout(write_word(array))), "element": Out(array.beat_bits),
            "valid": Out(array.beat), "host_writes": In(HostMemory(readable=False)),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        array, layer = self.array, self.layer
        slot_bits = array.pass_beats.bit_length() - 1
        draining, normalising = Signal(), Signal()
        beat, phase = Signal(max(1, slot_bits)), Signal(PHASE_BITS)
        tile, batch, left = (Signal(array.count_bits, name=n) for n in ("tile", "batch", "left"))
        row, tiles_done = Signal.like(self.row), Signal(max(1, len(self.store) - slot_bits))
        tile_done, last_tile, batch_done = Signal(), Signal(), Signal()
        entry = self._places(m, batch_done)
        group, skip = self._beat_of_group(m, beat, left)
        beat_last = Signal.like(beat)
        m.d.comb += [
            beat_last.eq(beat | Mux(normalising, skip, 0)),
            self.draining.eq(draining), self.normalising.eq(normalising),
            self.final.eq(normalising | (phase == layer.last_phase[:PHASE_BITS])),
            self.first_phase.eq(phase == 0),
            self.placing.eq(Mux(normalising, ~layer.wide, draining & layer.direct & self.final)),
            self.row.eq(row + group), self.store.eq(Cat(beat[:slot_bits], tiles_done)),
            self.beat_done.eq((draining | normalising) & (~self.placing | entry.last)),
            tile_done.eq(self.beat_done & (beat_last.all() if slot_bits else 1)),
            last_tile.eq(tile == layer.last_tile[:array.count_bits]),
            batch_done.eq(tile_done & self.final & last_tile),
            self.done.eq(batch_done & (batch == layer.last_batch[:array.count_bits])),
            self.overrun.eq(self.drain & draining & ~tile_done),
        ]
        with m.If(self.beat_done):
            m.d.sync += beat.eq(beat_last + 1)
        with m.If(tile_done):
            m.d.sync += [draining.eq(0), phase.eq(Mux(self.final, 0, phase + 1))]
        with m.If(tile_done & self.final):
            m.d.sync += [tile.eq(Mux(last_tile, 0, tile + 1)), tiles_done.eq(tiles_done + 1),
                         left.eq(left - (array.lanes >> layer.log2_groups[:3]))]
            with m.If(last_tile):
                m.d.sync += [batch.eq(batch + 1), left.eq(layer.last_position),
                             row.eq(row + (1 << layer.log2_groups[:3]))]
        with m.If(self.drain):
            m.d.sync += draining.eq(1)
        with m.If(self.load | self.done):
            m.d.sync += [tile.eq(0), batch.eq(0), tiles_done.eq(0), left.eq(layer.last_position),
                         row.eq(layer.row_base), normalising.eq(0)]
        with m.If(self.load):
            m.d.sync += [beat.eq(0), phase.eq(0), draining.eq(0)]
        with m.If(self.normalise):
            m.d.sync += normalising.eq(1)
        return m

    def _places(self, m: Module, batch_done: Signal) -> data.View:
        """Drive ``place`` and ``element``; return the present write-table entry."""
        m.submodules.places = places = Places(self.array)
        connect(m, flipped(self.host_writes), places.host_writes)
        entry, offset = places.entry, Signal(self.array.bank_row_bits)
        element = Signal(self.array.beat_bits)
        m.d.comb += [
            places.base.eq(self.layer.write_base), places.load.eq(self.load),
            places.again.eq(batch_done), places.advance.eq(self.placing),
            self.place.eq(entry), self.place.row.eq(entry.row + offset), self.element.eq(element),
        ]
        with m.If(self.placing):
            m.d.sync += element.eq(Mux(entry.last, 0, element + entry.count + 1))
        with m.If(batch_done):
            m.d.sync += offset.eq(offset + self.layer.write_step[:len(offset)])
        with m.If(self.load | self.done):
            m.d.sync += offset.eq(0)
        with m.If(self.load):
            m.d.sync += element.eq(0)
        return entry

    def _beat_of_group(self, m: Module, beat: Signal, left: Signal) -> tuple[Value, Value]:
        """Drive ``valid`` from the positions left in the row; return the group of the beat, and
        the bits to set in the beat number so that the group's last real beat becomes its last."""
        array = self.array
        slot_bits, beat_bits = array.pass_beats.bit_length() - 1, array.beat_bits
        group, inside, within = (Signal(max(1, slot_bits), name=n)
                                 for n in ("group", "inside", "within"))
        for groups in range(array.groups_max.bit_length()):
            with m.If(self.layer.log2_groups[:3] == groups):
                low = slot_bits - groups
                m.d.comb += [group.eq(beat[:slot_bits] >> low), inside.eq(beat[:low]),
                             within.eq((1 << low) - 1)]
        # ``left`` is one less than the positions left: its upper bits number the last real beat.
        last = Signal(max(1, slot_bits))
        beyond, before, at = Signal(), Signal(), Signal()
        m.d.comb += [
            last.eq(left[beat_bits:beat_bits + slot_bits]),
            beyond.eq(left[beat_bits + slot_bits:].any()),
            before.eq(beyond | (inside < last)), at.eq(~beyond & (inside == last)),
            *(self.valid[e].eq(before | (at & at_least(left[:beat_bits], e)))
              for e in range(array.beat)),
        ]
        return group, Mux(at, within, 0)
