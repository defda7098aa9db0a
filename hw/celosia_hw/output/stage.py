"""The output stage: sums into the next layer's mantissas."""

from collections.abc import Callable
from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from celosia_hw.layouts import row_layout, write_layout
from celosia_hw.output.activation import Activation
from celosia_hw.output.align import AlignBias, AlignResidual
from celosia_hw.output.requantise import Requantise
from celosia_hw.output.walker import Walker
from celosia_hw.parts.block_exponent import BlockExponent
from celosia_spec.isa import ArrayConfig
from celosia_spec.isa.timing import Timing

_At = Callable[[str, int], Signal]
"""The walker's signal of a name, a number of cycles later."""


class OutputStage(wiring.Component):
    """Bias, residual, ReLU, max-pool, accumulator store, block exponent, rounding.

    While a layer runs, every pass drains its sums through bias, residual and ReLU; the passes of
    a max-pooling window are combined in the store. The normalising walk then reads the store,
    rounds, and emits placed mantissas (``out``), or writes 16-bit results back (``wide``). With
    ``direct`` the last phase of a tile is rounded on the way, and no walk follows.

    Members
    -------
    load, drain, normalise, log2_groups, last_batch ... write_step : In
        See :class:`Walker`.
    relu, direct, wide, residual_read, residual_write, residual_from, residual_to : In
        Of the layer.
    input_lsb, residual_lsb : In(signed(8))
        Exponents s_x and s_r of the least significant bits of input and residual mantissas.
    shift_base : In(signed(9))
        Output block exponent minus s_x. Known one cycle before the first rounding.
    sums : In(beat x signed(acc_bits)), shift : Out
        Of :class:`MacArray`. The first beat of a pass is read ``Timing.drain_lead`` cycles after
        ``drain``; ``shift`` asks for the next one.
    out_valid, out_place, out_element, out, out_real : Out
        Placed mantissas for :class:`BankWriter`.
    overrun : Out, strobe: see :class:`Walker`.
    done : Out, strobe: the last beat of a walk entered in the cycle before. ``top`` is complete
        ``Timing.flush`` cycles later, everything else ``Timing.settle`` cycles later.
    top : Out, see :class:`BlockExponent`.    clipped : Out, strobe: clipping changed a value.
    row_*, place_*, store_*, residual_host, residual_data
        The host's access, addresses in rows, entries and beats, while no walk is active.

    Timing
    ------
    A pass may end every ``max(MIN_PASS, pass_beats)`` cycles, or every so many as a tile has
    write-table entries where ``direct`` places the beats.
    """

    def __init__(self, array: ArrayConfig) -> None:
        self.array, self.deep = array, array.deep
        timing = Timing.of(array)
        self.walker = Walker(array)
        self.bias, self.requantise = AlignBias(array), Requantise(array)
        self._sum_stage, self._round_stage = timing.sum_stage, timing.round_stage
        self._end_stage, self._store_latency = timing.end_stage, timing.store
        beats = data.ArrayLayout(signed(array.acc_bits), array.beat)
        super().__init__({
            **{name: self.walker.signature.members[name] for name in (
                "load", "drain", "normalise", "direct", "wide", "log2_groups", "last_batch",
                "last_tile", "last_phase", "last_position", "row_base", "write_base",
                "write_step")},
            **{name: In(1) for name in ("relu", "residual_read", "residual_write")},
            "residual_from": In(16), "residual_to": In(16),
            "input_lsb": In(signed(8)), "residual_lsb": In(signed(8)),
            "shift_base": In(signed(9)), "sums": In(beats), "shift": Out(1),
            "out_valid": Out(1), "out_place": Out(write_layout(array)),
            "out_element": Out(array.beat_bits), "out_real": Out(array.beat),
            "out": Out(data.ArrayLayout(array.activation_bits, array.beat)),
            "done": Out(1), "overrun": Out(1), "top": Out(signed(8)), "clipped": Out(1),
            "row_write": In(1), "row_address": In(range(array.table_rows)), "row_data": In(32),
            "place_write": In(1), "place_address": In(range(array.writes)),
            "place_data": In(array.write_word_bits),
            "store_address": In(range(array.store_beats)), "store_data": Out(beats),
            "residual_host": In(16),
            "residual_data": Out(data.ArrayLayout(signed(array.activation_bits), array.beat)),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        walker = self._walker(m)
        delayed = {name: [Signal.cast(getattr(walker, name))] for name in (
            "draining", "normalising", "placing", "final", "first_phase", "beat_done", "valid",
            "store", "place", "element")}
        flags = {"draining", "normalising", "placing"}

        def at(name: str, stage: int) -> Signal:
            """The walker's ``name``, ``stage`` cycles later."""
            chain = delayed[name]
            while len(chain) <= stage:
                after = Signal(len(chain[-1]), name=f"{name}_{len(chain)}",
                               reset_less=name not in flags)
                m.d.sync += after.eq(chain[-1])
                chain.append(after)
            return chain[stage]

        row = self._rows(m, walker)
        totals = self._totals(m, row, at)
        rounding = self._store(m, at, totals)
        sw = row.sw
        for k in range(2, self._round_stage + 1):
            held = Signal(signed(6), name=f"sw_{k}", reset_less=True)
            m.d.sync += held.eq(sw)
            before, sw = sw, held
        m.submodules.exponent = exponent = BlockExponent(self.array)
        m.submodules.requantise = requantise = self.requantise
        m.d.comb += [
            exponent.clear.eq(self.load), exponent.sw.eq(sw), self.top.eq(exponent.top),
            exponent.valid.eq(at("draining", self._round_stage) & at("final", self._round_stage)),
            requantise.shift.eq(self.shift_base - before), requantise.wide.eq(self.wide),
            self.shift.eq(at("draining", self._sum_stage) & at("beat_done", self._sum_stage)),
        ]
        for e in range(self.array.beat):
            m.d.comb += [exponent.a[e].eq(rounding[e]), requantise.a[e].eq(rounding[e])]
        end = self._end_stage
        counted = at("placing", end) | (at("normalising", end) & self.wide)
        m.d.comb += [
            self.out_valid.eq(at("placing", end)), self.out_place.eq(at("place", end)),
            self.out_element.eq(at("element", end)), self.out_real.eq(at("valid", end)),
            *(self.out[e].eq(requantise.m[e]) for e in range(self.array.beat)),
            self.clipped.eq(counted & (requantise.clipped & at("valid", end)).any()),
        ]
        return m

    def _walker(self, m: Module) -> Walker:
        m.submodules.walker = walker = self.walker
        for name in ("load", "drain", "normalise", "direct", "wide", "log2_groups", "last_batch",
                     "last_tile", "last_phase", "last_position", "row_base", "write_base",
                     "write_step"):
            m.d.comb += getattr(walker, name).eq(getattr(self, name))
        m.d.comb += [walker.table_enable.eq(self.place_write),
                     walker.table_address.eq(self.place_address),
                     walker.table_data.eq(self.place_data), self.overrun.eq(walker.overrun)]
        m.d.sync += self.done.eq(walker.done)
        return walker

    def _rows(self, m: Module, walker: Walker) -> data.View:
        """Row table; the row is there at stage 1."""
        m.submodules.rows = rows = Memory(shape=32, depth=self.array.table_rows, init=[],
                                          attrs={"ram_style": "block"})
        write, read = rows.write_port(), rows.read_port()
        m.d.comb += [write.en.eq(self.row_write), write.addr.eq(self.row_address),
                     write.data.eq(self.row_data), read.addr.eq(walker.row)]
        return data.View(row_layout(), read.data)

    def _totals(self, m: Module, row: data.View, at: _At) -> data.View:
        """Sums with bias and residual behind the activation, one stage behind the sum stage."""
        array = self.array
        m.submodules.align_bias = self.bias
        mantissa, shift = Signal(signed(16)), Signal(signed(10))
        step = m.d.sync if self.deep else m.d.comb
        step += [mantissa.eq(row.bias), shift.eq(row.sb - self.input_lsb)]
        m.d.comb += [self.bias.bias.eq(mantissa), self.bias.shift.eq(shift)]
        residual = self._residual(m, row, at) if array.residual_beats else [0] * array.beat
        m.submodules.activation = activation = Activation(array)
        m.d.comb += [activation.relu.eq(self.relu),
                     activation.real.eq(at("valid", self._sum_stage))]
        for e in range(array.beat):
            m.d.comb += activation.sums[e].eq(self.sums[e] + self.bias.aligned + residual[e])
        return activation.total

    def _residual(self, m: Module, row: data.View, at: _At) -> data.View:
        """Aligned residual operand at the sum stage; results go back at the end."""
        array, end = self.array, self._end_stage
        m.submodules.residual = memory = Memory(
            shape=array.beat * array.activation_bits, depth=array.residual_beats, init=[],
            attrs={"ram_style": "block"})
        write, read = memory.write_port(), memory.read_port()
        m.submodules.align_residual = align = AlignResidual(array)
        shift = Signal(signed(10))
        step = m.d.sync if self.deep else m.d.comb
        step += shift.eq(self.residual_lsb - self.input_lsb - row.sw)
        operand = data.View(data.ArrayLayout(signed(array.activation_bits), array.beat), read.data)
        m.d.comb += [
            read.addr.eq(Mux(at("draining", int(self.deep)),
                             self.residual_from + at("store", int(self.deep)),
                             self.residual_host)),
            self.residual_data.eq(operand), align.shift.eq(shift),
            *(align.r[e].eq(Mux(self.residual_read, operand[e], 0)) for e in range(array.beat)),
            write.en.eq(at("placing", end) & self.residual_write),
            write.addr.eq(self.residual_to + at("store", end)),
            write.data.eq(Cat(*(self.requantise.m[e][:array.activation_bits]
                                for e in range(array.beat)))),
        ]
        return align.aligned

    def _store(self, m: Module, at: _At, totals: data.View) -> list[Signal]:
        """Accumulator store and pooling; returns what is to be rounded, two stages behind the sum
        stage: the pooled beat that drains, or the stored one of the normalising walk."""
        array = self.array
        m.submodules.store = store = Memory(shape=array.beat * array.acc_bits,
                                            depth=array.store_beats, init=[],
                                            attrs={"ram_style": "block"})
        write, read = store.write_port(), store.read_port()
        stage = self._sum_stage
        # A deep array reads a cycle earlier, for a register behind the memory.
        early = stage + 1 - self._store_latency
        contents = read.data
        if self._store_latency > 1:
            contents = Signal.like(read.data, name="store_held", reset_less=True)
            m.d.sync += contents.eq(read.data)
        m.d.comb += [read.addr.eq(Mux(at("draining", early) | at("normalising", early),
                                      at("store", early), self.store_address)),
                     self.store_data.eq(contents)]
        stored = data.View(data.ArrayLayout(signed(array.acc_bits), array.beat), contents)
        rounding = [Signal(signed(array.acc_bits), name=f"rounding{e}", reset_less=True)
                    for e in range(array.beat)]
        for e in range(array.beat):
            total = totals[e]
            keep = Signal(name=f"keep{e}")
            m.d.comb += keep.eq(at("normalising", stage + 1)
                                | (~at("first_phase", stage + 1) & (stored[e] > total)))
            m.d.sync += rounding[e].eq(Mux(keep, stored[e], total))
        wide, wide_address = Signal(), Signal(range(array.store_beats))
        m.d.comb += wide.eq(at("normalising", self._end_stage) & self.wide)
        with m.If(self.load):
            m.d.sync += wide_address.eq(0)
        with m.Elif(wide):
            m.d.sync += wide_address.eq(wide_address + 1)
        results = [Mux(wide, self.requantise.m[e], rounding[e]) if e < array.wide_elements
                   else rounding[e] for e in range(array.beat)]
        values = Signal(data.ArrayLayout(signed(array.acc_bits), array.beat))
        m.d.comb += [
            *(values[e].eq(results[e]) for e in range(array.beat)),
            write.data.eq(values), write.en.eq(wide | at("draining", stage + 2)),
            write.addr.eq(Mux(wide, wide_address, at("store", stage + 2))),
        ]
        return rounding
