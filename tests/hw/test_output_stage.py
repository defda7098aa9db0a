# amaranth: UnusedElaboratable=no
"""The output stage, layer after layer, against exact arithmetic on the same sums."""

import random
from collections import defaultdict

import pytest

from blocks.models import arithmetic
from blocks.models.layers import random_layer, table_words
from blocks.models.writing import draining, normalising
from blocks.players import play_pysim
from blocks.vectors import Vectors, pack
from celosia_hw.output.stage import OutputStage
from celosia_hw.output.walker import Walker
from celosia_spec.isa import DESCRIPTOR, OUTPUT_BITS, ROW, ArrayConfig, timing, write_word
from celosia_spec.isa.timing import Timing

SIZES = {"bank_rows": 64, "table_rows": 32, "writes": 128, "store_beats": 64,
         "residual_beats": 128, "count_bits": 9}
ARRAYS = {
    "4-one-group": ArrayConfig(lanes=4, quad=4, beat=4, **SIZES),
    "8-acc32": ArrayConfig(lanes=8, quad=4, beat=4, wide_elements=4, acc_bits=32, **SIZES),
    "16-beat2": ArrayConfig(lanes=16, quad=2, beat=2, activation_bits=6, **SIZES),
    "16-deep": ArrayConfig(lanes=16, quad=8, beat=4, deep=True, **SIZES),
    "8-no-residual": ArrayConfig(lanes=8, quad=4, beat=4, **SIZES | {"residual_beats": 0}),
    "8-clamp": ArrayConfig(lanes=8, quad=4, beat=2, wide_elements=2, activation_bits=6, clamp=True,
                           **SIZES),
    "16-deep-clamp": ArrayConfig(lanes=16, quad=4, beat=4, wide_elements=4, deep=True, clamp=True,
                                 **SIZES),
}


class Bench:
    """Builds the vectors of one layer after another, and keeps what the machine keeps."""

    def __init__(self, array, seed):
        self.array, self.rng, self.vectors = array, random.Random(seed), Vectors()
        self.timing, self.cycle = Timing.of(array), 0
        self.strobes = {name: set() for name in (
            "sums__shift", "results__valid", "walks__clipped", "walks__done")}
        self.residual, self.writes = defaultdict(lambda: [0] * array.beat), 0
        self.vectors.hold(0, sums__values=self.rng.getrandbits(array.beat * array.acc_bits))

    def finish(self):
        """Expect every strobe in its cycles and in no other; return the vectors."""
        for name, cycles in self.strobes.items():
            for cycle in range(self.cycle):
                self.vectors.expect(cycle, **{name: cycle in cycles})
        return self.vectors

    def layer(self, layer):
        """Load, drain and normalise ``layer``."""
        self.shape, self.pooled, exponents = layer, {}, []
        self.flags = {"relu": self.rng.randrange(2), "residual_read": 0, "residual_write": 0}
        if self.array.residual_beats:
            self.flags |= {"residual_read": layer.phases == 1 and self.rng.randrange(2),
                           "residual_write": self.rng.randrange(2)}
        self._load()
        end = self._drain(exponents)
        top = arithmetic.block_exponent(exponents)
        self.vectors.expect(end + self.timing.flush, walks__top=top)
        if not layer.direct:
            start = end + self.timing.flush + timing.EXPONENT - timing.WALK_AHEAD
            if self.rng.random() < 0.6:
                start = self._check_store(max(start, end + self.timing.settle), {
                    beat: (values, self.array.beat) for beat, values in self.pooled.items()})
            end = self._normalise(start, top)
        self.cycle = end + self.timing.settle + 1
        if self.array.residual_beats:
            self._check_residual()

    def _load(self):
        """Write both tables and the layer's parameters, strobe ``load``."""
        layer, rng, vectors = self.shape, self.rng, self.vectors
        for address, word in table_words(layer):
            vectors.pulse(self.cycle, host_writes__write=1, host_writes__address=address,
                          host_writes__data=word)
            self.cycle += 1
        self.input_lsb, self.residual_lsb = rng.randrange(-22, 10), rng.randrange(-22, 10)
        self.rows = {}
        for row in range(layer.row_base, layer.row_base + layer.batches * layer.groups):
            sb = rng.randrange(-25, self.array.acc_bits - 16) + self.input_lsb
            bias = rng.choice([0, 1, -1, rng.randrange(-16384, 16385)])
            self.rows[row] = bias, rng.randrange(-20, 8), sb
            vectors.pulse(self.cycle, host_rows__write=1, host_rows__address=row,
                          host_rows__data=ROW.pack(bias=bias, sw=self.rows[row][1], sb=sb))
            self.cycle += 1
        # The half of the residual store that the layer before may have written is read.
        most = 64 - layer.batches * layer.tiles * self.array.pass_beats
        self.reads, self.writes = (self.writes // 64 * 64 + min(self.writes % 64, most),
                                   (1 - self.writes // 64) * 64 + rng.randrange(most + 1))
        self.shift_base = rng.randrange(-5, 40)         # right where the layer is direct
        self.clamping = int(self.array.clamp and rng.random() < 0.7)
        self.bound = rng.randrange(1 << self.array.activation_bits - 1)
        vectors.hold(
            self.cycle, layer=DESCRIPTOR.groups["output"].pack(
                residual_from=self.reads, residual_to=self.writes, bound=self.bound,
                **layer.fields, **self.flags),
            walks__input_lsb=self.input_lsb, walks__residual_lsb=self.residual_lsb,
            walks__shift_base=self.shift_base, walks__clamping=self.clamping)
        vectors.pulse(self.cycle, walks__load=1)
        self.cycle += Walker.AHEAD + rng.randrange(3)

    def _drain(self, exponents):
        """Drain every pass; return the cycle of ``done``, fill ``exponents`` with (a, sw)."""
        scale = self.rng.randrange(self.array.acc_bits - 6)
        for cycles in draining(self.shape):
            self.vectors.pulse(self.cycle, sums__drain=1)
            sums = None
            for at, cycle in enumerate(cycles, self.cycle + 1):
                if sums is None:
                    sums = self._sums(scale)
                    values = self._total(cycle, sums)
                    if cycle.final:
                        exponents += [(a, self.rows[cycle.row][1]) for a in values]
                self.vectors.pulse(at + self.timing.sum_stage,
                                   sums__values=pack(sums, self.array.acc_bits))
                if cycle.beat_done:
                    self.strobes["sums__shift"].add(at + self.timing.sum_stage)
                    sums = None
                if cycle.place is not None:
                    self._place(at, cycle, self._rounded(cycle, self.array.activation_bits))
                if cycle.done:
                    self.strobes["walks__done"].add(at + timing.REPORT)
            self.cycle += max(len(cycles), timing.MIN_PASS) + self.rng.choice([0, 0, 0, 3])
        return at + timing.REPORT

    def _sums(self, scale):
        """Sums of random size, within the bound that the compiler proves."""
        limit = (1 << self.array.acc_bits - 2) - 1
        return [self.rng.choice([1, 1, 1, 0]) * self.rng.randint(-limit, limit)
                >> scale + self.rng.randrange(5) for _ in range(self.array.beat)]

    def _total(self, cycle, sums):
        """Return the beat's pooled totals so far (numerics, section 3)."""
        bias, sw, sb = self.rows[cycle.row]
        residual = self.residual[self.reads + cycle.store]
        values = []
        for e, a in enumerate(sums):
            a += arithmetic.scaled(bias, sb - self.input_lsb)
            if self.flags["residual_read"]:
                a += arithmetic.align_residual(
                    residual[e], self.residual_lsb - self.input_lsb - sw, self.array.acc_bits)
            a = max(a, 0) if self.flags["relu"] else a
            values.append(a if cycle.valid[e] else 0)
        if cycle.phase:
            values = [max(pair) for pair in zip(values, self.pooled[cycle.store], strict=True)]
        self.pooled[cycle.store] = values
        return values

    def _rounded(self, cycle, bits):
        """Return mantissa and clipping of each element."""
        bound = self.bound << bits - self.array.activation_bits if self.clamping else None
        return [arithmetic.requantise(a, self.shift_base - self.rows[cycle.row][1], bits, bound)
                for a in self.pooled[cycle.store]]

    def _place(self, at, cycle, rounded):
        """Expect one entry at the end of the pipeline."""
        at += self.timing.end_stage
        mantissas = [m for m, _ in rounded]
        self.strobes["results__valid"].add(at)
        if any(clipped and real for (_, clipped), real in zip(rounded, cycle.valid, strict=True)):
            self.strobes["walks__clipped"].add(at)
        place = cycle.place
        self.vectors.expect(
            at, results__mantissas=pack(mantissas, self.array.activation_bits),
            results__element=cycle.element, results__real=pack(cycle.valid, 1),
            results__place=write_word(self.array).pack(
                last=cycle.place_last, count=place.count, bank=place.bank, row=place.row))
        if self.flags["residual_write"]:
            self.residual[self.writes + cycle.store] = mantissas

    def _normalise(self, start, top):
        """Walk from ``start`` + 1 on; the block exponent comes at the last moment."""
        vectors, array = self.vectors, self.array
        self.shift_base = (top if top != arithmetic.NOTHING else 0) + self.rng.randrange(-2, 4)
        vectors.pulse(start, walks__normalise=1)
        self.clamping = int(array.clamp and self.rng.random() < 0.7)
        vectors.hold(start + 1 + timing.WALK_AHEAD, walks__shift_base=self.shift_base,
                     walks__clamping=self.clamping)
        wide = {}
        for at, cycle in enumerate(normalising(self.shape), start + 1):
            if self.shape.wide:
                bits = [OUTPUT_BITS if e < array.wide_elements else array.activation_bits
                        for e in range(array.beat)]
                rounded = [self._rounded(cycle, b)[e] for e, b in enumerate(bits)]
                wide[len(wide)] = [m for m, _ in rounded], array.wide_elements
                if any(clipped and cycle.valid[e] for e, (_, clipped) in enumerate(rounded)):
                    self.strobes["walks__clipped"].add(at + self.timing.end_stage)
            else:
                self._place(at, cycle, self._rounded(cycle, array.activation_bits))
        self.strobes["walks__done"].add(at + timing.REPORT)
        return self._check_store(at + timing.REPORT + self.timing.settle, wide)

    def _check_store(self, cycle, beats):
        """Read {beat: (values, how many of them)} as the host does; return the cycle behind."""
        for beat, (values, count) in beats.items():
            for element, value in enumerate(values[:count]):
                cycle = self._read("store", cycle, beat, element, value, self.timing.store)
        return cycle + 1

    def _check_residual(self):
        for beat in range(self.writes, self.writes + 6):
            for element, value in enumerate(self.residual[beat]):
                self.cycle = self._read("residual", self.cycle, beat, element, value, 1)
        self.cycle += 1

    def _read(self, memory, cycle, beat, element, value, latency):
        """Read an element as the host does; return the cycle behind."""
        for at in range(cycle, cycle + latency + 1):
            self.vectors.pulse(at, **{f"host_{memory}__address": beat * self.array.beat + element})
        self.vectors.expect(cycle + latency, **{f"host_{memory}__value": value})
        return cycle + latency + 1


@pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS)
def test_layers(array):
    bench = Bench(array, 31)
    for _ in range(14):
        bench.layer(random_layer(array, bench.rng))
    play_pysim(OutputStage(array), bench.finish())


@pytest.mark.parametrize(("name", "seed"), [("16-deep", 41), ("8-acc32", 42),
                                            ("16-deep-clamp", 43)])
def test_layers_verilog(verilog_player, name, seed):
    array = ARRAYS[name]
    bench = Bench(array, seed)
    for _ in range(30):
        bench.layer(random_layer(array, bench.rng))
    verilog_player(OutputStage(array), bench.finish())
