# amaranth: UnusedElaboratable=no
"""What stands around the machine's control path, main memory, fills, slots, output path: a
bench that compares all that a stream makes happen."""

import functools
import random
from collections import deque

from amaranth.hdl import Module, Signal
from amaranth.lib.wiring import Component, In, connect, flipped

from blocks.models.stream import Exponents, events
from celosia_hw.lanes.reading import STEP
from celosia_hw.output.path import OutputPath
from celosia_hw.parts.table_memory import TableMemory
from celosia_hw.stream.control_path import ControlPath
from celosia_spec.isa.array import Array
from celosia_spec.isa.controls import (
    FILL,
    LAYER,
)
from celosia_spec.isa.passes import head_reads, row_cycles
from celosia_spec.isa.timing import MANTISSA, SUMS, WRITTEN

LATE = MANTISSA
LANES = 3       # cycles from the begin of a pass's output to the use of its tile's lanes
USED = 14       # cycles from the begin of a pass's output to the use of its position

ARRAYS = {"16": Array(flash=4),
          "8": Array(lanes=8, main_words=4096, residual=False, ring=64, controls=64)}


def split(value, names, widths):
    found = {}
    for name, width in zip(names, widths, strict=True):
        found[name], value = value & (1 << width) - 1, value >> width
    return found


@functools.cache
def lag(array):
    """Return the cycles from a pass's last step to the begin of its output."""
    return SUMS - OutputPath(array).lead()


def flags(layout, value):
    return split(value, layout.members, [1] * len(layout.members))


class WithSlots(Component):
    """The control path with a memory for its exponents, of which nothing is read, and into which
    nothing is written, while passes are inside the output path."""

    def __init__(self, array):
        self.control = ControlPath(array, LATE, lag(array))
        members = [*self.control.signature.members.items(),
                   *self.control.output.signature.members.items()]
        super().__init__({name: member for name, member in members
                          if name not in ("output", "slots")})

    def elaborate(self, platform):
        m = Module()
        m.submodules.control = control = self.control
        own = control.output.slots
        m.submodules.slots = slots = TableMemory(32, 5)
        noise = Signal()
        m.d.sync += noise.eq(self.state.busy)
        m.d.comb += [
            slots.read.en.eq(1), slots.read.addr.eq(own.slot),
            slots.write.addr.eq(own.slot), slots.write.data.eq(own.kept),
            slots.write.en.eq(own.keep & ~self.state.busy),
            own.held.eq(slots.read.data ^ noise.replicate(5))]
        for name, member in self.signature.members.items():
            owner = control if name in control.signature.members else control.output
            inside, outside = getattr(owner, name), getattr(self, name)
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
        self.top = 0
        self.opened, self.tiled = None, 0

    def run(self):
        block = self.block
        block.set("host__write", 1)
        for slot, exponent in enumerate(self.slots.exponents):
            block.set("host__slot", slot)
            block.set("host__exponent", exponent)
            block.tick()
        block.set("host__write", 0)
        block.set("run__start", 1)
        block.set("run__list", self.list)
        self.tick()
        block.set("run__start", 0)
        while block.get("busy") or self.cycle < 5:
            self.tick()
            assert self.cycle < 200_000
        for _ in range(LATE + 4):
            self.tick()
        assert self.found == self.wanted.before()
        assert not self.record and not self.captured and not self.sections
        for slot in range(32):
            block.set("host__slot", slot)
            self.tick()
            assert block.get("stored") == self.slots.exponents[slot], slot
        return self.lasts

    def tick(self):
        block, rng = self.block, self.rng
        if rng.random() < 0.01:
            self.granting = rng.choice(self.grants)
        block.set("memory__grant", 0)
        block.set("data", self.data if self.data is not None else rng.getrandbits(64))
        block.set("state__top", self.top)
        block.set("fills__room", len(self.fills) < 3)
        block.set("fills__busy", bool(self.fills))
        self.copy()
        block.settle()
        self.step()
        word = self.output()
        block.set("state__busy", self.cycle <= self.ends)
        block.set("state__placed", not self.uses)
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
        self.block.set("copies__copying", self.copying > 0)
        if done:
            for k, entry in zip(*self.sections.pop(0), strict=True):
                self.memory[k] = entry

    def output(self):
        """Begin passes, read heads and use positions in their cycles; return the word that was
        asked for."""
        block, word = self.block, None
        if self.asked is not None:
            word, self.asked = self.asked, None
        start = block.get("passes__start")
        assert start >= (bool(self.captured) and self.captured[0][0] == self.cycle)
        if start:
            due, one, layer, band, tiled = self.captured.popleft()
            assert due == self.cycle
            assert tiled + WRITTEN <= self.cycle + LANES
            heads = block.get("passes__heads")
            reads = head_reads(self.array, signed_in=bool(layer["signed_in"]))
            apart = self.apart(layer)
            self.flags_of |= dict.fromkeys(range(self.cycle, self.cycle + 4), one)
            for k, head in enumerate(one.heads):
                row, place = divmod(k, len(reads))
                self.reads[self.cycle + 1 + row * apart + reads[place]] = (
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
        block.set("heads__read", read is not None)
        block.set("heads__address", read[0] if read else self.rng.randrange(self.array.controls))
        self.asked = read[1] if read else None
        return word

    def drained(self):
        return {name: self.block.get(f"passes__{name}") for name in ("fresh", "begins", "ends")}

    def apart(self, layer):
        return row_cycles(self.array, **self.kind(layer))

    def kind(self, layer):
        return {name: layer[name] for name in ("log2_groups", "signed_in", "wide", "residual")}

    def observe(self, head):
        block, wanted, found = self.block, self.wanted, self.found
        if head is not None:
            assert block.get("heads__word") == head
        for strobe, name in (("tap", "taps"), ("tile", "tiles")):
            if block.get(f"reading__tables__{strobe}"):
                place, word = getattr(wanted, name)[found[name]]
                assert [block.get(f"reading__tables__{part}") for part in ("place", "word")] == [
                    place, word]
                assert self.cycle > self.ends and not self.captured
                found[name] += 1
        if block.get("fills__load"):
            self.record.append(block.get("fills__word"))
            if len(self.record) == len(FILL.words):
                assert self.record == wanted.fills[found["fills"]]
                found["fills"] += 1
                self.record = []
                self.fills.append(0)
        if block.get("copies__copy"):
            assert not self.copying
            assert block.get("copies__unit") == wanted.copies[found["copies"]]
            found["copies"] += 1
            self.copying = self.rng.choice([2, 20, 300])
        if self.fills and self.rng.random() < 0.03 + self.patience:
            self.fills.popleft()
            self.fill_done += 1
        if block.get("exponents__closed"):
            assert self.cycle > self.ends and not self.captured
            op, fields = wanted.closes[found["closes"]]
            self.slots.close(op, fields, self.top)
            self.top = self.rng.randrange(32)
            found["closes"] += 1

    def step(self):
        block, wanted, found = self.block, self.wanted, self.found
        if self.cycle in self.mantissa_of:
            assert block.get("reading__weights__mantissas") == self.mantissa_of.pop(self.cycle)
        step = flags(STEP, block.get("reading__steps__step"))
        strobes = {"begins": block.get("reading__steps__tile"), "phase": block.get("phase")}
        if any(strobes.values()):
            assert self.index == 0 and self.opened is None
            self.opened, self.tiled = strobes | {
                "again": block.get("reading__steps__again")}, self.cycle
        if block.get("reading__band__load"):
            self.loads += 1
            row, tile = (wanted.bands[self.loads - 1][0][name] for name in ("row", "tile"))
            assert self.band() == (row, tile)
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
        assert block.get("reading__weights__steps") == self.quads(one.steps[self.index])
        self.mantissa_of[self.cycle + LATE] = self.quads(one.mantissas[self.index])
        self.index += 1
        if first:
            self.fields(layer, band, before)
        if last:
            self.index = 0
            found["passes"] += 1
            self.lasts.append(self.cycle)
            if one.captured:
                self.captured.append((self.cycle + lag(self.array), one, layer, band,
                                      self.tiled))

    def band(self):
        return tuple(self.block.get(f"reading__band__{name}") for name in ("row", "tile"))

    def quads(self, values):
        return sum(value << 8 * k for k, value in enumerate(values))

    def fields(self, layer, band, before):
        """The layer and the band are the pass's; all before it has happened."""
        block, found = self.block, self.found
        bits, low = 0, 0
        for word, value in zip(LAYER.words, LAYER.pack(**layer), strict=True):
            bits, low = bits | value << low, low + word.bits
        assert block.get("layer") == bits
        for name, slot in (("input", layer["in_slot"]), ("residual", layer["residual_slot"])):
            assert block.get(f"exponents__{name}") == self.slots.exponents[slot]
        assert self.loads == before["bands"]
        assert self.band() == (band["row"], band["tile"])
        for name in ("taps", "tiles", "closes"):
            assert found[name] == before[name], name
        fills = self.wanted.bands[before["bands"] - 1][1]["fills"]
        assert self.fill_done >= fills
        found["layers"], found["bands"] = before["layers"], before["bands"]
