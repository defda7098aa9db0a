# amaranth: UnusedElaboratable=no
"""Host port and UART together, as generated Verilog; the host's bit time is up to 2 % off."""

import random

import pytest

from blocks.host_lines import SerialLine
from blocks.host_stub import HostStub
from blocks.players import play_icarus, verilog_of
from blocks.verilated_block import Block
from celosia_hw.host.serial import SerialHost
from celosia_spec.isa import Space
from celosia_spec.isa import frames as protocol
from celosia_spec.isa.frames import Kind, Reason
from host_frames import encode_read, encode_status, encode_write, encode_write_run


@pytest.fixture
def serial_block():
    with Block(verilog_of(SerialHost(clock_hz=1e6, baud=1e5))) as block:
        yield block


def _paced_requests(line, seed):
    """Writes and reads sent in one go are all executed, in order, and all answered."""
    rng, machine = random.Random(seed), line.machine
    words = [rng.randrange(1 << 16) for _ in range(22)]
    frames = encode_write_run(Space.WEIGHTS, 3, words, element_bytes=2)
    frames += [encode_read(Space.WEIGHTS, 4 * number, element_bytes=2, tag=number)
               for number in range(1, 6)]
    line.send(b"".join(protocol.paced(frame) for frame in frames))
    line.cycles(200)
    writes, reads = line.replies[:-5], line.replies[-5:]
    assert [reply.tag for reply in writes] == list(range(len(frames) - 5))
    assert all(reply.kind is Kind.IDLE for reply in writes)
    assert machine.memory == {(Space.WEIGHTS, 3 + k): word for k, word in enumerate(words)}
    assert [word for reply in reads for word in reply.elements(2)] == words[1:21]


@pytest.mark.parametrize("percent", [-2, 0, 2])
def test_paced_requests_need_no_waiting(serial_block, percent):
    line = SerialLine(serial_block, HostStub(latency=4, word_bits=16), 10 + percent / 10)
    _paced_requests(line, 10 + percent)


def test_a_cut_serial_request_is_flushed(serial_block):
    """RESYNC brings the next request through; the cut one has no effect."""
    line = SerialLine(serial_block, HostStub(), 10)
    request = encode_write(Space.BANKS, 0, list(range(8)), element_bytes=1)
    for length in (1, 2, 9, 14):
        line.replies.clear()
        line.send(request[:length] + protocol.RESYNC)
        line.send(encode_status(tag=length))
        line.cycles(500)
        assert line.replies[-1].tag == length and line.replies[-1].kind is Kind.IDLE
        assert all(reply.reason is Reason.DAMAGED for reply in line.replies[:-1])
    assert line.machine.effects == []


@pytest.mark.icarus
def test_serial_host_in_icarus(serial_block):
    """What passed on the line and the bus in Verilator passes in Icarus, cycle by cycle."""
    line = SerialLine(serial_block, HostStub(latency=4, word_bits=16), 10)
    _paced_requests(line, 10)
    play_icarus(SerialHost(clock_hz=1e6, baud=1e5), line.vectors)
