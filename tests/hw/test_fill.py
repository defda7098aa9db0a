# amaranth: UnusedElaboratable=no
"""The fill engine beside main memory's port: what it writes, under every rate of grants."""

import random

import numpy as np
import pytest
from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect

from blocks.models.filling import some_fill
from blocks.players import verilog_of
from blocks.verilated_block import Block
from celosia_hw.fill.engines import fill_engine
from celosia_hw.memory.main_memory import MainMemory
from celosia_hw.memory.shared_memory import SharedMemory
from celosia_hw.parts.table_memory import TableMemory
from celosia_spec.floats import code, finish
from celosia_spec.isa.array import Array
from celosia_spec.isa.controls import FILL
from celosia_spec.isa.fills import cycles, places
from celosia_spec.isa.numbers import EXPONENT_MIN, SIGNIFICAND_BITS

WORDS = 1 << 13
"""Control words that the bench holds."""

EXPONENT_STEP = 6
"""From record to record exponents differ by so much; an operand's is the next one, or the one
before."""


class Bench(wiring.Component):
    """The engine, main memory, and a memory of control words that are loaded when there is room.

    element, number, write : in words, where ``control``, else in main memory.
    words : control words.   may : load one, if there is room.   other : somebody else wants a word.
    """

    def __init__(self, array):
        self.array, self.engine = array, fill_engine(array)
        super().__init__({
            "control": In(1), "number": In(16), "element": In(16), "write": In(1),
            "words": In(range(WORDS)), "may": In(1), "other": In(1),
            "row": Out(array.fill * self.engine.columns.row_bits),
            "code": Out(array.fill * array.activation_bits),
            "enable": Out(array.lanes), "clipped": Out(1), "done": Out(1), "busy": Out(1),
            "request": Out(1), "start": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.engine = engine = self.engine
        wide = self.array.fill == 8
        m.submodules.main = main = (SharedMemory(self.array.main_words, 1) if wide else
                                    MainMemory(self.array.main_words))
        m.submodules.controls = controls = TableMemory(WORDS, 16)
        at, place, exponent, fills = Signal(range(WORDS)), Signal(4), Signal(5), engine.fills
        m.d.comb += [
            fills.load.eq(self.may & (at != self.words) & (fills.room | (place != 0))),
            fills.word.eq(controls.read.data), controls.read.addr.eq(at + fills.load),
            controls.write.en.eq(self.write & self.control), controls.write.addr.eq(self.number),
            controls.write.data.eq(self.element),
            main.host.request.eq(self.write & ~self.control),
            main.host.address.eq(self.number >> 2), main.host.data.eq(self.element),
            main.host.enable.eq(1 << self.number[:2]), engine.exponent.eq(exponent),
            self.request.eq(engine.memory.request),
            *(getattr(self, name).eq(getattr(engine.codes, name))
              for name in ("row", "code", "enable")), self.busy.eq(fills.busy),
            *(getattr(self, name).eq(getattr(engine, name))
              for name in ("clipped", "done", "start")),
        ]
        if wide:
            m.d.comb += [engine.memory.grant.eq(~self.other), engine.data.eq(main.filled),
                         main.fill.address.eq(engine.memory.address)]
        else:
            connect(m, engine.memory, main.fill)
            m.d.comb += [main.fetcher.request.eq(self.other), main.fetcher.address.eq(at),
                         engine.data.eq(main.data)]
        with m.If(fills.load):
            m.d.sync += [at.eq(at + 1), place.eq(Mux(place == len(FILL.words) - 1, 0, place + 1))]
        number = Signal(5)
        m.d.sync += exponent.eq(number ^ engine.residual)
        with m.If(engine.start):
            m.d.sync += number.eq(number + EXPONENT_STEP)
        return m


def play(array, records, main, may, other):
    """Return what the bench gives in each cycle, until some cycles after ``may`` and ``other`` end,
    from an array of as many cycles.

    main : elements of main memory.   may, other : inputs of each cycle.
    """
    words = np.array([word for record in records for word in FILL.pack(**record)])
    loaded = np.concatenate([words, main])
    ahead = {"control": np.arange(len(loaded)) < len(words),
             "number": np.concatenate([np.arange(len(words)), np.arange(len(main))]),
             "element": loaded, "write": np.ones(len(loaded))}
    outputs = ["row", "code", "enable", "clipped", "done", "busy", "request", "start"]
    with Block(verilog_of(Bench(array))) as block:
        block.stream({name: values.astype(np.uint64) for name, values in ahead.items()}, ["done"])
        return block.stream({"write": np.zeros(len(may)), "words": np.full(len(may), len(words)),
                             "may": may, "other": other}, outputs)


def behind(array):
    """Cycles from ``done`` to when nothing of a record is written any more."""
    return 2 if array.fill == 2 else 3


def written(array, found):
    """Return bank, row, code of all writes, and the record each of them belongs to."""
    lanes = np.arange(array.lanes, dtype=np.uint64)
    cycle, bank = np.nonzero(found["enable"][:, None] >> lanes & 1)
    bits, row_bits = array.activation_bits, (array.bank_rows - 1).bit_length()

    def column(name, width):
        return (found[name][cycle] >> (bank % array.fill * width).astype(np.uint64)
                & (1 << width) - 1).astype(np.int64)

    done = np.cumsum(found["done"])
    owner = done[np.maximum(cycle - behind(array), 0)]
    return bank, column("row", row_bits), column("code", bits), owner


def wanted_of(array, record, number, main):
    """Return banks, rows and codes of a record, by its number, and whether one is clipped."""
    made = places(record, array)
    size = array.positions(record["log2_groups"])
    elements = np.where(made.element < 0, 0, main[made.element]).ravel()
    exponent = ((number + 1) * EXPONENT_STEP % 32 ^ record["residual"]) + EXPONENT_MIN
    mantissas, clipped = finish(elements, exponent, array.activation_bits,
                                signed=bool(record["signed"]))
    codes = code(mantissas, array.activation_bits, signed=bool(record["signed"]))
    bank = made.bank.ravel() + np.arange(0, array.lanes, size)[:, None]
    return (bank.ravel(), np.tile(made.row.ravel(), len(bank)), np.tile(codes, len(bank)),
            bool(clipped.any()) and not record["zero"])


ARRAYS = {"16": Array(main_words=2048), "8": Array(lanes=8, main_words=2048, bank_rows=256),
          "two": Array(main_words=2048, fill=2, bank_rows=512),
          "eight": Array(main_words=2048, bank_rows=256, fill=8),
          "eight, of 8": Array(lanes=8, main_words=2048, bank_rows=256, fill=8, clusters=2),
          "deep": Array(main_words=2048, activation_bits=9, bank_rows=512)}


def some_records(array, count):
    rng = random.Random(array.bank_rows)
    records: list[dict[str, int]] = []
    while len(records) < count:
        records += some_fill(rng, array).records(array)
    return records


@pytest.mark.parametrize("array", ARRAYS, indirect=True)
def test_every_element_once_at_every_rate(array):
    """The port is free, mostly free, in bursts, or seldom; records come at once or now and then."""
    draw = np.random.default_rng(array.bank_rows)
    main = draw.integers(0, 1 << 16, 4 * array.main_words)
    main |= main & (1 << SIGNIFICAND_BITS - 1) - 1 == 0         # zeros have no exponents
    records = some_records(array, 400)
    rate = np.repeat(draw.choice([0, 0.1, 0.5, 0.9], 600), 100)
    may = draw.random(60000) < np.repeat(draw.choice([0.02, 0.5, 1], 60), 1000)
    found = play(array, records, main, may, draw.random(60000) < rate)
    assert found["done"].sum() == len(records) and not found["busy"][-1]
    *got, owner = written(array, found)
    clips = np.cumsum(found["done"])[np.flatnonzero(found["clipped"]) - behind(array)]
    for number, record in enumerate(records):
        *wanted, clipped = wanted_of(array, record, number, main)
        have, want = (np.sort(bank << 32 | row << 16 | codes) for bank, row, codes in (
            [values[owner == number] for values in got], wanted))
        assert np.array_equal(have, want), (number, record)
        assert clipped == (number in clips), (number, record)


@pytest.mark.parametrize("name", ["16", "two", "eight", "eight, of 8"])
def test_cycles_when_the_port_is_free(name):
    array = ARRAYS[name]
    records = [record for record in some_records(array, 600) if cycles(record, array) > 20]
    main = np.zeros(4 * array.main_words, np.int64)
    every = np.ones(60000)
    found = play(array, records, main, every, 0 * every)
    took = np.diff(np.flatnonzero(found["done"]))
    assert took.tolist() == [cycles(record, array) for record in records[1:]]
