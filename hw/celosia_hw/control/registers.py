"""What the host reads of the machine's state."""

from typing import Any

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from celosia_hw.layouts import layout
from celosia_hw.signatures import HostMemory
from celosia_spec.isa import COUNTER_BITS, STATUS, ArrayConfig, Event, Register


class Registers(wiring.Component):
    """Hash, status and event counter.

    Members
    -------
    status : In(status word)
    happens : In(len(Event))
        Events of this cycle.
    clear : In(1)
        Strobe: count from 0.
    host_registers : In(HostMemory)
        Address = `Register`. A write, wherever it goes, selects the `Event` that is counted.

    Timing
    ------
    The host's value is there in the same cycle as its address, also while not idle.
    """

    def __init__(self, array: ArrayConfig) -> None:
        self.array = array
        super().__init__({"status": In(layout(STATUS)), "happens": In(len(Event)), "clear": In(1),
                          "host_registers": In(HostMemory(readable=True))})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        host, event, events = self.host_registers, Signal(range(len(Event))), Signal(COUNTER_BITS)
        with m.If(host.write):
            m.d.sync += event.eq(host.data)
        with m.If(self.clear):
            m.d.sync += events.eq(0)
        with m.Else():
            m.d.sync += events.eq(events + self.happens.bit_select(event, 1))
        with m.Switch(host.address[:(len(Register) - 1).bit_length()]):
            with m.Case(Register.ARRAY_HASH):
                m.d.comb += host.value.eq(self.array.hash)
            with m.Case(Register.STATUS):
                m.d.comb += host.value.eq(self.status)
            with m.Default():
                m.d.comb += host.value.eq(events)
        return m
