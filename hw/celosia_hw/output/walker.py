"""The walk over output beats: which row, which positions, which place in the output map."""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from celosia_hw.layouts import write_layout
from celosia_hw.parts.compare import at_least
from celosia_spec.isa import PHASE_BITS, ArrayConfig


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
    direct, wide : In
        Of the layer: a draining final phase, or not even the normalising walk, places its beats.
    log2_groups, last_batch ... write_step : In
        Of the layer, see :class:`celosia_spec.isa.Word`.
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
    table_enable, table_address, table_data : In
        Write port of the write table.

    Timing
    ------
    All outputs belong to the same cycle.
    """

    AHEAD = 2

    def __init__(self, array: ArrayConfig) -> None:
        self.array = array
        counts = array.count_bits
        super().__init__({
            **{name: In(1) for name in ("load", "drain", "normalise", "direct", "wide")},
            **{name: In(counts) for name in ("last_batch", "last_tile", "last_position")},
            **{name: Out(1) for name in ("draining", "normalising", "final", "first_phase",
                                         "placing", "beat_done", "done", "overrun")},
            "log2_groups": In(3), "last_phase": In(PHASE_BITS),
            "row_base": In(range(array.table_rows)),
            "write_base": In(range(array.writes)), "write_step": In(array.bank_row_bits),
            "row": Out(range(array.table_rows)), "store": Out(range(array.store_beats)),
            "place": Out(write_layout(array)), "element": Out(array.beat_bits),
            "valid": Out(array.beat),
            "table_enable": In(1), "table_address": In(range(array.writes)),
            "table_data": In(array.write_word_bits),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        array = self.array
        slot_bits = array.pass_beats.bit_length() - 1
        m.submodules.table = table = Memory(shape=write_layout(array).size, depth=array.writes,
                                            init=[], attrs={"ram_style": "block"})
        write, read = table.write_port(), table.read_port()
        draining, normalising = Signal(), Signal()
        beat, phase = Signal(max(1, slot_bits)), Signal(PHASE_BITS)
        tile, batch, left = (Signal(array.count_bits, name=n) for n in ("tile", "batch", "left"))
        row, offset = Signal.like(self.row), Signal(array.bank_row_bits)
        tiles_done = Signal(max(1, len(self.store) - slot_bits))
        element = Signal(array.beat_bits)
        tile_done, last_tile, batch_done = Signal(), Signal(), Signal()
        entry = (self._entry_ahead if array.deep else self._entry)(m, read, batch_done)
        group, skip = self._beat_of_group(m, beat, left)
        beat_last = Signal.like(beat)
        m.d.comb += beat_last.eq(beat | Mux(normalising, skip, 0))
        m.d.comb += [
            write.en.eq(self.table_enable), write.addr.eq(self.table_address),
            write.data.eq(self.table_data),
            self.draining.eq(draining), self.normalising.eq(normalising),
            self.final.eq(normalising | (phase == self.last_phase)),
            self.first_phase.eq(phase == 0),
            self.placing.eq(Mux(normalising, ~self.wide, draining & self.direct & self.final)),
            self.row.eq(row + group),
            self.store.eq(Cat(beat[:slot_bits], tiles_done)),
            self.place.eq(entry), self.place.row.eq(entry.row + offset), self.element.eq(element),
            self.beat_done.eq((draining | normalising) & (~self.placing | entry.last)),
            tile_done.eq(self.beat_done & (beat_last.all() if slot_bits else 1)),
            last_tile.eq(tile == self.last_tile),
            batch_done.eq(tile_done & self.final & last_tile),
            self.done.eq(batch_done & (batch == self.last_batch)),
        ]
        m.d.comb += self.overrun.eq(self.drain & draining & ~tile_done)
        with m.If(self.placing):
            m.d.sync += element.eq(Mux(entry.last, 0, element + entry.count + 1))
        with m.If(self.beat_done):
            m.d.sync += beat.eq(beat_last + 1)
        with m.If(tile_done):
            m.d.sync += [draining.eq(0), phase.eq(Mux(self.final, 0, phase + 1))]
        with m.If(tile_done & self.final):
            m.d.sync += [tile.eq(Mux(last_tile, 0, tile + 1)), tiles_done.eq(tiles_done + 1),
                         left.eq(left - (array.lanes >> self.log2_groups))]
            with m.If(last_tile):
                m.d.sync += [batch.eq(batch + 1), left.eq(self.last_position),
                             row.eq(row + (1 << self.log2_groups)),
                             offset.eq(offset + self.write_step)]
        with m.If(self.drain):
            m.d.sync += draining.eq(1)
        with m.If(self.load | self.done):
            m.d.sync += [tile.eq(0), batch.eq(0), tiles_done.eq(0), left.eq(self.last_position),
                         row.eq(self.row_base), offset.eq(0), normalising.eq(0)]
        with m.If(self.load):
            m.d.sync += [beat.eq(0), phase.eq(0), element.eq(0), draining.eq(0)]
        with m.If(self.normalise):
            m.d.sync += normalising.eq(1)
        return m

    def _entry(self, m: Module, read: Any, again: Value) -> data.View:
        """Return the present write-table entry; the walk goes back to the layer's first one
        ``again`` and again, at the end of every batch."""
        index = Signal(range(self.array.writes))
        following = Signal.like(index)
        with m.If(self.load | again):
            m.d.comb += following.eq(self.write_base)
        with m.Else():
            m.d.comb += following.eq(index + self.placing)
        m.d.comb += read.addr.eq(following)
        m.d.sync += index.eq(following)
        return data.View(write_layout(self.array), read.data)

    def _entry_ahead(self, m: Module, read: Any, again: Value) -> data.View:
        """As `_entry`, for a deep array: the memory's address comes out of a register, and so does
        the entry, so that no decision of the walk begins or ends at a block memory.

        The memory reads one entry ahead of the present one, the address is two ahead. The first
        two entries are kept from the layer's load on, for the way back.
        """
        layout = write_layout(self.array)
        entry, first, second = (Signal(layout.size, name=name, reset_less=True)
                                for name in ("entry", "first", "second"))
        index = Signal(range(self.array.writes))
        loading, at_first = Signal(3), Signal()     # cycles since the load; the entry is the first
        m.d.comb += [read.addr.eq(index), read.en.eq(self.placing | loading[:2].any())]
        m.d.sync += loading.eq(Cat(self.load, loading))
        with m.If(self.load):
            m.d.sync += index.eq(self.write_base)
        with m.Elif(again):
            m.d.sync += [index.eq(self.write_base + 2), entry.eq(first), at_first.eq(1)]
        with m.Elif(read.en):
            m.d.sync += [index.eq(index + 1), entry.eq(Mux(at_first, second, read.data)),
                         at_first.eq(0)]
        with m.If(loading[1]):
            m.d.sync += [entry.eq(read.data), first.eq(read.data), at_first.eq(0)]
        with m.If(loading[2]):
            m.d.sync += second.eq(read.data)
        return data.View(layout, entry)

    def _beat_of_group(self, m: Module, beat: Signal, left: Signal) -> tuple[Value, Value]:
        """Drive ``valid`` from the positions left in the row; return the group of the beat, and
        the bits to set in the beat number so that the group's last real beat becomes its last."""
        array = self.array
        slot_bits, beat_bits = array.pass_beats.bit_length() - 1, array.beat_bits
        group, inside, within = (Signal(max(1, slot_bits), name=n)
                                 for n in ("group", "inside", "within"))
        for groups in range(array.groups_max.bit_length()):
            with m.If(self.log2_groups == groups):
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
