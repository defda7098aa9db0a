# amaranth: UnusedElaboratable=no
"""The core behind its host bus: two small layers, every error code, aborts, read-back, counters."""

import random
from dataclasses import replace

import numpy as np
import pytest

from blocks.models import arithmetic
from blocks.players import play_pysim
from blocks.vectors import Vectors
from celosia_hw.core import Core
from celosia_spec.isa import (
    BATCH,
    DESCRIPTOR,
    DESCRIPTOR_WORDS,
    EXPONENT_MAX,
    EXPONENT_SLOTS,
    MEMORIES,
    PREFETCH_WORDS,
    ROW,
    ArrayConfig,
    Error,
    Event,
    Opcode,
    Register,
    Space,
    timing,
    write_word,
)
from celosia_spec.isa.cycles import Work, layer_cycles, walk_wait

ARRAY = ArrayConfig(lanes=8, quad=4, beat=4, weight_rows=32, bank_rows=32, table_rows=16, taps=16,
                    writes=16, program_words=128, store_beats=16, residual_beats=16,
                    index_bits=8, count_bits=8)
DEEP = replace(ARRAY, deep=True)
POSITIONS, ROWS, CHANNELS, CLEARED = ARRAY.lanes, 3, (5, 3), 2
IN_ROWS, OUT_ROW, BATCHES = (0, 8), (8, 16), 2 * DESCRIPTOR_WORDS
SMALLEST = -16


class Layers:
    """Two layers of one tile and three rows. The first one is normalised and kept as the residual
    operand of the second, whose results go to the banks directly, with a static exponent."""

    def __init__(self, array, seed=51, static=3):
        rng = random.Random(seed)
        self.array = array
        self.x = [[rng.randrange(-127, 128) for _ in range(POSITIONS)] for _ in range(CHANNELS[0])]
        self.weights = [[[(c, rng.randrange(-127, 128)) for c in sorted(rng.sample(
            range(channels), rng.randrange(1, channels + 1)))] for _ in range(ROWS)]
            for channels in CHANNELS]
        self.rows = [[(rng.randrange(-9000, 9000), rng.randrange(-12, -5), rng.randrange(-16, -8))
                      for _ in range(ROWS)] for _ in CHANNELS]
        self.exponents, self.static = [rng.randrange(-3, 3), 0, static], static
        self.flags = [{"relu": 1, "residual_write": 1},
                      {"direct": 1, "static": 1, "residual_read": 1}]
        self._compute()

    def _compute(self):
        """Fill ``stored``, ``outputs``, ``exponents`` and ``saturated``."""
        source, self.outputs, self.saturated = self.x, [], [False, False]
        for number in range(2):
            lsb, residual_lsb = (self.exponents[k] - 6 for k in (number, 1))
            totals = []
            for words, (bias, sw, sb) in zip(self.weights[number], self.rows[number], strict=True):
                aligned = arithmetic.scaled(bias, sb - lsb)
                sums = [sum(w * source[c][p] for c, w in words) + aligned
                        for p in range(POSITIONS)]
                if number:
                    residual = self.outputs[0][len(totals)]
                    sums = [a + arithmetic.align_residual(r, residual_lsb - lsb - sw, 24)
                            for a, r in zip(sums, residual, strict=True)]
                totals.append([max(a, 0) for a in sums] if number == 0 else sums)
            if number == 0:
                top = arithmetic.block_exponent((a, self.rows[0][row][1])
                                                for row, sums in enumerate(totals) for a in sums)
                self.stored = totals
                self.exponents[1] = max(SMALLEST, min(top + lsb, EXPONENT_MAX))
            results = [[arithmetic.requantise(
                a, self.exponents[number + 1] - lsb - self.rows[number][row][1], 8)
                for a in sums] for row, sums in enumerate(totals)]
            self.outputs.append([[m for m, _ in row] for row in results])
            self.saturated[number] = any(clipped for row in results for _, clipped in row)
            source = self.outputs[number]

    def waits(self, number):
        return [max(0, timing.MIN_PASS - len(words)) for words in self.weights[number]]

    def descriptor(self, number):
        """Return the descriptor's words."""
        return DESCRIPTOR.pack(
            opcode=Opcode.LINEAR, input_slot=number, output_slot=number + 1, residual_slot=1,
            line=POSITIONS, weight_base=16 * number, length_base=BATCHES + ROWS * number,
            in_base=IN_ROWS[number], in_channels=CHANNELS[number], exponent=self.static,
            least_exponent=SMALLEST, clear_base=24, clear_rows=CLEARED * number,
            last_batch=ROWS - 1, last_position=POSITIONS - 1, row_base=ROWS * number,
            write_base=2 * number, write_step=1, **self.flags[number])

    def images(self):
        """Return (space, address, value) of everything but the input."""
        array = self.array
        words = []
        for number in range(2):
            words += [(Space.PROGRAM, DESCRIPTOR_WORDS * number + k, value)
                      for k, value in enumerate(self.descriptor(number))]
            words += [(Space.PROGRAM, BATCHES + ROWS * number + row,
                       BATCH.pack(steps=len(steps), wait=wait))
                      for row, (steps, wait) in enumerate(zip(
                          self.weights[number], self.waits(number), strict=True))]
            address = 16 * number * array.groups_max
            for steps in self.weights[number]:
                before = 0
                for column, weight in steps:
                    words.append((Space.WEIGHTS, address, weight & 0xFF | column - before << 8))
                    address, before = address + 1, column
            words += [(Space.ROWS, ROWS * number + row, ROW.pack(bias=bias, sw=sw, sb=sb))
                      for row, (bias, sw, sb) in enumerate(self.rows[number])]
            words += [(Space.WRITES, 2 * number + beat, write_word(array).pack(
                last=1, count=4, bank=4 * beat, row=OUT_ROW[number])) for beat in range(2)]
        return [*words, (Space.TAPS, 0, 0)]

    def inputs(self):
        """Return (space, address, value) of the input and its exponent; rows to clear are set."""
        words = [(Space.BANKS, row * POSITIONS + p, value)
                 for row, values in enumerate(self.x) for p, value in enumerate(values)]
        words += [(Space.BANKS, row * POSITIONS + p, 85)
                  for row in range(23, 25 + CLEARED) for p in range(POSITIONS)]
        return [*words, (Space.EXPONENTS, 0, self.exponents[0] & 0xFF)]

    def cycles(self, first, last):
        """Return the predicted cycles of a run."""
        total = 0
        for number in range(first, last + 1):
            beats = self.array.pass_beats
            work = Work(
                lengths=np.array([len(words) for words in self.weights[number]]), tiles=1,
                phases=1, pass_cycles=timing.MIN_PASS, drain_cycles=beats,
                walk_cycles=0 if number else beats * ROWS, clear_rows=CLEARED * number,
                prefetched=min(walk_wait(beats * ROWS), PREFETCH_WORDS) if number > first else 0,
                useful_macs=0, padding_macs=0)
            total += layer_cycles(work, self.array, last=number == last)
        return total


class Host:
    """Bus accesses and runs, as vectors."""

    def __init__(self, core):
        self.vectors, self.cycle, self.latency = Vectors(), 2, core.read_latency

    def write(self, words):
        for space, address, value in words:
            self.vectors.pulse(self.cycle, mem_write=1, mem_space=space, mem_address=address,
                               mem_wdata=value)
            self.cycle += 1
        self.cycle += 4

    def read(self, space, address, value, mask=0xFFFFFFFF):
        for at in range(self.cycle, self.cycle + self.latency + 1):
            self.vectors.pulse(at, mem_space=space, mem_address=address)
            self.vectors.expect(at, mem_rvalid=at == self.cycle + self.latency)
        self.vectors.pulse(self.cycle, mem_read=1)
        self.cycle += self.latency
        self.vectors.expect(self.cycle, mask=mask, mem_rdata=value)
        self.cycle += 2

    def start(self, first, last):
        self.vectors.pulse(self.cycle, start=1, start_first=first, start_last=last)
        self.cycle += 1

    def run(self, layers, first=0, last=1):
        """Start, and expect ``done`` after the predicted cycles."""
        self.start(first, last)
        cycles = layers.cycles(first, last)
        self.vectors.expect(self.cycle, busy=1, done=0, error=0)
        self.cycle += cycles
        self.vectors.expect(self.cycle - 1, busy=1, done=0)
        self.vectors.expect(self.cycle, busy=0, done=1, error=0, layer=last,
                            saturated=any(layers.saturated[first:last + 1]))
        self.vectors.expect(self.cycle + 1, busy=0, done=0)
        self.cycle += 2

    def read_outputs(self, layers, numbers=(0, 1)):
        for number in numbers:
            for row, values in enumerate(layers.outputs[number]):
                for p, value in enumerate(values):
                    self.read(Space.BANKS, (OUT_ROW[number] + row) * POSITIONS + p, value, 0xFF)
            self.read(Space.EXPONENTS, number + 1, layers.exponents[number + 1], 0xFF)


def _loaded(array, **options):
    """Return a core, two layers, and a host that has loaded them."""
    core, layers = Core(array), Layers(array, **options)
    host = Host(core)
    host.write(layers.images())
    host.write(layers.inputs())
    return core, layers, host


played = pytest.mark.parametrize(
    ("player", "array"), [("pysim", ARRAY), ("verilator", DEEP), ("icarus", DEEP)],
    indirect=["player"], ids=["pysim-shallow", "verilator-deep", "icarus-deep"])


@played
def test_run_and_read_back(player, array):
    """Results, exponents, cleared rows, the store and the residual operand; programs stay."""
    core, layers, host = _loaded(array)
    host.run(layers)
    host.read_outputs(layers)
    for row, value in ((23, 85), (24, 0), (23 + CLEARED, 0), (24 + CLEARED, 85)):
        host.read(Space.BANKS, row * POSITIONS + row % 8, value, 0xFF)
    for row in range(ROWS):
        for p in range(0, POSITIONS, 3):
            host.read(Space.RESIDUAL, row * POSITIONS + p, layers.outputs[0][row][p], 0xFF)
    for space, address, value in layers.images():
        if space is Space.PROGRAM and address % 4 == 1:
            host.read(space, address, value, 0xFFFF)
    host.run(layers, 0, 0)
    for row in range(ROWS):
        for p in range(0, POSITIONS, 3):
            host.read(Space.STORE, row * POSITIONS + p, layers.stored[row][p])
    host.run(layers, 1, 1)
    host.read_outputs(layers)
    player(core, host.vectors)


@pytest.mark.parametrize("memory", [memory for memory in MEMORIES if memory.readable],
                         ids=lambda memory: memory.name)
def test_highest_address_reads_back(memory):
    """The last address of each memory, in an array whose stores the first layer fills to their
    last, after everything else was written and run."""
    beats = POSITIONS * ROWS // ARRAY.beat
    array = replace(ARRAY, store_beats=beats, residual_beats=beats)
    core, layers, host = _loaded(array)
    top = memory.depth(array) - 1
    written = [(memory.space, top, 0x15)]
    if memory.space is Space.REGISTERS:
        written, value = [(memory.space, top, Event.CYCLE)], layers.cycles(0, 0)
    elif memory.writable:
        value = 0x15
    else:
        filled = {Space.STORE: layers.stored, Space.RESIDUAL: layers.outputs[0]}[memory.space]
        value = filled[-1][-1]
    host.write(written)
    host.write([(other.space, other.depth(array) - 1, 0x2A) for other in MEMORIES
                if other is not memory and other.space is not Space.REGISTERS])
    host.run(layers, 0, 0)
    host.read(memory.space, top, value, (1 << memory.bits(array)) - 1)
    play_pysim(core, host.vectors)


def test_saturation():
    """Clipping sets the flag, which the next start clears."""
    core, layers, host = _loaded(ARRAY, static=-9)
    assert layers.saturated == [False, True]
    host.run(layers)
    host.read(Space.REGISTERS, Register.STATUS, 2, 0xFFFF)
    host.read_outputs(layers)
    host.run(layers, 0, 0)
    host.read(Space.REGISTERS, Register.STATUS, 0, 0xFFFF)
    play_pysim(core, host.vectors)


def test_registers():
    """The hash, the status while busy, and every event counter."""
    core, layers, host = _loaded(ARRAY)
    host.read(Space.REGISTERS, Register.ARRAY_HASH, ARRAY.hash)
    steps = sum(len(words) for number in range(2) for words in layers.weights[number])
    walk = walk_wait(ARRAY.pass_beats * ROWS)
    counts = {Event.CYCLE: layers.cycles(0, 1), Event.STEP: steps, Event.NORMALISE: walk,
              Event.BUBBLE: sum(layers.waits(0) + layers.waits(1))}
    assert set(counts) == set(Event) and counts[Event.BUBBLE] > 0
    for event, count in counts.items():
        host.write([(Space.REGISTERS, 0, event)])
        host.run(layers)
        host.read(Space.REGISTERS, Register.EVENTS, count)
        host.read(Space.REGISTERS, Register.EVENTS, count)
    started = host.cycle
    host.start(0, 1)
    host.read(Space.REGISTERS, Register.STATUS, 1, 0xFFFF)
    host.cycle = started + layers.cycles(0, 1) + 10
    host.read(Space.REGISTERS, Register.STATUS, 0, 0xFFFF)
    play_pysim(core, host.vectors)


def test_busy():
    """While busy, writes and starts have no effect."""
    core, layers, host = _loaded(ARRAY)
    started = host.cycle
    host.run(layers)
    end = host.cycle
    for number, (space, address, value) in enumerate(layers.images() + layers.inputs()):
        cycle = started + 2 + number % (layers.cycles(0, 1) - 4)
        host.vectors.pulse(cycle, mem_write=1, mem_space=space, mem_address=address,
                           mem_wdata=value ^ 0x55)
        if number % 7 == 0:
            host.vectors.pulse(cycle, start=1, start_first=1, start_last=1)
    host.cycle = end
    host.read_outputs(layers)
    host.run(layers)
    host.read_outputs(layers)
    play_pysim(core, host.vectors)


MOST = (ARRAY.program_words - EXPONENT_SLOTS) // DESCRIPTOR_WORDS
BAD_WORDS = [
    (Error.OPCODE, "opcode", 0), (Error.OPCODE, "opcode", 15),
    (Error.GROUPS, "log2_groups", 2), (Error.GROUPS, "log2_groups", 8),
    (Error.GROUPS, "log2_out_groups", 2), (Error.GROUPS, "log2_out_groups", 15),
    (Error.COUNT, "line", 0),
]


@played
def test_errors(player, array):
    """Every error code stops at its descriptor; afterwards a good start works."""
    core, layers, host = _loaded(array)
    good = layers.cycles(0, 1)
    for number, (code, field, value) in enumerate(BAD_WORDS):
        bad = number % 2
        word = DESCRIPTOR.places[field].word
        address, words = DESCRIPTOR_WORDS * bad + word, layers.descriptor(bad)
        changed = DESCRIPTOR.pack(**DESCRIPTOR.unpack(words) | {field: value})
        host.write([(Space.PROGRAM, address, changed[word])])
        host.start(0, 1)
        _expect_error(host, code, bad, good)
        host.write([(Space.PROGRAM, address, words[word])])
    for first, last in ((1, 0), (0, MOST), (MOST, MOST), (255, 255), (0, 255), (MOST, 1),
                        (128, 1), (255, 0)):
        host.start(first, last)
        _expect_error(host, Error.RANGE, None, good)
    host.run(layers)
    host.read_outputs(layers)
    player(core, host.vectors)


def _expect_error(host, code, descriptor, cycles):
    """Never ``done``; then the code at the ports and in the register, which reading leaves."""
    for cycle in range(host.cycle, host.cycle + cycles):
        host.vectors.expect(cycle, done=0)
    host.cycle += cycles
    mask, status = 0xFFFF, code << 8
    if descriptor is not None:
        mask, status = 0xFFFFFF, code << 8 | descriptor << 16
        host.vectors.expect(host.cycle, error_descriptor=descriptor)
    host.vectors.expect(host.cycle, error=code, busy=0)
    for _ in range(2):
        host.read(Space.REGISTERS, Register.STATUS, status, mask & ~2)


@pytest.mark.parametrize(("array", "number", "rows"), [
    (ARRAY, 0, 2), (ARRAY, 1, 3), (DEEP, 1, 2), (DEEP, 0, 3)])
def test_passes_too_close(array, number, rows):
    """Passes that end while the sums of the one before drain are an error wherever they come, the
    last ones of a layer included."""
    core, layers, host = _loaded(array)
    host.write([(Space.PROGRAM, BATCHES + ROWS * number + row, BATCH.pack(steps=1, wait=0))
                for row in range(ROWS)])
    host.write([(Space.PROGRAM, DESCRIPTOR_WORDS * number
                 + DESCRIPTOR.places["last_batch"].word, rows - 1)])
    host.start(0, 1)
    _expect_error(host, Error.PASS, number, 2 * layers.cycles(0, 1))
    host.write(layers.images())
    host.write(layers.inputs())
    host.run(layers)
    host.read_outputs(layers)
    play_pysim(core, host.vectors)


@pytest.mark.parametrize(("array", "stride"), [(ARRAY, 1), (DEEP, 7)], ids=["shallow", "deep"])
def test_abort(verilog_player, array, stride):
    """An abort in every ``stride``-th cycle of each layer, and now and then of both in one run. A
    run begun right after it gives the right results from the same input, in the right number of
    cycles."""
    core, layers, host = _loaded(array)
    rng = random.Random(6)
    for first, last, step in ((0, 0, stride), (1, 1, stride), (0, 1, 8 * stride)):
        for offset in range(0, layers.cycles(first, last) + 2, step):
            host.start(first, last)
            host.cycle += offset
            host.vectors.pulse(host.cycle, abort=1)
            host.vectors.expect(host.cycle + 1, busy=0, done=0, error=0)
            host.cycle += 1
            host.run(layers, first, last)
            row, p = rng.randrange(ROWS), rng.randrange(POSITIONS)
            host.read(Space.BANKS, (OUT_ROW[last] + row) * POSITIONS + p,
                      layers.outputs[last][row][p], 0xFF)
        host.read_outputs(layers, range(last + 1))
    for address in range(CHANNELS[0] * POSITIONS):
        row, p = divmod(address, POSITIONS)
        host.read(Space.BANKS, address, layers.x[row][p], 0xFF)
    verilog_player(core, host.vectors)
