"""The helpers for block tests."""

import pytest
from amaranth.lib.fifo import SyncFIFOBuffered

from blocks.pysim import get, put, run


@pytest.mark.parametrize("put_idle", [0, 3])
@pytest.mark.parametrize("get_idle", [0, 4])
def test_put_and_get(put_idle, get_idle):
    """Every payload arrives once and in order, whichever side is slower."""
    dut, received = SyncFIFOBuffered(width=8, depth=2), []

    async def source(ctx):
        for value in range(20):
            await put(ctx, dut.w_stream, value, idle=put_idle)

    async def sink(ctx):
        for _ in range(20):
            received.append(await get(ctx, dut.r_stream, idle=get_idle))

    run(dut, source, sink)
    assert received == list(range(20))


def test_watchdog():
    """A bench that waits for ever fails instead of hanging."""
    dut = SyncFIFOBuffered(width=8, depth=2)

    async def sink(ctx):
        await get(ctx, dut.r_stream)

    with pytest.raises(TimeoutError, match=r"^no end after 50 cycles$"):
        run(dut, sink, max_cycles=50)
