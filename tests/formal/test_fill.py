# amaranth: UnusedElaboratable=no
"""The fill engine: it executes records that are whole, and none is overwritten before it is done; a
line reads as many words as its elements lie in, one behind the other, whenever they come; two at
once where both are there, and the first one is whole."""

from dataclasses import replace

import pytest
from amaranth.hdl import Assert, Assume, Cat, Const, Module, Mux, Signal

from celosia_hw.fill.engine import _DRAIN, _STEPS, FillEngine
from celosia_spec.isa.array import Array
from formal.prove import holds, inside

ARRAY = Array(lanes=8, controls=64, ring=64, bank_rows=64, main_words=64)
EIGHT = replace(ARRAY, clusters=2, fill=8)
WORDS = 15
"""Words of a record."""


def engine(array: Array) -> tuple[Module, list[Signal]]:
    """Return the fill engine, and its inputs: any records, which have lines of elements that the
    banks hold."""
    m, own = Module(), FillEngine(array)
    m.submodules.own = core = own.elaborate(None)
    load, grant = Signal(name="load_in"), Signal(name="grant_in")
    given, exponent = Signal(16, name="word_in"), Signal(5, name="exponent_in")
    m.d.comb += [own.fills.load.eq(load), own.memory.grant.eq(grant), own.fills.word.eq(given),
                 own.exponent.eq(exponent)]
    at = {name: inside(core, f"at_{name}") for name in _STEPS + _DRAIN}
    running, taken, last, ended, left, more, first, into, out, loads, flags, place, kind = (
        inside(core, name) for name in (
            "running", "granted", "last", "ended", "left", "more", "first", "into", "out", "loads",
            "flags", "place", "kind"))
    twice, neighbours = (inside(core, "twice"), flags[-1]) if array.fill == 8 else [Const(0)] * 2
    read = core.submodules.words.read.data
    apart = flags[3]
    # Records that are queued, words of the next one.
    queued, words = Signal(range(4), name="records"), Signal(range(WORDS), name="words_so_far")
    whole, done = load & (words == WORDS - 1), at["done"]
    m.d.sync += [queued.eq(queued + whole - done),
                 words.eq(Mux(load, Mux(whole, 0, words + 1), words))]
    # Accesses of a line: all of them, those so far, and the first one's address.
    line, line_reads = Signal(name="line"), Signal(10, name="line_reads")
    reads, begin = Signal(10, name="reads"), Signal.like(own.memory.address, name="begin")
    run = read.as_signed()
    with m.If(at["a"]):
        m.d.sync += [line.eq(1), line_reads.eq((7 - run + first) >> 2), reads.eq(0),
                     begin.eq(own.memory.address)]
    with m.If(taken):
        m.d.sync += [reads.eq(reads + 1 + twice), line.eq(~last)]
    waits = at["b"] | at["rows"] | at["rest"]
    inside_line, drains = waits | at["go"], Cat(at[name] for name in _DRAIN).any()
    states = Cat(*at.values())
    m.d.comb += [
        # A record is loaded where there is room; its lines have elements, and no more than fit.
        Assume(~load | own.fills.room | (words > 0)),
        Assume(~at["a"] | ((run <= 3) & (run >= 4 - array.lanes * array.bank_rows))),
        Assume(~(at["a"] & apart) | (read[:2] == 3)),
        # What is to be shown: of records, and of a line's accesses.
        Assert(~load | (queued < FillEngine.QUEUED)), Assert(~done | (queued > 0)),
        Assert((at["go"] & ~kind.any()) | (queued > 0)),
        Assert(~taken | (line & (last == (reads + 1 + twice == line_reads)))),
        Assert(~(taken & twice) | ((first == 0) & ~apart)),
        Assert(~own.memory.request | (running & (reads < line_reads))),
        Assert(~line | apart | (own.memory.address == (begin + reads)[:len(begin)])),
        # What carries that from cycle to cycle.
        Assert(states.any() & ~(states & (states - 1)[:len(states)]).any()),
        Assert(queued == (into - out)[:len(into)]), Assert(words + 1 == place),
        Assert((words == 0) | (queued < FillEngine.QUEUED)),
        Assert(~(running | line | ended) | inside_line), Assert(~running | line),
        Assert(kind.any() | (at["go"] & ~(line | ended)) | drains), Assert(~(kind.any() & drains)),
        Assert(~(ended & line)), Assert(~(at["a"] | waits | running) | ~loads),
        Assert(~line | running | (apart & waits)), Assert(~(apart & waits) | (line & ~running)),
        Assert(~line | (line_reads - reads == more + 1 - left.as_signed())),
        Assert(~line | (left.as_signed() <= 0)), Assert(~(neighbours & apart)),
    ]
    return m, [load, grant, given, exponent]


@pytest.mark.parametrize("array", [ARRAY, EIGHT], ids=["four", "eight"])
def test_records_are_whole_and_lines_as_long_as_they_are(array, tmp_path):
    holds(*engine(array), tmp_path)


def test_lines_that_are_left_too_early_are_found(tmp_path, monkeypatch):
    """The proof can fail."""
    real = FillEngine._sequence
    monkeypatch.setattr(FillEngine, "_sequence", lambda self, *others: real(
        self, *others[:-1], Const(1)))
    with pytest.raises(AssertionError, match="Assert failed"):
        holds(*engine(ARRAY), tmp_path)
