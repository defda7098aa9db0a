"""The machine on a serial line."""

from typing import Any

from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from celosia_hw.flash.reader import FlashReader
from celosia_hw.host.serial_port import SerialPort
from celosia_hw.hosted_machine import HostedMachine
from celosia_hw.signatures import HOST_BUS, connect_members
from celosia_spec.isa.array import Array
from celosia_spec.isa.fabric import GENERIC, Fabric


class SerialMachine(wiring.Component):
    """``HostedMachine`` and the ``SerialPort`` that loads, starts and reads it.

    Parameters
    ----------
    array, fabric, main_memory, reader
        See ``HostedMachine``.
    clock_hz, baud
        See ``SerialPort``.

    Members
    -------
    rx, tx : In(1), Out(1)
        Serial lines, idle high, 8N1.
    busy, error, saturated : Out(1)
        A stream runs; the error code is not zero; the saturated flag.
    flash_cs, flash_clock, flash_copi, flash_drive, flash_i
        See ``HostedMachine``; only with a reader.

    Timing
    ------
    Domain ``sync``, of ``clock_hz``.
    """

    def __init__(self, array: Array, *, fabric: Fabric = GENERIC, main_memory: str = "bram",
                 reader: FlashReader | None = None, clock_hz: float, baud: float) -> None:
        self.machine = HostedMachine(array, fabric=fabric, main_memory=main_memory, reader=reader)
        self.host = SerialPort(clock_hz=clock_hz, baud=baud)
        self.pins = {name: member for name, member in self.machine.signature.members.items()
                     if name.startswith("flash_")}
        super().__init__({"rx": In(1, init=1), "tx": Out(1, init=1),
                          "busy": Out(1), "error": Out(1), "saturated": Out(1), **self.pins})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.machine = machine = self.machine
        m.submodules.host = host = self.host
        connect_members(m, host, machine, HOST_BUS)
        connect_members(m, machine, self, self.pins)
        m.d.comb += [
            host.rx.eq(self.rx), self.tx.eq(host.tx),
            self.busy.eq(machine.busy), self.error.eq(machine.error != 0),
            self.saturated.eq(machine.saturated),
        ]
        return m
