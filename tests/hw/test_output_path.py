# amaranth: UnusedElaboratable=no
"""The second machine's output path against a pure function: passes back to back, what they leave
in main memory and when."""

import random

import numpy as np
import pytest

from blocks.models.output import Output, Pass, Row
from blocks.players import verilog_of
from blocks.vectors import pack
from blocks.verilated_block import Block
from celosia_hw.output.path import OutputPath
from celosia_spec.isa import EXPONENT_MIN, UNIT_MARGIN
from celosia_spec.stream.array import ENTRY_WORDS, Array
from celosia_spec.stream.controls import EXCESS, HEAD, LAYER, head_words
from celosia_spec.stream.passes import row_cycles

ARRAYS = {
    "16": Array(residual=False, main_words=1024),
    "8": Array(residual=False, main_words=64, lanes=8, acc_bits=32, activation_bits=9),
    "16-acc32": Array(residual=False, main_words=4096, acc_bits=32, activation_bits=4, controls=64),
}


class Bench:
    """Plays layers on a block, and on the model."""

    def __init__(self, array, block, seed):
        self.array, self.block, self.rng = array, block, random.Random(seed)
        self.path = OutputPath(array)
        self.memory = np.array([self.rng.randrange(1 << 16)
                                for _ in range(array.main_words * ENTRY_WORDS)])
        self.ring = [self.rng.randrange(1 << 16) for _ in range(array.controls)]
        self.cycle, self.ring_at, self.asked = 0, 0, None
        self.loads, self.shadow, self.sums_written = {}, [], {}

    def tick(self, **inputs):
        """Let a cycle pass with these inputs; those that are not named are random."""
        block, rng = self.block, self.rng
        if self.cycle in self.loads:
            assert not self.shadow, "sums are lost"
            self.shadow = self.loads.pop(self.cycle)
        lanes = self.shadow[:2] or [rng.getrandbits(self.array.acc_bits) for _ in range(2)]
        for name, value in inputs.items():
            block.set(name, value)
        block.set("sums", pack(lanes, self.array.acc_bits))
        block.set("word", self.ring[self.asked] if self.asked is not None else rng.getrandbits(16))
        block.settle()
        self.asked = block.get("address") if block.get("read") else None
        if block.get("shift"):
            assert self.shadow
            self.shadow = self.shadow[2:]
        self._access()
        block.tick()
        self.cycle += 1

    def _access(self):
        if not self.block.get("request"):
            return
        word, enables = self.block.get("place"), self.block.get("enables")
        data = self.block.get("data")
        assert enables
        for k in range(ENTRY_WORDS):
            if enables >> k & 1:
                element = word * ENTRY_WORDS + k
                assert element not in self.sums_written, "written twice"
                self.sums_written[element] = self.cycle
                self.memory[element] = data >> 16 * k & 0xffff

    def layer(self):
        """A layer of some batches, tiles and phases."""
        array, rng, block = self.array, self.rng, self.block
        log2_groups = rng.randrange(array.groups_max.bit_length())
        signed_out, wide = rng.randrange(2), int(rng.random() < 0.2)
        layer = {
            "log2_groups": log2_groups, "signed_in": rng.randrange(2), "signed_out": signed_out,
            "relu": rng.randrange(2) if signed_out or wide else 1, "wide": wide,
            "residual": 0, "residual_signed": rng.randrange(2),
            "residual_from": rng.getrandbits(16), "clamp": 0, "bound": rng.getrandbits(15)}
        exponent = rng.randint(-16, 15)
        phases = 1 if wide else rng.choice([1, 1, 4, 9])
        position = rng.randrange(array.main_words) << wide
        model = Output(array, layer, exponent, 0, position, self.memory.copy())
        bits, width = 0, 0
        for word, value in zip(LAYER.words, LAYER.pack(**layer), strict=True):
            bits, width = bits | value << width, width + word.bits
        block.set("layer", bits)
        block.set("exponent", exponent - EXPONENT_MIN)
        block.set("position", position)
        self.tick(clear=1, start=0)
        self.tick(clear=0)
        self.sums_written, expected = {}, []
        # Rows take places of their own.
        size, tiles = array.positions(log2_groups), rng.choice([1, 2, 3, 5])
        length = (1 + wide) * size * tiles // ENTRY_WORDS + 2
        most = array.main_words // length >> log2_groups
        batches = rng.randint(1, max(1, min(4, most)))
        if most < 1:
            return
        channels = list(range(array.main_words // length))
        rng.shuffle(channels)
        masks = [self._mask(size) for _ in range(tiles)]
        step = row_cycles(array, log2_groups=log2_groups, signed_in=bool(layer["signed_in"]),
                          wide=bool(wide))
        scale = rng.randrange(array.acc_bits - 4)
        for _ in range(batches):
            rows = [self._row(channels.pop() * length, exponent, layer)
                    for _ in range(1 << log2_groups)]
            heads = self._heads(rows, layer["signed_in"])
            for tile, mask in enumerate(masks):
                for phase in range(phases):
                    true = [rng.randint(-limit, limit) for limit in
                            [((1 << array.acc_bits - 2) - 1) >> min(scale + rng.randrange(4), 30)
                             for _ in range(array.lanes)]]
                    one = Pass(
                        rows=rows, written=mask, first=phase == 0, final=phase == phases - 1,
                        fresh=tile == phase == 0,
                        sums=[a + rows[lane // size].excess for lane, a in enumerate(true)])
                    start = self.cycle
                    written = model.drain(one)
                    for r, places in enumerate(written):
                        row = start + self.path.LEAD + r * step
                        for lane, element in places:
                            inside = lane % size
                            expected.append((element, row + (inside if wide else inside // 2),
                                             row + (size if wide else size // 2) - 1))
                    self._pass(one, heads, step)
        for _ in range(100):
            self.tick()
            if not block.get("busy"):
                break
        assert not block.get("busy")
        wrong = np.flatnonzero(self.memory != model.memory)
        assert not len(wrong), (layer, [(int(k), hex(self.memory[k]), hex(model.memory[k]))
                                        for k in wrong[:5]])
        assert block.get("top") + EXPONENT_MIN == model.top
        assert self.sums_written.keys() == {element for element, _, _ in expected}
        for element, beat, last in expected:
            assert (beat + self.path.LATENCY <= self.sums_written[element]
                    <= last + self.path.LATENCY + 2)

    def _mask(self, size):
        rng = self.rng
        kind = rng.randrange(4)
        if kind == 0:
            return [True] * size
        if kind == 1:
            count = rng.randint(1, size)
            return [k < count for k in range(size)]
        return [rng.random() < (0.5 if kind == 2 else 0.85) for _ in range(size)]

    def _row(self, word, exponent, layer):
        rng, array, signed = self.rng, self.array, layer["signed_in"]
        unit = exponent - (array.activation_bits - 1) + signed
        least = -(array.acc_bits + UNIT_MARGIN)
        return Row(
            sw=rng.randint(max(-32, least - unit), min(31, least + 127 - unit)),
            sb=rng.randint(-64, min(63, unit + array.acc_bits - 17)) if rng.random() < 0.3 else
            rng.randint(max(-64, unit - 20), min(63, unit + array.acc_bits - 17)),
            real=rng.random() < 0.85, bias=rng.randint(-32767, 32767), word=word,
            element=rng.randrange(0, ENTRY_WORDS, 1 + layer["wide"]),
            excess=rng.randint(-(1 << array.acc_bits - 2), 1 << array.acc_bits - 2) * signed)

    def _heads(self, rows, signed):
        """Put heads into the ring, behind those before them; return where."""
        at = begin = (self.ring_at + self.rng.randrange(4)) % len(self.ring)
        for row in rows:
            words = HEAD.pack(sw=row.sw, sb=row.sb, real=row.real, bias=row.bias, word=row.word,
                              element=row.element)
            if signed:
                words += EXCESS.pack(low=row.excess & 0xffff, high=row.excess >> 16)
            assert len(words) == head_words(signed_in=bool(signed))
            for word in words:
                self.ring[at % len(self.ring)] = word
                at += 1
        self.ring_at = at
        return begin

    def _pass(self, one, heads, step):
        self.loads[self.cycle + self.path.LEAD] = list(one.sums)
        cycles = step * len(one.rows) + self.rng.choice([0, 0, 0, 1, 2, 7])
        self.tick(start=1, heads=heads)
        flags = {"fresh": int(one.fresh), "begins": int(one.first), "ends": int(one.final),
                 "written": pack(one.written * len(one.rows), 1)}
        for k in range(1, cycles):
            self.tick(start=0, heads=self.rng.randrange(self.array.controls),
                      **(flags if k < 4 else {"written": self.rng.getrandbits(self.array.lanes)}))


@pytest.mark.parametrize("name", ARRAYS)
def test_layers(name):
    array = ARRAYS[name]
    with Block(verilog_of(OutputPath(array))) as block:
        bench = Bench(array, block, name)
        for _ in range(60):
            bench.layer()
