"""Writes of a cluster that wait for main memory's port."""

from typing import Any

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from celosia_hw.memory.main_memory import Access
from celosia_hw.output.control import Write
from celosia_spec.isa.array import ENTRY_BITS, Array
from celosia_spec.isa.memories import WRITES, WRITES_AHEAD


class WriteQueue(wiring.Component):
    """A queue for what an output path writes, where several share main memory's port.

    `DEPTH` writes fit in. ``room`` is taken back while `AHEAD` more have a place: that is what
    passes may still write that end before the sequencer sees it.

    Parameters
    ----------
    array : Array

    Members
    -------
    write : In(Write)
        Of the output path.
    memory : Out(Access)
        A writer's side of `SharedMemory`.
    room : Out(1)
        Passes may end.
    busy : Out(1)
        From the cycle behind a ``write`` on: something waits.

    Timing
    ------
    A write asks for the port in the cycle behind its ``request`` at the earliest.
    """

    DEPTH, AHEAD = WRITES, WRITES_AHEAD

    def __init__(self, array: Array) -> None:
        self.array = array
        super().__init__({
            "write": In(Write(array)), "memory": Out(Access(array.main_words, ENTRY_BITS)),
            "room": Out(1), "busy": Out(1)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        own, port = self.write, self.memory
        given = Cat(own.address, own.enable, own.data)
        m.submodules.block = block = memory.Memory(shape=len(given), depth=self.DEPTH, init=[])
        write, read = block.write_port(), block.read_port(domain="comb")
        into, out = Signal(range(self.DEPTH)), Signal(range(self.DEPTH))
        level, after = (Signal(range(self.DEPTH + 1), name=name) for name in ("level", "after"))
        done = Signal()
        m.d.comb += [
            write.en.eq(own.request), write.addr.eq(into), write.data.eq(given),
            read.addr.eq(out), Cat(port.address, port.enable, port.data).eq(read.data),
            port.request.eq(self.busy), after.eq(level + own.request - done),
        ]
        m.d.comb += done.eq(port.request & port.grant)
        m.d.sync += [into.eq(into + own.request), out.eq(out + done),
                     level.eq(after), self.busy.eq(after != 0),
                     self.room.eq(level < self.DEPTH - self.AHEAD)]
        return m
