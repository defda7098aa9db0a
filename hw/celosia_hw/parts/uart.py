"""UART receiver and transmitter, 8 data bits, no parity, 1 stop bit."""

from typing import Any

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import In, Out

DIVISOR_MIN, DIVISOR_MAX = 8, 65535


def uart_divisor(clock_hz: float, baud: float) -> int:
    """Return clock cycles a bit, rounded.

    ValueError where it is outside 8 to 65535, or where rounding is off by more than 1 %.
    """
    divisor = round(clock_hz / baud)
    if not DIVISOR_MIN <= divisor <= DIVISOR_MAX:
        raise ValueError(f"clock_hz / baud must be {DIVISOR_MIN} to {DIVISOR_MAX}, "
                         f"not {clock_hz / baud:.1f}; choose another baud rate")
    error = clock_hz / divisor / baud - 1
    if abs(error) > 0.01:
        raise ValueError(f"{baud} baud is off by {100 * error:.1f} % at {clock_hz} Hz, more than "
                         f"1 %; choose one that divides the clock")
    return divisor


def check_divisor(divisor: int) -> None:
    """Refuse a number of clock cycles a bit that is not possible: ValueError."""
    if not DIVISOR_MIN <= divisor <= DIVISOR_MAX:
        raise ValueError(f"divisor must be {DIVISOR_MIN} to {DIVISOR_MAX}, not {divisor!r}")


def _countdown(divisor: int) -> Signal:
    """Return a counter from ``divisor - 2`` to -1: its sign is a ready-made strobe."""
    return Signal(range(-1, divisor - 1))


class UartReceiver(wiring.Component):
    """Bytes from a serial line.

    Parameters
    ----------
    divisor : int
        Clock cycles a bit, 8 to 65535.

    Members
    -------
    rx : In(1)
        The line, idle high. Asynchronous: synchronised here by two flip-flops.
    o : Out(stream of 8)
        Received bytes. One is held until taken; a byte that ends meanwhile is lost.

    Timing
    ------
    Domain ``sync``. Each bit is sampled once, in its middle. ``o.valid`` rises in the middle of
    the stop bit, 2 to 4 cycles later. A start bit that is over by its middle is ignored; a byte
    without its stop bit is dropped, and the line must go high before the next one.
    After reset: waits for a start bit.
    """

    def __init__(self, divisor: int) -> None:
        check_divisor(divisor)
        self.divisor = divisor
        super().__init__({"rx": In(1, init=1), "o": Out(stream.Signature(8))})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        line = Signal(init=1)
        m.submodules.synchroniser = FFSynchronizer(self.rx, line, init=1)
        countdown = _countdown(self.divisor)
        # A one shifts ahead of the data bits; it arrives at bit 0 together with the last of them.
        bits = Signal(9, reset_less=True)
        sample = Signal()
        m.d.comb += sample.eq(countdown < 0)
        m.d.sync += countdown.eq(countdown - 1)
        with m.If(sample):
            m.d.sync += countdown.eq(self.divisor - 2)
        with m.If(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += countdown.eq(self.divisor // 2 - 2)
                with m.If(~line):
                    m.next = "START"
            with m.State("START"):
                m.d.sync += bits.eq(1 << 8)
                with m.If(sample):
                    m.next = "IDLE"
                    with m.If(~line):
                        m.next = "DATA"
            with m.State("DATA"):
                with m.If(sample):
                    m.d.sync += bits.eq(Cat(bits[1:], line))
                    with m.If(bits[0]):
                        m.next = "RELEASE"
                        with m.If(line & (~self.o.valid | self.o.ready)):
                            m.d.sync += [self.o.payload.eq(bits[1:]), self.o.valid.eq(1)]
            with m.State("RELEASE"):
                with m.If(line):
                    m.next = "IDLE"
        return m


class UartTransmitter(wiring.Component):
    """Bytes to a serial line.

    Parameters
    ----------
    divisor : int
        Clock cycles a bit, 8 to 65535.

    Members
    -------
    i : In(stream of 8)
        Bytes to send.
    tx : Out(1)
        The line, idle high. Straight from a flip-flop.

    Timing
    ------
    Domain ``sync``. The start bit begins 1 cycle after the byte is accepted; the next byte is
    accepted ``10 * divisor`` cycles after it at the earliest. After reset: idle.
    """

    def __init__(self, divisor: int) -> None:
        check_divisor(divisor)
        self.divisor = divisor
        super().__init__({"i": In(stream.Signature(8)), "tx": Out(1, init=1)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        countdown = _countdown(self.divisor)
        bits = Signal(8, reset_less=True)
        left = Signal(range(10))  # bits of the byte that have not begun, stop bit included
        step = Signal()
        m.d.comb += [step.eq(countdown < 0), self.i.ready.eq(step & (left == 0))]
        with m.If(~step):
            m.d.sync += countdown.eq(countdown - 1)
        with m.Elif(left != 0):
            m.d.sync += [self.tx.eq(bits[0]), bits.eq(Cat(bits[1:], 1)), left.eq(left - 1),
                         countdown.eq(self.divisor - 2)]
        with m.Elif(self.i.valid):
            m.d.sync += [self.tx.eq(0), bits.eq(self.i.payload), left.eq(9),
                         countdown.eq(self.divisor - 2)]
        return m
