"""The memories of the machine on its host bus."""

from typing import Any

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from celosia_hw.signatures import MEMORY_ACCESS, HostMemory, flipped_members
from celosia_spec.isa.memories import MEMORIES


class MemoryBus(wiring.Component):
    """One host bus, and a side of it for each memory.

    Parameters
    ----------
    latency : int
        Cycles that the slowest memory takes from its address to its value, at least 1.

    Members
    -------
    those of MEMORY_ACCESS
        See :class:`celosia_hw.core.Core`.
    busy : In(1)
        Memories are the machine's: writes are ignored.
    one for each of `MEMORIES`, with its name : Out(HostMemory)

    Timing
    ------
    A read's answer is picked after the longest path: ``read_latency`` cycles after ``mem_read``.
    A read of a memory that cannot be read gives what the first one has at its address.
    """

    def __init__(self, latency: int) -> None:
        self.read_latency = latency + 3
        super().__init__({
            **flipped_members(MEMORY_ACCESS), "busy": In(1),
            **{memory.name: Out(HostMemory(readable=memory.readable)) for memory in MEMORIES},
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        waiting = Signal(self.read_latency - 1)
        m.d.sync += [waiting.eq(Cat(self.mem_read, waiting)), self.mem_rvalid.eq(waiting[-1])]
        for memory in MEMORIES:
            port = getattr(self, memory.name)
            m.d.comb += [
                port.idle.eq(~self.busy), port.select.eq(self.mem_space == memory.space),
                port.write.eq(self.mem_write & port.idle & port.select),
                port.address.eq(self.mem_address), port.data.eq(self.mem_wdata),
            ]
        first, *others = (memory for memory in MEMORIES if memory.readable)
        with m.Switch(self.mem_space):
            for memory in others:
                with m.Case(memory.space):
                    m.d.sync += self.mem_rdata.eq(getattr(self, memory.name).value)
            with m.Default():
                m.d.sync += self.mem_rdata.eq(getattr(self, first.name).value)
        return m
