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
from celosia_spec.isa.fabric import Fabric
from celosia_spec.isa.timing import MANTISSA


class Cluster:
    """What a machine has once for each cluster: blocks and the wires between them.

    Parameters
    ----------
    array : Array
    fabric : Fabric
        What it is built of.
    number : int
        The first one, 0, has the fills of all.
    """

    def __init__(self, array: Array, fabric: Fabric, number: int) -> None:
        self.array, self.number = array, number
        self.output = OUTPUT_PATHS[array.drain](array, fabric)
        self.reading = ReadingPath(array, fabric)
        self.control = ControlPath(array, MANTISSA, ReadingPath.LATENCY - self.output.lead(),
                                   number)

    def connect(self, m: Module, memory: MainMemory | SharedMemory, fill: FillEngine,
                stop: Value) -> None:
        """Connect its blocks with each other, and with what clusters share.

        stop : strobe, as of `Machine`.
        """
        self._reading(m, fill)
        self._output(m)
        if isinstance(memory, MainMemory):
            m.d.comb += self.control.data.eq(memory.data)
            connect(m, self.control.memory, memory.fetcher)
            self._write(m, memory.writer)
        else:
            m.d.comb += self.control.data.eq(memory.fetched[self.number])
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
        control, output = self.control, self.output
        connect(m, control.output, output.control)
        connect(m, control.exponents, output.exponents)
        connect(m, self.reading.shadow, output.shadow)
        m.d.comb += output.layer.eq(control.layer)

    def _write(self, m: Module, writer: Any) -> None:
        """Write to main memory at once."""
        write = self.output.write
        connect(m, self.output.state, self.control.state)
        m.d.comb += [
            writer.request.eq(write.request), writer.address.eq(write.address),
            writer.enable.eq(write.enable),
            writer.data.eq(write.data.replicate(2 // self.array.drain)),
        ]

    def _queue(self, m: Module, writer: Any, stop: Value) -> None:
        """Write to main memory when the other clusters let it."""
        state, own, queue = self.control.state, self.output.state, WriteQueue(self.array)
        m.submodules[f"queue{self.number}"] = ResetInserter(stop)(queue)
        connect(m, self.output.write, queue.write)
        connect(m, queue.memory, writer)
        m.d.comb += [state.busy.eq(own.busy | queue.busy), state.placed.eq(own.placed),
                     self.control.space.eq(queue.room)]
