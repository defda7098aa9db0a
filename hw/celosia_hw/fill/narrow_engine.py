"""Fills of an array that takes two or four elements a cycle: a move for each line, word by word."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data

from celosia_hw.fill.column_pair import ColumnPair
from celosia_hw.fill.columns import Columns
from celosia_hw.fill.engine import FillEngine, any_of, held
from celosia_hw.layouts import layout
from celosia_hw.parts.compare import at_least, below
from celosia_hw.parts.table_memory import TableMemory
from celosia_spec.isa.array import CONTROL_BITS, ENTRY_WORDS
from celosia_spec.isa.controls import FILL
from celosia_spec.isa.memories import FILL_RECORDS, FILL_WORDS

_WORDS = {next(iter(word.fields)).name: place for place, word in enumerate(FILL.words, 1)}
"""Place of each word of a record, by its first field; place 0 stays empty."""

_PLACE_BITS = (FILL_WORDS - 1).bit_length()

_START, _LINE, _CHANNEL = 1, 2, 3
"""What a sequence prepares; 0 is nothing. Its own words' places begin with it."""

_OWN = {"element": "element", "a": "a_row", "b": "b_row"}
"""Its own words in their order, and the first field of each."""

assert len(_WORDS) == FILL_WORDS - 1 == (1 << _PLACE_BITS) - 1
assert all(_WORDS[prefix + first] == kind << 2 | low
           for kind, prefix in ((_START, ""), (_LINE, "line_"), (_CHANNEL, "channel_"))
           for low, first in enumerate(_OWN.values()))

_STEPS = ("flags", "channels", "lines", "element", "run", "a", "b", "rows", "rest", "go")
"""Cycles of a sequence, by the word whose address is given; the last one stays."""

_DRAIN = ("drain", "empty", "done")
"""Cycles behind a record's last request; then nothing goes on."""


@dataclass(frozen=True)
class _Steps:
    """A sequence, as its words come.

    at    : by its name, whether it is at a step.   fresh : it is a record's first one.
    word  : that was asked for in the cycle before.   operand : it where it is a move, else 0.
    flags : of the record.   loads : the words of a place, of lines and channels may come.
    """

    at: dict[str, Signal]
    fresh: Signal
    word: Value
    operand: Signal
    flags: data.View
    loads: Value


@dataclass(frozen=True)
class _Line:
    """Requests for the words of a line.

    running : there are some more.   taken : strobe: some elements come.   last : the last ones.
    upper   : of a half word, it is the upper one.
    """

    running: Signal
    taken: Signal
    last: Signal
    upper: Signal


class NarrowEngine(FillEngine):
    """A `FillEngine` that has one number in main memory, two places in the banks, and what is left
    of line, lines and channels; all else it gets word by word from where records are queued.

    Timing
    ------
    Of an array that fills two elements a cycle, half a word for each grant, and two zeros, and
    codes come after 5 cycles and not 6, as words go to the finishers without a register. Between
    two lines there are four cycles without a request (with ``apart`` seven), between two channels
    five (eight), between two records eleven; from one line to the next are seven cycles at least.
    """

    def _columns(self) -> Columns | ColumnPair:
        return (Columns if self.array.unit == ENTRY_WORDS else ColumnPair)(self.array)

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.columns = columns = self.columns
        at = {name: Signal(name=f"at_{name}", init=name == "go")
              for name in _STEPS + _DRAIN}
        kind = Signal(2)
        fresh = Signal()
        word, queued = self._queue(m, at, kind)
        flags = self._flags(m, at, word)
        line = _Line(*(Signal(name=name) for name in ("running", "granted", "last", "upper")))
        operand = Signal(CONTROL_BITS)
        loads = self._sequence(m, at, kind, fresh, word, queued, line.taken & line.last)
        m.d.comb += operand.eq(
            word & (loads | (flags.apart & line.running)).replicate(CONTROL_BITS))
        elements = self._elements(m, _Steps(at, fresh, word, operand, flags, loads), line)
        late = [elements]
        for k in range(self.latency - columns.LATENCY):
            late.append(held(m, f"elements{k}", late[-1]))

        def late_by_word(name: str, value: Value) -> Value:
            return held(m, f"held_{name}", value) if self.registered else value

        moves = {name: late_by_word(name, value) for name, value in (
            ("move", word), ("move_a", at["b"]), ("move_b", at["rows"]), ("set", fresh),
            ("rows_ready", at["rest"]))}
        m.d.comb += [getattr(columns, name).eq(value) for name, value in moves.items()]
        m.d.comb += [
            columns.elements.eq(late[-1]), columns.masks.eq(flags.masks),
            self.codes.row.eq(columns.row), self.codes.enable.eq(columns.enable),
            self.start.eq(at["channels"]), self.fills.busy.eq(queued),
        ]
        if isinstance(columns, ColumnPair):
            m.d.comb += [columns.single.eq(flags.pair), columns.apart.eq(flags.apart)]
        else:
            m.d.comb += columns.pair.eq(flags.pair)
        self._finish(m, flags, late[2 if self.registered else 1], line.upper)
        return m

    def _queue(self, m: Module, at: dict[str, Signal], kind: Value) -> tuple[Signal, Signal]:
        """Return the word that was asked for in the cycle before, and whether there is a record."""
        m.submodules.words = words = TableMemory(
            FILL_RECORDS * FILL_WORDS, CONTROL_BITS, block=self.fabric.lut_memory is None)
        into, out = (Signal(range(FILL_RECORDS), name=name) for name in ("into", "out"))
        queued = Signal()
        place = Signal(_PLACE_BITS, init=1)
        address = Signal(_PLACE_BITS)
        with m.If(self.fills.load):
            m.d.sync += Cat(place, into).eq(Cat(place, into) + 1)
            with m.If(place.all()):
                m.d.sync += place.eq(1)
        with m.If(at["done"]):
            m.d.sync += out.eq(out + 1)
        own = {name: Cat(Const(low, 2), kind) for low, name in enumerate(_OWN)}
        for name, first in (("flags", "signed"), ("channels", "channels"), ("lines", "lines"),
                            ("run", "run"), ("rows", "rows"), ("rest", "step"), ("go", "step")):
            own[name] = Const(_WORDS[first], _PLACE_BITS)
        m.d.comb += [
            address.eq(any_of([value & at[name].replicate(len(address))
                             for name, value in own.items()])),
            queued.eq(into != out), self.fills.room.eq((into + 1)[:len(out)] != out),
            self.done.eq(at["done"]),
            words.write.en.eq(self.fills.load), words.write.data.eq(self.fills.word),
            words.write.addr.eq(Cat(place, into)), words.read.addr.eq(Cat(address, out)),
        ]
        return words.read.data, queued

    def _flags(self, m: Module, at: dict[str, Signal], word: Value) -> data.View:
        """Return what the record says of itself, held."""
        bits, given = self.columns.bank_bits, self._given(word)
        flags = Signal(data.StructLayout({"signed": 1, "zero": 1, "pair": 1, "apart": 1,
                                          "residual": 1, "masks": bits}), reset_less=True)
        m.d.comb += self.residual.eq(flags.residual)
        with m.If(at["channels"]):
            m.d.sync += [
                *(flags[name].eq(given[name])
                  for name in ("signed", "zero", "pair", "apart", "residual")),
                *[flags.pair.eq(given.pair | given.apart)] * (self.array.fill == 2),
                flags.masks.eq(Cat(given.log2_groups >= bits - k for k in range(bits)))]
        return flags

    def _given(self, word: Value) -> data.View:
        """Return what the word says that has the flags."""
        table = FILL.words[_WORDS["signed"] - 1]
        return data.View(layout(table), word[:table.bits])

    def _sequence(self, m: Module, at: dict[str, Signal], kind: Signal, fresh: Signal,
                  word: Value, queued: Value, line_ends: Value) -> Signal:
        """Go through the steps of what is next; return whether the words of a place, of lines and
        channels may come."""
        ended, turn, loads = (Signal(name=name) for name in ("ended", "turn", "loads"))
        m.d.comb += turn.eq(at["go"] & ended)
        line = self._counter(m, "lines", at, at["element"] & (kind != _LINE), turn, word,
                             loads)
        channel = self._counter(m, "channels", at, at["lines"] & fresh, turn & ~line, word,
                                loads)
        begins = at["go"] & (kind == 0) & queued
        into = {"flags": begins, "lines": turn & ~line & channel, "element": turn & line,
                "drain": turn & ~line & ~channel, "go": at["go"] & ~turn & ~begins}
        for before, name in (*pairwise(_STEPS), *pairwise((*_DRAIN, "go"))):
            into[name] = into.get(name, Const(0, 1)) | at[before]
        m.d.sync += [at[name].eq(condition) for name, condition in into.items()]
        with m.If(turn):
            m.d.sync += kind.eq(Mux(line, _LINE, channel.replicate(2)))
        with m.If(begins):
            m.d.sync += kind.eq(_START)
        m.d.sync += [ended.eq(line_ends | (ended & ~at["go"])),
                     fresh.eq(begins | (fresh & ~turn)),
                     loads.eq(turn | begins | (loads & ~at["run"]))]
        return loads

    def _counter(self, m: Module, name: str, at: dict[str, Signal], load: Value, count: Value,
                 word: Value, loads: Value) -> Value:
        """Count up from what was loaded; return whether there is more of what ``count`` takes."""
        left = Signal(range(self.array.bank_rows), name=f"{name}_left", reset_less=True)
        none = Signal(name=f"no_{name}", reset_less=True)
        with m.If(at["rest"]):
            m.d.sync += none.eq(left.all())
        # What is added beside the one lets a cell of the sum load, too.
        step = Cat(Const(1, 1), loads.replicate(len(left) - 1))
        with m.If(load | (count & ~none)):
            m.d.sync += left.eq(Mux(loads, word, left + step))
        return ~none

    def _elements(self, m: Module, steps: _Steps, line: _Line) -> Value:
        """Ask for the words of a line; return which of the elements that are taken count."""
        size, at, flags = self.array.unit, steps.at, steps.flags
        running, taken, last = line.running, line.taken, line.last
        first = Signal(range(size), reset_less=True)
        live = Mux(flags.apart, at["rest"], at["a"])
        m.d.sync += running.eq((running & ~(taken & last)) | live)
        m.d.comb += [self.memory.request.eq(running & ~flags.zero),
                     taken.eq(running & (self.memory.grant | flags.zero))]
        end = self._left(m, steps, line, first)
        self._number(m, steps, line, first, end)
        limit = Mux(flags.apart, first, end)
        return Cat(*(taken & ~below(k, first) & (~(last | flags.apart) | at_least(limit, k))
                     for k in range(size)))

    def _left(self, m: Module, steps: _Steps, line: _Line, first: Value) -> Signal:
        """Count the words of a line; return the last one's last element."""
        size, at, word = self.array.unit, steps.at, steps.word
        taken, last = line.taken, line.last
        low, bits = len(first), (self.array.lanes * self.array.bank_rows // size - 1).bit_length()
        left = Signal(bits + 1, reset_less=True)
        more = Signal(reset_less=True)
        end = Signal.like(first, name="end")
        # What is added beside the one lets a cell of the sum load, too.
        step = Cat(Const(1, 1), at["a"].replicate(bits))
        m.d.comb += last.eq(~left[-1] & ~more)
        with m.If(at["a"] | (taken & ~more)):
            m.d.sync += left.eq(Mux(at["a"], Cat(word[low:low + bits], word[-1]), left + step))
        with m.If(taken):
            m.d.sync += more.eq(0)
        with m.If(at["a"]):
            # A line that begins inside of what is taken at once may need an access more.
            m.d.sync += Cat(end, more).eq((~word[:low])[:low] + first)
        return end

    def _number(self, m: Module, steps: _Steps, line: _Line, first: Signal,
                end: Value) -> None:
        """Keep the number of the next element in main memory: ``first`` of those that are taken at
        once, at ``address``. Of a half word, tell which one it was."""
        low, at, word, operand = len(first), steps.at, steps.word, steps.operand
        address = Signal(range(self.array.main_words * ENTRY_WORDS >> low), reset_less=True)
        whole, total = Signal(len(address)), Signal(low + 1)
        moves, over = steps.loads | steps.flags.apart, Signal()
        # The first number is a move from where its page begins, and has no sign.
        sign = operand[-1] & ~(at["run"] & steps.fresh)
        m.d.comb += [
            self.memory.address.eq(address[2 - low:]),
            whole.eq(Cat(operand[low:], sign.replicate(len(address)))),
            total.eq(first + word[:low]),
            over.eq(Mux(moves, total[low], ~line.last | end.all())),
        ]
        with m.If(at["run"] | line.taken):
            m.d.sync += [
                address.eq((Cat(Const(1, 1), address) + Cat(over, whole))[1:]),
                first.eq(Mux(moves, total[:low], (end + 1) & line.last.replicate(low))),
            ]
        with m.If(at["channels"]):
            m.d.sync += [address.eq(self._given(word).page << CONTROL_BITS - low), first.eq(0)]
        if low == 1:
            m.d.sync += line.upper.eq(address[0])

