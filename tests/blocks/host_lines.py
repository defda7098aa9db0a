"""The host's end of a host port: of its streams of bytes, or of a serial line."""

import random
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from amaranth.sim import Simulator

from blocks.host_stub import BUS_OUTPUTS, HostStub
from blocks.vectors import Vectors
from blocks.verilated_block import Block
from celosia_spec.isa.frames import Decoder, Reply


class Line:
    """The host's end of the two streams, with random gaps on both."""

    def __init__(self, ctx: Any, dut: Any, rng: random.Random, replies: list[Reply]) -> None:
        self.ctx, self.dut, self.rng, self.replies = ctx, dut, rng, replies

    async def send(self, data: bytes, *, gap: float = 0.2) -> None:
        """Send bytes; before each, another idle cycle with probability ``gap``."""
        for byte in data:
            while self.rng.random() < gap:
                await self.ctx.tick()
            self.ctx.set(self.dut.i.payload, byte)
            self.ctx.set(self.dut.i.valid, 1)
            ready = 0
            while not ready:
                *_, ready = await self.ctx.tick().sample(self.dut.i.ready)
            self.ctx.set(self.dut.i.valid, 0)
            self.ctx.set(self.dut.i.payload, self.rng.randrange(256))

    async def idle(self, cycles: int) -> None:
        for _ in range(cycles):
            await self.ctx.tick()

    async def ask(self, request: bytes) -> Reply:
        """Send a request and return the next reply; fail when there is none."""
        self.replies.clear()
        await self.send(request)
        for _ in range(3000):
            if self.replies:
                return self.replies.pop(0)
            await self.ctx.tick()
        raise AssertionError("no reply")


def play(script: Callable[[Line], Awaitable[None]], machine: HostStub, dut: Any, *, seed: int = 1,
         ready: float = 0.6, max_cycles: int = 60_000) -> None:
    """Run ``script(line)`` against a host port, ``dut``, with ``machine`` behind it.

    ready : probability that the host takes a reply byte in a cycle.
    """
    decoder = Decoder()
    replies: list[Reply] = []
    rng = random.Random(seed)

    async def bench(ctx: Any) -> None:
        await script(Line(ctx, dut, rng, replies))

    async def collect(ctx: Any) -> None:
        gaps = random.Random(seed + 1)
        while True:
            take = gaps.random() < ready
            ctx.set(dut.o.ready, take)
            *_, valid, payload = await ctx.tick().sample(dut.o.valid, dut.o.payload)
            if valid and take:
                replies.extend(decoder.feed([payload]))

    async def behind(ctx: Any) -> None:
        while True:
            _, _, *inputs = await ctx.tick().sample(*(
                getattr(dut, name) for name in machine.inputs))
            outputs = machine.step(tuple(inputs))
            for name in BUS_OUTPUTS:
                ctx.set(getattr(dut, name), outputs[name])

    async def watchdog(ctx: Any) -> None:
        for _ in range(max_cycles):
            await ctx.tick()
        raise TimeoutError(f"no end after {max_cycles} cycles")

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.add_testbench(collect, background=True)
    sim.add_process(behind)
    sim.add_process(watchdog)
    sim.run()
    assert decoder.skipped == 0


class SerialLine:
    """The host's end of the serial line, and the machine behind it, around the generated Verilog of
    the port. One bit of the host lasts ``bit`` cycles; the design takes 10. Everything that passes
    is kept in ``vectors``."""

    def __init__(self, block: Block, machine: HostStub, bit: float) -> None:
        self.block, self.machine, self.bit = block, machine, bit
        self.vectors, self.now, self._line = Vectors(), 0, 1
        self.replies: list[Reply] = []
        self._decoder = Decoder()
        self._samples: list[int] = []
        self._byte: list[int] = []
        self._drive(dict.fromkeys(BUS_OUTPUTS, 0) | {"rx": 1})

    def _drive(self, values: Mapping[str, int]) -> None:
        for name, value in values.items():
            self.block.set(name, value)
        self.vectors.hold(self.now, **values)

    def cycles(self, count: int, rx: int = 1) -> None:
        """Let cycles pass, the line at ``rx``."""
        self._drive({"rx": rx})
        for _ in range(count):
            self.block.settle()
            bus = {name: self.block.get(name) for name in self.machine.inputs}
            tx = self.block.get("tx")
            self.vectors.expect(self.now, tx=tx, **bus)
            self._listen(tx)
            self.block.tick()
            self.now += 1
            self._drive(self.machine.step(tuple(bus.values())))

    def _listen(self, tx: int) -> None:
        """Take ``tx`` in the middle of each of the host's bits that follow a falling edge."""
        if not self._samples and self._line and not tx:
            self._samples = [self.now + int(self.bit * (k + 0.5)) for k in range(10)]
        self._line = tx
        if self._samples and self.now == self._samples[0]:
            self._samples.pop(0)
            self._byte.append(tx)
        if len(self._byte) == 10:
            start, *bits, stop = self._byte
            assert (start, stop) == (0, 1)
            self.replies += self._decoder.feed([sum(b << k for k, b in enumerate(bits))])
            assert self._decoder.skipped == 0
            self._byte = []

    def send(self, data: bytes) -> None:
        """Send bytes back to back, 8N1."""
        levels = [level for byte in data
                  for level in (0, *(byte >> index & 1 for index in range(8)), 1)]
        begin = self.now
        for number, level in enumerate(levels, 1):
            self.cycles(begin + int(number * self.bit) - self.now, level)
