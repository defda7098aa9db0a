# amaranth: UnusedElaboratable=no
"""From weight words and tiles to exact sums: every block against a naive model."""

import itertools
import random
from collections import defaultdict

import pytest

from blocks.models.reading import Map, decode_pass, lane_banks, rotate
from blocks.vectors import Vectors, pack
from celosia_hw.lanes.banks import Banks
from celosia_hw.lanes.mac_array import MacArray
from celosia_hw.lanes.tile_walk import TileWalk, tile_layout
from celosia_hw.parts.rotator import Rotator
from celosia_hw.signatures import FLAGS, operand_layout
from celosia_hw.weights.decoder import Decoder
from celosia_spec.isa import BLOCK, DESCRIPTOR, ArrayConfig, tap_word, timing, weight_word
from celosia_spec.isa.timing import Timing

SIZES = {"bank_rows": 32, "taps": 64, "table_rows": 16, "writes": 32, "store_beats": 32,
         "weight_rows": 64, "index_bits": 9, "count_bits": 8}
ARRAYS = {
    "4-one-group": ArrayConfig(lanes=4, quad=4, beat=4, **SIZES),
    "8": ArrayConfig(lanes=8, quad=4, beat=4, **SIZES),
    "16-deep": ArrayConfig(lanes=16, quad=2, beat=2, deep=True, **SIZES),
    "16-acc32": ArrayConfig(lanes=16, quad=8, beat=2, acc_bits=32, weight_bits=6,
                            activation_bits=9, **SIZES),
    "16-replicate": ArrayConfig(lanes=16, quad=4, beat=4, replicate=True, **SIZES),
}
IN_VERILOG = ("16-deep",)
"""Arrays whose generated Verilog is played too."""

arrays = pytest.mark.parametrize(
    ("player", "array"), [*(("pysim", name) for name in ARRAYS),
                          *itertools.product(("verilator", "icarus"), IN_VERILOG)], indirect=True)


def step(**flags):
    return FLAGS.const({"valid": 1, **flags}).as_bits()


def _slots(array):
    return array.groups_max.bit_length() - 1


@pytest.mark.parametrize(("player", "lanes", "quads", "registered"), [
    ("pysim", 4, 1, False), ("pysim", 8, 2, True), ("pysim", 16, 8, False),
    ("verilator", 16, 4, True), ("icarus", 16, 4, True),
    ("verilator", 32, 2, False), ("icarus", 32, 2, False)], indirect=["player"])
def test_rotator(player, lanes, quads, registered):
    """Every rotation of every group size; the groups' rotations differ."""
    rng = random.Random(lanes + quads)
    vectors, cycle = Vectors(), 0
    dut = Rotator(lanes, 5, quads, registered)
    for log2_groups in range(quads.bit_length()):
        groups, size = 1 << log2_groups, lanes >> log2_groups
        vectors.hold(cycle, log2_groups=log2_groups)
        for rotation in range(size):
            values = [rng.randrange(32) for _ in range(lanes)]
            rotations = [(rotation + group * rng.randrange(size)) % size for group in range(groups)]
            vectors.pulse(cycle, i=pack(values, 5), rotation=pack(
                [rotations[quad * groups // quads] for quad in range(quads)],
                lanes.bit_length() - 1))
            vectors.expect(cycle + dut.latency, o=pack(rotate(values, size, rotations), 5))
            cycle += 1
        cycle += 2
    player(dut, vectors)


def _maps(array, rng, count):
    """Yield random (log2_groups, map, tiles) in which a tile holds one line end at most."""
    while count:
        log2_groups, tiles = rng.randrange(_slots(array) + 1), rng.randrange(1, 9)
        size = array.lanes >> log2_groups
        jump = rng.random() < 0.75
        rows = 1 << array.bank_row_bits
        lines = (rng.randrange(size // 2, 3 * size + 2), rng.randrange(1, 1 << array.count_bits))
        shape = Map(size=size, line=max(1, lines[rng.random() < 0.2]), base=rng.randrange(rows),
                    channels=rng.randrange(rows), jump=jump)
        if not jump or all(len(shape.breaks(tile)) <= 1 for tile in range(tiles)):
            yield log2_groups, shape, tiles
            count -= 1


@arrays
def test_tile_walk(player, array):
    """Random maps over several batches, at the smallest and at random distances; without a jump
    lines may be of any width."""
    rng, vectors, cycle = random.Random(11), Vectors(), 0
    layout = tile_layout(array)
    rows = 1 << array.bank_row_bits
    for log2_groups, shape, tiles in _maps(array, rng, 40):
        vectors.hold(cycle, layer=DESCRIPTOR.groups["lanes"].pack(
            log2_groups=log2_groups, line=shape.line, in_base=shape.base,
            in_channels=shape.channels, jump=shape.jump))
        vectors.pulse(cycle, load=1)
        cycle += rng.randrange(1, 4)
        for tile in [*range(tiles)] * rng.randrange(1, 4):
            vectors.pulse(cycle, advance=1, last=tile == tiles - 1)
            gap = rng.choice([timing.MIN_PASS] * 3 + [timing.MIN_PASS + rng.randrange(6)])
            breaks = shape.breaks(tile) if shape.jump else []
            first = [shape.row(tile, 0, False) + k * shape.channels for k in range(3)]
            fields = {"row": first[0] % rows, "next": first[1] % rows, "after": first[2] % rows,
                      "split": breaks[0] if breaks else 0, "broken": bool(breaks)}
            # Without a break, ``split`` means nothing.
            ignored = 0 if breaks else layout.const({"split": -1}).as_bits()
            for at in (cycle + 1, cycle + gap):
                vectors.expect(at, mask=~ignored, tile=layout.const(fields).as_bits())
            cycle += gap
        host_row = rng.randrange(rows)
        vectors.pulse(cycle, host_valid=1, host_row=host_row)
        vectors.expect(cycle + 1, mask=~layout.const({"split": -1}).as_bits(), tile=layout.const(
            dict.fromkeys(("row", "next", "after"), host_row)).as_bits())
        cycle += 2
    player(TileWalk(array), vectors)


def _taps(array, rng, size):
    return [(rng.randrange(1 << array.bank_row_bits), rng.randrange(size))
            for _ in range(array.taps)]


def _write_taps(array, vectors, cycle, taps):
    for address, (row, rotation) in enumerate(taps):
        vectors.pulse(cycle + address, host_taps__write=1, host_taps__address=address,
                      host_taps__data=tap_word(array).pack(row=row % array.bank_rows,
                                                           rotation=rotation))
    return cycle + len(taps)


def _passes(array, rng, groups, phases):
    """Return for each phase the groups' weight words, (groups, length), whose columns fit."""
    length = rng.randrange(1, 12)
    phase_taps = array.taps // phases
    result = []
    for _ in range(phases):
        rows = []
        for _ in range(groups):
            room = min(phase_taps * BLOCK, 1 << array.index_bits) - 1
            words = []
            for _ in range(length):
                delta = rng.randrange(min(room, 255 if rng.random() < 0.3 else 20) + 1)
                room -= delta
                words.append(delta << array.weight_bits | rng.randrange(1 << array.weight_bits))
            rows.append(words)
        result.append(rows)
    return result


@arrays
def test_decoder(player, array):
    """Random rows in every group mode and phase, bubbles in between; then the host's reads."""
    rng, dut, vectors = random.Random(12), Decoder(array), Vectors()
    layout = operand_layout(array)
    cycle = 0
    for log2_groups in [*range(_slots(array) + 1)] * 2:
        groups, quads = 1 << log2_groups, array.groups_max
        taps = _taps(array, rng, array.lanes // groups)
        cycle = _write_taps(array, vectors, cycle, taps) + 1
        for _ in range(6):
            phases = rng.choice([1, 1, 2, 4])
            tap_step = array.taps // phases
            base = rng.randrange(tap_step) if phases == 1 else 0
            vectors.hold(cycle, layer=DESCRIPTOR.groups["weights"].pack(
                log2_groups=log2_groups, tap_base=base, tap_step=tap_step))
            for phase, rows in enumerate(_passes(array, rng, groups, phases)):
                base_of_phase = base + phase * tap_step
                decoded = [decode_pass(row, base_of_phase, taps, array) for row in rows]
                for k in range(len(rows[0])):
                    while rng.random() < 0.2:
                        vectors.pulse(cycle + 1, rows__words=rng.getrandbits(
                            quads * weight_word(array).bits))
                        vectors.expect(cycle + dut.latency, operands__flags=0)
                        cycle += 1
                    cycle = _stream_step(dut, vectors, cycle, rng, groups, layout,
                                         [row[k] for row in rows],
                                         [operands[k] for operands in decoded],
                                         step(first=k == 0, last=k == len(rows[0]) - 1,
                                              tile_first=k == 0 and phase == 0,
                                              tile_last=rng.randrange(2)))
            cycle += dut.latency + 1
    for _ in range(20):
        rotation = rng.randrange(array.lanes)
        vectors.pulse(cycle, peek__valid=1, peek__rotation=rotation)
        both = layout.const({"row": 0, "rotation": rotation}).as_bits()
        mask = layout.const({"row": -1, "rotation": -1}).as_bits()
        vectors.expect(cycle + 1, mask=pack([mask] * array.groups_max, layout.size),
                       operands__operand=pack([both] * array.groups_max, layout.size))
        cycle += 1
    player(dut, vectors)


def _stream_step(dut, vectors, cycle, rng, groups, layout, words, operands, flags):
    """One step: its port row holds the groups' words somewhere among words of others."""
    array = dut.array
    quads = array.groups_max
    slot = rng.randrange(quads // groups) * groups
    port = [rng.randrange(1 << weight_word(array).bits) for _ in range(quads)]
    port[slot:slot + groups] = words
    if array.replicate:
        port = [words[quad * groups // quads] for quad in range(quads)]
    row = rng.randrange(array.weight_rows)
    vectors.pulse(cycle, steps__flags=flags, steps__slot=slot, steps__row=row)
    vectors.expect(cycle, rows__row=row)
    # The memory's data comes a cycle later, under the next step's flags.
    vectors.pulse(cycle + 1, rows__words=pack(port, weight_word(array).bits))
    at = cycle + dut.latency
    vectors.expect(at - 1, operands__ahead=flags)
    expected = [layout.const({"mantissa": mantissa, "row": row, "rotation": rotation}).as_bits()
                for mantissa, row, rotation in operands]
    vectors.expect(at, operands__flags=flags, operands__operand=pack(
        [expected[quad * groups // quads] for quad in range(quads)], layout.size))
    return cycle + 1


@arrays
def test_banks(player, array):
    """Random operands, line breaks and wraps, while random mantissas are written."""
    rng, dut, vectors = random.Random(13), Banks(array), Vectors()
    reads, writes, cycle = [], defaultdict(list), 0
    for log2_groups in [*range(_slots(array) + 1)] * 2:
        vectors.hold(cycle, log2_groups=log2_groups)
        for _ in range(150):
            reads.append((cycle, _read_banks(dut, vectors, cycle, rng, log2_groups)))
            _write_banks(array, vectors, cycle, rng, writes)
            cycle += 1
        cycle += dut.latency + 1
    bits = array.activation_bits
    for at, places in reads:
        values, masks = [], []
        for place in places:
            values.append(next((v for w, v in reversed(writes[place]) if w < at), 0))
            # What is written while the read is under way may be seen or not.
            masks.append(-(not any(at <= w < at + dut.latency for w, _ in writes[place])))
        vectors.expect(at + dut.latency, mask=pack(masks, bits),
                       factors__x=pack(values, bits))
    player(dut, vectors)


def _read_banks(dut, vectors, cycle, rng, log2_groups):
    """Read once with random operands; return the (bank, row) that each lane must get."""
    array = dut.array
    groups, rows, quads = 1 << log2_groups, 1 << array.bank_row_bits, array.groups_max
    size = array.lanes // groups
    base, channels, jump = (rng.randrange(rows) for _ in range(3))
    split = rng.randrange(size)
    broken = split > 0 and rng.random() < 0.6
    vectors.pulse(cycle, tile=tile_layout(array).const({
        "row": base, "next": (base + channels) % rows, "after": (base + jump) % rows,
        "split": split, "broken": broken}).as_bits())
    layout, operands, places = operand_layout(array), [], []
    for group in range(groups):
        row, rotation = rng.randrange(rows), rng.randrange(size)
        mantissa = rng.randrange(-(1 << array.weight_bits - 1), 1 << array.weight_bits - 1)
        operands += [{"mantissa": mantissa, "row": row, "rotation": rotation}] * (quads // groups)
        for lane, (bank, wrapped) in enumerate(lane_banks(size, rotation)):
            further = wrapped + (broken and lane >= split)
            places.append((group * size + bank,
                           (row + base + (0, channels, jump)[further]) % rows))
    flags = rng.randrange(1 << FLAGS.size)
    vectors.pulse(cycle, operands__flags=flags, operands__operand=pack(
        [layout.const(operand).as_bits() for operand in operands], layout.size))
    vectors.expect(cycle + dut.latency, factors__flags=flags, factors__weights=pack(
        [operand["mantissa"] for operand in operands], array.weight_bits))
    # drain_lead cycles before a pass's first beat of sums, which it is ACCUMULATE cycles behind.
    ahead = cycle + dut.latency + timing.ACCUMULATE - Timing.of(array).drain_lead
    vectors.expect(ahead, ahead=flags)
    return places


def _write_banks(array, vectors, cycle, rng, writes):
    """Write into random banks; note it in ``writes``: (bank, row) -> [(cycle, mantissa)]."""
    enable = rng.getrandbits(array.lanes) & rng.getrandbits(array.lanes)
    row = [rng.randrange(array.bank_rows) for _ in range(array.beat)]
    data = [rng.randrange(1 << array.activation_bits) for _ in range(array.beat)]
    vectors.pulse(cycle, writes__enable=enable, writes__row=pack(row, array.bank_row_bits),
                  writes__data=pack(data, array.activation_bits))
    for bank in range(array.lanes):
        if enable >> bank & 1:
            j = bank % array.beat
            writes[bank, row[j]].append((cycle, data[j]))


@arrays
def test_mac_array(player, array):
    """Passes of random length, back to back, with bubbles, at the smallest distance; the beats of
    each are read before the next one's sums replace them."""
    rng, dut, vectors = random.Random(14), MacArray(array), Vectors()
    extremes = [(-(1 << bits - 1), (1 << bits - 1) - 1) for bits in (array.weight_bits,
                                                                   array.activation_bits)]
    cycle, shown = 3, None                              # cycle of the last pass's first beat
    for number in range(60):
        length = rng.choice([1, 1, 2, 3, array.pass_beats, rng.randrange(1, 20)])
        total, extreme = [0] * array.lanes, number % 4 == 0
        for k in range(length):
            last = k == length - 1
            while rng.random() < 0.15 or (last and shown is not None
                                          and cycle + dut.LATENCY < shown + array.pass_beats):
                _operands(array, vectors, cycle, rng, extremes, extreme)
                cycle += 1                              # a bubble
            x, weights = _operands(array, vectors, cycle, rng, extremes, extreme)
            vectors.pulse(cycle, factors__flags=step(first=k == 0, last=last,
                                            tile_first=rng.randrange(2) if k == 0 else 0))
            total = [t + weights[p // array.quad] * x[p] for p, t in enumerate(total)]
            cycle += 1
        shown = cycle - 1 + dut.LATENCY
        for beat in range(array.pass_beats):
            if beat:
                vectors.pulse(shown + beat - 1, shift=1)
            first = beat * array.beat
            vectors.expect(shown + beat, sums=pack(total[first:first + array.beat],
                                                   array.acc_bits))
    player(dut, vectors)


def _operands(array, vectors, cycle, rng, extremes, extreme):
    """Apply random operands, or the largest ones, in ``cycle``; return x and weights."""
    weights, x = ([rng.choice(ends) if extreme else rng.randrange(ends[0], ends[1] + 1)
                   for _ in range(count)]
                  for ends, count in zip(extremes, (array.groups_max, array.lanes), strict=True))
    vectors.pulse(cycle, factors__x=pack(x, array.activation_bits),
                  factors__weights=pack(weights, array.weight_bits))
    return x, weights
