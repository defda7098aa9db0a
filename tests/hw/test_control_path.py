# amaranth: UnusedElaboratable=no
"""The second machine's control path against a pure function of the stream: all that it makes
happen, in whatever cycles grants, fills and the output path leave it."""

import random
from collections import deque
from dataclasses import replace

import pytest
from amaranth.hdl import Module, Signal
from amaranth.lib.wiring import Component, In, connect, flipped
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from blocks.models.stream import Exponents, events
from blocks.players import verilog_of
from blocks.verilated_block import Block
from celosia.bands.program import stream_program
from celosia_hw.lanes.reading import STEP
from celosia_hw.output.path import OutputPath
from celosia_hw.parts.table_memory import TableMemory
from celosia_hw.stream.control_path import ControlPath
from celosia_hw.stream.sequencer import PASS
from celosia_spec.errors import CompileError
from celosia_spec.stream.array import ENTRY_WORDS, RING_GAP, Array
from celosia_spec.stream.controls import (
    BATCH,
    CHUNK,
    COMMAND,
    COPIES,
    FILL,
    LAYER,
    RECORDS,
    Op,
    head_words,
)
from celosia_spec.stream.passes import RESIDUAL_AHEAD, pass_cycles, row_cycles
from celosia_spec.stream.timing import MANTISSA, SUMS, WRITTEN
from stream.networks import graphs

LATE = MANTISSA
LANES = 3       # cycles from the begin of a pass's output to the use of its tile's lanes
USED = 14       # cycles from the begin of a pass's output to the use of its position
NOTHING = COMMAND.pack(command=1, op=Op.WAIT, argument=0)

ARRAYS = {"16": Array(flash=4),
          "8": Array(lanes=8, main_words=4096, residual=False, ring=64, controls=64)}


def split(value, names, widths):
    found = {}
    for name, width in zip(names, widths, strict=True):
        found[name], value = value & (1 << width) - 1, value >> width
    return found


def lag(array):
    """Return the cycles from a pass's last step to the begin of its output."""
    return SUMS - OutputPath(array).lead()


def flags(layout, value):
    return split(value, layout.members, [1] * len(layout.members))


class Writer:
    """A random stream."""

    def __init__(self, array, rng, *, calm=False):
        self.array, self.rng, self.calm = array, rng, calm
        self.memory, self.chunks = [rng.getrandbits(64) for _ in range(array.main_words)], []
        self.copied = []        # chunks whose entries are copied from flash
        self.at = rng.randrange(50)

    def read(self, chunk, *, copied=False):
        first, count = chunk
        if copied:
            self.copied.append((len(self.chunks), range(first, first + count)))
        while count > 3 and self.rng.random() < 0.3:            # two chunks may be neighbours
            part = self.rng.randrange(1, count)
            self.chunks.append((first, part))
            first, count = first + part, count - part
        self.chunks.append((first, count))

    def add(self, entries):
        first = self.at
        assert first + len(entries) < len(self.memory)
        self.memory[first:first + len(entries)] = entries
        self.at += len(entries) + self.rng.choice([0, 0, 3])
        return first, len(entries)

    def entries(self, words):
        words = words + [NOTHING] * (-len(words) % ENTRY_WORDS)
        return [sum(word << 16 * k for k, word in enumerate(words[at:at + ENTRY_WORDS]))
                for at in range(0, len(words), ENTRY_WORDS)]

    def command(self, op, words=(), **fields):
        own = [*(RECORDS[op].pack(**fields) if op in RECORDS else []), *words]
        return [COMMAND.pack(command=1, op=op, argument=len(own)), *own]

    def noise(self, count):
        return [self.rng.getrandbits(16) for _ in range(count)]

    def fill(self):
        words = self.noise(len(FILL.words))
        return [COMMAND.pack(command=1, op=Op.FILL, argument=len(words)), *words]

    def wait(self):
        return [COMMAND.pack(command=1, op=Op.WAIT, argument=self.rng.randrange(40))]

    def batch(self, layer, steps, dense, joins=0, more=0):
        groups = 1 << layer["log2_groups"]
        words = [BATCH.pack(steps=steps, dense=dense, joins=joins, open=more)]
        if not joins:
            words += self.noise(groups * head_words(signed_in=bool(layer["signed_in"])))
        count = -(-steps * groups // (ENTRY_WORDS << dense))
        return self.entries(words) + [self.rng.getrandbits(64) for _ in range(count)]

    def layer(self):
        rng, array = self.rng, self.array
        layer = {
            "log2_groups": rng.randrange(array.groups_max.bit_length()),
            "signed_in": rng.randrange(2),
            "wide": int(rng.random() < 0.1), "residual": int(array.residual and rng.random() < 0.2),
            "in_slot": rng.randrange(32), "residual_slot": rng.randrange(32),
            "rows": rng.randrange(array.bank_rows), "tap_step": rng.randrange(array.taps),
            "residual_from": rng.getrandbits(16), "bound": rng.getrandbits(16),
            "last_phase": 0 if self.calm else rng.choice([0, 0, 1, 3])}
        words = []
        for op, depth in ((Op.TAPS, array.taps), (Op.TILES, array.tiles)):
            if rng.random() < 0.7:
                count = rng.choice([1, 3, rng.randrange(1, 30)])
                words += self.command(op, self.noise(count), place=rng.randrange(depth - count))
        for _ in range(rng.choice([0, 0, 1, 3])):
            words += self.close(Op.JOIN, first=rng.randrange(32), second=rng.randrange(32))
        words += self.command(Op.LAYER, **layer) + self.fill()
        self.read(self.add(self.entries(words)))
        self.bands(layer)
        self.read(self.add(self.entries(self.close(Op.CLOSE))))

    def close(self, op, **slots):
        least = self.rng.randint(-16, 15)
        return self.command(op, slot=self.rng.randrange(32), least=least,
                            most=self.rng.randint(least, 15), **slots)

    def bands(self, layer):
        rng, array = self.rng, self.array
        parts = not self.calm and rng.random() < 0.3 and not layer["last_phase"]
        batches = []
        for _ in range(rng.randrange(1, 4)):
            dense = int(not self.calm and rng.random() < 0.3)
            most = (array.ring - RING_GAP) * (ENTRY_WORDS << dense) >> layer["log2_groups"]
            sizes = [rng.choice([1, 2, rng.randrange(1, 60), rng.randrange(1, 60), most])
                     for _ in range(1 + parts * rng.randrange(3))]
            if self.calm:
                sizes = [rng.randrange(most // 8, most // 4)]
            last = len(sizes) - 1
            batches += [self.add(self.batch(layer, size, dense, int(k > 0), int(k < last)))
                        for k, size in enumerate(sizes)]
        copied = [chunk for chunk in batches
                  if array.flash and not self.calm and rng.random() < 0.5][:COPIES]
        for _ in range(1 if self.calm else rng.randrange(1, 4)):
            tiles = 1 if parts else rng.choice([3, 4, 5] if self.calm else [1, 1, 2, 5])
            words = self.command(Op.BAND, row=rng.randrange(array.bank_rows),
                                 tile=rng.randrange(array.tiles), last_tile=tiles - 1,
                                 position=rng.getrandbits(16))
            for _ in copied:
                words += self.command(Op.COPY, unit=rng.getrandbits(16))
            if not self.calm:
                words += rng.choice([[], self.wait()])
                for _ in range(rng.choice([0, 0, 1, 5])):
                    words += self.fill()
            self.read(self.add(self.entries(words)))
            for chunk in batches:
                self.read(chunk, copied=chunk in copied)
            copied = []

    def done(self):
        """Write the list of chunks; return memory, chunks, and the list's place."""
        self.read(self.add(self.entries(self.command(Op.HALT))))
        copied = [chunk for chunk, _ in self.copied]
        words = [CHUNK.pack(first=first, last=first + count - 1, copied=int(k in copied),
                            final=int(k == len(self.chunks) - 1))
                 for k, (first, count) in enumerate(self.chunks)]
        place, _ = self.add([word | self.rng.getrandbits(20) << 40 for word in words])
        return self.memory, self.chunks, place


class WithSlots(Component):
    """The control path with a memory for its exponents, of which nothing is read, and into which
    nothing is written, while passes are inside the output path."""

    def __init__(self, array):
        self.control = ControlPath(array, LATE, lag(array))
        super().__init__({name: member for name, member in self.control.signature.members.items()
                          if name not in ("slot", "keep", "kept", "held")})

    def elaborate(self, platform):
        m = Module()
        m.submodules.control = control = self.control
        m.submodules.slots = slots = TableMemory(32, 5)
        noise = Signal()
        m.d.sync += noise.eq(self.draining)
        m.d.comb += [
            slots.read.en.eq(1), slots.read.addr.eq(control.slot),
            slots.write.addr.eq(control.slot), slots.write.data.eq(control.kept),
            slots.write.en.eq(control.keep & ~self.draining),
            control.held.eq(slots.read.data ^ noise.replicate(5))]
        for name, member in self.signature.members.items():
            inside, outside = getattr(control, name), getattr(self, name)
            if member.is_signature:
                connect(m, inside, flipped(outside))
            elif member.flow is In:
                m.d.comb += inside.eq(outside)
            else:
                m.d.comb += outside.eq(inside)
        return m


class Bench:
    """Main memory, fills and the output path around the block; compares all that it does."""

    def __init__(self, array, block, memory, chunks, place, seed, *, grants, copied=()):
        self.array, self.block, self.memory = array, block, memory
        self.rng, self.grants = random.Random(seed), grants
        self.list = place
        self.wanted = events(array, memory, chunks)
        self.sections = [(entries, [memory[k] for k in entries]) for _, entries in copied]
        for k in (k for entries, _ in self.sections for k in entries):
            memory[k] = self.rng.getrandbits(64)
        self.copying = 0
        self.found = dict.fromkeys(self.wanted.before(), 0)
        self.record, self.fills, self.fill_done = [], deque(), 0
        self.data, self.asked, self.cycle = 0, None, 0
        self.mantissa_of, self.flags_of, self.tile, self.loads = {}, {}, 0, 0
        self.index, self.lasts, self.captured = 0, [], deque()
        self.reads, self.ends, self.uses = {}, 0, {}
        self.patience = self.rng.choice([0, 0.02, 0.2])
        self.granting = 1.0
        self.slots = Exponents([self.rng.randrange(32) for _ in range(32)])
        self.top, self.announced = 0, 0
        self.opened, self.tiled = None, 0

    def run(self):
        block = self.block
        block.set("host_write", 1)
        for slot, exponent in enumerate(self.slots.exponents):
            block.set("host_slot", slot)
            block.set("host_exponent", exponent)
            block.tick()
        block.set("host_write", 0)
        block.set("start", 1)
        block.set("list", self.list)
        self.tick()
        block.set("start", 0)
        while block.get("busy") or self.cycle < 5:
            self.tick()
            assert self.cycle < 200_000
        for _ in range(LATE + 4):
            self.tick()
        assert self.found == self.wanted.before()
        assert not self.record and not self.captured and not self.sections
        for slot in range(32):
            block.set("host_slot", slot)
            self.tick()
            assert block.get("stored") == self.slots.exponents[slot], slot
        return self.lasts

    def tick(self):
        block, rng = self.block, self.rng
        if rng.random() < 0.01:
            self.granting = rng.choice(self.grants)
        block.set("memory__grant", 0)
        block.set("data", self.data if self.data is not None else rng.getrandbits(64))
        block.set("top", self.top)
        block.set("room", len(self.fills) < 3)
        block.set("filling", bool(self.fills))
        self.copy()
        block.settle()
        self.step()
        word = self.output()
        block.set("draining", self.cycle <= self.ends)
        block.set("placed", not self.uses)
        block.settle()
        self.data = None
        if block.get("memory__request") and rng.random() < self.granting:
            block.set("memory__grant", 1)
            self.data = self.memory[block.get("memory__address")]
            block.settle()
        self.observe(word)
        block.tick()
        self.cycle += 1

    def copy(self):
        """Copy a section of flash."""
        done = self.copying == 1
        self.copying = max(0, self.copying - 1)
        self.block.set("copied", done)
        self.block.set("copying", self.copying > 0)
        if done:
            for k, entry in zip(*self.sections.pop(0), strict=True):
                self.memory[k] = entry

    def output(self):
        """Begin passes, read heads and use positions in their cycles; return the word that was
        asked for."""
        block, word = self.block, None
        if self.asked is not None:
            word, self.asked = self.asked, None
        start = block.get("output")
        assert start >= (bool(self.captured) and self.captured[0][0] == self.cycle)
        if start:
            if self.captured:
                due, one, layer, band, tiled = self.captured.popleft()
                assert due == self.cycle
            else:
                one, before = self.wanted.passes[self.found["passes"]]
                layer = self.wanted.layers[before["layers"] - 1][0]
                band = self.wanted.bands[before["bands"] - 1][0]
                assert layer["residual"] and one.captured
                self.announced, tiled = self.cycle, self.tiled
            assert tiled + WRITTEN <= self.cycle + LANES
            heads = block.get("heads")
            size = head_words(signed_in=bool(layer["signed_in"]))
            apart = self.apart(layer)
            self.flags_of |= dict.fromkeys(
                range(self.cycle, self.cycle + (8 if layer["residual"] else 4)), one)
            for k, head in enumerate(one.heads):
                row, place = divmod(k, size)
                self.reads[self.cycle + 1 + row * apart + place] = (
                    (heads + k) % self.array.controls, head)
            if one.first:
                self.uses[self.cycle + USED] = band["position"]
            took = (apart << layer["log2_groups"]) + USED + self.rng.choice([0, 0, 30])
            self.ends = max(self.ends, self.cycle + took)
        if one := self.flags_of.pop(self.cycle, None):
            assert self.drained() == {"fresh": one.first, "begins": one.begins, "ends": one.ends}
        if self.cycle in self.uses:
            assert block.get("position") == self.uses.pop(self.cycle)
        read = self.reads.pop(self.cycle, None)
        block.set("read", read is not None)
        block.set("address", read[0] if read else self.rng.randrange(self.array.controls))
        self.asked = read[1] if read else None
        return word

    def drained(self):
        return flags(PASS, self.block.get("drained"))

    def apart(self, layer):
        return row_cycles(self.array, **self.kind(layer))

    def kind(self, layer):
        return {name: layer[name] for name in ("log2_groups", "signed_in", "wide", "residual")}

    def observe(self, head):
        block, wanted, found = self.block, self.wanted, self.found
        if head is not None:
            assert block.get("word") == head
        for strobe, name in (("tap", "taps"), ("tile_word", "tiles")):
            if block.get(strobe):
                place, word = getattr(wanted, name)[found[name]]
                assert (block.get("place"), block.get("word")) == (place, word)
                assert self.cycle > self.ends and not self.captured
                found[name] += 1
        if block.get("fill"):
            self.record.append(block.get("word"))
            if len(self.record) == len(FILL.words):
                assert self.record == wanted.fills[found["fills"]]
                found["fills"] += 1
                self.record = []
                self.fills.append(0)
        if block.get("copy"):
            assert not self.copying
            assert block.get("word") == wanted.copies[found["copies"]]
            found["copies"] += 1
            self.copying = self.rng.choice([2, 20, 300])
        if self.fills and self.rng.random() < 0.03 + self.patience:
            self.fills.popleft()
            self.fill_done += 1
        if block.get("closed"):
            assert self.cycle > self.ends and not self.captured
            op, fields = wanted.closes[found["closes"]]
            self.slots.close(op, fields, self.top)
            self.top = self.rng.randrange(32)
            found["closes"] += 1

    def step(self):
        block, wanted, found = self.block, self.wanted, self.found
        if self.cycle in self.mantissa_of:
            assert block.get("mantissas") == self.mantissa_of.pop(self.cycle)
        step = flags(STEP, block.get("step"))
        strobes = {name: block.get(name) for name in ("begins", "phase")}
        if any(strobes.values()):
            assert self.index == 0 and self.opened is None
            self.opened, self.tiled = strobes | {"again": block.get("again")}, self.cycle
        if block.get("load"):
            self.loads += 1
            row, tile = (wanted.bands[self.loads - 1][0][name] for name in ("row", "tile"))
            assert (block.get("row"), block.get("tile")) == (row, tile)
            assert self.index == 0
        if not step.pop("valid"):
            assert not any(step.values())
            return
        one, before = wanted.passes[found["passes"]]
        first, last = self.index == 0, self.index == len(one.steps) - 1
        layer, band = wanted.layers[before["layers"] - 1][0], wanted.bands[before["bands"] - 1][0]
        starts = first and one.load
        assert step == {"first": starts, "last": last and one.captured}
        opened, self.opened = self.opened, None
        assert (opened is not None) == starts
        if starts:
            assert (opened["begins"], opened["phase"]) == (one.begins, not one.begins)
        if starts and one.begins:
            tiles = band["last_tile"] + 1
            self.tile = (self.tile + 1) % tiles if not one.first else 0
            assert opened["again"] == (self.tile == tiles - 1)
        assert block.get("steps") == self.quads(one.steps[self.index])
        self.mantissa_of[self.cycle + LATE] = self.quads(one.mantissas[self.index])
        self.index += 1
        if first:
            self.fields(layer, band, before)
        if last:
            self.index = 0
            found["passes"] += 1
            self.lasts.append(self.cycle)
            if one.captured and layer["residual"]:
                assert self.announced == self.cycle + lag(self.array) - RESIDUAL_AHEAD
            elif one.captured:
                self.captured.append((self.cycle + lag(self.array), one, layer, band,
                                      self.tiled))

    def quads(self, values):
        return sum(value << 8 * k for k, value in enumerate(values))

    def fields(self, layer, band, before):
        """The layer and the band are the pass's; all before it has happened."""
        block, found = self.block, self.found
        bits, low = 0, 0
        for word, value in zip(LAYER.words, LAYER.pack(**layer), strict=True):
            bits, low = bits | value << low, low + word.bits
        assert block.get("layer") == bits
        for name, slot in (("exponent", layer["in_slot"]), ("residual", layer["residual_slot"])):
            assert block.get(name) == self.slots.exponents[slot]
        assert self.loads == before["bands"]
        for name in ("row", "tile"):
            assert block.get(name) == band[name]
        for name in ("taps", "tiles", "closes"):
            assert found[name] == before[name], name
        fills = self.wanted.bands[before["bands"] - 1][1]["fills"]
        assert self.fill_done >= fills
        found["layers"], found["bands"] = before["layers"], before["bands"]


@pytest.fixture(scope="module", params=ARRAYS)
def bench(request):
    array = ARRAYS[request.param]
    with Block(verilog_of(WithSlots(array))) as block:
        yield array, block


@pytest.mark.parametrize("seed", range(12))
def test_random_streams(bench, seed):
    """Streams one after the other on one block, which goes on where it stands."""
    array, block = bench
    rng = random.Random(seed)
    writer = Writer(array, rng)
    for _ in range(rng.randrange(2, 5)):
        writer.layer()
    Bench(array, block, *writer.done(), seed, grants=[(0.1, 0.5, 1.0), (1.0,)][seed % 2],
          copied=writer.copied).run()


def test_no_bubbles(bench):
    """Where the port is free and no batch is short of tiles, passes of a band follow each other
    without a bubble, each as long as it has to be."""
    array, block = bench
    writer = Writer(array, random.Random(9), calm=True)
    for _ in range(10):
        writer.layer()
    one = Bench(array, block, *writer.done(), 9, grants=(1.0,))
    lasts = one.run()
    passes = one.wanted.passes
    checked = 0
    for k in range(1, len(passes)):
        (now, before), earlier = passes[k], passes[k - 1][1]
        if before["bands"] == earlier["bands"]:
            layer = one.wanted.layers[before["layers"] - 1][0]
            least = pass_cycles(array, **one.kind(layer))
            ahead = RESIDUAL_AHEAD if layer["residual"] and now.first else 0
            assert lasts[k] - lasts[k - 1] == max(least, len(now.steps) + ahead), k
            checked += 1
    assert checked > 30


def test_heads_are_given_up_when_they_have_been_read(bench):
    """Behind a band's only batch there are about as many words as the ring holds, so that those of
    the next batch find room when the heads of this one have gone."""
    array, block = bench
    writer = Writer(array, random.Random(4))
    layer = {name: 0 for word in LAYER.words for name in word.unpack(0)} | {"log2_groups": 1}
    writer.read(writer.add(writer.entries(writer.command(Op.LAYER, **layer))))
    batch = writer.add(writer.batch(layer, 100, 0))
    for words in range(array.controls - 48, array.controls, ENTRY_WORDS):
        writer.read(writer.add(writer.entries(writer.command(Op.BAND, last_tile=2))))
        writer.read(batch)
        writer.read(writer.add(writer.entries([NOTHING] * words)))
    writer.read(writer.add(writer.entries(writer.command(Op.CLOSE))))
    Bench(array, block, *writer.done(), 4, grants=(1.0,)).run()


def test_entries_are_kept_until_their_batch_ends(bench):
    """Behind a batch that fills the ring of weights, those of one entry each come one by one."""
    array, block = bench
    writer = Writer(array, random.Random(7))
    layer = {name: 0 for word in LAYER.words for name in word.unpack(0)}
    words = writer.command(Op.LAYER, **layer) + writer.command(Op.BAND, last_tile=4)
    writer.read(writer.add(writer.entries(words)))
    writer.read(writer.add(writer.batch(layer, ENTRY_WORDS * (array.ring - 2 * RING_GAP), 0)))
    for _ in range(3 * RING_GAP):
        writer.read(writer.add(writer.batch(layer, 1, 0)))
    writer.read(writer.add(writer.entries(writer.command(Op.CLOSE))))
    Bench(array, block, *writer.done(), 4, grants=(1.0,)).run()


@settings(max_examples=15, deadline=None, derandomize=True,
          suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.data())
def test_compiled_networks(bench, data):
    """Streams of random networks."""
    array, block = bench
    graph = data.draw(graphs())
    try:
        program = stream_program(graph, replace(array, activation_bits=graph.activation_bits,
                                                clamp=True))
    except CompileError:            # too large, or it adds and the array cannot
        reject()
    Bench(array, block, program.entries.tolist(), program.chunks.tolist(), program.list_at, 5,
          grants=(0.7, 1.0)).run()


def test_timing_is_that_of_the_paths():
    for residual in (False, True):
        array = Array(residual=residual)
        assert 0 <= lag(array) <= 3
    path = OutputPath(array)
    assert path.lead(residual=True) - path.lead() == RESIDUAL_AHEAD
