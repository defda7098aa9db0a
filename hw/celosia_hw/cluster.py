"""A cluster of lanes: control path, reading path and output path."""

from typing import Any

from amaranth.hdl import Module, ResetInserter, Value
from amaranth.lib.wiring import connect

from celosia_hw.fill.engine import FillEngine
from celosia_hw.lanes.reading import ReadingPath
from celosia_hw.memory.main_memory import MainMemory
from celosia_hw.memory.shared_memory import SharedMemory
from celosia_hw.output.path import OUTPUT_PATHS
from celosia_hw.output.queue import WriteQueue
from celosia_hw.stream.control_path import ControlPath
from celosia_spec.isa.array import Array
from celosia_spec.isa.timing import MANTISSA


class Cluster:
    """What a machine has once for each cluster: blocks and the wires between them.

    Parameters
    ----------
    array : Array
    mac : str
        Kind of `Multipliers`.
    number : int
        The first one, 0, has the fills of all.
    """

    def __init__(self, array: Array, mac: str, number: int) -> None:
        self.array, self.number = array, number
        self.output = OUTPUT_PATHS[array.drain](array, mac)
        self.reading = ReadingPath(array, mac)
        self.control = ControlPath(array, MANTISSA, ReadingPath.LATENCY - self.output.lead(),
                                   number)

    def connect(self, m: Module, memory: MainMemory | SharedMemory, fill: FillEngine,
                stop: Value) -> None:
        """Connect its blocks with each other, and with what clusters share.

        stop : strobe, as of `Machine`.
        """
        m.d.comb += self.control.data.eq(memory.data)
        self._reading(m, fill)
        self._output(m)
        if isinstance(memory, MainMemory):
            connect(m, self.control.memory, memory.fetcher)
            self._write(m, memory.writer)
        else:
            connect(m, self.control.memory, memory.fetchers[self.number])
            self._queue(m, memory.writers[self.number], stop)

    def _reading(self, m: Module, fill: FillEngine) -> None:
        codes, given = self.reading.codes, fill.codes
        connect(m, self.control.reading, self.reading.control)
        m.d.comb += self.reading.layer.eq(self.control.layer)
        # Several clusters lie far apart: a register more, long before a band reads what it wrote.
        domain = m.d.comb if self.array.clusters == 1 else m.d.sync
        domain += [codes.row.eq(given.row), codes.code.eq(given.code),
                   codes.enable.eq(given.enable)]

    def _output(self, m: Module) -> None:
        control, reading, output = self.control, self.reading, self.output
        m.d.comb += [
            *(getattr(output, name).eq(getattr(control, name))
              for name in ("layer", "exponent", "position", "heads", "word")),
            output.start.eq(control.output), output.clear.eq(control.closed),
            *(getattr(output, name).eq(control.drained[name])
              for name in ("fresh", "begins", "ends")),
            output.written.eq(reading.shadow.written), output.sums.eq(reading.shadow.sums),
            reading.shadow.shift.eq(output.shift), control.read.eq(output.read),
            control.address.eq(output.address),
            control.held.eq(output.held), *(getattr(output, name).eq(getattr(control, name))
                                            for name in ("slot", "keep", "kept")),
            control.placed.eq(output.placed),
        ]
        if self.array.residual:
            m.d.comb += output.other.eq(control.residual)

    def _write(self, m: Module, writer: Any) -> None:
        """Write to main memory at once."""
        control, output = self.control, self.output
        m.d.comb += [
            control.top.eq(output.top), control.draining.eq(output.busy),
            writer.request.eq(output.request), writer.address.eq(output.place),
            writer.enable.eq(output.enables),
            writer.data.eq(output.data.replicate(2 // self.array.drain)),
        ]

    def _queue(self, m: Module, writer: Any, stop: Value) -> None:
        """Write to main memory when the other clusters let it."""
        control, output, queue = self.control, self.output, WriteQueue(self.array)
        m.submodules[f"queue{self.number}"] = ResetInserter(stop)(queue)
        connect(m, queue.memory, writer)
        m.d.comb += [
            *(getattr(queue, name).eq(getattr(output, name))
              for name in ("request", "place", "enables", "data")),
            control.draining.eq(output.busy | queue.busy), control.space.eq(queue.room),
        ]
