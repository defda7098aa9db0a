# amaranth: UnusedElaboratable=no
"""UART receiver and transmitter: loopback with clocks apart, damaged bytes, exact waveform."""

import random

import pytest
from amaranth.hdl import Module

from blocks.pysim import get, put, run
from celosia_hw.parts.uart import UartReceiver, UartTransmitter, uart_divisor


async def wave(ctx, line, levels, divisor):
    """Drive ``levels``, a string of 0 and 1, one bit time each; leave the line high."""
    for level in levels:
        ctx.set(line, int(level))
        for _ in range(divisor):
            await ctx.tick()
    ctx.set(line, 1)


def levels(byte, stop="1"):
    return "0" + f"{byte:08b}"[::-1] + stop


async def received(ctx, dut, cycles):
    """Return the bytes that arrive within ``cycles``."""
    got = []
    ctx.set(dut.o.ready, 1)
    for _ in range(cycles):
        *_, valid, payload = await ctx.tick().sample(dut.o.valid, dut.o.payload)
        if valid:
            got.append(payload)
    ctx.set(dut.o.ready, 0)
    return got


@pytest.mark.parametrize("divisor", [49, 50, 51])
def test_loopback_with_two_percent_mismatch(divisor):
    m = Module()
    m.submodules.transmitter = transmitter = UartTransmitter(divisor)
    m.submodules.receiver = receiver = UartReceiver(50)
    m.d.comb += receiver.rx.eq(transmitter.tx)
    rng = random.Random(divisor)
    data = [0, 0xFF, 0x55, 0xAA, *(rng.randrange(256) for _ in range(30))]

    async def sender(ctx):
        for number, byte in enumerate(data):
            for _ in range(rng.randrange(200) if number % 3 == 0 else 0):
                await ctx.tick()
            await put(ctx, transmitter.i, byte)

    async def taker(ctx):
        gaps = random.Random(3)
        for byte in data:
            assert await get(ctx, receiver.o) == byte
            for _ in range(gaps.randrange(300)):
                await ctx.tick()

    run(m, sender, taker, max_cycles=60_000)


def test_smallest_divisor():
    m = Module()
    m.submodules.transmitter = transmitter = UartTransmitter(8)
    m.submodules.receiver = receiver = UartReceiver(8)
    m.d.comb += receiver.rx.eq(transmitter.tx)
    data = list(range(0, 256, 5))

    async def sender(ctx):
        for byte in data:
            await put(ctx, transmitter.i, byte)

    async def taker(ctx):
        assert [await get(ctx, receiver.o) for _ in data] == data

    run(m, sender, taker, max_cycles=60_000)


def test_transmitted_waveform():
    """Two bytes back to back: ten bits of exactly ``divisor`` cycles each."""
    divisor, data = 9, [0x35, 0xCA]
    dut = UartTransmitter(divisor)

    async def sender(ctx):
        for byte in data:
            await put(ctx, dut.i, byte)

    async def watch(ctx):
        got, expected = "", "".join(level * divisor for byte in data for level in levels(byte))
        *_, level = await ctx.tick().sample(dut.tx)
        while level:
            *_, level = await ctx.tick().sample(dut.tx)
        for _ in expected:
            got += str(level)
            *_, level = await ctx.tick().sample(dut.tx)
        assert got == expected
        assert level == 1

    run(dut, sender, watch)


def test_framing_error_drops_the_byte():
    """Without its stop bit a byte is dropped; a long break gives no byte, and the next is good."""
    dut = UartReceiver(16)

    async def drive(ctx):
        await wave(ctx, dut.rx, levels(0x5A, stop="0") + "0" * 30 + "1" + levels(0xC3), 16)

    async def take(ctx):
        assert await received(ctx, dut, 60 * 16) == [0xC3]

    run(dut, drive, take)


def test_short_start_bit_is_ignored():
    dut = UartReceiver(16)

    async def drive(ctx):
        await wave(ctx, dut.rx, "0", 6)
        await wave(ctx, dut.rx, "1" + levels(0x81), 16)

    async def take(ctx):
        assert await received(ctx, dut, 16 * 16) == [0x81]

    run(dut, drive, take)


def test_overrun_keeps_the_first_byte_and_the_framing():
    dut = UartReceiver(10)

    async def drive(ctx):
        await wave(ctx, dut.rx, levels(1) + levels(2) + levels(3), 10)
        assert await received(ctx, dut, 20) == [1]
        await wave(ctx, dut.rx, levels(4), 10)
        assert await received(ctx, dut, 20) == [4]

    run(dut, drive)


@pytest.mark.parametrize("clock_hz, baud, divisor", [
    (12e6, 1e6, 12), (48e6, 115_200, 417), (25e6, 3e6, 8)])
def test_divisor_in_range(clock_hz, baud, divisor):
    if abs(clock_hz / divisor / baud - 1) > 0.01:
        with pytest.raises(ValueError, match=r"^3000000.0 baud is off by 4.2 % at 25000000.0 Hz, "
                                             r"more than 1 %; choose one that divides the clock$"):
            uart_divisor(clock_hz, baud)
    else:
        assert uart_divisor(clock_hz, baud) == divisor


def test_divisor_out_of_range():
    with pytest.raises(ValueError, match=r"^clock_hz / baud must be 8 to 65535, not 4.0; "
                                         r"choose another baud rate$"):
        uart_divisor(12e6, 3e6)
    for component in (UartReceiver, UartTransmitter):
        with pytest.raises(ValueError, match=r"^divisor must be 8 to 65535, not 7$"):
            component(7)
