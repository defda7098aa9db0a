"""The heads of a pass's rows: read from the controls' ring, one row after the other, and made into
what their sums need."""

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from celosia_hw.layouts import layout
from celosia_hw.parts.delay import chain
from celosia_hw.parts.lookup import lookup
from celosia_spec.isa import EXPONENT_MIN, SIGNIFICAND_BITS, UNIT_MARGIN
from celosia_spec.stream import timing
from celosia_spec.stream.array import CONTROL_BITS, Array
from celosia_spec.stream.controls import HEAD, LAYER, head_words
from celosia_spec.stream.passes import WIDE_GAP, row_cycles

layer_layout = layout(*LAYER.words)
"""What stays the same until `close`."""


class Heads(wiring.Component):
    """Row after row, ``row_cycles`` apart: a strobe, the words of the head, and from them bias and
    unit of the row's sums.

    Parameters
    ----------
    array : Array
    cycles : int
        Width of ``at``.

    Members
    -------
    layer : In(layer_layout)
    exponent : In(5)
        The input's + 16.
    start : In(1)
        A pass begins; not before the last row of the pass before it has had its cycles.
    heads : In
        With ``start``: where its first head lies in the ring.
    read : Out(1), address : Out, word : In(16)
        Read port of the ring; ``word`` comes a cycle behind its address. Its address rises from
        head to head.
    at : Out(cycles), first : Out(1)
        Bit k: a row's cycle k; cycle 0 follows ``start``. With bit 0: it is the pass's first.
    weight : Out(signed(6))
        The exponent of its weights, from its cycle 2 on.
    real : Out(1), element : Out(2)
        There is such a row, and the first element of its channel in a word; from its cycle 2 on.
        The word is ``word`` in its cycle `WORD`.
    bias : Out(signed(acc_bits))
        What is added to a row's sums: bias less excess. From its cycle `BIAS` on.
    room, near, last : Out(7), Out(2), Out(7)
        Exponent of the sums' unit + W + `UNIT_MARGIN`, as `Normalise` wants it: two, three and four
        cycles behind the row's first sums, which are in cycle ``sums``; of sums that are codes of
        a residual operand what leaves them where they are.
    lane, odd : Out(1), alone : In(1)
        Of arrays with residual operands: one of a row's lanes, in its own cycle, where sums are
        stored four cycles later; its number is odd. From a row's cycle ``sums`` - 1 on: its sums
        are codes of a residual operand.

    All outputs of a row stay as long as a row takes.

    Timing
    ------
    ``layer`` and ``exponent`` are stable from two cycles before a layer's first ``start`` on. A
    bias moves to the left by W - 17 at most.
    """

    WORD, BIAS = 3, timing.BIAS

    def __init__(self, array: Array, cycles: int) -> None:
        self.array = array
        self.sums = self.BIAS + array.residual
        bits = (array.controls - 1).bit_length()
        super().__init__({
            "layer": In(layer_layout), "exponent": In(5), "start": In(1), "heads": In(bits),
            "read": Out(1), "address": Out(bits), "word": In(CONTROL_BITS),
            "at": Out(cycles), "first": Out(1), "weight": Out(signed(6)), "real": Out(1),
            "element": Out(2), "bias": Out(signed(array.acc_bits)), "room": Out(7),
            "lane": Out(1), "odd": Out(1), "alone": In(1),
            "near": Out(2), "last": Out(7),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.d.comb += self.at.eq(Cat(*chain(m, self._walk(m), len(self.at) - 1, "row",
                                          reset_less=False)))
        self._unit(m)
        self._bias(m)
        return m

    def _walk(self, m: Module) -> Signal:
        """Count cycles of a row and rows of a pass; ask for the words. Return that a row begins."""
        layer = self.layer
        cases = {}
        for log2_groups in range(self.array.groups_max.bit_length()):
            for flags in range(8):
                signed_in, wide, residual = (bool(flags >> k & 1) for k in range(3))
                cases[log2_groups | flags << 2] = row_cycles(
                    self.array, log2_groups=log2_groups, signed_in=signed_in, wide=wide,
                    residual=residual and self.array.residual) - 1
        bits = max(cases.values()).bit_length()
        last, left = Signal(bits), Signal(2)
        m.d.sync += last.eq(lookup(
            Cat(layer.log2_groups, layer.signed_in, layer.wide, layer.residual), cases, bits))
        at, active, begin, end, row = Signal(bits), Signal(), Signal(), Signal(), Signal()
        words = Signal()                                # there is one more
        length = Mux(layer.signed_in, head_words(signed_in=True), head_words(signed_in=False))
        m.d.comb += [
            end.eq(at == last), row.eq(active & (at == 0)), self.first.eq(row & begin),
            self.read.eq(active & words),
        ]
        if self.array.residual:
            late = at[(WIDE_GAP - 1).bit_length():].any()
            m.d.comb += [self.odd.eq(at[0]), self.lane.eq(active & Mux(
                layer.wide, late, at < (self.array.lanes >> layer.log2_groups)))]
        m.d.sync += words.eq(end | self.start | (at < length - 1))
        m.d.sync += at.eq(Mux(end | self.start, 0, at + 1))
        with m.If(self.start):
            m.d.sync += [active.eq(1), begin.eq(1), self.address.eq(self.heads),
                         left.eq((1 << layer.log2_groups) - 1)]
        with m.Else():
            m.d.sync += self.address.eq(self.address + self.read)
            with m.If(end):
                m.d.sync += [left.eq(left - 1), begin.eq(0), active.eq(active & (left != 0))]
        return row

    def _unit(self, m: Module) -> None:
        """Exponents, in cycle 1: the unit of the row's sums and how far its bias moves."""
        head = layout(HEAD.words[0])(self.word[:HEAD.words[0].bits])
        w, left = self.array.acc_bits, self.array.acc_bits - 17
        # s_x + W + margin; the input's unit lies L - 1 below its exponent, one less with a sign.
        base = w + UNIT_MARGIN + EXPONENT_MIN - (self.array.activation_bits - 1)
        unit, move = Signal(signed(8)), Signal(signed(8))
        m.d.sync += [unit.eq(self.exponent + self.layer.signed_in + base),
                     move.eq(self.exponent + self.layer.signed_in + base
                             + left - w - UNIT_MARGIN)]
        right = Signal(signed(9))
        self.amount = Signal(5, reset_less=True)
        m.d.comb += right.eq(move - head.sb)
        m.d.sync += self.amount.eq(right[:5] | right[5:8].any().replicate(5))
        with m.If(self.at[1]):
            m.d.sync += [self.weight.eq(head.sw), self.real.eq(head.real),
                         self.element.eq(head.element)]
        # A row's cycles may be as few as its head's words: its exponent waits in more places.
        weight: Value = self.weight
        for cycle in (4, 7)[:1 + self.array.residual]:
            waits = Signal(signed(6), name=f"weight{cycle}", reset_less=True)
            with m.If(self.at[cycle]):
                m.d.sync += waits.eq(weight)
            weight = waits
        if self.array.drain == 1:       # rows take four cycles at least
            m.d.sync += self.near.eq(self.room[1:3])
            for k, (register, value) in ((1, (self.room, unit + weight)),
                                         (3, (self.last, self.room))):
                with m.If(self.at[self.sums + k]):
                    m.d.sync += register.eq(value)
            return
        given, room = Signal.like(self.room, reset_less=True), unit + weight
        if self.array.residual:
            room = Mux(self.alone, w - SIGNIFICAND_BITS - 1, room)
        for k, (register, value) in enumerate((
                (given, room), (self.room, given), (self.near, self.room[1:3]),
                (self.last, self.room))):
            with m.If(self.at[self.sums + k]):
                m.d.sync += register.eq(value)

    def _held(self, m: Module, value: Value, name: str) -> Signal:
        held = Signal.like(value, name=name, reset_less=True)
        m.d.sync += held.eq(value)
        return held

    def _bias(self, m: Module) -> None:
        """Mantissa, in cycle 2: shifted, then less the excess of signed inputs."""
        # To the right by 31 - r - 8 q: to the left by r first, then by so many bytes to the right.
        w, amount, value = self.array.acc_bits, self.amount, self.word.as_signed()
        for k in range(3):
            moved = Signal(signed(len(value) + (1 << k)), name=f"left{1 << k}")
            m.d.comb += moved.eq(Mux(amount[k], value, value << (1 << k)))
            value = moved
            if k == 0:
                value = self._held(m, value, "first")
                amount = self._held(m, amount, "amount_first")
        value = self._held(m, Cat(Const(0, w - 23), value).as_signed(), "second")
        amount = self._held(m, amount[3:], "amount_second")
        sticky: Value = Const(0, 1)
        for k, distance in enumerate((8, 16)):
            moved = Signal(signed(w + 1), name=f"right{distance}")
            m.d.comb += moved.eq(Mux(amount[k], value >> distance, value))
            sticky = sticky | (amount[k] & value[:distance].any())
            value = moved
        rounded, up = Signal(signed(w), reset_less=True), Signal(reset_less=True)
        with m.If(self.at[4]):
            m.d.sync += [rounded.eq(value >> 1), up.eq(value[0] & (sticky | value[1]))]
        low, borrow = Signal(CONTROL_BITS, reset_less=True), Signal(reset_less=True)
        high = Signal(w - CONTROL_BITS, reset_less=True)
        with m.If(self.at[4]):
            m.d.sync += Cat(low, borrow).eq(-self.word)
        with m.If(self.at[5]):
            m.d.sync += high.eq(-(self.word + borrow))
        with m.If(~self.layer.signed_in):
            m.d.sync += [low.eq(0), high.eq(0)]
        with m.If(self.at[self.BIAS - 1]):
            m.d.sync += self.bias.eq((Cat(up, rounded) + Cat(up, low, high))[1:])
