"""Lines and channels of stored maps to the banks, while the array computes."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from operator import or_
from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from celosia_hw.fill.column_pair import ColumnPair
from celosia_hw.fill.columns import Columns
from celosia_hw.fill.finisher import Finisher
from celosia_hw.layouts import layout
from celosia_hw.memory.main_memory import Access, MainMemory
from celosia_hw.parts.compare import at_least, below
from celosia_hw.parts.rotator import Rotator
from celosia_hw.parts.table_memory import TableMemory
from celosia_hw.signatures import Codes
from celosia_spec.isa.array import CONTROL_BITS, ENTRY_BITS, ENTRY_WORDS, Array
from celosia_spec.isa.controls import FILL
from celosia_spec.isa.fabric import GENERIC, Fabric
from celosia_spec.isa.fills import QUEUED
from celosia_spec.isa.memories import FILL_RECORDS, FILL_WORDS
from celosia_spec.isa.numbers import EXPONENT_BITS

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


class Fills(wiring.Signature):
    """Records that are to be executed, seen from who gives them.

    load, word : strobe: the next control word of a record.
    room       : there is room for a record; stays until its last word is loaded.
    busy       : records are queued or executed. Falls in the cycle in which the last code is
                 written.
    """

    def __init__(self) -> None:
        super().__init__({"load": Out(1), "word": Out(CONTROL_BITS), "room": In(1), "busy": In(1)})


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


class FillEngine(wiring.Component):
    """Executes records of `celosia_spec.isa.controls.FILL`, one after another: reads elements
    from main memory, finishes them, and writes their codes into the banks.

    Parameters
    ----------
    array : Array
    fabric : Fabric
        What it is built of.

    Members
    -------
    fills : In(Fills)
        ``QUEUED`` records fit in, with the one that is executed.
    done : Out(1)
        Strobe: what a record wrote is complete at the end of the next cycle, or where words go
        through a register of the one behind it.
    start : Out(1), residual : Out(1)
        Strobe: a record begins. From the cycle behind it on: it is of the residual operand.
    exponent : In(5)
        Its map's exponent + 16: from five cycles after ``start`` to the next ``start``.
    memory : Out(Access), data : In(64), or In(128) of an array that fills eight
        The port of main memory, see `MainMemory` and `SharedMemory`. Grants may come at any time.
    codes : Out(Codes)
    clipped : Out(1)
        Strobe: an element is larger than its tensor's exponent allows.

    Timing
    ------
    A word of main memory for each grant, at most one a cycle: four codes without ``apart``, one
    with it; four zeros a cycle without the port. Of an array that fills two elements a cycle, half
    a word, and two zeros; of one that fills eight two words, and eight zeros, where
    `celosia_spec.isa.fills.twice` says so. Codes are on the outputs ``latency`` cycles after the
    grant: 6, or 5 of an array that fills two, where words go to the finishers without a register.
    Between two lines there are four cycles without a request (with ``apart`` seven), between two
    channels five (eight), between two records eleven; from one line to the next are seven cycles at
    least. Nothing hangs on when grants come.

    Records have at most ``bank_rows`` lines and channels, and keep what
    `celosia_spec.isa.fills.places` asserts: elements of a word go to different columns.
    """

    QUEUED = QUEUED

    def __init__(self, array: Array, fabric: Fabric = GENERIC) -> None:
        self.array, self.fabric = array, fabric
        self.words = -(-array.fill // ENTRY_WORDS)
        # Block memories are late, and far apart; where half a word is taken, cells count more.
        self.registered = array.unit == ENTRY_WORDS
        self.latency = MainMemory.LATENCY + self.registered + Finisher.LATENCY
        self.columns = Columns(array) if array.unit == ENTRY_WORDS else ColumnPair(array)
        super().__init__({
            "fills": In(Fills()), "done": Out(1), "start": Out(1), "residual": Out(1),
            "exponent": In(EXPONENT_BITS), "memory": Out(Access(array.main_words, 0)),
            "data": In(self.words * ENTRY_BITS), "codes": Out(Codes(array)),
            "clipped": Out(1),
        })

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
            late.append(_held(m, f"elements{k}", late[-1]))

        def held(name: str, value: Value) -> Value:
            """The value, late by what the words are."""
            return _held(m, f"held_{name}", value) if self.registered else value

        moves = {name: held(name, value) for name, value in (
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
            if self.words == 2:
                m.d.comb += columns.following.eq(late[-1][ENTRY_WORDS:])
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
            address.eq(_any([value & at[name].replicate(len(address))
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
        own = {"signed": 1, "zero": 1, "pair": 1, "apart": 1, "residual": 1, "masks": bits}
        if self.words == 2:
            own["twice"] = 1
        flags = Signal(data.StructLayout(own), reset_less=True)
        m.d.comb += self.residual.eq(flags.residual)
        with m.If(at["channels"]):
            m.d.sync += [
                *(flags[name].eq(given[name])
                  for name in ("signed", "zero", "pair", "apart", "residual")),
                *[flags.pair.eq(given.pair | given.apart)] * (self.array.fill == 2),
                flags.masks.eq(Cat(given.log2_groups >= bits - k for k in range(bits)))]
            if self.words == 2:
                m.d.sync += flags.twice.eq(
                    ~(given.pair | given.apart | (given.log2_groups >= bits - 2)))
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
        end, twice = self._left(m, steps, line, first)
        self._number(m, steps, line, first, end, twice)
        limit = Mux(flags.apart, first, end)
        ends = last & ~twice if self.words == 2 else last
        counts = Cat(*(taken & ~below(k, first) & (~(ends | flags.apart) | at_least(limit, k))
                       for k in range(size)))
        if self.words == 1:
            return counts
        return Cat(counts, *(taken & twice & (~last | at_least(end, k)) for k in range(size)))

    def _left(self, m: Module, steps: _Steps, line: _Line,
              first: Value) -> tuple[Signal, Signal]:
        """Count the words of a line; return the last one's last element, and whether two are taken:
        they begin with whole ones."""
        size, at, word = self.array.unit, steps.at, steps.word
        taken, last = line.taken, line.last
        low, bits = len(first), (self.array.lanes * self.array.bank_rows // size - 1).bit_length()
        left = Signal(bits + 1, reset_less=True)
        more = Signal(reset_less=True)
        end = Signal.like(first, name="end")
        twice = Signal()
        # What is added beside the one lets a cell of the sum load, too.
        step = Cat(Const(1, 1), at["a"].replicate(bits))
        if self.words == 2:
            step = Cat(~twice, twice, at["a"].replicate(bits - 1))
            m.d.comb += [twice.eq(steps.flags.twice & left[-1] & ~(more | first.any())),
                         last.eq((~left[-1] | (twice & left.all())) & ~more)]
        else:
            m.d.comb += last.eq(~left[-1] & ~more)
        with m.If(at["a"] | (taken & ~more)):
            m.d.sync += left.eq(Mux(at["a"], Cat(word[low:low + bits], word[-1]), left + step))
        with m.If(taken):
            m.d.sync += more.eq(0)
        with m.If(at["a"]):
            # A line that begins inside of what is taken at once may need an access more.
            m.d.sync += Cat(end, more).eq((~word[:low])[:low] + first)
        return end, twice

    def _number(self, m: Module, steps: _Steps, line: _Line, first: Signal, end: Value,
                twice: Value) -> None:
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
        step = whole | (twice & ~moves) if self.words == 2 else whole
        with m.If(at["run"] | line.taken):
            m.d.sync += [
                address.eq((Cat(Const(1, 1), address) + Cat(over, step))[1:]),
                first.eq(Mux(moves, total[:low], (end + 1) & line.last.replicate(low))),
            ]
        with m.If(at["channels"]):
            m.d.sync += [address.eq(self._given(word).page << CONTROL_BITS - low), first.eq(0)]
        if low == 1:
            m.d.sync += line.upper.eq(address[0])

    def _finish(self, m: Module, flags: data.View, counts: Value, upper: Value) -> None:
        """Finish the elements of ``data``, or of a half of it, that count, and give each column its
        own."""
        size, columns = self.array.fill, self.columns
        m.submodules.rotator = rotator = Rotator(size, self.array.activation_bits)
        finishers = [Finisher(self.array.activation_bits) for _ in range(size)]
        taken = Signal(size * CONTROL_BITS, reset_less=True)
        domain = m.d.sync if self.registered else m.d.comb
        domain += taken.eq(self.data if size >= ENTRY_WORDS else
                           self.data.word_select(upper, len(taken)))
        for k, finisher in enumerate(finishers):
            m.submodules[f"finisher{k}"] = finisher
            m.d.comb += [
                finisher.element.eq(taken.word_select(k, CONTROL_BITS)),
                finisher.exponent.eq(self.exponent), finisher.signed.eq(flags.signed),
                finisher.zero.eq(flags.zero | ~counts[k])]
        codes = [finisher.code for finisher in finishers]
        if isinstance(columns, Columns):    # even ones, then odd ones
            codes[1:3] = (Mux(flags.pair, codes[3 - k], codes[k]) for k in (1, 2))
            if columns.words == 2:          # of one word all columns take the elements
                codes[size // 2:] = (Mux(columns.twice, own, code) for own, code in zip(
                    codes[size // 2:], codes, strict=False))
        m.d.comb += [
            self.clipped.eq(_any([finisher.clipped for finisher in finishers])),
            rotator.i.eq(Cat(codes)),
            rotator.rotation.eq(columns.turn), self.codes.code.eq(rotator.o),
        ]


def _held(m: Module, name: str, value: Value) -> Signal:
    held = Signal(len(value), name=name, reset_less=True)
    m.d.sync += held.eq(value)
    return held


def _any(values: Sequence[Value]) -> Value:
    """Return the bits that one of the values has."""
    return reduce(or_, values)
