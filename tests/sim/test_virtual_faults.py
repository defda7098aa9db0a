"""Faults on the way to a virtual board: fixed by the seed, whatever the pieces."""

import random

import pytest

from celosia_sim.virtual import Damage, Faults, VirtualBoard, Wire
from celosia_sim.virtual.faults import CUT_MAX, STALL_SECONDS, TO_BOARD, TO_HOST
from celosia_spec.isa import frames as protocol
from celosia_spec.isa.frames import Decoder
from celosia_spec.isa.memories import Space
from host_frames import encode_read, encode_write

DATA = bytes(random.Random(1).randrange(256) for _ in range(20_000))
KINDS = ("drop", "flip", "duplicate", "cut", "noise")


def pieces(data, seed):
    rng, at = random.Random(seed), 0
    while at < len(data):
        size = rng.choice([1, 2, 17, 300])
        yield data[at:at + size]
        at += size


@pytest.mark.parametrize("rates", [*({kind: 0.01} for kind in KINDS), dict.fromkeys(KINDS, 0.003)])
def test_pieces_change_nothing_and_the_seed_changes_all(rates):
    def damaged(seed, cut):
        damage = Damage(Faults(seed=seed, **rates))
        return b"".join(damage.damage(piece, TO_BOARD) for piece in pieces(DATA, cut)), damage.done

    whole = Damage(Faults(seed=3, **rates))
    expected = whole.damage(DATA, TO_BOARD)
    assert damaged(3, 1) == damaged(3, 2) == (expected, whole.done)
    assert damaged(4, 1)[0] != expected != DATA
    assert whole.damage(DATA, TO_HOST) != expected
    for kind, rate in rates.items():
        assert whole.done[kind] == pytest.approx(2 * rate * len(DATA), rel=0.35)


def test_what_each_kind_does():
    def one(**rates):
        return Damage(Faults(seed=1, **rates)).damage(DATA, TO_BOARD)

    assert Damage(Faults()).damage(DATA, TO_BOARD) == DATA and not Faults(seed=5)
    assert one(drop=1) == b""
    assert one(duplicate=1) == bytes(byte for byte in DATA for _ in range(2))
    assert all((a ^ b).bit_count() == 1 for a, b in zip(DATA, one(flip=1), strict=True))
    assert one(noise=1)[1::2] == DATA and len(set(one(noise=1)[::2])) == 256
    lost = len(DATA) - len(one(cut=0.001))
    assert 20 < lost < 40 * CUT_MAX


def test_stalls():
    faults = Faults(seed=2, stall=0.01)
    first, second = Damage(faults), Damage(faults)
    one = [first.stalled(1) for _ in range(2000)]
    assert sum(one) == pytest.approx(second.stalled(2000))
    times = [seconds for seconds in one if seconds]
    assert len(times) == first.done["stall"] and 8 < len(times) < 40
    assert STALL_SECONDS[0] <= min(times) <= max(times) <= STALL_SECONDS[1]


def test_refused_rates():
    with pytest.raises(ValueError, match="drop must be a rate from 0 to 1, not 1.5; 0.01 is one"):
        Faults(drop=1.5)
    with pytest.raises(ValueError, match="noise must be a rate from 0 to 1, not nan"):
        Faults(noise=float("nan"))
    with pytest.raises(ValueError, match="reset_after must not be negative, not -1"):
        Faults(reset_after=-1)


@pytest.mark.parametrize("byte_level", [False, True])
def test_resets_come_after_exactly_so_many_bytes(byte_level):
    """The 43rd byte empties the memories; the 42nd does not."""
    write = protocol.paced(encode_write(Space.MAIN, 0, [7] * 4, element_bytes=2))
    read = protocol.paced(encode_read(Space.MAIN, 0, element_bytes=2))
    assert len(write + read) == 39
    for spare, expected in ((3, 7), (4, 0)):
        with VirtualBoard("upduino", byte_level=byte_level) as board:
            wire = Wire(board, Faults(reset_after=43))
            wire.send(write + read)
            [_, before] = Decoder().feed(wire.run_until_quiet(10 ** 6))
            assert before.elements(2) == [7] * 4
            wire.send(b"\xff" * spare)
            assert wire.run_until_quiet(10 ** 6) == b""
            assert (wire.resets, wire.pending) == (int(spare == 4), 0)
            board.send(read)
            assert Decoder().feed(board.run_until_quiet(10 ** 6))[0].elements(2) == [expected] * 4


def test_damaged_sessions_give_no_reply_that_is_wrong():
    """Of 300 reads under faults of every kind each reply is the right one, and all end."""
    words = [1, 2, 3, 4]
    with VirtualBoard("upduino", byte_level=True) as board:
        wire = Wire(board, Faults(seed=9, drop=0.003, flip=0.003, duplicate=0.003, cut=0.001,
                                  noise=0.003))
        board.send(encode_write(Space.MAIN, 0, words, element_bytes=2))
        board.run_until_quiet(10 ** 6)
        decoder, right = Decoder(), 0
        for tag in range(300):
            wire.send(protocol.RESYNC + protocol.paced(
                encode_read(Space.MAIN, 0, element_bytes=2, tag=tag % 16)))
            for reply in decoder.feed(wire.run_until_quiet(10 ** 6)):
                if reply.data:
                    assert reply.elements(2) == words
                    right += reply.tag == tag % 16
            assert wire.quiet
        assert right > 200
