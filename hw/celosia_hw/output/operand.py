"""The residual operand of a row's sums: read from main memory, finished, and aligned to them."""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from celosia_hw.fill.finisher import Finisher
from celosia_hw.layouts import layout
from celosia_hw.output.beats import Beats
from celosia_hw.output.position import Position
from celosia_hw.parts.delay import chain
from celosia_spec.isa import ELEMENT_BITS
from celosia_spec.stream.array import CONTROL_BITS, ENTRY_BITS, Array
from celosia_spec.stream.controls import LAYER
from celosia_spec.stream.timing import PEEK


class Align(wiring.Component):
    """``aligned = clip(RNE(m * 2**shift))`` to 2^(W - 3) - 1 in magnitude.

    Members
    -------
    code : In(bits), signed : In(1)
        m, of a tensor with signs moved up by 2^(bits - 1) (`Finisher`).
    use : In(1)
        0 makes 0 of all.
    shift : In(signed(8)), right, left : In(1)
        Strobes: ``shift`` is that of the mantissas from the next cycle on, or from the one behind
        that; it comes with both.
    aligned : Out(signed(W - 2))

    Timing
    ------
    One mantissa a cycle, ``LATENCY`` cycles. ``right`` in the cycle before a row's first mantissa,
    ``left`` in the one behind, not before the last mantissa of the row before has left for two.
    """

    LATENCY = 5

    def __init__(self, bits: int, acc_bits: int) -> None:
        self.bits, self.acc_bits = bits, acc_bits
        super().__init__({"code": In(bits), "signed": In(1), "use": In(1), "shift": In(signed(8)),
                          "right": In(1), "left": In(1), "aligned": Out(signed(acc_bits - 2))})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        right, left = Signal(4, reset_less=True), Signal(5, reset_less=True)
        back, negative = Signal(8), self.shift[-1]
        m.d.comb += back.eq(-self.shift)
        # Eleven places to the right all rounds to zero; 31 to the left all but zero is too large.
        with m.If(self.right):
            m.d.sync += right.eq((back[:4] | back[4:].any().replicate(4)) & negative.replicate(4))
        with m.If(self.left):
            m.d.sync += left.eq((self.shift[:5] | self.shift[5:7].any().replicate(5))
                                & ~negative.replicate(5))
        rounded = self._rounded(m, right)
        value, over = self._moved(m, rounded, left)
        # The one value that is too large by one unit is a power of two.
        limit = self.acc_bits - 3
        least = value[-1] & ~value[:limit].any()
        sign = value[-1]
        m.d.sync += self.aligned.eq(Mux(
            over[0], Cat((~over[1]).replicate(limit) | Cat(over[1], 0), over[1]),
            Cat(value[0] | least, value[1:limit], sign)))
        with m.If(~self.use):
            m.d.sync += self.aligned.eq(0)
        return m

    def _rounded(self, m: Module, amount: Value) -> Value:
        """Move to the right, and round to nearest even."""
        top = self.code[-1] ^ self.signed
        value: Value = Cat(self.code[:-1], top, top & self.signed).as_signed()
        guard: Value = Cat(0)
        sticky: Value = Cat(0).any()
        width = len(value)
        for k in reversed(range(4)):
            distance = 1 << k
            parts = Cat(guard, value).as_signed()
            moved = Signal(signed(width + 1), name=f"right{distance}")
            lost = Signal(name=f"lost{distance}")
            m.d.comb += [moved.eq(Mux(amount[k], parts >> distance, parts)),
                         lost.eq(sticky | (amount[k] & parts[:distance].any()))]
            guard, value, sticky = moved[0], moved[1:].as_signed(), lost
        held, half = Signal(signed(width), reset_less=True), Signal(reset_less=True)
        rest, result = Signal(reset_less=True), Signal(signed(width), reset_less=True)
        m.d.sync += [held.eq(value), half.eq(guard), rest.eq(sticky),
                     result.eq(held + (half & (rest | held[0])))]
        return result

    def _moved(self, m: Module, value: Value, amount: Value) -> tuple[Signal, Signal]:
        """Move to the left; return the value, and whether it is too large with its sign."""
        width = self.acc_bits - 2
        for distance in (1, 2, 4):
            wider = Signal(signed(min(len(value) + distance, width)), name=f"left{distance}")
            m.d.comb += wider.eq(Mux(amount[distance.bit_length() - 1], value << distance, value))
            value = wider
        held, rest = Signal(signed(len(value)), reset_less=True), Signal(2, reset_less=True)
        m.d.sync += [held.eq(value), rest.eq(amount[3:])]
        over: Value = Cat(0).any()
        value = held
        for k, distance in enumerate((8, 16)):
            kept = max(width - distance, 1)             # bits that stay, their sign with them
            beyond = value[kept - 1:]
            lost = Signal(name=f"over{distance}")
            wider = Signal(signed(width), name=f"left{distance}")
            m.d.comb += [
                lost.eq(over | (rest[k] & beyond.any() & ~beyond.all())),
                wider.eq(Mux(rest[k], value << distance, value)),
            ]
            value, over = wider, lost
        moved, flags = Signal(signed(width), reset_less=True), Signal(2, reset_less=True)
        m.d.sync += [moved.eq(value), flags.eq(Cat(over, held[-1]))]
        return moved, flags


class Operand(wiring.Component):
    """Read the residual operands of a pass, a row after the other, a lane a cycle.

    Members
    -------
    layer : In(layer), exponent, other : In(5)
        Exponents of the input and of the residual operand, + 16.
    at : In(13)
        A row began: bit k in its cycle k, where the layer has a residual operand.
    first : In(1)
        With bit 3 of ``at``: the pass begins.
    position, again, moves, written
        As of `Position`; ``written`` of all lanes. Until the pass's first row's cycle 6.
    word, real, element, weight
        In a row's cycle 3: where its channel begins. Until its cycle 6 whether there is such a row,
        and ``element``; its weights' exponent s_w until its cycle 12.
    read : Out(1), address : Out, data : In(64)
        A read of main memory, granted at once; ``data`` a cycle later. Never in two cycles one
        after the other.
    aligned : Out(signed(W - 2)), clipped : Out(1)
        Operand of a row's lane l in its cycle `FIRST` + l; 0 where the layer has none. Clipping
        changed a mantissa, some cycles before.

    Timing
    ------
    A row takes `row_cycles`.
    """

    PEEK = PEEK
    FIRST = PEEK + 2 + Finisher.LATENCY + Align.LATENCY

    def __init__(self, array: Array) -> None:
        self.array = array
        self.word_bits = (array.main_words - 1).bit_length()
        super().__init__({
            "layer": In(layout(*LAYER.words)), "exponent": In(5), "other": In(5), "at": In(13),
            "first": In(1), "position": In(CONTROL_BITS), "again": In(1), "moves": In(1),
            "written": In(array.lanes), "word": In(CONTROL_BITS), "real": In(1),
            "element": In(2), "weight": In(signed(6)), "read": Out(1),
            "address": Out(self.word_bits), "data": In(ENTRY_BITS),
            "aligned": Out(signed(array.acc_bits - 2)), "clipped": Out(1),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        layer = self.layer
        element, used = self._element(m)
        m.submodules.finisher = finisher = Finisher(self.array.activation_bits)
        m.submodules.align = align = Align(self.array.activation_bits, self.array.acc_bits)
        apart, shift = Signal(signed(7)), Signal(signed(8))
        m.d.sync += [shift.eq(apart - self.weight),
                     apart.eq(self.other - self.exponent + layer.residual_signed - layer.signed_in)]
        m.d.comb += [
            finisher.element.eq(element), finisher.exponent.eq(self.other),
            finisher.signed.eq(layer.residual_signed), align.code.eq(finisher.code),
            align.signed.eq(layer.residual_signed), align.shift.eq(shift),
            align.right.eq(self.at[11]), align.left.eq(self.at[12]),
            align.use.eq(layer.residual), self.aligned.eq(align.aligned),
            self.clipped.eq(finisher.clipped & chain(m, used, Finisher.LATENCY, "used",
                                                     reset_less=False)[-1]),
        ]
        return m

    def _element(self, m: Module) -> tuple[Value, Value]:
        """Read halves of words as lanes need them; return a lane's element, and whether it is used.

        A word is read for each of its halves: so two elements are held, not four.
        """
        at = self.at
        m.submodules.position = position = Position()
        m.submodules.beats = beats = Beats(self.array)
        mask, upper, base = Signal(self.array.lanes), Signal(), Signal(self.word_bits)
        lane, ahead, before = Signal(), Signal(), Signal()
        begin = position.at[:2] + self.element
        m.d.comb += [
            position.position.eq(self.position), position.begin.eq(at[3] & self.first),
            position.again.eq(self.again), position.moves.eq(self.moves),
            position.row.eq(at[self.PEEK - 1]), position.takes.eq(before),
            beats.log2_groups.eq(self.layer.log2_groups), beats.single.eq(1),
            beats.row.eq(at[self.PEEK]),
            lane.eq(beats.active & Mux(beats.odd, mask[1], mask[0])),
            # A half's upper element goes two cycles later: then the next half is there.
            ahead.eq(lane & upper & ~beats.last),
        ]
        first, real = Signal(), Signal(reset_less=True)
        with m.If(at[self.PEEK - 1]):
            m.d.sync += real.eq(self.real)
        with m.If(at[3]):
            m.d.sync += first.eq(self.first)
        with m.If(at[self.PEEK - 1] & first):
            m.d.sync += mask.eq(self.written)
        with m.Elif(beats.done):
            m.d.sync += mask.eq(mask >> 2)
        half, got, was_half, used = (Signal(name=name) for name in (
            "half", "got", "was_half", "used"))
        turn = chain(m, upper, 2, "turn")[-1]
        held = Signal(ENTRY_BITS // 2, reset_less=True)
        m.d.sync += [
            base.eq(self.word + self.layer.residual_from), upper.eq(upper ^ lane),
            self.read.eq(at[4] | ahead),
            Cat(half, self.address).eq(Mux(
                at[4], Cat(begin[1], base + position.at[2:] + begin[2]),
                Cat(half, self.address) + self.read)),
            got.eq(self.read), was_half.eq(half), before.eq(lane), used.eq(before & real),
        ]
        with m.If(at[self.PEEK - 1]):
            m.d.sync += upper.eq(begin[0])
        with m.If(got):
            m.d.sync += held.eq(self.data.word_select(was_half, ENTRY_BITS // 2))
        return held.word_select(turn, ELEMENT_BITS), used
