"""Helpers for block tests in Amaranth's own simulator."""

from collections.abc import Awaitable, Callable
from typing import Any

from amaranth.lib import stream
from amaranth.sim import Simulator

__all__ = ["get", "put", "run"]


async def put(ctx: Any, into: stream.Interface, payload: Any, *, idle: int = 0) -> None:
    """Wait ``idle`` cycles, then offer ``payload`` until it is taken; returns after that edge."""
    for _ in range(idle):
        await ctx.tick()
    ctx.set(into.payload, payload)
    ctx.set(into.valid, 1)
    ready = 0
    while not ready:
        _, _, ready = await ctx.tick().sample(into.ready)
    ctx.set(into.valid, 0)


async def get(ctx: Any, source: stream.Interface, *, idle: int = 0) -> Any:
    """Wait ``idle`` cycles, then take one payload and return it; returns after that edge."""
    for _ in range(idle):
        await ctx.tick()
    ctx.set(source.ready, 1)
    valid = 0
    while not valid:
        _, _, valid, payload = await ctx.tick().sample(source.valid, source.payload)
    ctx.set(source.ready, 0)
    return payload


def run(dut: Any, *benches: Callable[[Any], Awaitable[None]], max_cycles: int = 10_000) -> None:
    """Run ``dut`` until every bench returns; TimeoutError after ``max_cycles`` of ``sync``."""
    async def watchdog(ctx: Any) -> None:
        for _ in range(max_cycles):
            await ctx.tick()
        raise TimeoutError(f"no end after {max_cycles} cycles")

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    for bench in benches:
        simulator.add_testbench(bench)
    simulator.add_process(watchdog)
    simulator.run()
