# amaranth: UnusedElaboratable=no
"""The output stage, layer after layer, against exact arithmetic on the same sums."""

import random
from dataclasses import replace

import pytest

from celosia_hw import timing
from celosia_hw.isa import OUTPUT_BITS, ArrayConfig, pack_row
from celosia_hw.layouts import write_layout
from celosia_hw.output_stage import OutputStage
from celosia_hw.timing import Timing
from celosia_sim.models import arithmetic
from celosia_sim.models.writing import Entry, Layer, draining, normalising
from celosia_sim.vectors import Vectors, pack, play, play_icarus

SIZES = {"bank_rows": 64, "table_rows": 32, "writes": 128, "store_beats": 64,
         "residual_beats": 64, "count_bits": 9}
ARRAYS = {
    "4-one-group": ArrayConfig(lanes=4, quad=4, beat=4, **SIZES),
    "8": ArrayConfig(lanes=8, quad=4, beat=4, wide_elements=4, acc_bits=32, **SIZES),
    "16-beat2": ArrayConfig(lanes=16, quad=2, beat=2, activation_bits=6, **SIZES),
    "16-deep": ArrayConfig(lanes=16, quad=8, beat=4, deep=True, **SIZES),
}
EXTRA = {"relu": 0.5, "residual_read": 0.4, "residual_write": 0.4}
STROBES = ("shift", "out_valid", "clipped", "done")


@pytest.fixture(params=["pysim", "icarus"])
def player(request, tmp_path):
    return play if request.param == "pysim" else (lambda *args: play_icarus(*args, tmp_path))


class Bench:
    """Builds the vectors of one layer after another, and keeps what the machine keeps."""

    def __init__(self, array, seed):
        self.array, self.rng, self.vectors = array, random.Random(seed), Vectors()
        self.timing, self.cycle = Timing.of(array), 0
        self.strobes = {name: set() for name in STROBES}
        self.residual = {beat: [0] * array.beat for beat in range(array.residual_beats)}

    def finish(self):
        """Expect every strobe in its cycles and in no other."""
        for name, cycles in self.strobes.items():
            for cycle in range(self.cycle):
                self.vectors.expect(cycle, **{name: cycle in cycles})
        return self.vectors

    def layer(self, layer, flags):
        """Load, drain and normalise ``layer``."""
        self.flags, self.shape = flags, layer
        self._tables()
        self.pooled, self.exponents = {}, []
        end = self._drain()
        top = arithmetic.block_exponent(self.exponents)
        self.vectors.expect(end + self.timing.flush, top=top)
        if not layer.direct:
            self._check_store(end + self.timing.settle)
            end = self._normalise(self.cycle, top)
        self.cycle = end + self.timing.settle + 1
        self._check_residual()

    def _tables(self):
        layer, rng, vectors, acc = self.shape, self.rng, self.vectors, self.array.acc_bits
        address = layer.write_base
        for beat in layer.entries:
            for number, entry in enumerate(beat):
                vectors.pulse(self.cycle, place_write=1, place_address=address,
                              place_data=self.array.pack_write(
                                  last=number == len(beat) - 1, count=entry.count,
                                  bank=entry.bank, row=entry.row))
                address, self.cycle = address + 1, self.cycle + 1
        self.input_lsb, self.residual_lsb = rng.randrange(-22, 10), rng.randrange(-22, 10)
        self.rows = {}
        for row in range(layer.row_base, layer.row_base + layer.batches * layer.groups):
            sb = rng.randrange(-25, acc - 16) + self.input_lsb
            bias = rng.choice([0, 1, -1, rng.randrange(-16384, 16385)])
            self.rows[row] = bias, rng.randrange(-20, 8), sb
            vectors.pulse(self.cycle, row_write=1, row_address=row, row_data=pack_row(
                *self.rows[row]))
            self.cycle += 1
        self.reads = rng.randrange(self.array.residual_beats - self._beats())
        self.writes = rng.randrange(self.array.residual_beats - self._beats())
        self.shift_base = rng.randrange(-5, 40)
        vectors.hold(
            self.cycle, log2_groups=layer.log2_groups, last_batch=layer.batches - 1,
            last_tile=layer.tiles - 1, last_phase=layer.phases - 1, positions=layer.positions,
            row_base=layer.row_base, write_base=layer.write_base, write_step=layer.write_step,
            direct=layer.direct, wide=layer.wide, residual_from=self.reads,
            residual_to=self.writes, input_lsb=self.input_lsb, residual_lsb=self.residual_lsb,
            shift_base=self.shift_base, **self.flags)
        vectors.pulse(self.cycle, load=1)
        self.cycle += 1 + rng.randrange(3)

    def _beats(self):
        return self.shape.batches * self.shape.tiles * self.array.pass_beats

    def _drain(self):
        """Drain every pass; return the cycle of ``done``."""
        at = self.cycle                                  # of the pass's first beat
        for cycles in draining(self.shape):
            self.vectors.pulse(at - 1 + 1, drain=1)
            walk, sums = at + 1, None
            for cycle in cycles:
                sums = sums or self._sums()
                self.vectors.pulse(walk + self.timing.sum_stage,
                                   sums=pack(sums, self.array.acc_bits))
                if cycle.beat_done:
                    self.strobes["shift"].add(walk + self.timing.sum_stage)
                    self._total(cycle, sums)
                    sums = None
                if cycle.place is not None:
                    self._later.append((walk, cycle))
                if cycle.done:
                    self.strobes["done"].add(walk)
                walk += 1
            for walk_cycle, cycle in self._taken():
                self._place(walk_cycle, cycle)
            at += max(len(cycles), timing.MIN_PASS) + self.rng.choice([0, 0, 0, 3])
        return walk - 1

    _later: list

    def _taken(self):
        taken, self._later = self._later, []
        return taken
