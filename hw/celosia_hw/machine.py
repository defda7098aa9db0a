"""The machine's core: control, fill, reading and output around main memory."""

from typing import Any

from amaranth.hdl import Module, ResetInserter, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from celosia_hw.fill.engine import FillEngine
from celosia_hw.flash.reader import PINS, FlashReader
from celosia_hw.lanes.reading import ReadingPath
from celosia_hw.memory.main_memory import Access, MainMemory
from celosia_hw.output.path import OUTPUT_PATHS
from celosia_hw.stream.control_path import ControlPath
from celosia_hw.stream.exponents import SLOT_BITS
from celosia_spec.isa.array import CONTROL_BITS, ENTRY_BITS, Array
from celosia_spec.isa.timing import MANTISSA

_STATUS = ("checking", "ready", "fault")


class Machine(wiring.Component):
    """Runs streams out of main memory.

    Parameters
    ----------
    array : Array
    mac : str
        Kind of `Multipliers`.
    main_memory : str
        One of `MAIN_KINDS`.
    reader : FlashReader, optional
        Of arrays with flash.

    Members
    -------
    host : In(Access), data : Out(64)
        Main memory's port for others, at any time, see `MainMemory`.
    flash_cs, flash_clock, flash_copi, flash_drive : Out(1), flash_i : In(wires)
    checking, ready : Out(1), fault : Out(Fault)
        See `FlashReader`; only with one.
    start : In(1), list : In, busy : Out(1)
        Strobe, while ``busy`` is 0: run the stream whose list of chunks begins in that word. When
        ``busy`` falls, everything is written.
    host_write : In(1), host_slot, host_exponent : In(5), stored : Out(5)
        While ``busy`` is 0: strobe, a slot gets an exponent + 16; ``stored`` is that of
        ``host_slot`` a cycle later.
    split : In(1), word : Out(16)
        While ``busy`` is 0: strobe, the first element of ``data`` is ``word`` a cycle later.
    push : In(1), pushed : In(16)
        While ``busy`` is 0: strobe, each of four elements, of which ``word`` is the first one,
        becomes the one behind it, and the last one ``pushed``.
    stop : In(1)
        Strobe: what runs ends. Main memory and exponents keep what they have, all else begins anew.
    wrong : Out(1)
        Strobe: a control word is no command of this array; only ``stop`` ends the run.
    saturated : Out(1)
        Since ``start`` a mantissa was clipped.
    """

    def __init__(self, array: Array, *, mac: str = "generic", main_memory: str = "bram",
                 reader: FlashReader | None = None) -> None:
        if bool(array.flash) != (reader is not None):
            raise ValueError("an array with flash has a reader, and no other")
        self.array, self.reader = array, reader
        self.memory = MainMemory(array.main_words, main_memory)
        self.output = OUTPUT_PATHS[array.drain](array, mac)
        self.reading, self.fill = ReadingPath(array, mac), FillEngine(array)
        self.control = ControlPath(array, MANTISSA, ReadingPath.LATENCY - self.output.lead())
        address = array.main_bits
        of_flash = {} if reader is None else {
            **{f"flash_{name}": reader.signature.members[name] for name in PINS},
            **{name: reader.signature.members[name] for name in _STATUS}}
        super().__init__({
            "host": In(Access(array.main_words, CONTROL_BITS)),
            "data": Out(ENTRY_BITS), "start": In(1), "list": In(address), "busy": Out(1),
            "host_write": In(1), "host_slot": In(SLOT_BITS), "host_exponent": In(SLOT_BITS),
            "stored": Out(SLOT_BITS), "split": In(1), "push": In(1),
            "pushed": In(CONTROL_BITS), "word": Out(CONTROL_BITS), "stop": In(1),
            "wrong": Out(1), "saturated": Out(1), **of_flash,
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        memory, control, fill = self.memory, self.control, self.fill
        m.submodules.memory = memory
        for name in ("control", "fill", "reading", "output"):
            m.submodules[name] = ResetInserter(self.stop)(getattr(self, name))
        connect(m, flipped(self.host), memory.host)
        connect(m, control.memory, memory.fetcher)
        connect(m, fill.memory, memory.fill)
        for block in (control, fill, self):
            m.d.comb += block.data.eq(memory.data)
        m.d.comb += self.word.eq(control.read_word)
        for name in ("start", "list", "host_write", "host_slot", "host_exponent", "split", "push",
                     "pushed"):
            m.d.comb += getattr(control, name).eq(getattr(self, name))
        for name in ("busy", "stored", "wrong"):
            m.d.comb += getattr(self, name).eq(getattr(control, name))
        if self.reader is not None:
            self._flash(m, self.reader)
        self._fill(m)
        self._reading(m)
        self._output(m)
        m.d.sync += self.saturated.eq(((self.saturated & ~self.start) | (fill.clipped & self.busy))
                                      & ~self.stop)
        return m

    def _flash(self, m: Module, reader: FlashReader) -> None:
        m.submodules.reader, control = reader, self.control
        connect(m, reader.memory, self.memory.flash)
        for name, member in reader.signature.members.items():
            if name in PINS:
                inside, outside = getattr(reader, name), getattr(self, f"flash_{name}")
                m.d.comb += inside.eq(outside) if member.flow == In else outside.eq(inside)
        m.d.comb += [
            *(getattr(self, name).eq(getattr(reader, name)) for name in _STATUS),
            reader.copy.eq(control.copy), reader.unit.eq(control.word),
            control.copying.eq(reader.copying), control.copied.eq(reader.copied),
            reader.stop.eq(self.start | self.stop),
        ]

    def _fill(self, m: Module) -> None:
        control, fill = self.control, self.fill
        m.d.comb += [
            fill.load.eq(control.fill), fill.word.eq(control.word), control.room.eq(fill.room),
            control.filling.eq(fill.busy),
        ]
        exponent = Signal.like(control.exponent)
        m.d.sync += exponent.eq(control.exponent)
        if self.array.residual:
            with m.If(fill.residual):
                m.d.sync += exponent.eq(control.residual)
        m.d.comb += fill.exponent.eq(exponent)

    def _reading(self, m: Module) -> None:
        control, fill, reading, layer = self.control, self.fill, self.reading, self.control.layer
        m.d.comb += [
            *(getattr(reading, name).eq(layer[name])
              for name in ("log2_groups", "signed_in", "rows", "tap_step")),
            reading.band_row.eq(control.row), reading.band_tile.eq(control.tile),
            reading.load.eq(control.load), reading.tile.eq(control.begins),
            *(getattr(reading, name).eq(getattr(control, name))
              for name in ("again", "step", "steps", "mantissas", "word")),
            reading.write_taps.eq(control.tap), reading.write_tiles.eq(control.tile_word),
            reading.address.eq(control.place),
            *(getattr(reading, name).eq(getattr(fill, name))
              for name in ("row", "code", "enable")),
        ]

    def _output(self, m: Module) -> None:
        control, reading, output, memory = self.control, self.reading, self.output, self.memory
        m.d.comb += [
            *(getattr(output, name).eq(getattr(control, name))
              for name in ("layer", "exponent", "position", "heads", "word")),
            output.start.eq(control.output), output.clear.eq(control.closed),
            *(getattr(output, name).eq(control.drained[name])
              for name in ("fresh", "begins", "ends")),
            output.written.eq(reading.written), output.sums.eq(reading.sums),
            reading.shift.eq(output.shift), control.read.eq(output.read),
            control.address.eq(output.address), control.top.eq(output.top),
            control.held.eq(output.held), *(getattr(output, name).eq(getattr(control, name))
                                            for name in ("slot", "keep", "kept")),
            control.draining.eq(output.busy), control.placed.eq(output.placed),
            memory.writer.request.eq(output.request), memory.writer.address.eq(output.place),
            memory.writer.enable.eq(output.enables),
            memory.writer.data.eq(output.data.replicate(2 // self.array.drain)),
        ]
        if self.array.residual:
            m.d.comb += output.other.eq(control.residual)
