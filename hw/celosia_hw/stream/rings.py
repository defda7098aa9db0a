"""The rings between fetcher and array: of control words, and of weights."""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from celosia_hw.lanes.reading import Weights
from celosia_hw.output.control import HeadReads
from celosia_hw.parts.delay import chain
from celosia_hw.parts.table_memory import TableMemory
from celosia_spec.isa.array import CONTROL_BITS, ENTRY_BITS, ENTRY_WORDS, RING_GAP, Array
from celosia_spec.isa.timing import READ
from celosia_spec.isa.words import DENSE, WEIGHT

assert ([(field.bits, low) for field, low in WEIGHT.places()]
        == [(field.bits, low) for field, low in DENSE.places()])


def _full(head: Value, tail: Value) -> Value:
    """Whether the head is in the part of a ring, half of `RING_GAP`, before that of the tail."""
    low = (RING_GAP // 2 - 1).bit_length()
    return ~Cat(ahead ^ behind ^ head[low:low + k].all()
                for k, (ahead, behind) in enumerate(zip(head[low:], tail[low:], strict=True))).any()


def _waiting(m: Module, write: Value, takes: Value, bits: int) -> Value:
    """Count what is written and not taken; return whether there is something in the next cycle,
    but for what is written in this one. Both are counted a cycle later."""
    count, more, less = Signal(bits, name="count"), Signal(name="more"), Signal(name="less")
    taken, took, wrote = Signal(name="taken"), Signal(name="took"), Signal(name="wrote")
    m.d.comb += [taken.eq(takes), more.eq(wrote & ~took), less.eq(took & ~wrote)]
    m.d.sync += [took.eq(taken), wrote.eq(write),
                 count.eq((Cat(more, count) + Cat(more, less.replicate(bits)))[1:])]
    # What was written in the cycle before is not taken yet.
    return wrote | count[2:].any() | Mux(taken | took, count[1] & (count[0] | ~(taken & took)),
                                         count[:2].any())


class RingWrites(wiring.Signature):
    """Writes into a ring, seen from who writes.

    write, word : strobe: the next one.
    room        : more fit in than had been written a cycle before: half of `RING_GAP`, and one.
    """

    def __init__(self, bits: int) -> None:
        super().__init__({"write": Out(1), "word": Out(bits), "room": In(1)})


class ControlWords(wiring.Signature):
    """Control words one by one, seen from their ring.

    there, have : there is a next one to be taken; ``word`` is that.
    take        : strobe, with ``there``: it is taken.
    """

    def __init__(self) -> None:
        super().__init__({"there": Out(1), "have": Out(1), "word": Out(CONTROL_BITS),
                          "take": In(1)})


class WeightReads(wiring.Signature):
    """Steps that are read from the ring of weights, seen from who issues them.

    available : the entry of the next step is there, on a batch's first pass. Others find theirs.
    inside    : mantissas of steps have not been read yet.
    between   : steps of another batch come next, or none.
    go        : a step.   turn, back : see `Walk`. Passes end 4 cycles apart or more.
    fresh     : with ``go``: it is of a batch's first pass.
    begins, ones      : with ``go``: the step is column 0 of dense8; steps of dense8 are 1.
    dense, late_dense : the batch is dense8; so is that whose mantissas are read.
    """

    def __init__(self) -> None:
        super().__init__({"available": In(1), "inside": In(1), **{name: Out(1) for name in (
            "between", "go", "turn", "back", "fresh", "begins", "ones", "dense", "late_dense")}})


class ControlsRing(wiring.Component):
    """Control words between the fetcher and those who read them.

    The executor takes word after word; the output path reads the heads of rows by their addresses,
    and goes first.

    Parameters
    ----------
    array : Array

    Members
    -------
    writes : In(RingWrites), words : Out(ControlWords)
    at : Out
        Place of the next word to be taken.
    heads : In(HeadReads)
        The output path reads.
    tail : In, head : Out
        The oldest word that is still needed, and where the next one is written.

    Timing
    ------
    A word can be taken two cycles behind its ``write``, one each cycle; it is not ``word`` behind a
    read.
    """

    def __init__(self, array: Array) -> None:
        self.array = array
        bits = (array.controls - 1).bit_length()
        super().__init__({
            "writes": In(RingWrites(CONTROL_BITS)), "words": Out(ControlWords()), "at": Out(bits),
            "heads": In(HeadReads(array)), "tail": In(bits), "head": Out(bits),
        })

    def elaborate(self, platform: Any) -> Module:
        m, writes, words, heads = Module(), self.writes, self.words, self.heads
        m.submodules.memory = memory = TableMemory(self.array.controls, CONTROL_BITS)
        other, then = Signal(), Signal(len(self.at) + 1)
        m.d.comb += [
            memory.write.en.eq(writes.write), memory.write.addr.eq(self.head),
            memory.write.data.eq(writes.word), memory.read.en.eq(1),
            # The choice stands as a summand's bits, so that it goes into the adder's own tables.
            then.eq(Cat(words.take, self.at) + Cat(words.take, heads.read.replicate(len(self.at)))),
            memory.read.addr.eq(Mux(heads.read, heads.address, then[1:])),
            words.word.eq(memory.read.data), heads.word.eq(memory.read.data),
            words.have.eq(words.there & ~other),
        ]
        m.d.sync += [
            self.head.eq(self.head + writes.write), writes.room.eq(~_full(self.head, self.tail)),
            words.there.eq(_waiting(m, writes.write, words.take, len(self.head))),
            other.eq(heads.read),
        ]
        with m.If(words.take):
            m.d.sync += self.at.eq(self.at + 1)
        return m


class Walk(wiring.Component):
    """Walk over the entries of a batch, once for each of its passes, then on to the next batch's.

    Members
    -------
    go : In(1), turn, back : In(1)
        A step; it is its pass's last; then the next one is that of ``base``, else that of the next
        entry. Both are 0 without ``go``.
    base : In
    dense : In(1), single, every : In(1)
        The layer has one group; it has four.
    entry, word, half : Out, Out(2), Out(1)
        Where the next step's weights are: place of the entry, in it the first group's word, and
        whether they are its upper half, of dense8.
    onward : Out(1)
        ``go`` is the entry's last step.
    """

    def __init__(self, array: Array) -> None:
        bits = (array.ring - 1).bit_length()
        super().__init__({"go": In(1), "turn": In(1), "back": In(1), "base": In(bits),
                          "dense": In(1), "single": In(1), "every": In(1),
                          "entry": Out(bits), "word": Out(2), "half": Out(1),
                          "onward": Out(1)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        (low, high), single, every = self.word, self.single, self.every
        final, whole = Signal(), Signal()
        m.d.comb += [
            final.eq((low | ~single) & (high | every)), whole.eq(self.half | ~self.dense),
            self.onward.eq((self.go & whole & final) | self.turn),
        ]
        with m.If(self.go):
            m.d.sync += self.half.eq(~whole & ~self.turn)
            with m.If(self.turn | whole):
                m.d.sync += self.word.eq(Mux(self.turn, 0, Cat(
                    single & ~low, ~every & (high ^ (low | ~single)))))
        with m.If(self.onward):
            m.d.sync += self.entry.eq(Mux(
                self.back, self.base, self.entry + self.back.replicate(len(self.entry)) + 1))
        return m


class WeightsRing(wiring.Component):
    """Entries of weights between the fetcher and the array, split so that steps are read when a
    step is issued, and mantissas ``late`` cycles later.

    One memory has the words' lower halves, mantissas, and one the upper ones, steps (or, of dense8,
    mantissas too). A batch's entries are kept until the next one comes;
    of what its last steps have not read yet, the gap behind them takes care.

    Parameters
    ----------
    array : Array
    late : int
        Cycles from a step's index to its mantissa, 2 to 5.

    Members
    -------
    writes : In(RingWrites), reads : In(WeightReads)
        Entries, and steps of them.
    log2_groups : In(2)
        Of the layer; stable while steps are inside.
    weights : Out(Weights)
        Steps ``LATENCY`` cycles behind ``go``, mantissas ``late`` cycles behind those.
    head, tail : Out
        Where the next entry is written, and the batch's first one.

    Timing
    ------
    A step a cycle. ``available`` follows the ``write`` of an entry two cycles later.
    """

    LATENCY = READ

    def __init__(self, array: Array, late: int) -> None:
        if not 2 <= late <= 5:
            raise ValueError(f"late must be 2 to 5, not {late!r}")
        self.array, self.late = array, late
        bits = (array.ring - 1).bit_length()
        super().__init__({
            "writes": In(RingWrites(ENTRY_BITS)), "reads": In(WeightReads()),
            "log2_groups": In(2), "weights": Out(Weights(array)), "head": Out(bits),
            "tail": Out(bits),
        })

    def elaborate(self, platform: Any) -> Module:
        m, writes, reads = Module(), self.writes, self.reads
        m.d.sync += [self.head.eq(self.head + writes.write),
                     writes.room.eq(~_full(self.head, self.tail))]
        m.submodules.early, m.submodules.late = early, late = Walk(self.array), Walk(self.array)
        go = chain(m, reads.go, self.late, "go", reset_less=False)
        turn = chain(m, reads.turn, self.late, "turn", reset_less=False)
        single, every = Signal(), Signal()
        m.d.sync += [single.eq(self.log2_groups == 0), every.eq(self.log2_groups[1])]
        # Passes are longer than this is kept, and needed.
        back, back_late = Signal(reset_less=True), Signal(reset_less=True)
        m.d.sync += back.eq(reads.back)
        with m.If(turn[1]):
            m.d.sync += back_late.eq(back)
        m.d.comb += [
            early.go.eq(reads.go), early.turn.eq(reads.turn), early.back.eq(reads.back),
            late.go.eq(go[-1]), late.turn.eq(turn[-1]), late.back.eq(turn[-1] & back_late),
            early.dense.eq(reads.dense), late.dense.eq(reads.late_dense),
            *(walk.base.eq(self.tail) for walk in (early, late)),
            *(walk.single.eq(single) for walk in (early, late)),
            *(walk.every.eq(every) for walk in (early, late)),
        ]
        with m.If(reads.between):
            m.d.sync += self.tail.eq(early.entry)
        m.d.sync += reads.available.eq(_waiting(m, writes.write, early.onward & reads.fresh,
                                               len(self.head)))
        lower = self._read(m, "mantissa", late.entry)
        upper = self._read(m, "step", Mux(late.go & late.dense, late.entry, early.entry))
        slots = [Signal(2, name=f"slot{k}", reset_less=True) for k in range(2)]
        high, ones, begins = Signal(reset_less=True), Signal(), Signal()
        m.d.comb += reads.inside.eq(Cat(*go[1:]).any())
        m.d.sync += [slots[0].eq(early.word), slots[1].eq(late.word), high.eq(late.half),
                     ones.eq(reads.ones), begins.eq(reads.begins)]
        half = [Mux(high, above, below) for below, above in zip(lower, upper, strict=True)]
        for q, (step, mantissa) in enumerate(zip(
                self._choose(m, "step", upper, slots[0], single, every),
                self._choose(m, "mantissa", half, slots[1], single, every), strict=True)):
            m.d.sync += [self.weights.steps[q].eq(step), self.weights.mantissas[q].eq(mantissa)]
            with m.If(ones):
                m.d.sync += self.weights.steps[q].eq(~begins)
        return m

    def _read(self, m: Module, name: str, address: Value) -> list[Value]:
        """Return what an entry's words have in this field of `WEIGHT`."""
        writes, (field, first) = self.writes, WEIGHT.named[name]
        m.submodules[name] = memory = TableMemory(self.array.ring, ENTRY_WORDS * field.bits)
        m.d.comb += [
            memory.write.en.eq(writes.write), memory.write.addr.eq(self.head),
            memory.write.data.eq(Cat(
                writes.word.word_select(k, CONTROL_BITS)[first:first + field.bits]
                for k in range(ENTRY_WORDS))),
            memory.read.en.eq(1), memory.read.addr.eq(address),
        ]
        return [memory.read.data.word_select(k, field.bits) for k in range(ENTRY_WORDS)]

    def _choose(self, m: Module, name: str, words: list[Value], slot: Value, single: Value,
                every: Value) -> list[Value]:
        """Return each quad's word: that of its group, the first group's in ``slot``."""
        def held(value: Value, label: str) -> Signal:
            kept = Signal(len(value), name=f"{name}_{label}")
            m.d.comb += kept.eq(value)
            return kept

        even = held(Mux(slot[1], words[2], words[0]), "even")
        odd = held(Mux(slot[1], words[3], words[1]), "odd")
        low = held(Mux(slot[0], odd, even), "low")
        high = held(Mux(single & ~slot[0], even, odd), "high")
        if self.array.groups_max == 2:
            return [low, high]
        return [low, Mux(every, odd, low), Mux(every, words[2], high), Mux(every, words[3], high)]
