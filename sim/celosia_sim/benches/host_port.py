"""SerialHost in generated Verilog, with the stand-in machine behind it and a host whose bit time
is 2 % off. The design must have been made with 10 clock cycles a bit."""

import random

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, RisingEdge, Timer

from celosia_hw import host_protocol as protocol
from celosia_hw.host_protocol import Decoder, Kind, Reason
from celosia_hw.isa import Space
from celosia_sim.host_machine import BUS_INPUTS, BUS_OUTPUTS, HostMachine

CLOCK_NS, DIVISOR = 10, 10


async def behind(dut, machine):
    """Be the machine on the host bus."""
    inputs = [getattr(dut, name) for name in BUS_INPUTS]
    while True:
        await RisingEdge(dut.clk)
        values = tuple(int(signal.value) for signal in inputs)
        for name, value in machine.step(values).items():
            getattr(dut, name).value = value


async def send(dut, data, bit_ps):
    """Send bytes back to back, 8N1."""
    for byte in data:
        for level in (0, *(byte >> index & 1 for index in range(8)), 1):
            dut.rx.value = level
            await Timer(bit_ps, unit="ps")


async def listen(dut, replies, bit_ps):
    """Decode what the design sends into ``replies``."""
    decoder = Decoder()
    while True:
        await FallingEdge(dut.tx)
        await Timer(bit_ps // 2, unit="ps")
        assert dut.tx.value == 0
        byte = 0
        for index in range(8):
            await Timer(bit_ps, unit="ps")
            byte |= int(dut.tx.value) << index
        await Timer(bit_ps, unit="ps")
        assert dut.tx.value == 1
        replies += decoder.feed([byte])
        assert decoder.skipped == 0


async def begin(dut, machine, bit_ps):
    """Reset the design and connect it; return the list that replies appear in."""
    replies = []
    dut.rx.value, dut.rst.value = 1, 1
    for name in BUS_OUTPUTS:
        getattr(dut, name).value = 0
    Clock(dut.clk, CLOCK_NS, unit="ns").start()
    for _ in range(4):
        await RisingEdge(dut.clk)
    dut.rst.value = 0
    cocotb.start_soon(behind(dut, machine))
    cocotb.start_soon(listen(dut, replies, bit_ps))
    return replies


@cocotb.test(timeout_time=1, timeout_unit="ms")
@cocotb.parametrize(percent=[-2, 0, 2])
async def paced_requests_need_no_waiting(dut, percent):
    """Writes and reads sent in one go are all executed, in order, and all answered."""
    bit_ps = CLOCK_NS * DIVISOR * (1000 + 10 * percent)
    machine = HostMachine(latency=4, word_bits=16)
    replies = await begin(dut, machine, bit_ps)
    rng = random.Random(cocotb.RANDOM_SEED + percent)
    words = [rng.randrange(1 << 16) for _ in range(22)]
    frames = protocol.encode_write_run(Space.WEIGHTS, 3, words, element_bytes=2)
    frames += [protocol.encode_read(Space.WEIGHTS, 4 * number, element_bytes=2, tag=number)
               for number in range(1, 6)]
    await send(dut, b"".join(protocol.paced(frame) for frame in frames), bit_ps)
    await Timer(20 * bit_ps, unit="ps")
    writes, reads = replies[:-5], replies[-5:]
    assert [reply.tag for reply in writes] == list(range(len(frames) - 5))
    assert all(reply.kind is Kind.IDLE for reply in writes)
    assert machine.memory == {(Space.WEIGHTS, 3 + k): word for k, word in enumerate(words)}
    assert [word for reply in reads for word in reply.elements(2)] == words[1:21]


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def a_cut_request_is_flushed(dut):
    """RESYNC brings the next request through; the cut one has no effect."""
    bit_ps = CLOCK_NS * DIVISOR * 1000
    machine = HostMachine()
    replies = await begin(dut, machine, bit_ps)
    request = protocol.encode_write(Space.BANKS, 0, list(range(8)), element_bytes=1)
    for length in (1, 2, 9, 14):
        replies.clear()
        await send(dut, request[:length] + protocol.RESYNC, bit_ps)
        await send(dut, protocol.encode_status(tag=length), bit_ps)
        await Timer(50 * bit_ps, unit="ps")
        assert replies[-1].tag == length and replies[-1].kind is Kind.IDLE
        assert all(reply.reason is Reason.DAMAGED for reply in replies[:-1])
    assert machine.effects == []
