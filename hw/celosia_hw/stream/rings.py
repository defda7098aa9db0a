"""The rings between fetcher and array: of control words, and of weights."""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from celosia_hw.parts.delay import chain
from celosia_hw.parts.table_memory import TableMemory
from celosia_spec.stream.array import CONTROL_BITS, ENTRY_BITS, ENTRY_WORDS, RING_GAP, Array
from celosia_spec.stream.timing import READ


class ControlsRing(wiring.Component):
    """Control words between the fetcher and those who read them.

    Words from ``tail`` to before ``head`` are kept. The executor takes word after word; the output
    path reads the heads of rows by their addresses, and goes first.

    Parameters
    ----------
    array : Array

    Members
    -------
    write : In(1), written : In(16)
        Strobe: the next word.
    room : Out(1)
        Eight words more fit in than had been written a cycle before.
    have : Out(1), word : Out(16)
        ``word`` is the next one to be taken.
    take : In(1)
        Strobe, with ``have``: it is taken.
    jump : In(1), distance : In
        Strobe: so many words are passed over, all of which were written; never with ``take``.
    at : Out
        Place of the next word to be taken.
    read : In(1), address : In
        The output path reads: ``word`` is its own in the next cycle.
    free : In(1), freed : In
        Strobe: words before place ``freed`` are no longer needed.
    head, tail : Out
        Where the next word is written, and the oldest one that is kept.

    Timing
    ------
    A word can be taken two cycles behind its ``write``, one each cycle in which there is no
    ``read``; the first one behind a ``jump`` two cycles later.
    """

    def __init__(self, array: Array) -> None:
        self.array = array
        bits = (array.controls - 1).bit_length()
        super().__init__({
            "write": In(1), "written": In(CONTROL_BITS), "room": Out(1), "have": Out(1),
            "word": Out(CONTROL_BITS), "take": In(1), "jump": In(1), "distance": In(bits),
            "at": Out(bits), "read": In(1), "address": In(bits), "free": In(1),
            "freed": In(bits), "head": Out(bits), "tail": Out(bits),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.memory = memory = TableMemory(self.array.controls, CONTROL_BITS)
        after, then, used = (Signal.like(self.at, name=name) for name in ("after", "then", "used"))
        m.d.comb += [
            memory.write.en.eq(self.write), memory.write.addr.eq(self.head),
            memory.write.data.eq(self.written), memory.read.en.eq(1),
            after.eq(self.at + 1), then.eq(Mux(self.take, after, self.at)),
            memory.read.addr.eq(Mux(self.read, self.address, then)),
            self.word.eq(memory.read.data), used.eq(self.head - self.tail),
        ]
        m.d.sync += [
            self.head.eq(self.head + self.write), self.room.eq(~used[3:].all()),
            self.have.eq(~self.read & ~self.jump & (self.at != self.head)
                         & ~(self.take & (after == self.head))),
            self.at.eq(Mux(self.jump, self.at + self.distance, then)),
        ]
        with m.If(self.free):
            m.d.sync += self.tail.eq(self.freed)
        return m


class Walk(wiring.Component):
    """Walk over the entries of a batch, once for each of its passes, then on to the next batch's.

    Members
    -------
    go : In(1), last, done : In(1)
        A step; it is its pass's last; with ``last`` its batch's last, without the last one of its
        entry, which its pass does not begin with again.
    dense : In(1), log2_groups : In(2)
    entry, word, half : Out, Out(2), Out(1)
        Where the next step's weights are: place of the entry, in it the first group's word, and
        whether they are its upper half, of dense8.
    base : Out
        First entry of the batch.
    onward : Out(1)
        ``go`` is the entry's last step.
    """

    def __init__(self, array: Array) -> None:
        bits = (array.ring - 1).bit_length()
        super().__init__({"go": In(1), "last": In(1), "done": In(1), "dense": In(1),
                          "log2_groups": In(2), "entry": Out(bits), "word": Out(2),
                          "half": Out(1), "base": Out(bits), "onward": Out(1)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        further, turn, ends = Signal(3), Signal(), Signal()
        after = Signal.like(self.entry, name="after")
        m.d.comb += [
            further.eq(self.word + (1 << self.log2_groups)), turn.eq(self.half | ~self.dense),
            ends.eq(self.last | self.done),
            self.onward.eq(self.go & ((turn & further[2]) | ends)),
            after.eq(self.entry + 1),
        ]
        with m.If(self.go):
            m.d.sync += self.half.eq(~turn & ~ends)
            with m.If(ends | turn):
                m.d.sync += self.word.eq(Mux(ends, 0, further))
        with m.If(self.onward):
            m.d.sync += self.entry.eq(Mux(self.last & ~self.done, self.base, after))
        with m.If(self.go & self.last & self.done):
            m.d.sync += self.base.eq(after)
        return m


class WeightsRing(wiring.Component):
    """Entries of weights between the fetcher and the array, split so that steps are read when a
    step is issued, and mantissas ``late`` cycles later.

    Four block memories: two have the lower halves of two words each, mantissas, and two the upper
    ones, steps (or, of dense8, mantissas too). Entries from ``tail`` to before ``head`` are kept; a
    batch's go when its last mantissas have been read.

    Parameters
    ----------
    array : Array
    late : int
        Cycles from a step's index to its mantissa, at least 1.

    Members
    -------
    write : In(1), written : In(64)
        Strobe: the next entry.
    room : Out(1)
        `RING_GAP` entries more fit in than had been written a cycle before.
    available : Out(1)
        The entry of the next step is there, on a batch's first pass. Others find theirs.
    go : In(1), last, done : In(1)
        A step; see `Walk`.
    begins, dense : In(1)
        With ``go``: the step is column 0 of dense8; the batch is dense8. Behind steps of dense8
        others come when there is nothing ``inside``.
    log2_groups : In(2)
        Of the layer; stable while steps are inside.
    inside : Out(1)
        Mantissas of steps have not been read yet.
    steps : Out(quads x 8)
        ``LATENCY`` cycles behind ``go``.
    mantissas : Out(quads x 8)
        ``late`` cycles behind ``steps``.
    head, tail : Out
        Where the next entry is written, and the oldest one that is kept.

    Timing
    ------
    A step a cycle. ``available`` follows the ``write`` of an entry two cycles later.
    """

    LATENCY = READ

    def __init__(self, array: Array, late: int) -> None:
        if late < 1:
            raise ValueError(f"late must be at least 1, not {late!r}")
        self.array, self.late = array, late
        self.quads = array.lanes // 4
        bits = (array.ring - 1).bit_length()
        words = Out(data.ArrayLayout(8, self.quads))
        super().__init__({
            "write": In(1), "written": In(ENTRY_BITS), "room": Out(1), "available": Out(1),
            "go": In(1), "last": In(1), "done": In(1), "begins": In(1), "dense": In(1),
            "log2_groups": In(2), "inside": Out(1), "steps": words, "mantissas": words,
            "head": Out(bits), "tail": Out(bits),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        used = Signal.like(self.head, name="used")
        m.d.comb += used.eq(self.head - self.tail)
        assert RING_GAP == 5
        full = used[3:].all() & (used[2] | used[:2].all())
        m.d.sync += [self.head.eq(self.head + self.write), self.room.eq(~full)]
        walks = []
        flags = {name: chain(m, value, self.late, name, reset_less=name != "go")
                 for name, value in (("go", self.go), ("last", self.last), ("done", self.done),
                                     ("dense", self.dense))}
        for name, at in (("early", 0), ("late", self.late)):
            m.submodules[name] = walk = Walk(self.array)
            m.d.comb += [
                *(getattr(walk, flag).eq(values[at]) for flag, values in flags.items()),
                walk.log2_groups.eq(self.log2_groups)]
            walks.append(walk)
        early, late = walks
        after = Signal.like(self.head, name="after")
        m.d.comb += [after.eq(early.entry + 1), self.tail.eq(late.base)]
        m.d.sync += self.available.eq((early.entry != self.head)
                                      & ~(early.onward & (after == self.head)))
        lower = self._read(m, "mantissa", 0, late.entry)
        upper = self._read(m, "step", 8, Mux(late.go & late.dense, late.entry, early.entry))
        slots = [Signal(2, name=f"slot{k}", reset_less=True) for k in range(2)]
        high, ones, begins = Signal(reset_less=True), Signal(), Signal()
        m.d.comb += self.inside.eq(Cat(*flags["go"][1:]).any())
        m.d.sync += [slots[0].eq(early.word), slots[1].eq(late.word), high.eq(late.half),
                     ones.eq(self.dense), begins.eq(self.begins)]
        half = [Mux(high, above, below) for below, above in zip(lower, upper, strict=True)]
        for q, (step, mantissa) in enumerate(zip(self._choose(m, "step", upper, slots[0]),
                                                 self._choose(m, "mantissa", half, slots[1]),
                                                 strict=True)):
            m.d.sync += [self.steps[q].eq(step), self.mantissas[q].eq(mantissa)]
            with m.If(ones):
                m.d.sync += self.steps[q].eq(~begins)
        return m

    def _read(self, m: Module, name: str, first: int, address: Value) -> list[Value]:
        """Return the four bytes of an entry's words that begin at bit ``first``."""
        found = []
        for k in range(ENTRY_WORDS // 2):
            m.submodules[f"{name}{k}"] = memory = TableMemory(self.array.ring, CONTROL_BITS)
            begin = 2 * CONTROL_BITS * k + first
            m.d.comb += [
                memory.write.en.eq(self.write), memory.write.addr.eq(self.head),
                memory.write.data.eq(Cat(self.written[begin:begin + 8],
                                         self.written[begin + CONTROL_BITS:][:8])),
                memory.read.en.eq(1), memory.read.addr.eq(address),
            ]
            found += [memory.read.data[:8], memory.read.data[8:]]
        return found

    def _choose(self, m: Module, name: str, words: list[Value], slot: Value) -> list[Value]:
        """Return each quad's word: that of its group, the first group's in ``slot``."""
        def held(value: Value, label: str) -> Signal:
            kept = Signal(8, name=f"{name}_{label}")
            m.d.comb += kept.eq(value)
            return kept

        single, every = Signal(name=f"{name}_single"), Signal(name=f"{name}_every")
        m.d.sync += [single.eq(self.log2_groups == 0), every.eq(self.log2_groups[1])]
        even = held(Mux(slot[1], words[2], words[0]), "even")
        odd = held(Mux(slot[1], words[3], words[1]), "odd")
        low = held(Mux(slot[0], odd, even), "low")
        high = held(Mux(single & ~slot[0], even, odd), "high")
        if self.quads == 2:
            return [low, high]
        return [low, Mux(every, odd, low), Mux(every, words[2], high), Mux(every, words[3], high)]
