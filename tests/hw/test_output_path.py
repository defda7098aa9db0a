# amaranth: UnusedElaboratable=no
"""The machine's output path against a pure function: passes back to back, what they leave
in main memory and when."""

import random
from itertools import product

import numpy as np
import pytest
from harness import cells

from blocks.models.arithmetic import align_residual
from blocks.models.output import Output, Pass, Row
from blocks.players import verilog_of
from blocks.vectors import pack
from blocks.verilated_block import Block
from celosia_boards.families.ice40 import ICE40, ULTRA_PLUS_FABRIC
from celosia_hw.output.operand import Align
from celosia_hw.output.path import OUTPUT_PATHS
from celosia_spec.isa.array import ENTRY_WORDS, Array
from celosia_spec.isa.controls import LAYER, head_words
from celosia_spec.isa.fabric import GENERIC
from celosia_spec.isa.heads import pack as pack_head
from celosia_spec.isa.numbers import EXPONENT_MIN, UNIT_MARGIN
from celosia_spec.isa.passes import code_weight, pass_cycles, row_cycles

ARRAYS = {
    "16-one": Array(residual=False, main_words=1024, drain=1),
    "16-one-residual": Array(main_words=1024, drain=1),
    "16-one-clamp": Array(residual=False, main_words=1024, drain=1, clamp=True, acc_bits=32),
    "16-one-narrow": Array(main_words=1024, drain=1, weight_bits=6, activation_bits=5),
    "16": Array(residual=False, main_words=1024),
    "16-residual": Array(main_words=2048),
    "8-clamp": Array(lanes=8, main_words=1024, clamp=True, activation_bits=7),
    "8": Array(residual=False, main_words=64, lanes=8, acc_bits=32, activation_bits=9),
    "16-acc32": Array(residual=False, main_words=4096, acc_bits=32, activation_bits=4, controls=64),
}
PACKED = "16-one"
"""Is built as for the UP5K, of whose cells the pool has some."""

PORTS = {"clear": "exponents__closed", "written": "shadow__written"} | {
    name: f"control__passes__{name}" for name in ("start", "heads", "fresh", "begins", "ends")}
"""Ports of what goes on from cycle to cycle."""


class Bench:
    """Plays layers on a block, and on the model."""

    def __init__(self, array, block, seed):
        self.array, self.block, self.rng = array, block, random.Random(seed)
        self.path = OUTPUT_PATHS[array.drain](array)
        self.memory = np.array([self.rng.randrange(1 << 16)
                                for _ in range(array.main_words * ENTRY_WORDS)])
        self.ring = [self.rng.randrange(1 << 16) for _ in range(array.controls)]
        self.cycle, self.ring_at, self.asked = 0, 0, None
        self.loads, self.shadow, self.written = {}, [], {}

    def tick(self, **inputs):
        """Let a cycle pass with these inputs; those that are not named are random."""
        block, rng = self.block, self.rng
        if self.cycle in self.loads:
            assert not self.shadow, "sums are lost"
            self.shadow = self.loads.pop(self.cycle)
        drain = self.array.drain
        lanes = self.shadow[:drain] or [rng.getrandbits(self.array.acc_bits) for _ in range(drain)]
        for name, value in inputs.items():
            block.set(PORTS[name], value)
        block.set("shadow__sums", pack(lanes, self.array.acc_bits))
        block.set("control__heads__word",
                  self.ring[self.asked] if self.asked is not None else rng.getrandbits(16))
        block.settle()
        read, address = (block.get(f"control__heads__{name}") for name in ("read", "address"))
        self.asked = address if read else None
        if block.get("shadow__shift"):
            assert self.shadow
            self.shadow = self.shadow[drain:]
        self._access()
        block.tick()
        self.cycle += 1

    def _access(self):
        request, word, enables, data = (self.block.get(f"write__{name}") for name in (
            "request", "address", "enable", "data"))
        if not request:
            return
        if self.array.drain == 1:
            data |= data << 32
        assert enables
        for k in range(ENTRY_WORDS):
            if enables >> k & 1:
                element = word * ENTRY_WORDS + k
                assert element not in self.written, "written twice"
                self.written[element] = self.cycle
                self.memory[element] = data >> 16 * k & 0xffff

    def layer(self):
        """Play a layer of some batches, tiles and phases."""
        array, rng, block = self.array, self.rng, self.block
        layer = self._layer()
        wide = layer["wide"]
        exponent, other = rng.randint(-16, 15), rng.randint(-16, 15)
        words = array.main_words
        model = Output(array, layer, exponent, other, rng.randrange(words) << wide,
                       self.memory.copy())
        block.set("layer", self._bits(LAYER, layer))
        block.set("exponents__input", exponent - EXPONENT_MIN)
        block.set("exponents__residual", other - EXPONENT_MIN)
        block.set("control__position", model.position)
        self.tick(clear=1, start=0)
        self.tick(clear=0)
        self.written, self.expected = {}, []
        self.lead = self.path.lead()
        self.kind = {name: layer[name] for name in ("log2_groups", "signed_in", "wide", "residual")}
        self.step = row_cycles(array, **self.kind)
        self._batches(model, words)
        for _ in range(100):
            self.tick()
            if not block.get("state__busy"):
                break
        self._check(model)

    def _layer(self):
        """Return fields of a layer."""
        array, rng = self.array, self.rng
        signed_out, wide = rng.randrange(2), int(rng.random() < 0.2)
        residual = int(array.residual and rng.random() < 0.7)
        return {
            "log2_groups": rng.randrange(array.groups_max.bit_length()),
            "signed_in": rng.randrange(2), "signed_out": signed_out,
            "relu": rng.randrange(2) if signed_out or wide else 1, "wide": wide,
            "residual": residual, "residual_signed": residual * rng.randrange(2),
            "clamp": int(array.clamp and not wide and rng.random() < 0.5),
            "bound": (rng.getrandbits(16) | 1 << 11) & ~(signed_out << 10)}

    def _bits(self, record, fields):
        """Return the words of a record side by side."""
        bits, width = 0, 0
        for word, value in zip(record.words, record.pack(**fields), strict=True):
            bits, width = bits | value << width, width + word.bits
        return bits

    def _batches(self, model, words):
        """Play batches whose rows take places of their own in so many words."""
        array, rng, layer, block = self.array, self.rng, model.layer, self.block
        groups, size = 1 << layer["log2_groups"], array.positions(layer["log2_groups"])
        masks = [self._mask(size) for _ in range(rng.choice([1, 2, 3, 5]))]
        length = (1 + layer["wide"]) * size * len(masks) // ENTRY_WORDS + 4
        channels = [length * k for k in range(words // length)]
        rng.shuffle(channels)
        start = model.position
        phases = (2 if layer["residual"] else 1 if layer["wide"] else rng.choice([1, 1, 4, 9]))
        weight = code_weight(signed_out=bool(layer["signed_out"]))
        scale = rng.randrange(array.acc_bits - 4)
        for _ in range(min(rng.randint(1, 4), len(channels) // groups)):
            rows = [self._row(channels.pop(), model.exponent, layer) for _ in range(groups)]
            heads = self._heads(rows, layer["signed_in"])
            if rng.random() < 0.5:                          # another band
                while not block.get("state__placed"):
                    self.tick(start=0)
                model.position = start + rng.randrange(8) * (1 + layer["wide"])
                block.set("control__position", model.position)
            for tile, mask in enumerate(masks):
                for phase in range(phases):
                    limits = [(1 << array.acc_bits - 2) - 1 >> min(scale + rng.randrange(4), 30)
                              for _ in range(array.lanes)]
                    self._pass(model, heads, Pass(
                        rows=rows, written=mask, first=phase == 0, final=phase == phases - 1,
                        fresh=tile == phase == 0,
                        sums=[rng.getrandbits(array.activation_bits) * weight
                              if layer["residual"] and not phase else
                              rng.randint(-limit, limit) + rows[lane // size].excess
                              for lane, limit in enumerate(limits)]))

    def _check(self, model):
        """Compare main memory, and when it was written."""
        layer = model.layer
        assert not self.block.get("state__busy")
        wrong = np.flatnonzero(self.memory != model.memory)
        assert not len(wrong), (layer, [(int(k), hex(self.memory[k]), hex(model.memory[k]))
                                        for k in wrong[:5]])
        assert self.block.get("state__top") + EXPONENT_MIN == model.top
        assert self.written.keys() == {element for element, _, _ in self.expected}
        for element, beat, last in self.expected:
            latency = self.path.latency
            if self.array.drain == 1:
                latency = 2 if layer["wide"] else latency
            assert beat + latency <= self.written[element] <= last + latency + 2

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
        least, left = -(array.acc_bits + UNIT_MARGIN), unit + array.acc_bits - 17
        most = (1 << min(array.acc_bits - array.activation_bits - 1,
                         15 if array.acc_bits == 24 else 31)) - 1
        sb = (rng.randint(-64, min(63, left)) if rng.random() < 0.3 else
              rng.randint(max(-64, left - 20), min(63, left)))
        bias = (1 << min(15, array.acc_bits - 3 - sb + unit)) - 1      # aligned below 2^(W - 3)
        return Row(
            sw=rng.randint(max(-32, least - unit), min(31, least + 127 - unit)),
            sb=sb, real=rng.random() < 0.85, bias=rng.randint(-bias, bias), word=word,
            element=rng.randrange(0, ENTRY_WORDS, 1 + layer["wide"]),
            excess=(rng.randint(-most, most) << array.activation_bits - 1) * signed)

    def _heads(self, rows, signed):
        """Put heads into the ring, behind those before them; return where."""
        at = begin = (self.ring_at + self.rng.randrange(4)) % len(self.ring)
        for row in rows:
            words = pack_head(self.array, signed_in=bool(signed), sw=row.sw, sb=row.sb,
                              sums=row.excess >> self.array.activation_bits - 1, real=row.real,
                              bias=row.bias, word=row.word, element=row.element)
            assert len(words) == head_words(self.array, signed_in=bool(signed))
            for word in words:
                self.ring[at % len(self.ring)] = word
                at += 1
        self.ring_at = at
        return begin

    def _pass(self, model, heads, one):
        """Play a pass, with or without cycles behind it; say what it writes, and by when."""
        rng, size = self.rng, len(one.written)
        single = model.layer["wide"] or model.layer["residual"] or self.array.drain == 1
        beats = size if single else size // 2
        for r, places in enumerate(model.drain(one)):
            row = self.cycle + self.lead + r * self.step
            self.expected += [(element, row + lane % size * beats // size, row + beats - 1)
                              for lane, element in places]
        self.loads[self.cycle + self.lead] = list(one.sums)
        self.tick(start=1, heads=heads)
        flags = {"fresh": int(one.fresh), "begins": int(one.first), "ends": int(one.final),
                 "written": pack(one.written * len(one.rows), 1)}
        held = 15 + self.array.residual if self.array.drain == 1 else 4
        least = pass_cycles(self.array, **self.kind)
        for k in range(1, least + rng.choice([0, 0, 0, 1, 2, 7])):
            self.tick(start=0, heads=rng.randrange(self.array.controls), **(
                flags if k < held else {"written": rng.getrandbits(self.array.lanes)}))


@pytest.mark.parametrize("name", ARRAYS)
def test_layers(name):
    array, fabric = ARRAYS[name], ULTRA_PLUS_FABRIC if name == PACKED else GENERIC
    path = OUTPUT_PATHS[array.drain](array, fabric)
    with Block(verilog_of(path), [cells.models(ICE40)]) as block:
        bench = Bench(array, block, name)
        for _ in range(50):
            bench.layer()


@pytest.mark.parametrize(("bits", "acc_bits"), [(4, 24), (8, 24), (9, 32)])
def test_operands_are_aligned(bits, acc_bits):
    """Every mantissa, every distance."""
    with Block(verilog_of(Align(bits, acc_bits))) as block:
        for signed, shift in product((0, 1), range(-70, 70)):
            block.set("signed", signed)
            block.set("shift", shift & 255)
            for strobe in (1, 0):
                block.set("right", strobe)
                block.set("left", strobe)
                block.tick()
            codes = np.arange(signed, 1 << bits)
            got = block.stream({"code": np.append(codes, [0] * Align.LATENCY)}, ["aligned"])
            wanted = [align_residual(int(m), shift, acc_bits) for m in codes - (signed << bits - 1)]
            assert [int(a) for a in got["aligned"][Align.LATENCY:]] == [
                a & (1 << acc_bits - 2) - 1 for a in wanted]
