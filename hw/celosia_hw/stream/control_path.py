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
from celosia_hw.output.control import LayerExponents, OutputControl, OutputState
from celosia_hw.stream.executor import Executor, Meeting
from celosia_hw.stream.exponents import Exponents, HostSlots
from celosia_hw.stream.fetcher import Elements, Fetcher, Run
from celosia_hw.stream.rings import ControlsRing, WeightsRing
from celosia_hw.stream.sequencer import Sequencer
from celosia_spec.isa.array import ENTRY_BITS, Array
from celosia_spec.isa.numbers import EXPONENT_BITS


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
    layer : Out(LAYER_LAYOUT), exponents : Out(LayerExponents)
        See `Executor` and `Exponents`.
    fills : Out(Fills), copies : Out(Copies), copied : In(1)
        See `Executor` and `Fetcher`.
    reading : Out(ReadingControl), phase : Out(1)
        See `Sequencer`; mantissas come ``late`` cycles behind their step.
    output : Out(OutputControl), state : In(OutputState)
        See `Sequencer`, `ControlsRing` and `Exponents`.
    host : In(HostSlots), stored : Out(5), elements : In(Elements)
        While ``busy`` is 0: see `Exponents` and `Fetcher`.
    wrong : Out(1)
        Strobe: a word is no command of this array; only a reset ends what runs.
    meeting : Out(Meeting), space : In(1)
        Of several clusters: see `Sequencer`, where ``space`` is ``room``.
    """

    def __init__(self, array: Array, late: int, lag: int, cluster: int = 0) -> None:
        self.array, self.cluster = array, cluster
        self.executor = Executor(array)
        self.weights, self.sequencer = WeightsRing(array, late), Sequencer(array, lag)
        super().__init__({
            "run": In(Run(array)), "busy": Out(1),
            "memory": Out(Access(array.main_words, 0)), "data": In(ENTRY_BITS),
            "layer": Out(LAYER_LAYOUT), "exponents": Out(LayerExponents()),
            "reading": Out(ReadingControl(array)), "phase": Out(1),
            "output": Out(OutputControl(array)), "state": In(OutputState()),
            "fills": Out(Fills()), "copies": Out(Copies()), "copied": In(1),
            "host": In(HostSlots()), "stored": Out(EXPONENT_BITS), "elements": In(Elements()),
            "wrong": Out(1),
            **({"meeting": Out(Meeting()), "space": In(1)} if array.clusters > 1 else {}),
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
        connect(m, flipped(self.run), fetcher.run)
        connect(m, fetcher.memory, flipped(self.memory))
        connect(m, flipped(self.elements), fetcher.elements)
        connect(m, fetcher.controls, controls.writes)
        connect(m, fetcher.entries, weights.writes)
        connect(m, controls.words, executor.words)
        connect(m, flipped(self.output.heads), controls.heads)
        connect(m, executor.slots, exponents.orders)
        connect(m, executor.band, flipped(self.reading.band))
        connect(m, executor.tables, flipped(self.reading.tables))
        connect(m, executor.fills, flipped(self.fills))
        connect(m, executor.copies, flipped(self.copies))
        connect(m, executor.batches, sequencer.batches)
        connect(m, sequencer.reads, weights.reads)
        connect(m, sequencer.steps, flipped(self.reading.steps))
        connect(m, weights.weights, flipped(self.reading.weights))
        connect(m, sequencer.passes, flipped(self.output.passes))
        connect(m, flipped(self.host), exponents.host)
        connect(m, exponents.memory, flipped(self.output.slots))
        connect(m, exponents.layer, flipped(self.exponents))
        quiet, state = Signal(), self.state
        m.d.comb += [
            fetcher.data.eq(self.data), fetcher.copied.eq(self.copied),
            executor.start.eq(self.run.start), executor.idle.eq(sequencer.idle),
            executor.placed.eq(state.placed & ~sequencer.pending), executor.quiet.eq(quiet),
            self.busy.eq(executor.busy | fetcher.busy), self.wrong.eq(executor.wrong),
            self.layer.eq(executor.layer), self.output.position.eq(executor.position),
            sequencer.layer.eq(executor.layer), weights.log2_groups.eq(executor.layer.log2_groups),
            sequencer.heads.eq(controls.at), controls.tail.eq(sequencer.passes.heads),
            sequencer.draining.eq(state.busy), self.phase.eq(sequencer.phase),
            exponents.top.eq(state.top), exponents.idle.eq(~executor.busy),
            self.stored.eq(exponents.stored),
        ]
        if self.array.clusters > 1:
            connect(m, executor.meeting, flipped(self.meeting))
            m.d.comb += sequencer.room.eq(self.space)
        # What is written: nothing is issued, waits for the output path, or is inside it.
        m.d.sync += quiet.eq(sequencer.idle & ~sequencer.pending & ~state.busy)
        return m
