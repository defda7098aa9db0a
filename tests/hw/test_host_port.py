# amaranth: UnusedElaboratable=no
"""The host port against a stand-in machine: good, damaged and cut requests, gaps everywhere."""

import pytest

from blocks.host_lines import play
from blocks.host_stub import HostStub
from celosia_hw.host.port import HostPort
from celosia_spec.isa import Space
from celosia_spec.isa import frames as protocol
from celosia_spec.isa.frames import Kind, Reason, Reply
from host_frames import encode_read, encode_start, encode_status, encode_write

TIMEOUT = 150


def run(script, machine, **how):
    play(script, machine, HostPort(timeout_cycles=TIMEOUT), **how)


@pytest.mark.parametrize("ready", [0.1, 1.0])
@pytest.mark.parametrize("element_bytes", [1, 2, 4, 8])
def test_write_and_read_back(element_bytes, ready):
    machine = HostStub(latency=element_bytes, word_bits=min(8 * element_bytes, 32))
    count, bits = 8 // element_bytes, machine.word_bits

    async def script(line):
        model, places = {}, []
        for number in range(12):
            space = line.rng.choice(list(Space))
            address = line.rng.randrange(1 << 20) // count * count
            words = [line.rng.randrange(1 << bits) for _ in range(count)]
            request = encode_write(space, address, words, element_bytes=element_bytes,
                                   tag=number)
            assert await line.ask(request) == Reply(tag=number, kind=Kind.IDLE)
            model |= {(space, address + k): word for k, word in enumerate(words)}
            places.append((space, address))
        assert machine.memory == model
        assert len(machine.effects) == 12 * count
        for number, (space, address) in enumerate(places):
            request = encode_read(space, address, element_bytes=element_bytes, tag=number)
            reply = await line.ask(request)
            assert (reply.tag, reply.kind) == (number, Kind.DATA)
            assert reply.elements(element_bytes) == [model[space, address + k]
                                                     for k in range(count)]

    run(script, machine, seed=element_bytes, ready=ready)


def test_start_status_abort():
    machine = HostStub(run_cycles=700)

    async def script(line):
        assert await line.ask(encode_status(tag=3)) == Reply(tag=3, kind=Kind.IDLE)
        reply = await line.ask(encode_start(2, 200, tag=4))
        assert reply == Reply(tag=4, kind=Kind.RUNNING)
        refused = Reply(tag=5, kind=Kind.REJECTED, reason=Reason.BUSY)
        for request in (encode_start(1, 1, tag=5),
                        encode_read(Space.BANKS, 0, element_bytes=4, tag=5),
                        encode_write(Space.BANKS, 0, [0, 1], element_bytes=4, tag=5)):
            assert await line.ask(request) == refused
        assert (await line.ask(encode_status())).kind is Kind.RUNNING
        machine.error, machine.saturated = 5, 1
        await line.idle(700)
        assert await line.ask(encode_status(tag=6)) == Reply(
            tag=6, kind=Kind.IDLE, saturated=True, failed=True)
        machine.error = 0
        await line.ask(encode_start(0, 0))
        assert await line.ask(protocol.encode_abort(tag=7)) == Reply(
            tag=7, kind=Kind.IDLE, saturated=True)
        assert machine.effects == [("start", 2, 200), ("start", 0, 0), ("abort",)]

    run(script, machine)


def test_unknown_commands_are_rejected():
    machine = HostStub()

    async def script(line):
        for code in range(protocol.Command.ABORT + 1, 16):
            body = bytes([0x30 | code, 0, 0, 0])
            frame = bytes([protocol.SYNC]) + body + protocol.crc16(body).to_bytes(2, "little")
            reply = await line.ask(frame)
            assert reply == Reply(tag=3, kind=Kind.REJECTED, reason=Reason.UNKNOWN)
        assert machine.effects == []

    run(script, machine)


REQUESTS = {
    "write": encode_write(Space.WEIGHTS, 0x4C5C4, [0xC5C5, 2, 3, 0xFFFF],
                          element_bytes=2, tag=12),
    "read": encode_read(Space.STORE, 0xC5C4, element_bytes=4, tag=5),
    "start": encode_start(0xC5, 0xC6, tag=1),
    "abort": protocol.encode_abort(tag=2),
}


async def recover(line, *, wait):
    """Bring the port back to the start of a frame: by its timeout, or by RESYNC at once."""
    if wait:
        await line.idle(TIMEOUT + 200)
    else:
        await line.send(protocol.RESYNC)
        await line.idle(150)


async def still_answers(line, tag):
    machine_state = await line.ask(encode_status(tag=tag))
    assert machine_state == Reply(tag=tag, kind=Kind.IDLE)


@pytest.mark.parametrize("wait", [True, False], ids=["timeout", "resync"])
@pytest.mark.parametrize("name", REQUESTS)
def test_every_damaged_byte(name, wait):
    """No damaged request has an effect, and the next good one is answered."""
    machine, request = HostStub(), REQUESTS[name]

    async def script(line):
        for at in range(len(request)):
            for flip in (1 << line.rng.randrange(8), line.rng.randrange(1, 256)):
                bad = bytearray(request)
                bad[at] ^= flip
                line.replies.clear()
                await line.send(bad)
                await recover(line, wait=wait)
                assert all(reply.reason is Reason.DAMAGED for reply in line.replies)
                await still_answers(line, at)
        assert machine.effects == []

    run(script, machine)


def test_a_damaged_payload_is_reported_and_costs_nothing_else():
    """A good request may follow the reply to a damaged one at once."""
    machine, request = HostStub(), REQUESTS["write"]

    async def script(line):
        for at in range(2, len(request)):
            bad = bytearray(request)
            bad[at] ^= 1 << line.rng.randrange(8)
            reply = await line.ask(bad)
            assert reply == Reply(tag=12, kind=Kind.REJECTED, reason=Reason.DAMAGED)
            await still_answers(line, at)
        assert machine.effects == []

    run(script, machine)


@pytest.mark.parametrize("wait", [True, False], ids=["timeout", "resync"])
@pytest.mark.parametrize("name", REQUESTS)
def test_every_cut(name, wait):
    machine, request = HostStub(), REQUESTS[name]

    async def script(line):
        for length in range(len(request)):
            await line.send(request[:length])
            await recover(line, wait=wait)
            await still_answers(line, length)
        assert machine.effects == []

    run(script, machine)


@pytest.mark.parametrize("seed", range(3))
def test_garbage_then_a_good_request(seed):
    machine = HostStub()

    async def script(line):
        for number in range(16):
            garbage = bytes(line.rng.choice([protocol.SYNC, line.rng.randrange(256)])
                            for _ in range(line.rng.randrange(1, 60)))
            await line.send(garbage)
            await recover(line, wait=number % 2)
            assert all(reply.reason is Reason.DAMAGED for reply in line.replies)
            await still_answers(line, number)
        assert machine.effects == []

    run(script, machine, seed=seed)


def test_a_frame_lives_exactly_as_long_as_the_timeout():
    """A byte accepted TIMEOUT cycles after SYNC still counts; one cycle later it does not."""
    machine, request = HostStub(), encode_start(1, 2)

    async def script(line):
        for late in (0, 1):
            await line.send(request[:1], gap=0)
            await line.idle(TIMEOUT - len(request) + 1 + late)
            await line.send(request[1:], gap=0)
            await line.idle(200)
            assert machine.effects == [("start", 1, 2)]
        await still_answers(line, 9)

    run(script, machine)


def test_a_read_that_is_never_answered():
    machine = HostStub(latency=0)

    async def script(line):
        await line.send(encode_read(Space.BANKS, 0, element_bytes=1))
        await line.idle(TIMEOUT + 5)
        assert line.replies == []
        await still_answers(line, 1)

    run(script, machine)


def test_a_slow_host_gets_its_reply():
    """A reply may take far longer than the timeout."""
    machine = HostStub()

    async def script(line):
        request = encode_read(Space.BANKS, 0x10, element_bytes=4, tag=1)
        reply = await line.ask(request)
        assert reply.elements(4) == [0xA5000010, 0xA5000011]

    run(script, machine, ready=0.01)


@pytest.mark.parametrize("request_bytes, cycles", [
    (encode_status(), 2),
    (encode_start(0, 0), 2),
    (encode_write(Space.BANKS, 0, [0] * 8, element_bytes=1), 10),
    (encode_read(Space.BANKS, 0, element_bytes=1), 10 + 8 * (1 + 3)),
    (encode_read(Space.BANKS, 0, element_bytes=8), 10 + 1 * (1 + 3)),
])
def test_cycles_from_request_to_reply(request_bytes, cycles):
    machine = HostStub(latency=3)

    async def script(line):
        await line.send(request_bytes, gap=0)
        waited, valid = 0, 0
        while not valid:
            *_, valid = await line.ctx.tick().sample(line.dut.o.valid)
            waited += 1
        assert waited == cycles

    run(script, machine)


@pytest.mark.parametrize("timeout", [31, (1 << 30) + 1])
def test_timeout_is_checked(timeout):
    message = rf"^timeout_cycles must be 32 to 1073741824, not {timeout}$"
    with pytest.raises(ValueError, match=message):
        HostPort(timeout_cycles=timeout)
