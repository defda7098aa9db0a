"""Where the elements of a word go in the banks, or of two."""

from collections.abc import Sequence
from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Member, Out

from celosia_hw.layouts import layout
from celosia_spec.isa.array import ENTRY_WORDS, Array
from celosia_spec.isa.controls import PLACE

COUNTS = {2: 3, 4: 3, 8: 4}
"""Bits of how many banks a place moves on, to the elements that are filled a cycle."""


class Place(wiring.Component):
    """A bank and its row, which move on over the banks of a group.

    Members
    -------
    count : In
        Banks that it moves on in each cycle, up to as many as elements are filled.
    here, set : In(1), banks, step : In
        Strobe: it moves by so many rows and banks instead, or is set to them.
    rows_ready : In(1)
        Strobe: from here on ``step`` has the bank rows from one position group to the next; stays
        until the next ``here``.
    masks : In
        Bits of a bank's number that tell groups apart: ones in ``bank``.
    bank, row : Out
    """

    def __init__(self, array: Array) -> None:
        rows, banks = (array.bank_rows - 1).bit_length(), array.lanes.bit_length() - 1
        super().__init__({"count": In(COUNTS[array.fill]), "here": In(1), "set": In(1),
                          "banks": In(banks), "step": In(rows), "rows_ready": In(1),
                          "masks": In(banks), "bank": Out(banks), "row": Out(rows)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        wraps = Signal(reset_less=True)
        operand = Signal(max(len(self.banks), len(self.count)))
        moved = Signal(len(self.bank) + 1)
        m.d.comb += [operand.eq(Mux(self.here, self.banks, self.count)),
                     moved.eq(self.bank + operand)]
        # Bits that tell groups apart are ones, so that the carry gets through to the end.
        m.d.sync += self.bank.eq(Mux(self.here & self.set, operand, moved[:-1]) | self.masks)
        with m.If(self.here):
            m.d.sync += wraps.eq(moved[-1] & ~self.set)
        with m.If(self.here | moved[-1] | (self.rows_ready & wraps)):
            m.d.sync += self.row.eq(Mux(self.here & self.set, self.step, self.row + self.step))
        return m


class Columns(wiring.Component):
    """Spread the elements of a word, or of two, over neighbouring banks, into every group's copy.

    Bank b takes its row and its code from column b mod 4, or b mod 8 of an array that fills eight.
    Two places move over the banks. Without ``pair`` elements go to A, and those that are in its
    next four banks to B, four positions on. With ``pair`` even elements go to A and odd ones to B.

    Parameters
    ----------
    array : Array
        One that fills four elements a cycle, or eight.

    Members
    -------
    elements : In(4)
        Those of a word that are written; neighbours, without ``pair``.
    following : In(4)
        Of an array that fills eight, those of the next word, the first ones; some only where all
        ``elements`` are written, without ``pair``, and groups have eight banks.
    pair : In(1), masks : In(log2 lanes)
        Of the record. masks: bits of a bank's number that tell groups apart.
    move : In(layout(PLACE))
        Bank rows and banks.
    move_a, move_b : In(1)
        Strobe: A or B moves by ``move``.
    set : In(1)
        With these: it is set to it.
    rows_ready : In(1)
        Strobe, two cycles behind ``move_a`` and one behind ``move_b``: ``move`` has the bank rows
        from one position group to the next.
    row, enable : Out
        Row of each column, and which banks are written.
    turn : Out(log2 columns)
        Column j takes element (j + turn) mod 4, with ``pair`` of elements 0, 2, 1, 3. Of two words
        it takes element (j + turn) mod 8.
    twice : Out(1)
        Of an array that fills eight: that is so.

    Timing
    ------
    Outputs come ``LATENCY`` cycles after ``elements``, one word a cycle. There are no elements
    from the cycle before ``move_a`` to the one in which ``rows_ready`` is, both included.
    """

    LATENCY = 2

    def __init__(self, array: Array) -> None:
        self.array = array
        self.row_bits = (array.bank_rows - 1).bit_length()
        self.bank_bits = array.lanes.bit_length() - 1
        self.words = array.fill // ENTRY_WORDS
        super().__init__({
            "elements": In(ENTRY_WORDS), "pair": In(1), "masks": In(self.bank_bits),
            "row": Out(data.ArrayLayout(self.row_bits, array.fill)), "enable": Out(array.lanes),
            "turn": Out(1 + self.words), **self._moves()})

    def _moves(self) -> dict[str, Member]:
        """Return the members that say how places move."""
        return {"move": In(layout(PLACE)), "move_a": In(1), "move_b": In(1), "set": In(1),
                "rows_ready": In(1)}

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        full, begin, *counts = self._counts(m)
        places, step = self._places(m, counts)
        (a, row_a), (b, row_b) = ((place.bank, place.row) for place in places)
        # Element 0 goes to column a - begin; of two words begin is 0.
        first = Cat(a[0] ^ begin[0], a[1] ^ begin[1] ^ (~a[0] & begin[0]))
        turn = [first[0], first[1] ^ first[0], a[2] ^ first.any()]
        m.d.sync += self.turn.eq(Cat(turn[:len(self.turn)]))
        self._columns(m, full, (a, row_a, counts[0]), (b, row_b, counts[1]), step)
        return m

    def _places(self, m: Module, counts: Sequence[Value]) -> tuple[Sequence[Any], Value]:
        """Return both places, which move on by ``counts`` and as they are told to, and the bank
        rows from one position group to the next."""
        step = Signal(self.row_bits, reset_less=True)
        banks = Signal(self.bank_bits, reset_less=True)
        ready = Signal()
        m.d.sync += ready.eq(self.rows_ready)
        with m.If(self.move_a | self.move_b | self.rows_ready):
            m.d.sync += [step.eq(self.move.row), banks.eq(self.move.bank)]
        places = []
        for name, count, strobe in zip("ab", counts, (self.move_a, self.move_b), strict=True):
            m.submodules[name] = place = Place(self.array)
            m.d.sync += place.here.eq(strobe)
            m.d.comb += [place.count.eq(count), place.set.eq(self.set), place.masks.eq(self.masks),
                         place.step.eq(step), place.banks.eq(banks), place.rows_ready.eq(ready)]
            places.append(place)
        return places, step

    def _counts(self, m: Module) -> tuple[Value, Signal, Signal, Value]:
        """Return whether all elements go to A or B, how many banks A's first one lies behind the
        word's first, and how many banks A and B move on."""
        elements, pair = self.elements, self.pair
        count_a, count_b = (Signal(COUNTS[self.array.fill], reset_less=True),
                            Signal(2, reset_less=True))
        begin = Signal(2, reset_less=True)
        every = elements.all()
        odd, two = elements.xor(), (elements[:3] & elements[1:]).any() & ~every
        full, whole = count_a[2], [every & ~pair]
        if self.words == 2:
            # Some of the next word come with all of this one.
            more, eight, full = self.following, self.following.all(), Signal(reset_less=True)
            odd, two = odd ^ more.xor(), two | (more[1] & ~eight)
            m.d.sync += full.eq(whole[0])
            whole = [whole[0] & ~eight, eight]
        m.d.sync += [
            count_a.eq(Cat(Mux(pair, elements[0] ^ elements[2], odd),
                           Mux(pair, elements[0] & elements[2], two), *whole)),
            count_b.eq(Cat(Mux(pair, elements[1] ^ elements[3], odd),
                           Mux(pair, elements[1] & elements[3], two))),
            begin.eq(Mux(elements[0], 0, Mux(elements[1], 1, Mux(elements[2], Mux(pair, 1, 2),
                                                                 Mux(pair, 2, 3))))),
        ]
        return full, begin, count_a, Cat(count_b, count_a[2:])

    def _columns(self, m: Module, full: Value, a: tuple[Value, Value, Value],
                 b: tuple[Value, Value, Value], step: Value) -> None:
        """Give each column its row, and its banks their enables."""
        pair, (bank_a, row_a, count_a), (bank_b, row_b, count_b) = self.pair, a, b
        further = self._further(m, bank_b, row_b, step) if self.words == 2 else None
        for j in range(ENTRY_WORDS):
            takes_b, written = Signal(name=f"takes_b{j}"), Signal(name=f"written{j}")
            low = bank_b[:2]
            reached = _reached(j, bank_a, count_a[:2])
            m.d.comb += [
                takes_b.eq(Mux(pair, (low == j) | (low == (j - 1) % 4), low > j)),
                written.eq(full | reached | _reached(j, bank_b, count_b[:2])),
            ]
            quad = Mux(takes_b, bank_b[2:], bank_a[2:])
            row = Signal(self.row_bits, name=f"near{j}")
            m.d.comb += row.eq(Mux(takes_b, row_b, row_a))
            if j == 0:
                quad, row = self._first(m, a, b, takes_b, row, step)
            own = enables(quad, self.masks[2:], written)
            if further is None:
                m.d.sync += self.row[j].eq(row)
            else:
                twice, quad_c, row_c = further
                # Elements of the next word lie four banks further, from B on.
                for half in range(2):
                    m.d.sync += self.row[ENTRY_WORDS * half + j].eq(Mux(
                        twice & (bank_a[2] != half), row_b, Mux(twice & takes_b, row_c, row)))
                others = enables(Mux(takes_b, quad_c, bank_b[2:]), self.masks[2:],
                                 twice & (count_a[3] | reached))
                own = [enable | other for enable, other in zip(own, others, strict=True)]
            m.d.sync += [self.enable[ENTRY_WORDS * number + j].eq(enable)
                         for number, enable in enumerate(own)]

    def _further(self, m: Module, bank_b: Value, row_b: Value,
                 step: Value) -> tuple[Value, Value, Value]:
        """Return whether there are two words, and quad and row of the banks four positions behind
        B."""
        twice, row = Signal(reset_less=True), Signal(self.row_bits)
        m.d.sync += [twice.eq(self.following[0]), self.twice.eq(twice)]
        m.d.comb += row.eq(row_b + Mux(bank_b[2:].all(), step, 0))
        return twice, (bank_b[2:] + 1)[:len(bank_b) - 2] | self.masks[2:], row

    def _first(self, m: Module, a: tuple[Value, ...], b: tuple[Value, ...], takes_b: Value,
               near: Value, step: Value) -> tuple[Value, Value]:
        """Return quad and row of column 0: of a pair's two elements in a place, the second one may
        lie in the next four banks, and in the next position group."""
        (bank_a, *_), (bank_b, *_) = a, b
        quads = []
        for bank in (bank_a, bank_b):
            over = bank[0] & bank[1] & self.pair
            quads.append(Cat(bit ^ (over & bank[2:k].all()) for k, bit in enumerate(bank[2:], 2))
                         | self.masks[2:])
        # A's second element is here where B's are not.
        far, beyond = Signal(), Signal(self.row_bits)
        m.d.comb += [far.eq(self.pair & (bank_b.all() | (bank_a.all() & (bank_b[0] ^ bank_b[1])))),
                     beyond.eq(near + step)]
        return Mux(takes_b, quads[1], quads[0]), Mux(far, beyond, near)


def enables(quad: Value, masks: Value, written: Value) -> list[Value]:
    """Return which of the blocks of banks are written whose number is ``quad`` but for masked
    bits, which are ones there."""
    # Masked bits are ones already.
    return [written & Cat(quad[k] if number >> k & 1 else ~quad[k] | masks[k]
                          for k in range(len(masks))).all() for number in range(1 << len(masks))]


def _reached(j: int, bank: Value, count: Value) -> Value:
    """Whether column j is one of ``count`` columns, 0 to 3, from ``bank`` on."""
    least = (count.any(), count[1], count.all())
    return Cat(*((bank[:2] == (j - offset) % 4) & least[offset] for offset in range(3))).any()
