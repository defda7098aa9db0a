"""The checksum of frames, a byte a cycle."""

from typing import Any

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from celosia_spec.isa import frames as protocol


class Checksum(wiring.Component):
    """CRC of `celosia_spec.isa.frames`.

    Members
    -------
    fresh : In(1)
        Strobe: begin anew.
    valid : In(1), data : In(8)
        Strobe, not with ``fresh``: another byte.
    crc : Out(16)
        Of all bytes since ``fresh``; 0 behind a frame whose last bytes are its CRC.

    Timing
    ------
    ``crc`` changes in the cycle after a strobe.
    """

    def __init__(self) -> None:
        super().__init__({"fresh": In(1), "valid": In(1), "data": In(8),
                          "crc": Out(8 * protocol.CRC_BYTES)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        crc = Signal.like(self.crc, reset_less=True)
        # `crc_update`'s eight rounds, by hand: x^16 + x^12 + x^5 + 1 has few terms, and one of
        # them is four bits from the end.
        byte, twice = Signal(8), Signal(8)
        m.d.comb += [self.crc.eq(crc), byte.eq(crc[:8] ^ self.data),
                     twice.eq(Cat(byte[:4], byte[4:] ^ byte[:4]))]
        with m.If(self.valid):
            m.d.sync += crc.eq(crc[8:] ^ (twice << 8) ^ (twice << 3) ^ twice[4:])
        with m.If(self.fresh):
            m.d.sync += crc.eq(protocol.CRC_INIT)
        return m
