"""The output stage: sums into the next layer's mantissas."""

from typing import Any

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from celosia_hw.layouts import layout
from celosia_hw.output.activation import Activation, Limits
from celosia_hw.output.align import AlignBias, AlignResidual
from celosia_hw.output.requantise import Requantise
from celosia_hw.output.walker import Walker
from celosia_hw.parts.block_exponent import BlockExponent
from celosia_hw.parts.delay import Later, chain
from celosia_hw.parts.table_memory import TableMemory
from celosia_hw.signatures import HostMemory, Results, Sums, Walks, beat_layout
from celosia_spec.isa import DESCRIPTOR, ROW, ArrayConfig
from celosia_spec.isa.timing import Timing


class OutputStage(wiring.Component):
    """Bias, residual, activation, max-pool, accumulator store, block exponent, rounding.

    While a layer runs, every pass drains its sums through bias, residual and activation; the
    passes of a max-pooling window are combined in the store. The normalising walk then reads the
    store, rounds, and emits placed mantissas, or with ``wide`` writes 16-bit results back. With
    ``direct`` the last phase of a tile is rounded on the way, and no walk follows.

    Members
    -------
    walks : In(Walks)
        See :class:`Walker` for the strobes and :class:`BlockExponent` for ``top``.
    layer : In(descriptor group "output")
        Stable from ``walks.load`` on.
    sums : In(Sums)
    results : Out(Results)
    host_rows, host_writes, host_store, host_residual : In(HostMemory)
        The first two are written, the others read: address = beat * elements of a beat + element.

    Timing
    ------
    A pass may end every ``max(MIN_PASS, pass_beats)`` cycles, or every so many as a tile has
    write-table entries where ``direct`` places the beats. The host's values come at most
    ``Timing.store`` cycles after their addresses.
    """

    def __init__(self, array: ArrayConfig) -> None:
        self.array, self.timing = array, Timing.of(array)
        super().__init__({
            "walks": In(Walks()), "layer": In(layout(DESCRIPTOR.groups["output"])),
            "sums": In(Sums(array)), "results": Out(Results(array)),
            "host_rows": In(HostMemory(readable=False)),
            "host_writes": In(HostMemory(readable=False)),
            "host_store": In(HostMemory(readable=True)),
            "host_residual": In(HostMemory(readable=True)),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        array, walks, end = self.array, self.walks, self.timing.end_stage
        m.submodules.walker = walker = self._walker(m)
        m.submodules.requantise = requantise = Requantise(array)
        at = Later(m, {name: getattr(walker, name) for name in (
            "draining", "normalising", "placing", "final", "first_phase", "beat_done", "valid",
            "store", "place", "element")}, cleared=("draining", "normalising", "placing"))
        m.submodules.rows = rows = TableMemory(array.table_rows, layout(ROW))
        m.d.comb += [rows.written_by(self.host_rows), rows.read.addr.eq(walker.row)]
        row = rows.read.data
        rounding = self._store(m, at, self._totals(m, row, at, requantise), requantise)
        self._round(m, row.sw, rounding, at, requantise)
        counted = at("placing", end) | (at("normalising", end) & self.layer.wide)
        m.d.comb += [
            self.sums.shift.eq(at("draining", self.timing.sum_stage)
                               & at("beat_done", self.timing.sum_stage)),
            self.results.valid.eq(at("placing", end)), self.results.place.eq(at("place", end)),
            self.results.element.eq(at("element", end)), self.results.real.eq(at("valid", end)),
            *(self.results.mantissas[e].eq(requantise.m[e]) for e in range(array.beat)),
            walks.clipped.eq(counted & (requantise.clipped & at("valid", end)).any()),
        ]
        return m

    def _walker(self, m: Module) -> Walker:
        """Return the walker, connected; the row of its beat is there a cycle later."""
        walker, walks = Walker(self.array), self.walks
        connect(m, flipped(self.host_writes), walker.host_writes)
        m.d.comb += [
            walker.layer.eq(self.layer), walker.load.eq(walks.load),
            walker.normalise.eq(walks.normalise), walker.drain.eq(self.sums.drain),
            walks.overrun.eq(walker.overrun),
        ]
        m.d.sync += walks.done.eq(walker.done)
        return walker

    def _round(self, m: Module, sw: Signal, rounding: list[Signal], at: Later,
               requantise: Requantise) -> None:
        """Block exponent and mantissas of the accumulators that leave; ``sw`` is there at stage
        1."""
        stage, walks = self.timing.round_stage, self.walks
        exponents = chain(m, sw, stage - 1, "sw")
        m.submodules.exponent = exponent = BlockExponent(self.array)
        m.d.comb += [
            exponent.clear.eq(walks.load), exponent.sw.eq(exponents[-1]),
            exponent.valid.eq(at("draining", stage) & at("final", stage)),
            walks.top.eq(exponent.top), requantise.wide.eq(self.layer.wide),
            requantise.shift.eq(walks.shift_base - exponents[-2]),
            *(block.a[e].eq(a) for e, a in enumerate(rounding) for block in (exponent, requantise)),
        ]
        if self.array.clamp:
            m.submodules.limits = limits = Limits(self.array)
            m.d.comb += [limits.clamping.eq(walks.clamping), limits.wide.eq(self.layer.wide),
                         limits.bound.eq(self.layer.bound), requantise.limits.eq(limits.limits)]

    def _totals(self, m: Module, row: data.View, at: Later, requantise: Requantise) -> data.View:
        """Sums with bias and residual behind the activation, one stage behind the sum stage."""
        array = self.array
        m.submodules.align_bias = bias = AlignBias(array)
        step = m.d.sync if array.deep else m.d.comb
        step += [bias.bias.eq(row.bias), bias.shift.eq(row.sb - self.walks.input_lsb)]
        residual = (self._residual(m, row, at, requantise) if array.residual_beats
                    else [0] * array.beat)
        m.submodules.activation = activation = Activation(array)
        m.d.comb += [activation.relu.eq(self.layer.relu),
                     activation.real.eq(at("valid", self.timing.sum_stage))]
        for e in range(array.beat):
            m.d.comb += activation.sums[e].eq(self.sums.values[e] + bias.aligned + residual[e])
        return activation.total

    def _residual(self, m: Module, row: data.View, at: Later,
                  requantise: Requantise) -> data.View:
        """Aligned residual operand at the sum stage; results go back at the end."""
        array, layer, end = self.array, self.layer, self.timing.end_stage
        beat = data.ArrayLayout(signed(array.activation_bits), array.beat)
        m.submodules.residual = memory = TableMemory(array.residual_beats, beat)
        m.submodules.align_residual = align = AlignResidual(array)
        step = m.d.sync if array.deep else m.d.comb
        step += align.shift.eq(self.walks.residual_lsb - self.walks.input_lsb - row.sw)
        operand, host = memory.read.data, self.host_residual
        m.d.comb += [
            memory.read.addr.eq(Mux(at("draining", int(array.deep)),
                                    layer.residual_from + at("store", int(array.deep)),
                                    host.address[array.beat_bits:])),
            host.value.eq(operand[host.address[:array.beat_bits]]),
            *(align.r[e].eq(Mux(layer.residual_read, operand[e], 0)) for e in range(array.beat)),
            memory.write.en.eq(at("placing", end) & layer.residual_write),
            memory.write.addr.eq(layer.residual_to + at("store", end)),
            *(memory.write.data[e].eq(requantise.m[e]) for e in range(array.beat)),
        ]
        return align.aligned

    def _store(self, m: Module, at: Later, totals: data.View,
               requantise: Requantise) -> list[Signal]:
        """Accumulator store and pooling; returns what is to be rounded, two stages behind the sum
        stage: the pooled beat that drains, or the stored one of the normalising walk."""
        array, stage, host = self.array, self.timing.sum_stage, self.host_store
        m.submodules.store = store = TableMemory(array.store_beats, beat_layout(array),
                                                 output_register=array.deep)
        early = stage + 1 - store.latency
        stored = store.read.data
        m.d.comb += [store.read.addr.eq(Mux(at("draining", early) | at("normalising", early),
                                            at("store", early), host.address[array.beat_bits:])),
                     host.value.eq(stored[host.address[:array.beat_bits]])]
        rounding = [Signal(signed(array.acc_bits), name=f"rounding{e}", reset_less=True)
                    for e in range(array.beat)]
        for e in range(array.beat):
            keep = Signal(name=f"keep{e}")
            m.d.comb += keep.eq(at("normalising", stage + 1)
                                | (~at("first_phase", stage + 1) & (stored[e] > totals[e])))
            m.d.sync += rounding[e].eq(Mux(keep, stored[e], totals[e]))
        wide, wide_address = Signal(), Signal(range(array.store_beats))
        m.d.comb += wide.eq(at("normalising", self.timing.end_stage) & self.layer.wide)
        with m.If(self.walks.load):
            m.d.sync += wide_address.eq(0)
        with m.Elif(wide):
            m.d.sync += wide_address.eq(wide_address + 1)
        m.d.comb += [
            *(store.write.data[e].eq(Mux(wide, requantise.m[e], value)
                                     if e < array.wide_elements else value)
              for e, value in enumerate(rounding)),
            store.write.en.eq(wide | at("draining", stage + 2)),
            store.write.addr.eq(Mux(wide, wide_address, at("store", stage + 2))),
        ]
        return rounding
