"""The machine's core: control, fill, reading and output around main memory."""

from functools import reduce
from operator import or_
from typing import Any

from amaranth.hdl import Cat, Module, Mux, ResetInserter, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from celosia_hw.cluster import Cluster
from celosia_hw.fill.engines import fill_engine
from celosia_hw.flash.reader import FlashReader, Image
from celosia_hw.memory.main_memory import Access, MainMemory
from celosia_hw.memory.shared_memory import SharedMemory
from celosia_hw.stream.exponents import HostSlots
from celosia_hw.stream.fetcher import Elements, Run
from celosia_spec.isa.array import CONTROL_BITS, ENTRY_BITS, Array
from celosia_spec.isa.fabric import GENERIC, Fabric
from celosia_spec.isa.numbers import EXPONENT_BITS


class Machine(wiring.Component):
    """Runs streams out of main memory.

    Parameters
    ----------
    array : Array
    fabric : Fabric
        What it is built of.
    main_memory : str
        One of `MAIN_KINDS`.
    reader : FlashReader, optional
        Of arrays with flash.

    Members
    -------
    host : In(Access), data : Out(64)
        Main memory's port for others, at any time, see `MainMemory`; of several clusters what is
        read while ``busy`` is 0, see `SharedMemory`.
    flash : Out(Pins), image : Out(Image)
        See `FlashReader`; only with one.
    run : In(Run), busy : Out(1)
        While ``busy`` is 0. When it falls, everything is written.
    slots : In(HostSlots), stored : Out(5)
        While ``busy`` is 0; ``stored`` is the exponent + 16 of the slot a cycle later.
    elements : In(Elements)
        While ``busy`` is 0: four elements that are kept, those of ``data``.
    stop : In(1)
        Strobe: what runs ends. Main memory and exponents keep what they have, all else begins anew.
    wrong : Out(1)
        Strobe: a control word is no command of this array; only ``stop`` ends the run.
    saturated : Out(1)
        Since ``start`` a mantissa was clipped.
    """

    def __init__(self, array: Array, *, fabric: Fabric = GENERIC, main_memory: str = "bram",
                 reader: FlashReader | None = None) -> None:
        if bool(array.flash) != (reader is not None):
            raise ValueError("an array with flash has a reader, and no other")
        self.array, self.reader = array, reader
        self.memory = _memory(array, main_memory)
        self.clusters = [Cluster(array, fabric, number) for number in range(array.clusters)]
        self.fill, self.control = fill_engine(array, fabric), self.clusters[0].control
        of_flash = {} if reader is None else {
            "flash": Out(reader.pins.signature), "image": Out(Image())}
        super().__init__({
            "host": In(Access(array.main_words, CONTROL_BITS)),
            "data": Out(ENTRY_BITS), "run": In(Run(array)), "busy": Out(1),
            "slots": In(HostSlots()), "stored": Out(EXPONENT_BITS), "elements": In(Elements()),
            "stop": In(1), "wrong": Out(1), "saturated": Out(1), **of_flash,
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        memory, control, fill = self.memory, self.control, self.fill
        m.submodules.memory = memory
        for name in ("control", "fill", "reading", "output"):
            for k, owner in enumerate([self] if name == "fill" else self.clusters):
                m.submodules[f"{name}{k or ''}"] = ResetInserter(self.stop)(getattr(owner, name))
        connect(m, flipped(self.host), memory.host)
        connect(m, fill.memory, memory.fill)
        connect(m, flipped(self.elements), control.elements)
        connect(m, flipped(self.run), *(cluster.control.run for cluster in self.clusters))
        connect(m, flipped(self.slots), *(cluster.control.host for cluster in self.clusters))
        m.d.comb += [
            fill.data.eq(memory.filled if self.array.two_ports else memory.data),
            self.data.eq(control.data), self.stored.eq(control.stored),
            *(getattr(self, name).eq(reduce(or_, (getattr(cluster.control, name)
                                                  for cluster in self.clusters)))
              for name in ("busy", "wrong")),
        ]
        for cluster in self.clusters:
            cluster.connect(m, memory, fill, self.stop)
        if len(self.clusters) > 1:
            self._join(m)
        if self.reader is not None:
            self._flash(m, self.reader)
        self._fill(m)
        m.d.sync += self.saturated.eq(
            ((self.saturated & ~self.run.start) | (fill.clipped & self.busy)) & ~self.stop)
        return m

    def _join(self, m: Module) -> None:
        """Let clusters wait for each other, and know the largest exponent of all of them."""
        together, top = Signal(), Signal(EXPONENT_BITS)
        controls = [cluster.control for cluster in self.clusters]
        tops: list[Value] = [cluster.output.state.top for cluster in self.clusters]
        while len(tops) > 1:
            tops = [Mux(a > b, a, b) for a, b in zip(tops[::2], tops[1::2], strict=True)]
        m.d.sync += [together.eq(Cat(*(control.meeting.comes for control in controls)).all()),
                     top.eq(tops[0])]
        for control in controls:
            m.d.comb += [control.meeting.together.eq(together), control.state.top.eq(top)]

    def _flash(self, m: Module, reader: FlashReader) -> None:
        m.submodules.reader, control = reader, self.control
        connect(m, reader.memory, self.memory.flash)
        connect(m, control.copies, reader.copies)
        connect(m, reader.pins, flipped(self.flash))
        connect(m, reader.image, flipped(self.image))
        m.d.comb += [
            *(cluster.control.copies.copying.eq(reader.copies.copying)
              for cluster in self.clusters[1:]),
            *(cluster.control.copied.eq(reader.copied) for cluster in self.clusters),
            reader.stop.eq(self.run.start | self.stop),
        ]

    def _fill(self, m: Module) -> None:
        control, fill = self.control, self.fill
        connect(m, control.fills, fill.fills)
        for other in (cluster.control.fills for cluster in self.clusters[1:]):
            m.d.comb += [other.room.eq(fill.fills.room), other.busy.eq(fill.fills.busy)]
        exponent, own = Signal(EXPONENT_BITS), control.exponents
        m.d.sync += exponent.eq(own.input)
        if self.array.residual:
            with m.If(fill.residual):
                m.d.sync += exponent.eq(own.residual)
        m.d.comb += fill.exponent.eq(exponent)


def _memory(array: Array, kind: str) -> MainMemory | SharedMemory:
    """Return the main memory of an array; several clusters share one in block memory."""
    if array.clusters == 1:
        return MainMemory(array.main_words, kind, two_ports=array.two_ports)
    if kind != "bram":
        raise ValueError(f"main_memory must be 'bram' of several clusters, not {kind!r}")
    return SharedMemory(array.main_words, array.clusters)
