# amaranth: UnusedElaboratable=no
"""The fill engine: it executes records that are whole, and none is overwritten before it is done; a
line reads as many words as its elements lie in, one behind the other, whenever they come; two at
once where both are there, and the first one is whole."""

from dataclasses import replace

import pytest
from amaranth.hdl import Assert, Assume, Cat, Const, Module, Mux, Signal

from celosia_hw.fill.engine import FillEngine
from celosia_hw.fill.narrow_engine import _DRAIN, _STEPS, NarrowEngine
from celosia_hw.fill.wide_engine import STEPS, WideEngine
from celosia_spec.isa.array import Array
from formal.prove import holds, inside

ARRAY = Array(lanes=8, controls=64, ring=64, bank_rows=64, main_words=64)
EIGHT = replace(ARRAY, clusters=2, fill=8)
WORDS = 15
"""Words of a record."""


def inputs_of(m: Module, own: FillEngine) -> list[Signal]:
    """Return what anything may be at, connected."""
    load, grant = Signal(name="load_in"), Signal(name="grant_in")
    given, exponent = Signal(16, name="word_in"), Signal(5, name="exponent_in")
    m.d.comb += [own.fills.load.eq(load), own.memory.grant.eq(grant), own.fills.word.eq(given),
                 own.exponent.eq(exponent)]
    return [load, grant, given, exponent]


def loaded(m: Module, own: FillEngine, load: Signal, done: Signal) -> tuple[Signal, Signal]:
    """Return how many records are queued, and words of the next one, which is loaded where there is
    room."""
    queued, words = Signal(range(4), name="records"), Signal(range(WORDS), name="words_so_far")
    whole = load & (words == WORDS - 1)
    m.d.sync += [queued.eq(queued + whole - done),
                 words.eq(Mux(load, Mux(whole, 0, words + 1), words))]
    m.d.comb += [
        Assume(~load | own.fills.room | (words > 0)),
        Assert(~load | (queued < FillEngine.QUEUED)), Assert(~done | (queued > 0)),
        Assert((words == 0) | (queued < FillEngine.QUEUED))]
    return queued, words


def wide(array: Array) -> tuple[Module, list[Signal]]:
    """Return the engine of an array that fills eight, and its inputs, as `narrow` does."""
    m, own = Module(), WideEngine(array)
    m.submodules.own = core = own.elaborate(None)
    inputs = inputs_of(m, own)
    at = {name: inside(core, f"at_{name}") for name in STEPS}
    taken, last, left, more, first, moved, into, out, flags, place, twice, goes_on = (
        inside(core, name) for name in (
            "granted", "last", "left", "more", "first", "moved", "into", "out", "flags", "place",
            "twice", "goes_on"))
    apart, neighbours = flags[3], flags[5]
    queued, words = loaded(m, own, inputs[0], at["done"])
    line, line_reads = Signal(name="line"), Signal(10, name="line_reads")
    reads, begin = Signal(10, name="reads"), Signal.like(own.memory.address, name="begin")
    run, goes = core.submodules.words0.read_ports[0].data.as_signed(), at["turn"] & goes_on
    with m.If(goes):
        m.d.sync += [line.eq(1), line_reads.eq((7 - run + moved[:2]) >> 2), reads.eq(0),
                     begin.eq(moved[2:])]
    with m.If(taken):
        m.d.sync += [reads.eq(reads + 1 + twice), line.eq(~last)]
    states = Cat(*at.values())
    m.d.comb += [
        # Lines have elements, and no more than fit.
        Assume(~goes | ((run <= 3) & (run >= 4 - array.lanes * array.bank_rows))),
        Assume(~(goes & apart) | (run[:2] == 3)),
        # What is to be shown: of records, and of a line's accesses.
        Assert(at["begins"] | (queued > 0)),
        Assert(~taken | (line & (last == (reads + 1 + twice == line_reads)))),
        Assert(~(taken & twice) | ((first == 0) & ~apart)),
        Assert(~own.memory.request | (line & (reads < line_reads))),
        Assert(~line | apart | (own.memory.address == (begin + reads)[:len(begin)])),
        # What carries that from cycle to cycle.
        Assert(states.any() & ~(states & (states - 1)[:len(states)]).any()),
        Assert(queued == (into - out)[:len(into)]), Assert(words == place),
        Assert(line == at["run"]), Assert(~(neighbours & apart)),
        Assert(~line | (line_reads - reads == more + 1 - left.as_signed())),
        Assert(~line | (left.as_signed() <= 0)),
    ]
    return m, inputs


def narrow(array: Array) -> tuple[Module, list[Signal]]:
    """Return the fill engine, and its inputs: any records, which have lines of elements that the
    banks hold."""
    m, own = Module(), NarrowEngine(array)
    m.submodules.own = core = own.elaborate(None)
    inputs = inputs_of(m, own)
    at = {name: inside(core, f"at_{name}") for name in _STEPS + _DRAIN}
    running, taken, last, ended, left, more, first, into, out, loads, flags, place, kind = (
        inside(core, name) for name in (
            "running", "granted", "last", "ended", "left", "more", "first", "into", "out", "loads",
            "flags", "place", "kind"))
    read = core.submodules.words.read.data
    apart = flags[3]
    queued, words = loaded(m, own, inputs[0], at["done"])
    # Accesses of a line: all of them, those so far, and the first one's address.
    line, line_reads = Signal(name="line"), Signal(10, name="line_reads")
    reads, begin = Signal(10, name="reads"), Signal.like(own.memory.address, name="begin")
    run = read.as_signed()
    with m.If(at["a"]):
        m.d.sync += [line.eq(1), line_reads.eq((7 - run + first) >> 2), reads.eq(0),
                     begin.eq(own.memory.address)]
    with m.If(taken):
        m.d.sync += [reads.eq(reads + 1), line.eq(~last)]
    waits = at["b"] | at["rows"] | at["rest"]
    inside_line, drains = waits | at["go"], Cat(at[name] for name in _DRAIN).any()
    states = Cat(*at.values())
    m.d.comb += [
        # Lines have elements, and no more than fit.
        Assume(~at["a"] | ((run <= 3) & (run >= 4 - array.lanes * array.bank_rows))),
        Assume(~(at["a"] & apart) | (read[:2] == 3)),
        # What is to be shown: of records, and of a line's accesses.
        Assert((at["go"] & ~kind.any()) | (queued > 0)),
        Assert(~taken | (line & (last == (reads + 1 == line_reads)))),
        Assert(~own.memory.request | (running & (reads < line_reads))),
        Assert(~line | apart | (own.memory.address == (begin + reads)[:len(begin)])),
        # What carries that from cycle to cycle.
        Assert(states.any() & ~(states & (states - 1)[:len(states)]).any()),
        Assert(queued == (into - out)[:len(into)]), Assert(words + 1 == place),
        Assert(~(running | line | ended) | inside_line), Assert(~running | line),
        Assert(kind.any() | (at["go"] & ~(line | ended)) | drains), Assert(~(kind.any() & drains)),
        Assert(~(ended & line)), Assert(~(at["a"] | waits | running) | ~loads),
        Assert(~line | running | (apart & waits)), Assert(~(apart & waits) | (line & ~running)),
        Assert(~line | (line_reads - reads == more + 1 - left.as_signed())),
        Assert(~line | (left.as_signed() <= 0)),
    ]
    return m, inputs


ENGINES = pytest.mark.parametrize(("kind", "made", "array"), [
    (NarrowEngine, narrow, ARRAY), (WideEngine, wide, EIGHT)], ids=["four", "eight"])


@ENGINES
def test_records_are_whole_and_lines_as_long_as_they_are(kind, made, array, tmp_path):
    holds(*made(array), tmp_path)


@ENGINES
def test_lines_that_are_left_too_early_are_found(kind, made, array, tmp_path, monkeypatch):
    """The proof can fail."""
    real = kind._sequence
    monkeypatch.setattr(kind, "_sequence", lambda self, *others: real(
        self, *others[:-1], Const(1)))
    with pytest.raises(AssertionError, match="Assert failed"):
        holds(*made(array), tmp_path)
