"""Address and payload of the frame under way."""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from celosia_spec.isa import frames as protocol

WORD_BITS = 32
"""Width of what a read brings."""


class FrameBuffer(wiring.Component):
    """Address field and payload of one frame, shifted by bytes.

    Members
    -------
    i : In(8)
        Byte that ``receive`` shifts in at the top of the address.
    receive : In(1)
        Strobe: payload and address move down one byte, the address's lowest into the payload.
    rotate : In(1)
        Strobe: the payload moves down one byte, its lowest byte comes in at the top.
    load : In(4)
        Strobes, one for each low byte of the payload: take it from ``word``.
    word : In(32)
    address : Out(24)
    payload : Out(64)

    Timing
    ------
    Domain ``sync``; at most one strobe kind a cycle, outputs change in the cycle after it.
    Reset leaves the contents.
    """

    def __init__(self) -> None:
        super().__init__({
            "i": In(8), "receive": In(1), "rotate": In(1), "load": In(4), "word": In(WORD_BITS),
            "address": Out(8 * protocol.ADDRESS_BYTES), "payload": Out(8 * protocol.DATA_BYTES)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        address = Signal.like(self.address, reset_less=True)
        payload = Signal.like(self.payload, reset_less=True)
        m.d.comb += [self.address.eq(address), self.payload.eq(payload)]
        with m.If(self.receive):
            m.d.sync += address.eq(Cat(address[8:], self.i))
        with m.If(self.receive | self.rotate):
            m.d.sync += payload.eq(Cat(payload[8:], Mux(self.rotate, payload[:8], address[:8])))
        for index in range(WORD_BITS // 8):
            with m.If(self.load[index]):
                part = slice(8 * index, 8 * index + 8)
                m.d.sync += payload[part].eq(self.word[part])
        return m
