# amaranth: UnusedElaboratable=no
"""The rings between fetcher and array: nothing is read that was not written, nothing is overwritten
that is still to be read; whoever writes, takes and walks, as the rings' contracts allow."""

import pytest
from amaranth.hdl import Assert, Assume, Cat, Const, Module, Mux, Signal, Value

from celosia_hw.parts.delay import chain
from celosia_hw.stream import rings
from celosia_hw.stream.rings import ControlsRing, WeightsRing
from celosia_spec.isa.array import RING_GAP, Array
from formal.prove import holds, inside

ARRAY = Array(lanes=8, controls=64, ring=64)
PART = RING_GAP // 2
"""Places of a part of a ring."""

WORDS, ENTRIES = PART, 8
"""What may be written into each ring beyond what had been a cycle before there was room; the
fetcher writes 8 and 5 at most. Behind the entries of a batch some are still to be read."""


class Writing:
    """A ring's writer, and counts of what goes through: from the first one on, modulo four rings.

    written, before : all that was written, up to the cycle before, and up to that before it.
    kept            : all that is not needed any more.
    """

    def __init__(self, m: Module, size: int, most: int, write: Signal, room: Value,
                 kept: Signal) -> None:
        self.m, self.size = m, size
        self.written, self.before, before = (Signal.like(kept, name=name) for name in (
            "written_so_far", "written_before", "kept_before"))
        wrote, left = Signal(), Signal(range(most + 1))
        credit = Mux(room, most - wrote, left)
        low = (PART - 1).bit_length()
        part = [Cat(Const(0, low), count[low:]) for count in (kept, before)]    # it begins there
        m.d.sync += [self.written.eq(self.written + write), self.before.eq(self.written),
                     before.eq(kept), wrote.eq(write), left.eq(credit - write)]
        m.d.comb += [
            Assume(~write | (credit > 0)),
            # What is to be shown: there is a place for each that is written.
            Assert(self.since(kept) < size),
            # What carries that from cycle to cycle.
            Assert(self.since(part[0]) + credit < size - PART + most), Assert(left <= most),
            Assert(modulo(self.before + wrote, kept) == self.written),
            Assert(~room | (modulo(self.before - part[1], kept) < size - PART)),
        ]

    def since(self, count: Value) -> Value:
        """Return how many were written behind so many."""
        return modulo(self.written - count, self.written)

    def there(self, count: Value) -> Value:
        """Whether the one behind so many is in memory so early that it can be read now, by an
        address of the cycle before."""
        found = modulo(self.before - count, self.before)
        return (found > 0) & (found < self.size)


def modulo(value: Value, like: Signal) -> Value:
    return value[:len(like)]


def controls() -> tuple[Module, list[Signal]]:
    """Return a ring of control words, and its inputs."""
    m, ring = Module(), ControlsRing(ARRAY)
    m.submodules.ring = core = ring.elaborate(None)
    bits = len(ring.at)
    write, take, read = (Signal(name=f"{name}_in") for name in ("write", "take", "read"))
    address, leaves = Signal(bits, name="address_in"), Signal(bits, name="leaves_in")
    taken, kept = (Signal(bits + 2, name=name) for name in ("taken_so_far", "kept_so_far"))
    m.d.comb += [ring.writes.write.eq(write), ring.words.take.eq(take), ring.tail.eq(kept),
                 ring.heads.read.eq(read), ring.heads.address.eq(address)]
    m.d.sync += [taken.eq(taken + take), kept.eq(kept + leaves)]
    of = Writing(m, ARRAY.controls, WORDS, write, ring.writes.room, kept)
    count, took, wrote = (inside(core, name) for name in ("count", "took", "wrote"))
    m.d.comb += [
        # It takes what is there; what it has taken is kept as long as the output path wants.
        Assume(~take | ring.words.there), Assume(leaves <= modulo(taken - kept, kept)),
        # What is to be shown.
        Assert(ring.words.there == of.there(taken)),
        # What carries that from cycle to cycle.
        Assert(ring.at == taken[:bits]), Assert(ring.head == of.written[:bits]),
        Assert(modulo(taken - kept, kept) <= of.since(kept)),
        Assert(of.since(taken) + took < ARRAY.controls),
        Assert(modulo(of.before - taken, taken) < ARRAY.controls),
        Assert(modulo(of.before + wrote, of.before) == of.written),
        Assert(count == (of.before - taken + took)[:bits]),
    ]
    return m, [write, take, read, address, leaves]


LATE = 5
"""Cycles from a step to its mantissas."""



def weights() -> tuple[Module, list[Signal]]:
    """Return a ring of weights, and its inputs: steps of batch after batch, whose passes go over
    its entries again."""
    m, ring = Module(), WeightsRing(ARRAY, LATE)
    reads = ring.reads
    m.submodules.ring = core = ring.elaborate(None)
    bits = len(ring.head)
    inputs = [Signal(name=f"{name}_in") for name in (
        "write", "go", "turn", "back", "closes", "between", "dense", "groups")]
    write, go, turn, back, closes, between, dense, groups = inputs
    early, walk = core.submodules.early, core.submodules.late
    place, first, end = (Signal(bits + 2, name=name) for name in ("place", "first", "end"))
    # A batch has begun; its first pass goes on; its entries are kept from ``first`` on.
    within, fresh, marked, begun, kind = (Signal(name=name, init=init) for name, init in (
        ("within", 0), ("fresh", 1), ("marked", 0), ("begun", 0), ("kind", 0)))
    ended = Signal(range(4))        # cycles since a pass has ended, or a batch has begun
    final = turn & ~back & closes
    m.d.sync += [
        begun.eq(1), kind.eq(groups),
        place.eq(Mux(early.onward, Mux(back, first, place + 1), place)),
        within.eq(Mux(go, ~final, within)), marked.eq((marked | between) & ~final),
        ended.eq(Mux(turn, 0, Mux(between, 1, ended + (ended != 3))))]
    with m.If(between):
        m.d.sync += first.eq(place)
    with m.If(turn):
        m.d.sync += fresh.eq(final | (fresh & ~back))
    with m.If(fresh & early.onward):
        m.d.sync += end.eq(place + 1)
    then = {name: chain(m, value, LATE, f"then_{name}", reset_less=False) for name, value in (
        ("go", go), ("dense", dense), ("place", place), ("word", early.word), ("half", early.half))}
    m.d.comb += [
        ring.writes.write.eq(write), reads.go.eq(go), reads.turn.eq(turn), reads.back.eq(back),
        reads.fresh.eq(fresh), reads.between.eq(between), reads.dense.eq(dense),
        reads.late_dense.eq(then["dense"][-1]), ring.log2_groups.eq(groups)]
    of = Writing(m, ARRAY.ring, ENTRIES, write, ring.writes.room, first)
    ahead = modulo(end - place, end)
    count, took, wrote = (inside(core, name) for name in ("count", "took", "wrote"))
    m.d.comb += [
        # Steps, passes of four cycles or more, and batches; each pass goes over the same entries.
        Assume(go | ~turn), Assume(turn | ~(back | closes)), Assume(~(back & closes)),
        Assume(~turn | ((ended == 3) & ~between)), Assume(~between | ~within),
        Assume(~go | marked | between), Assume(~go | begun), Assume(~begun | (groups == kind)),
        Assume(~go | ~fresh | reads.available),
        Assume(~go | fresh | ((ahead > 0) & (ahead <= modulo(end - first, end)))),
        Assume(fresh | ~final | (place + 1 == end)),
        Assume(fresh | ~turn | back | closes | (place + 1 != end)),
        # What is to be shown: a step's entry is there, and its mantissas are read where it was.
        Assert(~go | of.there(place)),
        Assert(walk.entry == then["place"][-1][:bits]), Assert(walk.word == then["word"][-1]),
        Assert(walk.half == then["half"][-1]),
        Assert(~walk.go | (of.since(then["place"][-1]) < ARRAY.ring)),
        # What carries that from cycle to cycle.
        Assert(early.entry == place[:bits]), Assert(ring.tail == first[:bits]),
        Assert(ring.head == of.written[:bits]), Assert(reads.available == of.there(end)),
        Assert(of.since(end) + took < ARRAY.ring),
        Assert(modulo(of.before + wrote, of.before) == of.written),
        Assert(count == (of.before - end + took)[:bits]),
        Assert(modulo(end - first, end) <= of.since(first)),
        Assert(modulo(place - first, end) <= modulo(end - first, end)),
        Assert(~fresh | (end == place)), Assert(within | fresh), Assert(~within | marked),
    ]
    return m, inputs


def test_control_words_are_read_when_written_and_kept_until_then(tmp_path):
    holds(*controls(), tmp_path)


def test_weights_are_read_when_written_and_kept_until_then(tmp_path):
    holds(*weights(), tmp_path, depth=LATE + 2)


def never_full(head, tail):
    """Whether the head is in the tail's part."""
    return head[4:] == tail[4:]


@pytest.mark.parametrize(("made", "depth"), [(controls, 1), (weights, LATE + 2)])
@pytest.mark.parametrize("fault", ["full", "waiting"])
def test_rings_that_are_wrong_are_found(made, depth, fault, tmp_path, monkeypatch):
    """The proof can fail."""
    if fault == "full":
        monkeypatch.setattr(rings, "_full", never_full)
    else:
        real = rings._waiting
        monkeypatch.setattr(rings, "_waiting", lambda m, write, takes, bits: real(
            m, write, takes, bits) | write)
    with pytest.raises(AssertionError, match="Assert failed"):
        holds(*made(), tmp_path, depth=depth)
