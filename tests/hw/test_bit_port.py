# amaranth: UnusedElaboratable=no
"""The machine's host port against a stand-in machine, and on a serial line: good, damaged
and cut requests, gaps everywhere, clocks that are up to 2 % apart."""

import random

import pytest

from blocks.host_lines import SerialLine, play
from blocks.host_stub import KeepingStub
from blocks.players import play_icarus, verilog_of
from blocks.verilated_block import Block
from celosia_hw.host.serial_port import SerialPort
from celosia_sim.virtual.byte_port import BytePort
from celosia_spec.isa import frames as protocol
from celosia_spec.isa.frames import Kind, Reason, Reply
from celosia_spec.isa.memories import Space
from host_frames import encode_read, encode_start, encode_status, encode_write

RUN = 900


def run(script, machine, **how):
    play(script, machine, BytePort(), max_cycles=120_000, **how)


@pytest.mark.parametrize(("latency", "ready"), [(1, 1.0), (3, 1.0), (8, 0.05)])
def test_write_and_read_back(latency, ready):
    machine = KeepingStub(latency=latency)

    async def script(line):
        model, places = {}, []
        for number in range(4):
            space = line.rng.choice([Space.MAIN, Space.EXPONENTS])
            address = line.rng.randrange(1 << 20) // 4 * 4
            words = [line.rng.randrange(1 << 16) for _ in range(4)]
            request = encode_write(space, address, words, element_bytes=2, tag=number)
            assert await line.ask(request) == Reply(tag=number, kind=Kind.IDLE)
            model |= {(space, address + k): word for k, word in enumerate(words)}
            places.append((space, address))
        assert machine.memory == model
        assert len(machine.effects) == 4 * 4
        for number, (space, address) in enumerate(places):
            reply = await line.ask(encode_read(space, address, element_bytes=2, tag=number))
            assert (reply.tag, reply.kind) == (number, Kind.DATA)
            assert reply.elements(2) == [model[space, address + k] for k in range(4)]

    run(script, machine, seed=latency, ready=ready)


def test_single_elements():
    """Elements of eight bytes go to any address; what is beside them stays."""
    machine = KeepingStub()

    async def script(line):
        for address in (5, 6, 7, 8, 0xFFFFF):
            request = encode_write(Space.MAIN, address, [0xABCD], element_bytes=8)
            assert await line.ask(request) == Reply(tag=0, kind=Kind.IDLE)
            assert machine.effects.pop() == ("write", Space.MAIN, address, 0xABCD)
            assert not machine.effects
            first = address & ~3
            reply = await line.ask(encode_read(Space.MAIN, first, element_bytes=2))
            assert reply.elements(2)[address - first] == 0xABCD

    run(script, machine)


def test_registers_have_two_elements():
    machine = KeepingStub(saturated=1)
    machine.memory = {(Space.REGISTERS, at): 0x1111 * (at + 1) for at in range(8)}

    async def script(line):
        for at in (0, 2):
            reply = await line.ask(encode_read(Space.REGISTERS, at, element_bytes=4))
            assert reply.elements(4) == [0x1111 * (k + 1) | 0x1111 * (k + 5) << 16
                                         for k in (at, at + 1)]

    run(script, machine)


def test_start_status_abort():
    machine = KeepingStub(run_cycles=RUN)

    async def script(line):
        assert await line.ask(encode_status(tag=3)) == Reply(tag=3, kind=Kind.IDLE)
        reply = await line.ask(encode_start(200 << 8 | 2, tag=4))
        assert reply == Reply(tag=4, kind=Kind.RUNNING)
        refused = Reply(tag=5, kind=Kind.REJECTED, reason=Reason.BUSY)
        for request in (encode_start(257, tag=5),
                        encode_read(Space.MAIN, 0, element_bytes=2, tag=5),
                        encode_write(Space.MAIN, 0, [0] * 4, element_bytes=2, tag=5)):
            assert await line.ask(request) == refused
        assert (await line.ask(encode_status())).kind is Kind.RUNNING
        machine.error, machine.saturated = 5, 1
        await line.idle(RUN)
        assert await line.ask(encode_status(tag=6)) == Reply(
            tag=6, kind=Kind.IDLE, saturated=True, failed=True)
        machine.error = 0
        await line.ask(encode_start(0))
        assert await line.ask(protocol.encode_abort(tag=7)) == Reply(
            tag=7, kind=Kind.IDLE, saturated=True)
        assert machine.effects == [("start", 200 << 8 | 2), ("start", 0), ("abort",)]

    run(script, machine, ready=1)


def test_a_run_that_ends_inside_a_write():
    """It has its whole effect, or none and is refused."""
    machine = KeepingStub()

    async def script(line):
        kinds = set()
        for cycles in range(20, 220, 13):
            machine.run_cycles = cycles
            await line.ask(encode_start(0))
            machine.effects.clear()
            words = [line.rng.randrange(1 << 16) for _ in range(4)]
            reply = await line.ask(encode_write(Space.MAIN, 0, words, element_bytes=2))
            wanted = [("write", Space.MAIN, k, word) for k, word in enumerate(words)]
            assert machine.effects == (wanted if reply.kind is Kind.IDLE else [])
            kinds.add(reply.kind)
            await line.idle(300)
        assert kinds == {Kind.IDLE, Kind.REJECTED}

    run(script, machine, ready=1)


def test_unknown_commands_are_rejected():
    machine = KeepingStub()

    async def script(line):
        for code in range(protocol.Command.ABORT + 1, 16):
            reply = await line.ask(protocol.request(code, 3))
            assert reply == Reply(tag=3, kind=Kind.REJECTED, reason=Reason.UNKNOWN)
        assert machine.effects == []

    run(script, machine)


REQUESTS = {
    "write": encode_write(Space.MAIN, 0x4C5C4, [0xC5C5, 2, 3, 0xFFFF], element_bytes=2, tag=12),
    "read": encode_read(Space.EXPONENTS, 0xC5C4, element_bytes=2, tag=5),
    "start": encode_start(0xC6C5, tag=1),
    "abort": protocol.encode_abort(tag=2),
}


async def recover(line):
    """Bring the port back to the start of a frame."""
    await line.send(protocol.RESYNC)
    await line.idle(150)


async def still_answers(line, tag):
    assert await line.ask(encode_status(tag=tag % 16)) == Reply(tag=tag % 16, kind=Kind.IDLE)


@pytest.mark.parametrize("name", REQUESTS)
def test_every_damaged_byte_and_every_cut(name):
    """No damaged request has an effect, and the next good one is answered."""
    machine, request = KeepingStub(), REQUESTS[name]

    async def script(line):
        for at in range(len(request)):
            bad = bytearray(request)
            bad[at] ^= line.rng.choice([1 << line.rng.randrange(8), line.rng.randrange(1, 256)])
            for sent in (bad, request[:at]):
                line.replies.clear()
                await line.send(sent, gap=0)
                await recover(line)
                assert all(reply.reason is Reason.DAMAGED for reply in line.replies)
                await still_answers(line, at)
        assert machine.effects == []

    run(script, machine, ready=1)


def test_a_damaged_payload_is_reported_and_costs_nothing_else():
    """A good request may follow the reply to a damaged one at once."""
    machine, request = KeepingStub(), REQUESTS["write"]

    async def script(line):
        for at in range(2, len(request)):
            bad = bytearray(request)
            bad[at] ^= 1 << line.rng.randrange(8)
            reply = await line.ask(bad)
            assert reply == Reply(tag=12, kind=Kind.REJECTED, reason=Reason.DAMAGED)
            await still_answers(line, at)
        assert machine.effects == []

    run(script, machine)


@pytest.mark.parametrize("seed", range(2))
def test_garbage_then_a_good_request(seed):
    machine = KeepingStub()

    async def script(line):
        for number in range(12):
            garbage = bytes(line.rng.choice([protocol.SYNC, line.rng.randrange(256)])
                            for _ in range(line.rng.randrange(1, 60)))
            await line.send(garbage, gap=0)
            await recover(line)
            assert all(reply.reason is Reason.DAMAGED for reply in line.replies)
            await still_answers(line, number)
        assert machine.effects == []

    run(script, machine, seed=seed, ready=1)


def test_baud_rate_is_checked():
    with pytest.raises(ValueError, match="^clock_hz / baud must be 12 to 65535, not 11.0; choose"):
        SerialPort(clock_hz=11e5, baud=1e5)


@pytest.fixture
def serial_block():
    with Block(verilog_of(SerialPort(clock_hz=12e5, baud=1e5))) as block:
        yield block


def _paced_requests(line, seed):
    """Writes and reads sent in one go are all executed, in order, and all answered."""
    rng, machine = random.Random(seed), line.machine
    words = [rng.randrange(1 << 16) for _ in range(20)]
    frames = [encode_write(Space.MAIN, at, words[at:at + 4], element_bytes=2, tag=at // 4)
              for at in range(0, 20, 4)]
    frames += [encode_read(Space.MAIN, at, element_bytes=2, tag=at // 4) for at in range(0, 20, 4)]
    frames = [frames[k] for k in (0, 5, 1, 2, 6, 7, 3, 8, 4, 9)]
    line.send(b"".join(protocol.paced(frame) for frame in frames))
    line.cycles(300)
    assert [reply.tag for reply in line.replies] == [0, 0, 1, 2, 1, 2, 3, 3, 4, 4]
    reads = [reply for reply in line.replies if reply.kind is Kind.DATA]
    assert machine.memory == {(Space.MAIN, k): word for k, word in enumerate(words)}
    assert [word for reply in reads for word in reply.elements(2)] == words


@pytest.mark.parametrize("percent", [-2, 0, 2])
def test_paced_requests_need_no_waiting(serial_block, percent):
    line = SerialLine(serial_block, KeepingStub(latency=4), 12 * (1 + percent / 100))
    _paced_requests(line, 10 + percent)


def test_a_cut_serial_request_is_flushed(serial_block):
    """RESYNC brings the next request through; the cut one has no effect."""
    line = SerialLine(serial_block, KeepingStub(), 12)
    request = REQUESTS["write"]
    for length in (1, 2, 9, 14):
        line.replies.clear()
        line.send(request[:length] + protocol.RESYNC)
        line.send(encode_status(tag=length))
        line.cycles(600)
        assert line.replies[-1].tag == length and line.replies[-1].kind is Kind.IDLE
        assert all(reply.reason is Reason.DAMAGED for reply in line.replies[:-1])
    assert line.machine.effects == []


def test_a_start_bit_that_is_too_short_is_ignored(serial_block):
    line = SerialLine(serial_block, KeepingStub(), 12)
    for cycles in (1, 3):
        line.cycles(cycles, 0)
        line.cycles(30)
        line.send(encode_status(tag=cycles))
        line.cycles(600)
        assert line.replies[-1].tag == cycles


@pytest.mark.icarus
def test_serial_port_in_icarus(serial_block):
    """What passed on the line and the bus in Verilator passes in Icarus, cycle by cycle."""
    line = SerialLine(serial_block, KeepingStub(latency=4), 12)
    _paced_requests(line, 10)
    play_icarus(SerialPort(clock_hz=12e5, baud=1e5), line.vectors)
