"""The virtual board: its line and its byte streams against each other, against the gateware's top
as a whole, and against what a board does."""

import math
import random

import numpy as np
import pytest

from blocks.players import verilog_of
from blocks.verilated_block import Block
from celosia_boards.arrays import ArrayRefused
from celosia_hw.serial_machine import SerialMachine
from celosia_sim.simulators.unreset import Unreset
from celosia_sim.virtual import Lights, VirtualBoard
from celosia_spec.isa import frames as protocol
from celosia_spec.isa.array import Array
from celosia_spec.isa.frames import Decoder, Kind, Reason, Reply
from celosia_spec.isa.memories import Space
from celosia_spec.isa.registers import Register
from compiled import SMALL
from host_frames import encode_read, encode_start, encode_status, encode_write

TARGET = "upduino"
MS = 39_000
"""Cycles of a millisecond of the board."""


def replies(data: bytes) -> list[Reply]:
    decoder = Decoder()
    found = decoder.feed(data)
    decoder.clear()
    assert decoder.skipped == 0
    return found


def ask(board: VirtualBoard, *requests: bytes) -> list[Reply]:
    board.send(b"".join(map(protocol.paced, requests)))
    return replies(board.run_until_quiet(50 * MS * len(requests)))


def mixed_frames(seed: int) -> list[bytes]:
    """Writes, reads of what they wrote and of registers, an unknown command, a START of nothing."""
    rng = random.Random(seed)
    frames = []
    for tag in range(12):
        address = 4 * rng.randrange(64)
        frames += [encode_write(Space.MAIN, address, [rng.randrange(1 << 16) for _ in range(4)],
                                element_bytes=2, tag=tag),
                   encode_read(Space.MAIN, address, element_bytes=2, tag=tag)]
    damaged = bytearray(frames[0])
    damaged[5] ^= 4
    return [*frames, bytes(damaged), encode_read(Space.REGISTERS, 0, element_bytes=4),
            encode_start(0, tag=3), protocol.encode_abort(tag=4),
            encode_status(tag=5)]


@pytest.fixture
def line():
    with VirtualBoard(TARGET) as board:
        yield board


def test_a_new_board_holds_no_program_and_is_quiet(line):
    assert ask(line, encode_status(tag=7)) == [Reply(tag=7, kind=Kind.IDLE)]
    [reply] = ask(line, encode_read(Space.MAIN, 0, element_bytes=2))
    assert reply.elements(2) == [0, 0, 0, 0]
    hashed = ask(line, encode_read(Space.REGISTERS, 2 * (Register.ARRAY_HASH // 2),
                                   element_bytes=4))[0].elements(4)
    assert hashed[Register.ARRAY_HASH % 2] == line.array.hash
    assert line.quiet and line.lights == Lights() and line.seen_lights() == Lights()


@pytest.mark.parametrize("byte_level", [False, True])
def test_leaving_out_what_stands_still_changes_no_byte_and_no_cycle(byte_level):
    """Every byte of the machine comes in the same cycle with and without."""
    times = []
    for plain in (False, True):
        rng = random.Random(5)
        with VirtualBoard(TARGET, byte_level=byte_level, plain=plain) as board:
            seen = []
            for frame in [*mixed_frames(1), b"\xc5\x14\x00", encode_status()]:
                board.send(frame)
                for _ in range(60):
                    came = board.run(rng.choice([1, 7, 100, 1000]), until_bytes=1)
                    if came:
                        seen.append((board.cycles, came, board.lights))
            times.append(seen)
            simulated = board.simulated
            assert simulated == board.cycles if plain else simulated < 0.6 * board.cycles
    assert len(times[0]) > 100
    assert times[0] == times[1]


def test_bytes_and_bits_give_the_same_replies(line):
    frames = mixed_frames(2)
    with VirtualBoard(TARGET, byte_level=True) as stream:
        found = ask(stream, *frames)
        assert found == ask(line, *frames)
        assert len(found) == len(frames)
        assert Reply(tag=0, kind=Kind.REJECTED, reason=Reason.DAMAGED) in found
        assert stream.cycles < line.cycles / 15


def test_the_line_takes_its_time(line):
    """A byte takes 420 cycles, bytes follow each other without a gap, and the time is counted."""
    assert (line.clock_hz, line.baud, line.bit_cycles) == (42e6, 1_000_000, 42)
    line.send(b"\xff" * 100)
    line.run(420 * 60 - 1)
    assert (line.bytes_in, line.pending) == (60, 40)
    line.run(2)
    assert (line.bytes_in, line.pending) == (61, 39)
    line.run_until_quiet(MS)
    assert 420 * 100 <= line.cycles <= 420 * 101 and line.bytes_out == 0
    before = line.cycles
    line.run(10 ** 9)
    assert line.cycles == before + 10 ** 9 and line.quiet
    assert line.seconds == pytest.approx(line.cycles / 42e6)


def test_a_cut_request_waits_for_the_rest(line):
    line.send(encode_status()[:4])
    assert line.run_until_quiet(100 * MS) == b"" and line.quiet
    assert ask(line, encode_status()[4:]) == [Reply(tag=0, kind=Kind.IDLE)]


@pytest.mark.parametrize("percent", [-2, 2])
def test_two_percent_off_does_no_harm(percent):
    frames = mixed_frames(3)
    with VirtualBoard(TARGET, baud_error=percent) as board, \
            VirtualBoard(TARGET, byte_level=True) as stream:
        assert ask(board, *frames) == ask(stream, *frames)
        assert board.damaged == 0


@pytest.mark.parametrize("percent", [-8, 8])
def test_eight_percent_off_gives_nothing_that_looks_right(percent):
    """No reply that a machine did not give: one with another tag or kind than was asked for."""
    with VirtualBoard(TARGET, baud_error=percent) as board:
        decoder = Decoder()
        for tag in range(16):
            board.send(protocol.RESYNC + protocol.paced(encode_status(tag=tag)))
            for reply in decoder.feed(board.run_until_quiet(50 * MS)):
                assert reply.kind is Kind.REJECTED or reply == Reply(tag=tag, kind=Kind.IDLE)
        assert board.bytes_in == 16 * (27 + 11)


def test_a_reset_empties_the_memories(line):
    ask(line, encode_write(Space.MAIN, 0, [5, 6, 7, 8], element_bytes=2))
    read = encode_read(Space.MAIN, 0, element_bytes=2)
    assert ask(line, read)[0].elements(2) == [5, 6, 7, 8]
    before = line.cycles, line.bytes_in
    line.send(read)
    line.run(450)
    line.reset()
    assert (line.pending, line.lights) == (0, Lights())
    assert line.cycles == before[0] + 450 and line.bytes_in == before[1] + 2
    assert ask(line, read)[0].elements(2) == [0] * 4
    line.send(b"\xff" * 3 + read)
    line.reset(keep_pending=True)
    assert line.pending == 10
    assert replies(line.run_until_quiet(10 * MS))[0].elements(2) == [0] * 4


def test_port_and_core_are_what_the_gateware_has_as_its_top():
    """The whole top, verilated as one, shows the same level on the line in every cycle."""
    frames = mixed_frames(4)[-12:]
    with VirtualBoard(TARGET, SMALL, baud=3_000_000) as board:
        board.send(b"".join(map(protocol.paced, frames)))
        came, ends = b"", []
        while not board.quiet:
            byte = board.run(MS, until_bytes=1)
            came += byte
            ends += [board.cycles] * len(byte)
        line, bit = board.byte_cycles, board.bit_cycles
    top = Unreset(SerialMachine(SMALL, clock_hz=42e6, baud=3_000_000))
    levels = [level for byte in b"".join(map(protocol.paced, frames))
              for level in (0, *(byte >> index & 1 for index in range(8)), 1)]
    heard, previous, byte_ends = [], 1, []
    with Block(verilog_of(top)) as block:
        block.set("rx", 1)
        block.tick(4)
        cycles = np.arange(ends[-1] + 1)
        rx = np.append(levels, 1)[np.minimum(cycles // bit, len(levels)).astype(int)]
        sent = block.stream({"rx": rx}, ["tx"])["tx"].tolist()
    for cycle, tx in enumerate(sent):
        if previous and not tx and (not heard or cycle > byte_ends[-1]):
            heard.append([])
            byte_ends.append(cycle + math.ceil(bit / 2 + 9 * bit))
        if heard and len(heard[-1]) < 10:
            begin = byte_ends[-1] - math.ceil(bit / 2 + 9 * bit)
            if cycle == begin + int(bit / 2 + len(heard[-1]) * bit):
                heard[-1].append(tx)
        previous = tx
    assert (line, len(replies(came))) == (140, len(frames))
    assert byte_ends == ends
    assert came == bytes(sum(bit << k for k, bit in enumerate(byte[1:9])) for byte in heard)


def test_wrong_arguments():
    with pytest.raises(ValueError, match="baud_error: bytes that go without a line have no baud"):
        VirtualBoard(TARGET, byte_level=True, baud_error=1)
    with pytest.raises(ValueError, match="baud_error must be -50 to 50 percent, not nan"):
        VirtualBoard(TARGET, baud_error=float("nan"))
    with pytest.raises(ValueError, match="clock_hz / baud must be 12 to 65535, not 8.6"):
        VirtualBoard("ulx3s-85f", baud=7_000_000)
    with pytest.raises(ArrayRefused, match="upduino: main_words can be at most 16384"):
        VirtualBoard(TARGET, Array(main_words=32768))
    with VirtualBoard(TARGET, byte_level=True) as board:
        with pytest.raises(ValueError, match="cycles must not be negative, not -1"):
            board.run(-1)
    with pytest.raises(ValueError, match="the board is closed; open another"):
        board.run(1)
