# amaranth: UnusedElaboratable=no
"""Table memories: latency, zeros at start."""

import random

import pytest
from amaranth.back import rtlil

from blocks.pysim import run
from celosia_hw.parts.table_memory import TableMemory


def test_table_memory():
    """Zeros at start; a word may be read one edge after its write, while others are written."""
    rng = random.Random(6)
    dut = TableMemory(50, 20)
    model = [0] * 50

    async def bench(ctx):
        expected = []
        last_written = 0
        for step in range(400):
            if step:
                assert ctx.get(dut.read.data) == expected[step - 1], step
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


@pytest.mark.parametrize("make", [lambda: TableMemory(2, 3), lambda: TableMemory(64, 16)])
def test_block_memory_is_forced(make):
    assert 'ram_style "block"' in rtlil.convert(make())


@pytest.mark.parametrize(("make", "message"), [
    (lambda: TableMemory(0, 8), "depth must be at least 1, not 0"),
    (lambda: TableMemory(8, 0), "width must be at least 1, not 0"),
])
def test_rejects(make, message):
    with pytest.raises(ValueError) as caught:
        make()
    assert str(caught.value) == message
