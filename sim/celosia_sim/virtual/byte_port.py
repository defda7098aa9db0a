# amaranth: UnusedElaboratable=no
"""The host port, byte by byte."""

from typing import Any

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from celosia_hw.host.bit_port import BitPort
from celosia_hw.signatures import HOST_BUS, connect_members


class BytePort(wiring.Component):
    """`BitPort` between bytes and the host bus.

    Members
    -------
    i : In(stream of 8), o : Out(stream of 8)
        Bytes from the host and to it. None is taken while a request is executed and answered.
    others : see `BitPort`
        The host bus.

    Timing
    ------
    A byte takes nine cycles.
    """

    def __init__(self) -> None:
        self.port = BitPort()
        super().__init__({"i": In(stream.Signature(8)), "o": Out(stream.Signature(8)),
                          **HOST_BUS})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.port = port = self.port
        connect_members(m, port, self, HOST_BUS)
        given, left = Signal(8), Signal(range(9))
        m.d.comb += [
            port.i.valid.eq(left != 0), port.i.payload.eq(given[0]),
            # The last bit of a request is taken before the next byte is.
            self.i.ready.eq((left == 0) & port.i.ready),
        ]
        with m.If(self.i.ready & self.i.valid):
            m.d.sync += [given.eq(self.i.payload), left.eq(8)]
        with m.Elif(port.i.valid & port.i.ready):
            m.d.sync += [given.eq(given >> 1), left.eq(left - 1)]
        # A byte stands at ``o`` until it is taken; bits go on then.
        full = Signal()
        m.d.comb += [self.o.valid.eq(full), port.o.ready.eq(~full)]
        with m.If(full):
            m.d.sync += full.eq(~self.o.ready)
        with m.Elif(port.o.valid):
            m.d.sync += [self.o.payload.eq(Cat(self.o.payload[1:], port.o.payload)),
                         full.eq(port.last)]
        return m
