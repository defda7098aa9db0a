# amaranth: UnusedElaboratable=no
"""Memories: latency, slots, zeros at start; SPRAM blocks behave as inferred memory does."""

import random

import pytest
from amaranth.back import rtlil

from celosia_boards.families.ice40 import ICE40
from celosia_hw.memory.weight_memory import WeightMemory
from celosia_hw.parts.table_memory import TableMemory
from celosia_sim import cells
from celosia_sim.testing.players import verilog_of
from celosia_sim.testing.pysim import run
from celosia_sim.testing.vectors import Vectors, pack


@pytest.mark.parametrize("output_register", [False, True])
def test_weight_memory(output_register):
    rng = random.Random(5)
    dut = WeightMemory(37, 3, 12, output_register=output_register)
    assert dut.latency == 1 + output_register
    model = {(row, slot): 0 for row in range(37) for slot in range(3)}

    async def bench(ctx):
        for _ in range(200):
            at = rng.randrange(37), rng.randrange(3)
            model[at] = rng.getrandbits(12)
            ctx.set(dut.write_enable, 1)
            ctx.set(dut.write_row, at[0])
            ctx.set(dut.write_slot, at[1])
            ctx.set(dut.write_data, model[at])
            await ctx.tick()
        ctx.set(dut.write_enable, 0)
        rows = [rng.randrange(37) for _ in range(100)]
        for step in range(len(rows) + dut.latency):
            if step >= dut.latency:
                row = rows[step - dut.latency]
                assert list(ctx.get(dut.read_data)) == [model[row, slot] for slot in range(3)]
            ctx.set(dut.read_row, rows[min(step, len(rows) - 1)])
            await ctx.tick()

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
                assert ctx.get(dut.read_data) == expected[step - dut.latency], step
            read = rng.choice([last_written, rng.randrange(50)])
            write = rng.choice([address for address in range(50) if address != read])
            enable, word = rng.randrange(2), rng.getrandbits(20)
            expected.append(model[read])
            ctx.set(dut.read_address, read)
            ctx.set(dut.write_address, write)
            ctx.set(dut.write_enable, enable)
            ctx.set(dut.write_data, word)
            await ctx.tick()
            if enable:
                model[write], last_written = word, write

    run(dut, bench)


def _writes_and_reads(rows, words, bits, latency):
    """Each row read gives the words last written to it; a write touches its own slot only."""
    rng, vectors, cycle = random.Random(2), Vectors(), 1
    used = sorted({0, rows - 1, *rng.sample(range(rows), min(rows, 40))})
    places = [(row, slot) for row in used for slot in range(words)]
    model = {}
    for burst in range(21):
        for row, slot in rng.choices(places, k=rng.randrange(4)) if burst else places:
            model[row, slot] = rng.getrandbits(bits)
            vectors.pulse(cycle, write_enable=1, write_row=row, write_slot=slot,
                          write_data=model[row, slot])
            cycle += 1
        for row in rng.choices(used, k=rng.randrange(1, 12)):
            vectors.pulse(cycle, read_row=row)
            vectors.expect(cycle + latency, read_data=pack(
                (model[row, slot] for slot in range(words)), bits))
            cycle += 1
        cycle += latency
    return vectors


@pytest.mark.parametrize("output_register", [False, True])
@pytest.mark.parametrize(("kind", "rows", "words", "bits"), [
    ("bram", 1000, 4, 16), ("bram", 300, 2, 16), ("bram", 64, 1, 16),
    ("spram", 16384, 4, 16), ("spram", 300, 2, 13), ("spram", 64, 1, 16)])
def test_weight_memory_verilog(verilog_player, kind, output_register, rows, words, bits):
    dut = WeightMemory(rows, words, bits, kind, output_register=output_register)
    used = words if kind == "spram" else 0
    assert verilog_of(dut).count("  SB_SPRAM256KA ") == used
    verilog_player(dut, _writes_and_reads(rows, words, bits, dut.latency),
                   [cells.models(ICE40)] * bool(used))


@pytest.mark.parametrize(("depth", "width", "forced"), [(64, 16, True), (63, 16, False)])
def test_block_memory_is_forced_from_1024_bits(depth, width, forced):
    assert ('ram_style "block"' in rtlil.convert(TableMemory(depth, width))) == forced


@pytest.mark.parametrize(("make", "message"), [
    (lambda: WeightMemory(64, 4, 16, "flash"), "kind must be one of bram, spram, not 'flash'"),
    (lambda: WeightMemory(1, 4, 16), "rows must be at least 2, not 1"),
    (lambda: WeightMemory(64, 0, 16), "words must be at least 1, not 0"),
    (lambda: WeightMemory(20000, 4, 16, "spram"),
     "rows must be at most 16384 for kind 'spram', not 20000"),
    (lambda: WeightMemory(64, 4, 17, "spram"),
     "word_bits must be at most 16 for kind 'spram', not 17"),
    (lambda: TableMemory(1, 8), "depth must be at least 2, not 1"),
    (lambda: TableMemory(8, 0), "width must be at least 1, not 0"),
])
def test_rejects(make, message):
    with pytest.raises(ValueError) as caught:
        make()
    assert str(caught.value) == message
