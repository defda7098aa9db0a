"""The whole machine on a serial line."""

from typing import Any

from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from celosia_hw.core import Core
from celosia_hw.host.serial import SerialHost
from celosia_hw.signatures import HOST_BUS, connect_members
from celosia_spec.isa import ArrayConfig


class Top(wiring.Component):
    """``Core`` and the ``SerialHost`` that loads, starts and reads it.

    Parameters
    ----------
    array : ArrayConfig
    mac, weight_memory
        See ``Core``.
    clock_hz, baud
        See ``SerialHost``.

    Members
    -------
    rx, tx : In(1), Out(1)
        Serial lines, idle high, 8N1.
    busy : Out(1)
        1 while a program runs.
    error : Out(1)
        1 while the core's error code is not zero.
    saturated : Out(1)
        The core's saturated flag.

    Timing
    ------
    Domain ``sync``, of ``clock_hz``.
    """

    def __init__(self, array: ArrayConfig, *, mac: str = "generic", weight_memory: str = "bram",
                 clock_hz: float, baud: float) -> None:
        self.core = Core(array, mac=mac, weight_memory=weight_memory)
        self.host = SerialHost(clock_hz=clock_hz, baud=baud)
        super().__init__({"rx": In(1, init=1), "tx": Out(1, init=1),
                          "busy": Out(1), "error": Out(1), "saturated": Out(1)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.core = core = self.core
        m.submodules.host = host = self.host
        connect_members(m, host, core, HOST_BUS)
        m.d.comb += [
            host.rx.eq(self.rx), self.tx.eq(host.tx),
            self.busy.eq(core.busy), self.error.eq(core.error != 0),
            self.saturated.eq(core.saturated),
        ]
        return m
