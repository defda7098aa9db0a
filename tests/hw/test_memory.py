# amaranth: UnusedElaboratable=no
"""Memories: latency, slots, zeros at start; SPRAM blocks behave as inferred memory does."""

import random

import pytest
from amaranth.back import rtlil

from blocks.players import verilog_of
from blocks.pysim import run
from blocks.vectors import Vectors, pack
from celosia_boards.families.ice40 import ICE40
from celosia_hw.memory.weight_memory import WeightMemory
from celosia_hw.parts.table_memory import TableMemory
from celosia_sim import cells


def test_weight_memory():
    rng = random.Random(5)
    dut = WeightMemory(37, 4, 12)
    model = {(row, slot): 0 for row in range(37) for slot in range(4)}

    async def bench(ctx):
        host = dut.host_weights
        for _ in range(250):
            at = rng.randrange(37), rng.randrange(4)
            model[at] = rng.getrandbits(12)
            ctx.set(host.write, 1)
            ctx.set(host.address, at[0] * 4 + at[1])
            ctx.set(host.data, model[at])
            await ctx.tick()
        ctx.set(host.write, 0)
        for row in [rng.randrange(37) for _ in range(100)]:
            ctx.set(dut.rows.row, row)
            await ctx.tick()
            assert list(ctx.get(dut.rows.words)) == [model[row, slot] for slot in range(4)]

    run(dut, bench)


@pytest.mark.parametrize("output_register", [False, True])
def test_table_memory(output_register):
    """Zeros at start; a word may be read one edge after its write, while others are written."""
    rng = random.Random(6)
    dut = TableMemory(50, 20, output_register=output_register)
    assert dut.latency == 1 + output_register
    model = [0] * 50

    async def bench(ctx):
        expected = []
        last_written = 0
        for step in range(400):
            if step >= dut.latency:
                assert ctx.get(dut.read.data) == expected[step - dut.latency], step
            read = rng.choice([last_written, rng.randrange(50)])
            write = rng.choice([address for address in range(50) if address != read])
            enable, word = rng.randrange(2), rng.getrandbits(20)
            expected.append(model[read])
            ctx.set(dut.read.addr, read)
            ctx.set(dut.write.addr, write)
            ctx.set(dut.write.en, enable)
            ctx.set(dut.write.data, word)
            await ctx.tick()
            if enable:
                model[write], last_written = word, write

    run(dut, bench)


def _writes_and_reads(rows, words, bits):
    """Each row read gives the words last written to it; a write touches its own slot only."""
    rng, vectors, cycle = random.Random(2), Vectors(), 1
    used = sorted({0, rows - 1, *rng.sample(range(rows), min(rows, 40))})
    places = [(row, slot) for row in used for slot in range(words)]
    model = {}
    for burst in range(21):
        for row, slot in rng.choices(places, k=rng.randrange(4)) if burst else places:
            model[row, slot] = rng.getrandbits(bits)
            vectors.pulse(cycle, host_weights__write=1, host_weights__address=row * words + slot,
                          host_weights__data=model[row, slot])
            cycle += 1
        for row in rng.choices(used, k=rng.randrange(1, 12)):
            vectors.pulse(cycle, rows__row=row)
            vectors.expect(cycle + 1, rows__words=pack(
                (model[row, slot] for slot in range(words)), bits))
            cycle += 1
        cycle += 1
    return vectors


@pytest.mark.parametrize(("kind", "rows", "words", "bits"), [
    ("bram", 1000, 4, 16), ("bram", 300, 2, 16), ("bram", 64, 1, 16),
    ("spram", 16384, 4, 16), ("spram", 300, 2, 13), ("spram", 64, 1, 16)])
def test_weight_memory_verilog(verilog_player, kind, rows, words, bits):
    dut = WeightMemory(rows, words, bits, kind)
    used = words if kind == "spram" else 0
    assert verilog_of(dut).count("  SB_SPRAM256KA ") == used
    verilog_player(dut, _writes_and_reads(rows, words, bits), [cells.models(ICE40)] * bool(used))


@pytest.mark.parametrize("make", [lambda: TableMemory(2, 3), lambda: TableMemory(64, 16),
                                  lambda: WeightMemory(64, 1, 16)])
def test_block_memory_is_forced(make):
    assert 'ram_style "block"' in rtlil.convert(make())


@pytest.mark.parametrize(("make", "message"), [
    (lambda: WeightMemory(64, 4, 16, "flash"), "kind must be one of bram, spram, not 'flash'"),
    (lambda: WeightMemory(1, 4, 16), "rows must be at least 2, not 1"),
    (lambda: WeightMemory(64, 0, 16), "words must be at least 1, not 0"),
    (lambda: WeightMemory(64, 3, 16), "words must be a power of two, not 3"),
    (lambda: WeightMemory(20000, 4, 16, "spram"),
     "rows must be at most 16384 for kind 'spram', not 20000"),
    (lambda: WeightMemory(64, 4, 17, "spram"),
     "word_bits must be at most 16 for kind 'spram', not 17"),
    (lambda: TableMemory(0, 8), "depth must be at least 1, not 0"),
    (lambda: TableMemory(8, 0), "width must be at least 1, not 0"),
])
def test_rejects(make, message):
    with pytest.raises(ValueError) as caught:
        make()
    assert str(caught.value) == message
