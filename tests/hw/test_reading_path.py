# amaranth: UnusedElaboratable=no
"""The reading path of the machine against its sums, one number after another."""

import random
from collections import defaultdict

import numpy as np
import pytest
from harness import cells

from blocks.models.dot_products import Tap, Tile, dot_product
from blocks.players import verilog_of
from blocks.vectors import pack
from blocks.verilated_block import Block
from celosia_boards.families.ice40 import ICE40, ULTRA_PLUS_FABRIC
from celosia_hw.lanes.reading import STEP, ReadingPath
from celosia_hw.layouts import LAYER_LAYOUT
from celosia_hw.output.path import OutputPath
from celosia_spec.isa.array import PIECE, QUAD, Array
from celosia_spec.isa.fabric import GENERIC
from celosia_spec.isa.passes import pass_cycles
from celosia_spec.isa.timing import BANK, MANTISSA, SUMS, WRITTEN
from celosia_spec.isa.words import TILE_WORDS, tap_word, tile_words

SIZES = {"bank_rows": 64, "taps": 64, "tiles": 64}
ARRAYS = {"8": Array(lanes=8, **SIZES), "16": Array(lanes=16, **SIZES),
          "16-wide": Array(lanes=16, acc_bits=32, weight_bits=6, activation_bits=9, bank_rows=128,
                           taps=128, tiles=128)}


class Play:
    """Inputs of a path by cycle, and what must come out.

    Between its strobes and steps everything that they do not name is noise.
    """

    def __init__(self, array, seed):
        self.array, self.rng = array, random.Random(seed)
        self.inputs, self.levels = defaultdict(dict), defaultdict(dict)
        self.passes, self.shown = [], []
        self.cycle = 4

    def bits(self, count):
        return self.rng.getrandbits(count)

    def layer(self, log2_groups):
        """Set fields, fill tables and banks, run batches."""
        array, rng = self.array, self.rng
        self.log2_groups, self.size = log2_groups, array.positions(log2_groups)
        self.phases, self.signed = rng.choice([1, 1, 2, 4]), rng.randrange(2)
        self.rows, self.tap_step = self.bank_row(), array.taps // self.phases
        self.levels[self.cycle]["layer"] = LAYER_LAYOUT.const({
            "log2_groups": log2_groups, "signed_in": self.signed,
            "rows": self.rows + rng.randrange(PIECE), "tap_step": self.tap_step % array.taps,
        }).as_bits()
        self.taps = [Tap(piece=rng.randrange(array.bank_rows // PIECE),
                         rotation=rng.randrange(self.size), mask=rng.choice([0, *range(4)]))
                     for _ in range(array.taps)]
        words = [tap_word(array).pack(**vars(tap)) for tap in self.taps]
        self.table("tap", words)
        self.tiles = [self.tile() for _ in range(array.tiles // TILE_WORDS)]
        self.table("tile", [word for tile in self.tiles for word in self.tile_words(tile)])
        for _ in range(2):
            self.fill()
            self.band()
        self.cycle += SUMS + WRITTEN

    def bank_row(self):
        """A bank row that begins a piece."""
        return self.rng.randrange(self.array.bank_rows // PIECE) * PIECE

    def tile(self):
        positions = range(self.size + 1)
        density = self.rng.choice([0.05, 0.2, 0.6])
        return Tile(piece=self.rng.randrange(self.array.bank_rows // PIECE),
                    starts=frozenset(at for at in positions if self.rng.random() < density),
                    written=frozenset(p for p in range(self.size) if self.rng.random() < 0.7))

    def tile_words(self, tile):
        """Every group's lanes have the same bits."""
        lanes = range(self.array.lanes)
        first, starts, written = tile_words(self.array)
        return [
            first.pack(piece=tile.piece, behind=int(self.size in tile.starts)),
            starts.pack(starts=sum(1 << p for p in lanes if p % self.size in tile.starts)),
            written.pack(written=sum(1 << p for p in lanes if p % self.size in tile.written))]

    def table(self, name, words):
        for address, word in enumerate(words):
            self.inputs[self.cycle] |= {
                f"control__tables__{name}": 1, "control__tables__place": address,
                "control__tables__word": word}
            self.cycle += 1

    def fill(self):
        """Write every code of every bank, four a cycle, behind the last reads; leave with the last
        one's cycle."""
        array, rng = self.array, self.rng
        self.cycle += BANK - 1
        self.banks = [[0] * array.bank_rows for _ in range(array.lanes)]
        for quad in range(array.lanes // QUAD):
            order = [rng.sample(range(array.bank_rows), array.bank_rows) for _ in range(QUAD)]
            for rows in zip(*order, strict=True):
                codes = [self.bits(array.activation_bits) for _ in range(QUAD)]
                self.inputs[self.cycle] |= {
                    "codes__enable": (1 << QUAD) - 1 << quad * QUAD,
                    "codes__row": pack(rows, (array.bank_rows - 1).bit_length()),
                    "codes__code": pack(codes, array.activation_bits)}
                for j in range(QUAD):
                    self.banks[quad * QUAD + j][rows[j]] = codes[j]
                self.cycle += 1
        self.cycle -= 1

    def band(self):
        """Run batches on all tiles of a band; its first step may come with the last write."""
        rng = self.rng
        first, count = rng.randrange(len(self.tiles) - 4), rng.randrange(1, 5)
        self.row = self.bank_row()
        self.levels[self.cycle - 2] |= {"control__band__row": self.row + rng.randrange(PIECE),
                                        "control__band__tile": first * TILE_WORDS}
        self.inputs[self.cycle - 2]["control__band__load"] = 1
        for _ in range(rng.randrange(1, 6)):
            for k in range(count):
                for phase in range(self.phases):
                    self.one_pass(self.tiles[first + k], phase, k == count - 1)

    def one_pass(self, tile, phase, again):
        """Run a pass of a tile, or of the last one of a band."""
        rng, array = self.rng, self.array
        length = rng.choice([1, 2, WRITTEN, array.lanes // 2, rng.randrange(1, 40)])
        begin = self.cycle
        idle = max(0, rng.choice([WRITTEN, array.lanes // 2]) - length)
        if not phase:
            self.inputs[begin] |= {"control__steps__tile": 1, "control__steps__again": again}
            self.shown.append((begin + WRITTEN, self.tile_words(tile)[2]))
        self.cycle += idle
        room, rows, sums = self.tap_step * 16 - 1, [], []
        limit = 1 << array.weight_bits - 1
        for group in range(1 << self.log2_groups):
            left, steps = room, []
            for _ in range(length):
                step = rng.randrange(min(left, rng.choice([1, 30, 255])) + 1)
                left -= step
                steps.append((step, rng.randrange(-limit, limit)))
            rows.append(steps)
            for lane in range(self.size):
                banks = self.banks[group * self.size:(group + 1) * self.size]
                sums.append(dot_product(
                    banks, self.taps[phase * self.tap_step:], tile, lane, steps, row=self.row,
                    rows=self.rows, nothing=self.signed << array.activation_bits - 1))
        gaps = rng.random() < 0.3
        for k in range(length):
            self.cycle += gaps * rng.choice([0, 0, 1, 3])
            self.step([row[k] for row in rows], first=k == 0, last=k == length - 1)
            self.cycle += 1
        self.passes.append((self.cycle - 1 + SUMS, sums))

    def step(self, words, **flags):
        quads = self.array.groups_max
        given = [words[q * len(words) // quads] for q in range(quads)]
        self.inputs[self.cycle] |= {
            "control__steps__step": STEP.const({"valid": 1, **flags}).as_bits(),
            "control__weights__steps": pack([step for step, _ in given], 8)}
        self.inputs[self.cycle + MANTISSA]["control__weights__mantissas"] = pack(
            [mantissa for _, mantissa in given], self.array.weight_bits)

    def given(self, dut):
        """Return all inputs as `Block.stream` takes them."""
        array, rng = self.array, np.random.default_rng(1)
        length = self.cycle + SUMS + array.lanes
        found, level = {}, {}
        noisy = {"control__weights__steps": 8 * array.groups_max,
                 "control__weights__mantissas": array.weight_bits * array.groups_max,
                 "control__tables__place": 6, "control__tables__word": 16, "codes__row": 24,
                 "codes__code": array.activation_bits * QUAD, "control__steps__again": 1}
        for name in ("layer", "control__band__row", "control__band__tile", "control__band__load",
                     "control__steps__tile", "control__tables__tap", "control__tables__tile",
                     "codes__enable"):
            found[name] = np.zeros(length, np.uint64)
        for name, bits in noisy.items():
            found[name] = rng.integers(0, 1 << bits, length, dtype=np.uint64)
        found["shadow__shift"] = (rng.random(length) < 0.8).astype(np.uint64)
        # Without `valid` a step's other flags are noise.
        found["control__steps__step"] = rng.integers(0, 4, length, dtype=np.uint64) << np.uint64(1)
        for cycle in range(length):
            level |= self.levels.get(cycle, {})
            for name, value in (level | self.inputs.get(cycle, {})).items():
                found[name][cycle] = value
        return found


@pytest.mark.parametrize(("name", "fabric"), [
    ("8", GENERIC), ("16", GENERIC), ("16", ULTRA_PLUS_FABRIC), ("16-wide", GENERIC)])
def test_sums(name, fabric):
    """Random layers of all group counts: taps, tiles, masks, phases and bands, with and without
    signs; passes of one step and more, back to back and with gaps. Sums leave at any rate."""
    array = ARRAYS[name]
    play = Play(array, name)
    for log2_groups in [*range(array.groups_max.bit_length())] * 6:
        play.layer(log2_groups)
    dut = ReadingPath(array, fabric)
    inputs = play.given(dut)
    with Block(verilog_of(dut), [cells.models(ICE40)] * fabric.adds) as block:
        found = block.stream(inputs, ["shadow__sums", "shadow__written", "late"])
    shift, shown = inputs["shadow__shift"], found["shadow__written"]
    assert len(play.passes) > 150
    ends = [cycle for cycle, _ in play.passes[1:]] + [len(shift)]
    whole = 0
    for (begin, sums), end in zip(play.passes, ends, strict=True):
        at = 0
        for cycle in range(begin, end):
            if at == array.lanes:
                break
            wanted = pack(sums[at:at + 2], array.acc_bits)
            assert int(found["shadow__sums"][cycle]) == wanted, (cycle, at)
            at += 2 * int(shift[cycle])
        whole += at == array.lanes
    assert whole > len(play.passes) // 4
    ends = [cycle for cycle, _ in play.shown[1:]] + [len(shift)]
    for (begin, written), end in zip(play.shown, ends, strict=True):
        assert (shown[begin:end] == written).all(), begin
    assert (found["late"][MANTISSA - 1:] == inputs["control__steps__step"][:1 - MANTISSA]).all()


@pytest.mark.parametrize(("operands", "residual"), [(False, False), (True, False), (True, True)],
                         ids=["without", "plain", "residual"])
@pytest.mark.parametrize("lanes", [8, 16])
def test_written_lanes_are_there_when_the_output_reads_them(lanes, operands, residual):
    """In the shortest passes too, and until the next pass's."""
    array = Array(lanes=lanes, residual=operands)
    start = SUMS - OutputPath(array).lead()    # from a pass's last step
    for log2_groups in range(array.groups_max.bit_length()):
        least = pass_cycles(array, log2_groups=log2_groups, signed_in=False, residual=residual)
        assert least >= WRITTEN
        assert 1 - least + WRITTEN <= start + 1
        assert start + 3 < 1 + WRITTEN
