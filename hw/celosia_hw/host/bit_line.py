"""A serial line, 8 data bits, no parity, 1 stop bit, on which one side speaks at a time."""

import enum
from typing import Any

from amaranth.hdl import Const, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import In, Out

from celosia_hw.parts.uart import check_divisor


class _At(enum.IntEnum):
    """What is on the line: nothing, or a byte's bits."""

    IDLE = 0
    START = 1
    DATA = 3
    STOP = 2


class BitLine(wiring.Component):
    """Bits from a serial line and to it, byte by byte.

    Parameters
    ----------
    divisor : int
        Clock cycles a bit, `parts.uart.DIVISOR_MIN` to `DIVISOR_MAX`.

    Members
    -------
    rx : In(1)
        The line, idle high. Asynchronous: synchronised here by two flip-flops.
    tx : Out(1)
        The other line, idle high. Straight from a flip-flop.
    i : In(stream of 1), o : Out(stream of 1)
        Bits that go, and that came; no byte is received while ``i.valid``. ``i`` is valid for all
        eight bits of a byte. Those of ``o`` are lost if they are not taken.
    first : In(1), last : In(1)
        The byte is a frame's first one, or none of a frame. The bit that is taken is its byte's
        last one.

    Timing
    ------
    Domain ``sync``. Bits that come are sampled once, in their middle; 2 to 4 cycles later they are
    strobed. A start bit that is over by its middle is ignored; behind a byte the line must go high.
    What goes begins in the middle of the stop bit of what came, if it is there by then. Bytes are
    received again from the begin of the last stop bit on. After reset: waits for a start bit.
    """

    def __init__(self, divisor: int) -> None:
        check_divisor(divisor)
        self.divisor = divisor
        super().__init__({"rx": In(1, init=1), "tx": Out(1, init=1), "i": In(stream.Signature(1)),
                          "o": Out(stream.Signature(1)), "first": In(1), "last": In(1)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        line = Signal(init=1)
        at = Signal(_At)
        m.submodules.synchroniser = FFSynchronizer(self.rx, line, init=1)
        # From ``divisor - 2`` to -1: its sign is a ready-made strobe.
        countdown = Signal(range(-1, self.divisor - 1))
        tick = Signal()
        goes = self.i.valid
        m.d.comb += [
            tick.eq(countdown < 0), self.o.payload.eq(line),
            self.o.valid.eq((at == _At.DATA) & tick & ~goes),
            self.i.ready.eq((at == _At.DATA) & tick & goes),
        ]
        rests = Signal()
        bits = len(countdown)
        m.d.comb += rests.eq((at == _At.IDLE) & ~goes)
        # No multiplexer: of numbers it would make resets, which part the chain of carries.
        m.d.sync += countdown.eq(
            (countdown - 1)[:bits] & ~(rests | tick).replicate(bits)
            | Const(self.divisor // 2 - 2, bits) & rests.replicate(bits)
            | Const(self.divisor - 2, bits) & (tick & ~rests).replicate(bits))
        with m.If(tick):
            m.d.sync += self.tx.eq(~(goes & ((at == _At.START)
                                             | ((at == _At.DATA) & ~self.i.payload))))
        with m.Switch(at):
            with m.Case(_At.IDLE):
                with m.If(goes | ~line):
                    m.d.sync += at.eq(_At.START)
            with m.Case(_At.START):
                with m.If(tick):
                    m.d.sync += at.eq(Mux(goes | ~line, _At.DATA, _At.IDLE))
            with m.Case(_At.DATA):
                with m.If(tick & self.last):
                    m.d.sync += at.eq(_At.STOP)
            with m.Default():
                with m.If(goes & self.first):
                    m.d.sync += at.eq(_At.START)
                with m.Elif(tick & (goes | line)):
                    m.d.sync += at.eq(_At.IDLE)
        return m
