# amaranth: UnusedElaboratable=no
"""Sums in SB_MAC16's accumulators against products added up one by one."""

import numpy as np
import pytest
from amaranth.hdl import Cat, Module, ResetInserter
from amaranth.lib.wiring import Component, In, Out
from harness import cells

from blocks.players import verilog_of
from blocks.verilated_block import Block
from celosia_boards.families.ice40 import ICE40
from celosia_hw.lanes.block_sums import BlockSums
from celosia_spec.isa.array import QUAD, Array

ONE = {"drain": 1, "residual": False}
ARRAYS = {"8 bits": Array(**ONE), "fewer": Array(weight_bits=5, activation_bits=6, **ONE),
          "wide": Array(acc_bits=32, **ONE)}


class Stopped(Component):
    """The block with a reset of its own, and with a port for each quad's codes."""

    def __init__(self, array):
        self.array = array
        self.codes = {f"x{q}": In(QUAD * array.activation_bits) for q in range(array.groups_max)}
        super().__init__(self.codes | {
            "stop": In(1), "valid": In(1), "last": In(1), "shift": In(1),
            "mantissas": In(array.weight_bits * array.groups_max), "sum": Out(array.acc_bits)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.sums = ResetInserter(self.stop)(sums := BlockSums(self.array))
        m.d.comb += [
            *(getattr(sums, name).eq(getattr(self, name)) for name in ("valid", "last", "shift")),
            sums.mantissas.as_value().eq(self.mantissas), self.sum.eq(sums.sums[0]),
            sums.x.as_value().eq(Cat(getattr(self, name) for name in self.codes)),
        ]
        return m


class Play:
    """Inputs by cycle, noise where nothing counts, and the sums that passes end with."""

    def __init__(self, array, cycles):
        self.array, self.rng = array, np.random.default_rng(1)
        self.valid, self.stop = (np.zeros(cycles, bool) for _ in range(2))
        self.last = self.rng.random(cycles) < 0.5
        self.shift = self.rng.random(cycles) < 0.5
        limit = 1 << array.weight_bits - 1
        self.mantissas = self.rng.integers(-limit, limit, (cycles, array.groups_max))
        self.x = self.rng.integers(0, 1 << array.activation_bits, (cycles, array.lanes))
        self.most = -limit, limit - 1
        self.cycle, self.ended, self.passes = 1, 0, []
        self.reset()

    def reset(self):
        self.stop[self.cycle - 1] = True
        self.cycle += self.array.lanes + 3
        self.ended = self.cycle - self.array.lanes

    def one_pass(self, length, kind, gaps=0.0):
        """A pass whose last step is as early as may be; ``kind`` tells what numbers it has."""
        lanes = self.array.lanes
        begin = max(self.cycle, self.ended + lanes - length + 1)
        at = begin + np.arange(length) + np.cumsum(self.rng.random(length) < gaps)
        self.valid[at], self.last[at] = True, False
        self.last[at[-1]] = True
        ends = [(1 << self.array.activation_bits) - 1] * len(at)
        if kind != "random":
            self.mantissas[at] = {"least": self.most[0], "most": self.most[1]}.get(
                kind, self.rng.choice(self.most, (length, 1)))
            codes = self.rng.choice([0, ends[0]], (length, lanes))
            self.x[at] = codes if kind == "jumps" else np.array(ends)[:, None]
        if kind == "nothing":
            self.x[at] = 0
        weights = np.repeat(self.mantissas[at], QUAD, axis=1)
        self.cycle = self.ended = int(at[-1])
        self.cycle += 1
        self.passes.append((self.ended + BlockSums.LATENCY, (weights * self.x[at]).sum(axis=0)))

    def windows(self):
        """Yield a pass's sums and the cycles in which they are shown: up to the next ones, or to
        a stop, which they may not all be there for."""
        stops = np.flatnonzero(self.stop)
        ends = [*(begin for begin, _ in self.passes[1:]), len(self.stop)]
        for (begin, sums), end in zip(self.passes, ends, strict=True):
            stopped = stops[stops >= begin - BlockSums.LATENCY][:1]
            yield sums, begin, min([end, *(stopped + 1)])

    def leave(self):
        """Let all sums of each pass leave before the next ones are shown; behind them noise."""
        for sums, begin, end in self.windows():
            cycles = np.arange(begin, end - 1)
            most = self.rng.choice([len(sums), 2 * len(sums), len(cycles)])
            cycles = cycles[:max(most, len(sums) - 1)]
            if len(cycles) >= len(sums) - 1:
                chosen = np.sort(self.rng.choice(cycles, len(sums) - 1, replace=False))
                self.shift[begin:chosen[-1] + 1] = False
                self.shift[chosen] = True

    def given(self):
        array, cycles = self.array, self.cycle + BlockSums.LATENCY + self.array.lanes

        def packed(values, bits):
            places = np.arange(values.shape[1]) * bits
            return ((values & (1 << bits) - 1) << places).sum(axis=1)[:cycles].astype(np.uint64)

        quads = {f"x{q}": packed(self.x[:, q * QUAD:(q + 1) * QUAD], array.activation_bits)
                 for q in range(array.groups_max)}
        return quads | {"mantissas": packed(self.mantissas, array.weight_bits)} | {
            name: getattr(self, name)[:cycles].astype(np.uint64)
            for name in ("valid", "last", "stop", "shift")}


@pytest.mark.parametrize("name", list(ARRAYS))
def test_sums_inside_multiplier_blocks(name):
    """Passes of one step to 300, close to each other and with gaps, random and of the largest
    products there are, beyond what a sum holds, too; some are stopped, and the next are right."""
    array = ARRAYS[name]
    play = Play(array, 60_000)
    for kind in ("least", "most", "nothing", "most", "least", "ends", "jumps"):
        play.one_pass(300, kind)
        play.one_pass(1, kind)
    for _ in range(600):
        length = int(play.rng.choice([1, 2, array.lanes - 1, array.lanes, array.lanes + 1,
                                      play.rng.integers(1, 60)]))
        kind = str(play.rng.choice(["random", "ends", "jumps", "most", "least", "nothing"]))
        play.one_pass(length, kind, float(play.rng.choice([0, 0, 0.3])))
        if play.rng.random() < 0.1:
            # Steps of a pass that does not end, and a stop among them or while lanes leave.
            play.valid[play.cycle:play.cycle + length] = play.rng.random(length) < 0.8
            play.last[play.cycle:play.cycle + length] = False
            play.cycle += length
            play.reset()
    play.leave()
    inputs = play.given()
    with Block(verilog_of(Stopped(array)), [cells.models(ICE40)]) as block:
        found = block.stream(inputs, ["sum"])["sum"]
    whole, half = 0, 1 << array.sum_bits - 1
    for sums, begin, end in play.windows():
        sums = (sums + half) % (2 * half) - half
        lane = 0
        for cycle in range(begin, min(end, len(found))):
            assert int(found[cycle]) == int(sums[lane]) % (1 << array.acc_bits), (cycle, lane)
            lane += int(play.shift[cycle])
            if lane == array.lanes:
                break
        whole += lane >= array.lanes - 1
    assert whole > 500
