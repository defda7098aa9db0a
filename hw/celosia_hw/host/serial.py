"""The host port on a UART."""

from typing import Any

from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect

from celosia_hw.host.port import HostPort
from celosia_hw.parts.uart import UartReceiver, UartTransmitter, uart_divisor
from celosia_hw.signatures import HOST_BUS, connect_members
from celosia_spec.isa.frames import LONG_REQUEST_BYTES

TIMEOUT_SECONDS = 0.02
"""Age at which an incomplete request is dropped, beyond the time that a whole one takes. Longer
than an operating system usually leaves between two parts of one write."""


class SerialHost(wiring.Component):
    """``HostPort`` between a serial line and the host bus.

    Parameters
    ----------
    clock_hz, baud : float
        Their quotient must be 8 to 65535, and within 1 % of a whole number.

    Members
    -------
    rx, tx : In(1), Out(1)
        Serial lines, idle high, 8N1. ``rx`` is asynchronous.
    others : see ``HostPort``
        The host bus.

    Timing
    ------
    Domain ``sync``. See ``HostPort`` and ``UartReceiver``. An incomplete request is dropped after
    ``timeout_cycles``.
    """

    def __init__(self, *, clock_hz: float, baud: float) -> None:
        self.divisor = uart_divisor(clock_hz, baud)
        self.timeout_cycles = (round(TIMEOUT_SECONDS * clock_hz)
                               + 10 * LONG_REQUEST_BYTES * self.divisor)
        super().__init__({"rx": In(1, init=1), "tx": Out(1, init=1), **HOST_BUS})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.receiver = receiver = UartReceiver(self.divisor)
        m.submodules.transmitter = transmitter = UartTransmitter(self.divisor)
        m.submodules.port = port = HostPort(timeout_cycles=self.timeout_cycles)
        connect(m, receiver.o, port.i)
        connect(m, port.o, transmitter.i)
        m.d.comb += [receiver.rx.eq(self.rx), self.tx.eq(transmitter.tx)]
        connect_members(m, port, self, HOST_BUS)
        return m
