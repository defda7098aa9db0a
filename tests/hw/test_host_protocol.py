"""Frames of the host port: encoding, decoding, and what is refused."""

import random

import pytest

from celosia_spec.isa import frames as protocol
from celosia_spec.isa.frames import Decoder, Kind, Reason, Reply
from celosia_spec.isa.memories import Space, memory_of
from host_frames import (
    encode_read,
    encode_start,
    encode_status,
    encode_write,
    encode_write_run,
    split_run,
)


def test_crc_is_the_catalogued_one():
    assert protocol.crc16(b"123456789") == 0x6F91
    data = bytes(range(40))
    assert protocol.crc16(data + protocol.crc16(data).to_bytes(2, "little")) == 0


def test_frames_byte_by_byte():
    """Layout of a write and of a start, written out by hand."""
    write = encode_write(Space.MAIN, 0x12344, [0x1122, -2, 3, 4], element_bytes=2,
                         tag=9)
    assert write[:13] == bytes.fromhex("c5 95 2211 feff 0300 0400 442311")
    start = encode_start(250 << 8 | 3, tag=1)
    assert start[:5] == bytes([0xC5, 0x19, 3, 250, 0])
    assert len(write) == protocol.LONG_REQUEST_BYTES == 15
    assert len(start) == 7


@pytest.mark.parametrize("element_bytes", [1, 2, 4])
@pytest.mark.parametrize("address, count", [(0, 16), (3, 21), (5, 2), (8, 8), (7, 0), (1, 1)])
def test_a_run_is_covered_once_and_in_order(element_bytes, address, count):
    places = []
    for at, elements, size in split_run(address, count, element_bytes):
        assert elements * size == protocol.DATA_BYTES
        assert at % elements == 0
        places += range(at, at + elements)
    assert places == list(range(address, address + count))


def test_a_run_of_writes_has_few_frames():
    frames = encode_write_run(Space.MAIN, 6, list(range(20)), element_bytes=1, tag=14)
    assert len(frames) == 2 + 2 + 2
    assert [frame[1] >> 4 for frame in frames] == [14, 15, 0, 1, 2, 3]


def test_eight_bytes_take_nineteen_or_twenty_byte_times():
    """The rates that docs/host-port.md gives."""
    assert len(protocol.paced(encode_write(Space.MAIN, 0, [0], element_bytes=8))) == 19
    assert len(protocol.paced(encode_read(Space.MAIN, 0, element_bytes=8))) == 20


def test_element_bytes_of_the_spaces():
    for space, size in ((Space.REGISTERS, 4), (Space.MAIN, 2), (Space.EXPONENTS, 2)):
        assert memory_of(space).element_bytes == size


@pytest.mark.parametrize("call, message", [
    (lambda: encode_write(Space.MAIN, 8, [0] * 7, element_bytes=1),
     r"^elements must be 8 of 1 bytes, not 7$"),
    (lambda: encode_write(Space.MAIN, 4, [0] * 8, element_bytes=1),
     r"^address must be a multiple of 8 for elements of 1 bytes, not 4; move single elements "
     r"with element_bytes=8$"),
    (lambda: encode_write(Space.MAIN, 0, [256] + [0] * 7, element_bytes=1),
     r"^element must be -128 to 255, not 256$"),
    (lambda: encode_read(Space.MAIN, 1 << 20, element_bytes=8),
     r"^place field address must be 0 to 1048575, not 1048576$"),
    (lambda: encode_read(Space.MAIN, 0, element_bytes=3),
     r"^element_bytes must be 1, 2, 4 or 8, not 3$"),
    (lambda: encode_start(65536), r"^start field list must be 0 to 65535, not 65536$"),
    (lambda: encode_status(tag=16), r"^request header field tag must be 0 to 15, not 16$"),
    (lambda: Reply(tag=0, kind=Kind.IDLE).elements(4),
     r"^a reply of kind IDLE has no elements; check kind first$"),
])
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def random_reply(rng):
    kind = rng.choice(list(Kind))
    if kind is Kind.REJECTED:
        return Reply(tag=rng.randrange(16), kind=kind, reason=rng.choice(list(Reason)))
    return Reply(tag=rng.randrange(16), kind=kind, saturated=rng.random() < 0.5,
                 failed=rng.random() < 0.5, data=rng.randbytes(8) if kind is Kind.DATA else b"")


def test_decoder_takes_any_cut():
    rng = random.Random(1)
    replies = [random_reply(rng) for _ in range(200)]
    line, got, decoder = b"".join(reply.encode() for reply in replies), [], Decoder()
    while line:
        size = rng.randrange(1, 20)
        got += decoder.feed(line[:size])
        line = line[size:]
    assert got == replies
    assert decoder.skipped == 0


def test_decoder_rejects_every_damaged_byte_and_finds_the_next_reply():
    rng = random.Random(2)
    good = [Reply(tag=number, kind=Kind.IDLE) for number in range(5)]
    tail = b"".join(reply.encode() for reply in good)
    for kind, data in ((Kind.DATA, rng.randbytes(8)), (Kind.RUNNING, b"")):
        frame = Reply(tag=7, kind=kind, data=data).encode()
        for at in range(len(frame)):
            for flip in (1, 0x80, rng.randrange(1, 256)):
                bad = bytearray(frame)
                bad[at] ^= flip
                decoder = Decoder()
                assert decoder.feed(bytes(bad) + tail) == good
                assert decoder.skipped == len(frame)


def test_decoder_forgets_a_cut_reply():
    decoder = Decoder()
    assert decoder.feed(Reply(tag=1, kind=Kind.DATA, data=bytes(8)).encode()[:6]) == []
    decoder.clear()
    assert decoder.feed(Reply(tag=2, kind=Kind.IDLE).encode()) == [Reply(tag=2, kind=Kind.IDLE)]
    assert decoder.skipped == 6


def test_elements_of_a_reply():
    reply = Reply(tag=0, kind=Kind.DATA, data=bytes([0xFF, 1, 2, 3, 4, 5, 6, 0x80]))
    assert reply.elements(1, signed=True) == [-1, 1, 2, 3, 4, 5, 6, -128]
    assert reply.elements(2) == [0x01FF, 0x0302, 0x0504, 0x8006]
    assert reply.elements(4) == [0x030201FF, 0x80060504]
    assert reply.elements(8) == [0x030201FF]
