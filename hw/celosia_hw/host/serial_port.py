"""The host port on a serial line."""

from typing import Any

from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect

from celosia_hw.host.bit_line import BitLine
from celosia_hw.host.bit_port import BitPort
from celosia_hw.parts.uart import uart_divisor
from celosia_hw.signatures import HOST_BUS, connect_members


class SerialPort(wiring.Component):
    """`BitPort` between a serial line and the host bus.

    Parameters
    ----------
    clock_hz, baud : float
        Their quotient must be 12 to 65535, and within 1 % of a whole number.

    Members
    -------
    rx, tx : In(1), Out(1)
        Serial lines, see `BitLine`.
    others : see `BitPort`
        The host bus.

    Timing
    ------
    Domain ``sync``.
    """

    def __init__(self, *, clock_hz: float, baud: float) -> None:
        self.divisor = uart_divisor(clock_hz, baud)
        super().__init__({"rx": In(1, init=1), "tx": Out(1, init=1), **HOST_BUS})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.line = line = BitLine(self.divisor)
        m.submodules.port = port = BitPort()
        connect(m, line.o, port.i)
        connect(m, port.o, line.i)
        m.d.comb += [line.rx.eq(self.rx), self.tx.eq(line.tx), line.first.eq(port.first),
                     line.last.eq(port.last)]
        connect_members(m, port, self, HOST_BUS)
        return m
