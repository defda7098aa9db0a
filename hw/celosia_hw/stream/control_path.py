"""The control path: fetcher, rings, executor, sequencer, exponents."""

from typing import Any

from amaranth.hdl import Module, ResetInserter, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from celosia_hw.fill.engine import Fills
from celosia_hw.flash.reader import Copies
from celosia_hw.lanes.reading import ReadingControl
from celosia_hw.layouts import LAYER_LAYOUT
from celosia_hw.memory.main_memory import Access
from celosia_hw.stream.executor import Executor
from celosia_hw.stream.exponents import SLOT_BITS, Exponents, HostSlots
from celosia_hw.stream.fetcher import Elements, Fetcher, Run
from celosia_hw.stream.rings import ControlsRing, WeightsRing
from celosia_hw.stream.sequencer import PASS, Sequencer
from celosia_spec.isa.array import CONTROL_BITS, ENTRY_BITS, Array


class ControlPath(wiring.Component):
    """From the stream in main memory to steps, fills, table words, and exponents.

    Parameters
    ----------
    array : Array
    late : int
        Cycles from a step's index to its mantissa, see `WeightsRing`.
    lag : int
        Cycles from a pass's last step to the begin of its output, see `Sequencer`.
    cluster : int
        Whose it is.

    Members
    -------
    run : In(Run), busy : Out(1)
        While ``busy`` is 0.
    memory : Out(Access), data : In(64)
        The fetcher's side of main memory's port.
    layer : Out(LAYER_LAYOUT), position : Out(16)
        See `Executor`.
    fills : Out(Fills), copies : Out(Copies), copied : In(1)
        See `Executor` and `Fetcher`.
    reading : Out(ReadingControl), phase : Out(1)
        See `Sequencer`; mantissas come ``late`` cycles behind their step.
    output : Out(1), drained, heads : Out, read : In(1), address : In, word : Out(16)
        See `Sequencer`, where ``output`` is ``start``, and `ControlsRing`; what is read is ``word``
        in the next cycle.
    draining : In(1), placed : In(1)
        From the cycle behind ``output`` on: passes are inside the output path; it has taken
        the position of those that began.
    exponent, residual : Out(5), top : In(5), slot : Out(5), keep : Out(1), kept : Out(5)
    closed : Out(1)
        See `Exponents`.
    host : In(HostSlots), stored : Out(5), elements : In(Elements)
        While ``busy`` is 0: see `Exponents` and `Fetcher`.
    wrong : Out(1)
        Strobe: a word is no command of this array; only a reset ends what runs.
    comes : Out(1), together, space : In(1)
        Of several clusters: see `Executor`, and `Sequencer`, where ``space`` is ``room``.

    Cells on the UP5K, 16 lanes: 962, five block memories; of them the fetcher has 244, the rings 52
    and 278, executor 197, sequencer 140, exponents 48 (`make bench-block_cells`).
    """

    def __init__(self, array: Array, late: int, lag: int, cluster: int = 0) -> None:
        self.array, self.cluster = array, cluster
        self.executor = Executor(array)
        self.weights, self.sequencer = WeightsRing(array, late), Sequencer(array, lag)
        ring = (array.controls - 1).bit_length()
        super().__init__({
            "run": In(Run(array)), "busy": Out(1),
            "memory": Out(Access(array.main_words, 0)), "data": In(ENTRY_BITS),
            "layer": Out(LAYER_LAYOUT), "position": Out(CONTROL_BITS),
            "fills": Out(Fills()), "copies": Out(Copies()), "word": Out(CONTROL_BITS),
            "reading": Out(ReadingControl(array)), "phase": Out(1), "output": Out(1),
            "drained": Out(PASS), "heads": Out(ring), "read": In(1),
            "address": In(ring), "draining": In(1), "placed": In(1),
            "copied": In(1),
            "slot": Out(SLOT_BITS), "keep": Out(1), "kept": Out(SLOT_BITS),
            "held": In(SLOT_BITS), "exponent": Out(SLOT_BITS),
            "residual": Out(SLOT_BITS), "top": In(SLOT_BITS), "closed": Out(1),
            "host": In(HostSlots()), "stored": Out(SLOT_BITS), "elements": In(Elements()),
            "wrong": Out(1),
            **({"comes": Out(1), "together": In(1), "space": In(1)} if array.clusters > 1 else {}),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        array = self.array
        m.submodules.fetcher = fetcher = Fetcher(array, self.cluster)
        # Rings begin at their first place in each run: when they are full hangs on places.
        rests, controls, weights = Signal(), ControlsRing(array), self.weights
        m.d.sync += rests.eq(~self.busy)
        m.submodules.controls = ResetInserter(rests)(controls)
        m.submodules.weights = ResetInserter(rests)(weights)
        m.submodules.executor = executor = self.executor
        m.submodules.sequencer = sequencer = self.sequencer
        m.submodules.exponents = exponents = Exponents()
        connect(m, fetcher.memory, flipped(self.memory))
        connect(m, flipped(self.run), fetcher.run)
        connect(m, flipped(self.elements), fetcher.elements)
        connect(m, flipped(self.host), exponents.host)
        connect(m, executor.fills, flipped(self.fills))
        connect(m, executor.copies, flipped(self.copies))
        connect(m, executor.band, flipped(self.reading.band))
        connect(m, executor.tables, flipped(self.reading.tables))
        connect(m, sequencer.steps, flipped(self.reading.steps))
        connect(m, weights.weights, flipped(self.reading.weights))
        quiet = Signal()
        m.d.comb += [
            fetcher.data.eq(self.data), self.wrong.eq(executor.wrong),
            fetcher.room_controls.eq(controls.room), fetcher.room_entries.eq(weights.room),
            controls.write.eq(fetcher.control), controls.written.eq(fetcher.word),
            weights.write.eq(fetcher.entry), weights.written.eq(self.data),
            executor.start.eq(self.run.start), self.busy.eq(executor.busy | fetcher.busy),
            executor.there.eq(controls.there), executor.have.eq(controls.have),
            executor.word.eq(controls.word), controls.take.eq(executor.take),
            self.word.eq(controls.word),
            self.layer.eq(executor.layer), self.position.eq(executor.position),
            fetcher.copied.eq(self.copied),
            executor.idle.eq(sequencer.idle), executor.placed.eq(self.placed & ~sequencer.pending),
            executor.quiet.eq(quiet),
            executor.taken.eq(sequencer.taken), sequencer.draining.eq(self.draining),
            sequencer.layer.eq(executor.layer), sequencer.last_tile.eq(executor.last_tile),
            sequencer.offer.eq(executor.offer),
            sequencer.batch.eq(executor.batch),
            sequencer.heads.eq(controls.at), sequencer.available.eq(weights.available),
            *(getattr(weights, name).eq(getattr(sequencer, name)) for name in (
                "between", "go", "turn", "back", "fresh", "begins", "ones", "dense",
                "late_dense")),
            sequencer.inside.eq(weights.inside),
            weights.log2_groups.eq(executor.layer.log2_groups),
            self.phase.eq(sequencer.phase),
            self.output.eq(sequencer.start), self.drained.eq(sequencer.drained),
            self.heads.eq(sequencer.drained_heads),
            controls.read.eq(self.read), controls.address.eq(self.address),
            controls.tail.eq(sequencer.drained_heads),
        ]
        if array.clusters > 1:
            m.d.comb += [self.comes.eq(executor.comes), executor.together.eq(self.together),
                         sequencer.room.eq(self.space)]
        # What is written: nothing is issued, waits for the output path, or is inside it.
        m.d.sync += quiet.eq(sequencer.idle & ~sequencer.pending & ~self.draining)
        m.d.comb += [
            exponents.word.eq(controls.word), *(getattr(exponents, name).eq(getattr(executor, name))
                                            for name in ("first", "second", "set", "join")),
            exponents.top.eq(self.top),
            executor.closed.eq(exponents.closed), self.closed.eq(exponents.closed),
            exponents.idle.eq(~executor.busy), self.stored.eq(exponents.stored),
            self.slot.eq(exponents.slot), self.keep.eq(exponents.keep),
            self.kept.eq(exponents.kept), exponents.held.eq(self.held),
            self.exponent.eq(exponents.exponent), self.residual.eq(exponents.residual),
        ]
        return m
