"""The heads of a pass's rows: read from the controls' ring, one row after the other, and made into
what their sums need."""

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Member, Out

from celosia_hw.layouts import LAYER_LAYOUT, layout
from celosia_hw.output.control import HeadReads
from celosia_hw.output.normalise import Unit
from celosia_hw.parts.delay import chain, delayed
from celosia_hw.parts.lookup import lookup
from celosia_spec.isa import timing
from celosia_spec.isa.array import CONTROL_BITS, Array
from celosia_spec.isa.controls import EXCESS, HEAD, excess_record
from celosia_spec.isa.heads import bias_left
from celosia_spec.isa.numbers import EXPONENT_BITS, SIGNIFICAND_BITS
from celosia_spec.isa.passes import WIDE_GAP, head_reads, row_cycles

_MOVE_BITS = (-HEAD["right"].offset).bit_length() - 1
"""Bits of how far biases and codes move to the right."""
assert HEAD["right"].offset == -(1 << _MOVE_BITS)


class Heads(wiring.Component):
    """Row after row, ``row_cycles`` apart: a strobe, the words of the head, and from them bias and
    unit of the row's sums.

    Parameters
    ----------
    array : Array
    cycles : int
        Width of ``at``, or of what there is of ``at`` and ``drained``.

    Members
    -------
    layer : In(LAYER_LAYOUT)
    exponent : In(5)
        The input's + 16.
    start : In(1)
        A pass begins; not before the last row of the pass before it has had its cycles.
    heads : In
        With ``start``: where its first head lies in the ring.
    reads : Out(HeadReads)
        The address rises from head to head.
    at : Out(cycles), first : Out(1)
        Bit k: a row's cycle k; cycle 0 follows ``start``. With bit 0: it is the pass's first.
    reach : Out(7)
        Exponent of the row's unit + W + `UNIT_MARGIN`, from its cycle 2 on.
    real : Out(1), element : Out(2)
        There is such a row, and the first element of its channel in a word; from its cycle 2 on.
        The word is what is read in its cycle `WORD`.
    bias : Out(signed(acc_bits)), up : Out(1)
        What is added to a row's sums: bias less excess, and 1 where the bias is rounded up. From
        its cycle `BIAS` on, ``up`` with ``addend`` a cycle later.
    unit : Out(Unit)
        ``reach``, as `Normalise` wants it: two, three and four cycles behind the row's first sums,
        which are in cycle ``sums``; of sums that are codes of a residual operand what leaves them
        where they are.
    alone : In(1)
        Of arrays with residual operands, from a row's cycle ``sums`` - 1 on: its sums are codes of
        one.
    lane, odd : Out(1)
        Of arrays with residual operands, where two lanes leave a cycle: one of a row's lanes, in
        its own cycle, where sums are stored four cycles later; its number is odd.
    drained : Out
        Where one lane leaves a cycle, in place of the later bits of ``at``: bit k: two cycles less
        k ahead of the row's first sum, which is in cycle ``sums``.
    other : In(5), code : In(L), addend : Out(signed(acc_bits))
        With residual operands, where one lane leaves a cycle: the exponent of what is added, + 16.
        A row's codes, one by one from its cycle 3 on, and five cycles later what is added to its
        sum: ``bias`` and the code aligned to it, within 2^(W - 3) - 1; ``bias`` alone in a layer
        without one.

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
        self.codes = array.residual and array.drain == 1
        bits = (array.controls - 1).bit_length()
        more: dict[str, Member] = {}
        if array.drain == 1:
            cycles, more["drained"] = self.sums, Out(cycles - self.sums + 2)
        else:
            more = {"lane": Out(1), "odd": Out(1)}
        if array.drain == 2 or self.codes:
            more["alone"] = In(1)
        if self.codes:
            more |= {"other": In(EXPONENT_BITS), "code": In(array.activation_bits),
                     "addend": Out(signed(array.acc_bits))}
        super().__init__({
            "layer": In(LAYER_LAYOUT), "exponent": In(EXPONENT_BITS), "start": In(1),
            "heads": In(bits), "reads": Out(HeadReads(self.array)),
            "at": Out(cycles), "first": Out(1), "reach": Out(7), "real": Out(1),
            "element": Out(2), "bias": Out(signed(array.acc_bits)), "up": Out(1),
            "unit": Out(Unit()), **more,
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.d.comb += self.at.eq(Cat(*chain(m, self._walk(m), len(self.at) - 1, "row",
                                          reset_less=False)))
        if self.array.drain == 1:
            m.d.comb += self.drained.eq(Cat(*chain(
                m, self.at[self.sums - 2], len(self.drained) - 1, "drained", reset_less=False)))
        self._bias(m, self._unit(m))
        return m

    def _walk(self, m: Module) -> Signal:
        """Count cycles of a row and rows of a pass; ask for the words. Return that a row begins."""
        layer, reads = self.layer, self.reads
        at, active, begin, end, row = Signal(5), Signal(), Signal(), Signal(), Signal()
        left = Signal(2)
        words = Signal()                                # there is one more
        m.d.comb += [
            end.eq(self._ends(m, at)), row.eq(active & (at == 0)), self.first.eq(row & begin),
            reads.read.eq(active & words),
        ]
        if self.array.residual and self.array.drain == 2:
            late = at[(WIDE_GAP - 1).bit_length():].any()
            m.d.comb += [self.odd.eq(at[0]), self.lane.eq(active & Mux(
                layer.wide, late, at < (self.array.lanes >> layer.log2_groups)))]
        plain, late = (head_reads(self.array, signed_in=signed) for signed in (False, True))
        m.d.sync += words.eq(end | self.start | at.matches(*(cycle - 1 for cycle in plain[1:])) | (
            layer.signed_in & at.matches(*(cycle - 1 for cycle in late[len(plain):]))))
        m.d.sync += at.eq(Mux(end | self.start, 0, at + 1))
        # What loads stands as a summand's bits, so that it goes into the adder's look-up tables.
        m.d.sync += reads.address.eq(Mux(
            self.start, self.heads,
            reads.address + self.start.replicate(len(reads.address)) + reads.read))
        with m.If(self.start):
            m.d.sync += [active.eq(1), begin.eq(1), left.eq((1 << layer.log2_groups) - 1)]
        with m.Elif(end):
            m.d.sync += [left.eq(left - 1), begin.eq(0), active.eq(active & (left != 0))]
        return row

    def _ends(self, m: Module, at: Signal) -> Value:
        """Return whether a cycle is a row's last one."""
        layer, array, cases = self.layer, self.array, {}
        for log2_groups in range(array.groups_max.bit_length()):
            for flags in range(8):
                signed_in, wide, residual = (bool(flags >> k & 1) for k in range(3))
                cases[log2_groups | flags << 2] = row_cycles(
                    array, log2_groups=log2_groups, signed_in=signed_in, wide=wide,
                    residual=residual and array.residual) - 1
        if array.drain == 1:            # with its last lane, or a cycle later
            lanes = array.lanes - 1
            full, then = Signal(), Signal()
            # Four lanes take eight cycles where their inputs have signs. What the layer alone says
            # is in registers, which are in the cells of their look-up tables.
            long, short = Signal(), Signal()
            m.d.sync += [long.eq(layer.log2_groups != 0),
                         short.eq(layer.log2_groups[1] & ~layer.signed_in)]
            m.d.comb += full.eq((at[:4] | Cat(Const(0, 2), short, long)).all())
            assert all(cycles == max(lanes >> (flags & 3), 7 if flags & 4 else 0)
                       + bool(array.residual and flags & 16) for flags, cycles in cases.items())
            if not array.residual:
                return full
            m.d.sync += then.eq(full & ~self.start)
            return Mux(layer.residual, then, full)
        last = Signal(max(cases.values()).bit_length())
        m.d.sync += last.eq(lookup(
            Cat(layer.log2_groups, layer.signed_in, layer.wide, layer.residual), cases, len(last)))
        return at == last

    def _unit(self, m: Module) -> Signal:
        """Exponents, in cycle 1: the unit of the row's sums and, returned, how far its bias
        moves."""
        array, unit = self.array, self.unit
        head = layout(HEAD.words[0])(self.reads.word[:HEAD.words[0].bits])
        right, far = Signal(7), self._far(m) if self.codes else Const(0, signed(8))
        m.d.comb += right.eq(self.exponent + head.right)
        amount = Signal(_MOVE_BITS, reset_less=True)
        bias = self.at[1] if self.codes else Const(1, 1)
        m.d.sync += amount.eq(Mux(bias, right[:_MOVE_BITS], Mux(far[-1], 0, far[:_MOVE_BITS])))
        # The bias's field has its offset: with it, a move too far is twice as much.
        with m.If(Mux(bias, right[_MOVE_BITS + 1], ~far[-1] & far[_MOVE_BITS:-1].any())):
            m.d.sync += amount.eq((1 << _MOVE_BITS) - 1)
        with m.If(self.at[1]):
            m.d.sync += [self.reach.eq(self.exponent + head.room), self.real.eq(head.real),
                         self.element.eq(head.element)]
        # A row's cycles may be as few as its head's words: its exponent waits in more places.
        reach: Value = self.reach
        for cycle in (5,) if array.drain == 1 else (4, 7)[:1 + array.residual]:
            waits = Signal(7, name=f"reach{cycle}", reset_less=True)
            with m.If(self.at[cycle]):
                m.d.sync += waits.eq(reach)
            reach = waits
        if array.drain == 1:            # rows take four cycles at least
            m.d.sync += unit.near.eq(unit.room[1:3])
            if self.codes:
                reach = Mux(self.alone, array.acc_bits - SIGNIFICAND_BITS - 1, reach)
            for k, register, value in ((3, unit.room, reach), (5, unit.last, unit.room)):
                with m.If(self.drained[k]):
                    m.d.sync += register.eq(value)
            return amount
        given = Signal.like(unit.room, reset_less=True)
        if array.residual:
            reach = Mux(self.alone, array.acc_bits - SIGNIFICAND_BITS - 1, reach)
        for k, (register, value) in enumerate((
                (given, reach), (unit.room, given), (unit.near, unit.room[1:3]),
                (unit.last, unit.room))):
            with m.If(self.at[self.sums + k]):
                m.d.sync += register.eq(value)
        return amount

    def _held(self, m: Module, value: Value, name: str) -> Signal:
        held = Signal.like(value, name=name, reset_less=True)
        m.d.sync += held.eq(value)
        return held

    def _bias(self, m: Module, amount: Value) -> None:
        """Mantissa, in cycle 2: shifted by the amount, then less the excess of signed inputs."""
        array, word = self.array, self.reads.word
        rounded, up = self._moved(
            m, (self._code(word) if self.codes else word).as_signed(), amount)
        if excess_record(array) is EXCESS:
            excess: Value = Cat(Const(0, array.activation_bits - 1), word)
        else:
            excess = Cat(self._held(m, word, "low"), word)
        raised = Signal(reset_less=True)
        with m.If(self.at[self.BIAS - 1]):
            m.d.sync += [raised.eq(up), self.bias.eq(Mux(
                self.layer.signed_in, rounded + excess.as_signed(), rounded))]
        m.d.comb += self.up.eq(delayed(m, raised & ~self.alone, 1, "up") if self.codes else raised)
        if self.codes:
            both = Cat(up, rounded).as_signed() + Cat(up, self.bias).as_signed()
            m.d.sync += self.addend.eq(Mux(self.layer.residual, both[1:], self.bias))
            with m.If(self.alone):
                m.d.sync += self.addend.eq(0)

    def _moved(self, m: Module, value: Value, amount: Value) -> tuple[Signal, Signal]:
        """Return a mantissa of 16 bits moved to the right by ``amount``, counted from `bias_left`
        places to the left, four cycles later, and whether one is added to it; a code is clipped to
        2^(W - 3) - 1 in magnitude."""
        # To the right by 31 - r - 8 q: to the left by r first, then by so many bytes to the right.
        for k in range(3):
            moved = Signal(signed(len(value) + (1 << k)), name=f"left{1 << k}")
            m.d.comb += moved.eq(Mux(amount[k], value, value << (1 << k)))
            value = moved
            if k == 0:
                value = self._held(m, value, "first")
                amount = self._held(m, amount, "amount_first")
        # The lowest bit is the one behind the unit.
        zeros = bias_left(self.array) - 6
        value = self._held(m, Cat(Const(0, zeros), value).as_signed(), "second")
        amount = self._held(m, amount[3:], "amount_second")
        far = Signal.like(value, name="right8")
        m.d.comb += far.eq(Mux(amount[0], value >> 8, value))
        over, pick = self._clips(m, value, amount) if self.codes else (Const(0, 1), amount[1])
        third, pick = self._held(m, far, "third"), self._held(m, pick, "pick")
        sticky = self._held(m, amount[0] & value[:8].any(), "sticky")
        value = Signal.like(third, name="right16")
        m.d.comb += value.eq(Mux(pick, third >> 16, third))
        sticky = sticky | (pick & third[:16].any())
        rounded, up = Signal(signed(self.array.acc_bits - 2), reset_less=True), Signal(
            reset_less=True)
        bits = len(rounded) - 1
        m.d.sync += [
            rounded.eq(Cat(value[1] | over, Mux(over, pick.replicate(bits - 1), value[2:bits + 1]),
                           value[-1])),
            up.eq(value[0] & (sticky | value[1]) & ~over)]
        return rounded, up

    def _clips(self, m: Module, value: Value, amount: Value) -> tuple[Signal, Value]:
        """Return whether a code is clipped, a cycle later, and of what bits its result is: with
        ``amount``, whether it moves by 16."""
        limit, sign = self.array.acc_bits - 2, value[-1]

        def beyond(first: int) -> Value:
            bits = value[min(first, len(value) - 1):-1]      # narrow mantissas have none so high
            return (bits ^ sign.replicate(len(bits))).any()

        # The one value that is too large by one unit is a power of two. Below a code are zeros.
        low = len(value) - 8 - self.array.activation_bits
        least = sign & ~value[low:limit].any() & ~self.at[4]
        over = ~amount[1] & Mux(amount[0], beyond(limit + 8), beyond(limit) | least)
        return self._held(m, over, "over"), amount[1] | (over & ~sign)

    def _far(self, m: Module) -> Value:
        """Return how far codes of a row move to the right, from its cycle 2 on."""
        apart, right = Signal(signed(6)), Signal(signed(8))
        m.d.sync += apart.eq(self.other + Mux(self.layer.residual_signed, 3, 2)
                             - self.array.activation_bits)
        m.d.comb += right.eq(self.reach - apart)
        return right

    def _code(self, value: Value) -> Value:
        """Return what is moved: in a row's cycle 2 its bias, else a code, as high as it can be."""
        layer, code = self.layer, self.code
        top = code[-1] ^ layer.residual_signed
        code = Cat(Const(0, CONTROL_BITS - 1 - len(code)), code[:-1], top,
                   top & layer.residual_signed)
        return Mux(self.at[2], value, code)
