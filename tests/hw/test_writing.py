# amaranth: UnusedElaboratable=no
"""Bank writes and the walks over output beats against naive models."""

import itertools
import random

import pytest

from blocks.models.layers import random_layer, table_words
from blocks.models.writing import Entry, bank_writes, draining, normalising
from blocks.players import play_pysim
from blocks.vectors import Vectors, pack
from celosia_hw.lanes.bank_writer import BankWriter
from celosia_hw.output.walker import Walker
from celosia_spec.isa import DESCRIPTOR, ArrayConfig, write_word

SIZES = {"bank_rows": 64, "table_rows": 64, "writes": 128, "store_beats": 64, "count_bits": 9}
ARRAYS = {
    "4-one-group": ArrayConfig(lanes=4, quad=4, beat=4, **SIZES),
    "8": ArrayConfig(lanes=8, quad=4, beat=4, **SIZES),
    "16-beat2": ArrayConfig(lanes=16, quad=2, beat=2, activation_bits=6, **SIZES),
    "16-deep": ArrayConfig(lanes=16, quad=8, beat=4, deep=True, **SIZES),
}
IN_VERILOG = ("16-beat2",)
"""Arrays whose generated Verilog is played too."""

arrays = pytest.mark.parametrize(
    ("player", "array"), [*(("pysim", name) for name in ARRAYS),
                          *itertools.product(("verilator", "icarus"), IN_VERILOG)], indirect=True)


def _entry(array, entry, last=False):
    return write_word(array).pack(last=last, count=entry.count, bank=entry.bank, row=entry.row)


def _expect_writes(array, vectors, cycle, writes):
    """Expect {bank: (row, mantissa)} a cycle later, and no other write."""
    beat = array.beat
    vectors.expect(cycle + 1, writes__enable=sum(1 << bank for bank in writes))
    used = {bank % beat: value for bank, value in writes.items()}
    for name, part, bits in (("row", 0, array.bank_row_bits), ("data", 1, array.activation_bits)):
        wanted = pack([used.get(j, (0, 0))[part] for j in range(beat)], bits)
        vectors.expect(cycle + 1, mask=pack([-(j in used) for j in range(beat)], bits),
                       **{f"writes__{name}": wanted})


@arrays
def test_bank_writer(player, array):
    """Random entries into every number of groups; the host's writes and clearing in between."""
    rng, vectors = random.Random(21), Vectors()
    rows, lanes, bits = array.bank_rows, array.lanes, array.activation_bits
    for cycle in range(600):
        log2_groups = rng.randrange(array.groups_max.bit_length())
        carry, plane, deinterleave = rng.randrange(rows), rng.randrange(rows), rng.randrange(2)
        element = rng.choice([0, 0, rng.randrange(array.beat)])
        entry = Entry(count=rng.randrange(1, array.beat - element + 1),
                      bank=rng.randrange(lanes >> log2_groups), row=rng.randrange(rows))
        m = [rng.randrange(1 << bits) for _ in range(array.beat)]
        real = [rng.random() < 0.8 for _ in range(array.beat)]
        vectors.pulse(cycle, layer=DESCRIPTOR.groups["lanes"].pack(
            log2_out_groups=log2_groups, write_carry=carry, plane_rows=plane,
            deinterleave=deinterleave), results__element=element,
            results__place=_entry(array, entry), results__mantissas=pack(m, bits),
            results__real=pack(real, 1))
        source = rng.choice(["result"] * 5 + ["host", "clear", "none"])
        if source == "result":
            vectors.pulse(cycle, results__valid=1)
            writes = bank_writes(array, entry, element, m, real, groups=1 << log2_groups,
                                 carry=carry, plane=plane, deinterleave=bool(deinterleave))
        elif source == "host":
            row, bank, value = rng.randrange(rows), rng.randrange(lanes), rng.randrange(1 << bits)
            vectors.pulse(cycle, host__write=1, host__address=row * lanes + bank,
                          host__data=value)
            writes = {bank: (row, value)}
        elif source == "clear":
            row = rng.randrange(rows)
            vectors.pulse(cycle, prepare__clear=1, prepare__clear_row=row)
            writes = dict.fromkeys(range(lanes), (row, 0))
        else:
            writes = {}
        _expect_writes(array, vectors, cycle, writes)
    player(BankWriter(array), vectors)


def _load(vectors, cycle, layer):
    """Write the table and the layer's parameters, then load; return the cycle behind it."""
    for address, word in table_words(layer):
        vectors.pulse(cycle, host_writes__write=1, host_writes__address=address,
                      host_writes__data=word)
        cycle += 1
    vectors.hold(cycle, layer=DESCRIPTOR.groups["output"].pack(**layer.fields))
    vectors.pulse(cycle, load=1)
    return cycle + 1


def _expect_cycle(vectors, at, cycle, drains):
    vectors.expect(at, draining=drains, normalising=not drains, placing=cycle.place is not None,
                   beat_done=cycle.beat_done, done=cycle.done, overrun=0, final=cycle.final,
                   row=cycle.row, store=cycle.store, valid=pack(cycle.valid, 1))
    if drains:
        vectors.expect(at, first_phase=cycle.first_phase)


def _expect_walk(array, vectors, at, cycles, drains):
    for cycle in cycles:
        _expect_cycle(vectors, at, cycle, drains)
        if cycle.place is not None:
            vectors.expect(at, element=cycle.element,
                           place=_entry(array, cycle.place, cycle.place_last))
        at += 1
    return at


def _expect_rest(vectors, cycle):
    vectors.expect(cycle, draining=0, normalising=0, placing=0, beat_done=0, done=0)


@arrays
def test_walker(player, array):
    """Random layers, drained with random gaps between the passes, then normalised."""
    rng, vectors, cycle = random.Random(22), Vectors(), 0
    for _ in range(30):
        layer = random_layer(array, rng)
        cycle = _load(vectors, cycle, layer)
        for number, cycles in enumerate(draining(layer)):
            # The strobe comes in the last cycle of the pass before, or in a later one.
            cycle += rng.choice([0, 0, 1, 5]) + Walker.AHEAD * (number == 0)
            vectors.pulse(cycle - 1, drain=1)
            cycle = _expect_walk(array, vectors, cycle, cycles, True)
        _expect_rest(vectors, cycle)
        if not layer.direct:
            cycle += rng.randrange(3)
            vectors.pulse(cycle, normalise=1)
            cycle = _expect_walk(array, vectors, cycle + 1, normalising(layer), False)
            _expect_rest(vectors, cycle)
        cycle += rng.randrange(3)
    player(Walker(array), vectors)


def test_overrun():
    """A pass that ends while the beats of the one before are walked, but for the last one."""
    array, vectors = ARRAYS["16-beat2"], Vectors()
    vectors.hold(0, layer=DESCRIPTOR.groups["output"].pack(last_tile=20, last_position=299))
    vectors.pulse(1, load=1)
    for length in range(1, array.pass_beats + 2):
        start = 10 * length * array.pass_beats
        vectors.pulse(start, drain=1)
        vectors.expect(start, overrun=0)
        vectors.pulse(start + length, drain=1)
        vectors.expect(start + length, overrun=length < array.pass_beats)
    play_pysim(Walker(array), vectors)
