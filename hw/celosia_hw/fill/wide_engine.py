"""Fills of an array that takes eight elements a cycle: from line to line in a cycle."""

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, memory
from amaranth.lib.data import View

from celosia_hw.fill.columns import Columns
from celosia_hw.fill.engine import FillEngine, held
from celosia_hw.fill.wide_columns import WideColumns
from celosia_hw.layouts import layout
from celosia_hw.parts.compare import at_least, below
from celosia_spec.isa.array import CONTROL_BITS, ENTRY_WORDS
from celosia_spec.isa.controls import FILL
from celosia_spec.isa.memories import FILL_RECORDS

STEPS = ("begins", "start", "turn", "run", "drain", "empty", "done")
"""Cycles of a record: one, or for ``begins`` until there is one, for ``run`` those of a line."""


class WideEngine(FillEngine):
    """A `FillEngine` of an array that fills eight elements a cycle. It reads all words of a record
    at once, out of look-up tables.

    Timing
    ------
    Two words of main memory for each grant, and eight zeros a cycle, where
    `celosia_spec.isa.fills.twice` says so. Between two lines, or two channels, there is one cycle
    without a request, between two records there are seven.
    """

    def _columns(self) -> Columns:
        return WideColumns(self.array)

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.columns = columns = self.columns
        at = {name: Signal(name=f"at_{name}", init=name == "begins") for name in STEPS}
        record, queued = self._queue(m, at["done"])
        flags = self._flags(m, at["start"], record)
        fresh, line, taken, last = (Signal(name=name) for name in (
            "fresh", "line", "granted", "last"))
        self._sequence(m, at, record, queued, fresh, line, taken & last)
        elements = self._elements(m, at, record, flags, (fresh, line), taken, last)
        late = [Cat(elements, at["turn"], fresh, line)]
        for k in range(self.latency - columns.LATENCY):
            late.append(held(m, f"late{k}", late[-1]))
        *_, turn, first, next_line = late[-1]
        moves = [getattr(columns, f"move_{place}")[part].eq(
                    _chosen(record, f"{place}_{part}", first, next_line))
                 for place in "ab" for part in ("row", "bank")]
        m.d.comb += [
            columns.elements.eq(late[-1]), columns.following.eq(late[-1][ENTRY_WORDS:]),
            columns.pair.eq(flags.pair), columns.masks.eq(flags.masks),
            columns.rows.eq(flags.rows), columns.move.eq(turn), columns.set.eq(first), *moves,
            self.codes.row.eq(columns.row), self.codes.enable.eq(columns.enable),
            self.start.eq(at["start"]), self.residual.eq(flags.residual),
            self.fills.busy.eq(queued), self.done.eq(at["done"]),
            self.memory.request.eq(at["run"] & ~flags.zero),
            taken.eq(at["run"] & (self.memory.grant | flags.zero)),
        ]
        self._finish(m, flags, late[2], Const(0, 1))
        return m

    def _queue(self, m: Module, done: Value) -> tuple[View, Signal]:
        """Return the words of the first record that is queued, and whether there is one."""
        into, out = (Signal(range(FILL_RECORDS), name=name) for name in ("into", "out"))
        place = Signal(range(len(FILL.words)))
        queued, ends = Signal(), Signal()
        load, words = self.fills.load, []
        m.d.comb += ends.eq(place == len(FILL.words) - 1)
        for number, word in enumerate(FILL.words):
            m.submodules[f"words{number}"] = block = memory.Memory(
                shape=word.bits, depth=FILL_RECORDS, init=[])
            write, read = block.write_port(), block.read_port(domain="comb")
            m.d.comb += [write.en.eq(load & (place == number)), write.addr.eq(into),
                         write.data.eq(self.fills.word), read.addr.eq(out)]
            words.append(read.data)
        with m.If(load):
            m.d.sync += [place.eq(Mux(ends, 0, place + 1)), into.eq(into + ends)]
        with m.If(done):
            m.d.sync += out.eq(out + 1)
        m.d.comb += [queued.eq(into != out), self.fills.room.eq((into + 1)[:len(out)] != out)]
        return data.View(layout(*FILL.words), Cat(words)), queued

    def _flags(self, m: Module, start: Value, record: View) -> View:
        """Return what a record says for as long as its elements are on their way."""
        bits = self.columns.bank_bits
        kept = ("signed", "zero", "pair", "apart", "residual")
        flags = Signal(data.StructLayout({
            **dict.fromkeys(kept, 1), "twice": 1, "masks": bits, "rows": self.columns.row_bits}),
            reset_less=True)
        groups = record.log2_groups
        with m.If(start):
            m.d.sync += [
                *(flags[name].eq(record[name]) for name in kept), flags.rows.eq(record.rows),
                flags.masks.eq(Cat(groups >= bits - k for k in range(bits))),
                flags.twice.eq(~(record.pair | record.apart | (groups >= bits - 2)))]
        return flags

    def _sequence(self, m: Module, at: dict[str, Signal], record: View, queued: Value,
                  fresh: Signal, line: Signal, line_ends: Value) -> None:
        """Go from step to step. In a turn, tell whether it is to a record's first line or to the
        next line, else to the next channel."""
        lines, channels = (Signal(range(self.array.bank_rows), name=f"{name}_left",
                                  reset_less=True) for name in ("lines", "channels"))
        turn = at["turn"]
        goes_on = Signal()
        m.d.comb += [line.eq(~lines.all()), goes_on.eq(fresh | line | ~channels.all())]
        with m.If(at["start"] | (turn & ~fresh & ~line)):
            m.d.sync += lines.eq(record.lines)
        with m.Elif(turn & ~fresh):
            m.d.sync += lines.eq(lines + 1)
        with m.If(at["start"]):
            m.d.sync += channels.eq(record.channels)
        with m.Elif(turn & ~fresh & ~line):
            m.d.sync += channels.eq(channels + 1)
        begins = at["begins"] & queued
        into = {"begins": at["done"] | (at["begins"] & ~begins), "start": begins,
                "turn": at["start"] | line_ends, "run": (turn & goes_on) | (at["run"] & ~line_ends),
                "drain": turn & ~goes_on, "empty": at["drain"], "done": at["empty"]}
        m.d.sync += [at[name].eq(condition) for name, condition in into.items()]
        m.d.sync += fresh.eq(at["start"])

    def _elements(self, m: Module, at: dict[str, Signal], record: View, flags: View,
                  kind: tuple[Value, Value], taken: Value, last: Signal) -> Value:
        """Go along lines; return which of the elements that are taken count."""
        low, turn = (ENTRY_WORDS - 1).bit_length(), at["turn"]
        bits = (self.array.lanes * self.array.bank_rows // ENTRY_WORDS - 1).bit_length()
        address = Signal(self.array.main_bits, reset_less=True)
        first, end = (Signal(low, name=name, reset_less=True) for name in ("first", "end"))
        left = Signal(bits + 1, reset_less=True)
        more = Signal(reset_less=True)
        twice = Signal()
        gap = _chosen(record, "element", *kind)
        moved = Signal(low + len(address))
        m.d.comb += [
            self.memory.address.eq(address),
            moved.eq(Cat(first, address) + Mux(turn, gap, record.step)),
            twice.eq(flags.twice & left[-1] & ~(more | first.any())),
            last.eq((~left[-1] | (twice & left.all())) & ~more),
        ]
        with m.If(turn | (taken & flags.apart)):
            m.d.sync += Cat(first, address).eq(moved)
        with m.Elif(taken):
            m.d.sync += [first.eq((end + 1) & last.replicate(low)),
                         address.eq(address + twice + (~last | end.all()))]
        with m.Elif(at["start"]):
            m.d.sync += [address.eq(record.page << CONTROL_BITS - low), first.eq(0)]
        run = record.run
        with m.If(turn):
            # A line that begins inside of a word may need an access more.
            m.d.sync += [left.eq(Cat(run[low:low + bits], run[-1])),
                         Cat(end, more).eq((~run[:low])[:low] + moved[:low])]
        with m.Elif(taken):
            m.d.sync += more.eq(0)
            with m.If(~more):
                m.d.sync += left.eq(left + 1 + twice)
        limit, ends = Mux(flags.apart, first, end), last & ~twice
        return Cat(*(taken & ~below(k, first) & (~(ends | flags.apart) | at_least(limit, k))
                     for k in range(ENTRY_WORDS)),
                   *(taken & twice & (~last | at_least(end, k)) for k in range(ENTRY_WORDS)))


def _chosen(record: View, name: str, fresh: Value, line: Value) -> Value:
    """Return what moves to a record's first line, to the next line, or to the next channel."""
    return Mux(fresh, record[name], Mux(line, record[f"line_{name}"], record[f"channel_{name}"]))
