# amaranth: UnusedElaboratable=no
"""Small machines of each family after the synthesis that bitstreams are made with: the golden
model's bits, and the cycles that are predicted."""

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out
from harness.netlist import machine_netlist, netlist

from blocks.verilated_block import Block
from celosia.bands.program import stream_program
from celosia.bands.report import report
from celosia.bands.session import run
from celosia.bands.simulate import simulated
from celosia_boards.devices import HX8K, LFE5U, UP5K
from celosia_sim import golden
from celosia_spec.isa.array import Array
from stream.networks import residual_network, shrinking_network

SMALL = {"main_words": 1024, "bank_rows": 128, "ring": 64, "controls": 64, "taps": 64, "tiles": 64}
MACHINES = {
    "SB_MAC16, SPRAM, flash": (UP5K, Array(**SMALL, drain=1, fill=2, flash=4), "spram",
                               shrinking_network(), ("SB_MAC16", "SB_SPRAM256KA", "SB_RAM40_4K")),
    "iCE40, logic": (HX8K, Array(**SMALL, lanes=8, residual=False), "bram",
                     shrinking_network((3, 4, 8, 8, 8), (3, 2, 1, 1), 16), ("SB_RAM40_4K",)),
    "ECP5": (LFE5U[25], Array(**SMALL | {"main_words": 2048}, lanes=8, fill=8), "bram",
             residual_network(), ("MULT18X18D", "DP16KD", "TRELLIS_DPR16X4", "TRELLIS_FF"))}


@pytest.mark.parametrize("name", MACHINES)
def test_every_layer(name):
    device, array, main_memory, graph, cells = MACHINES[name]
    design = machine_netlist(array, device, main_memory=main_memory)
    for cell in cells:
        assert f"  {cell} " in design.text
    program = stream_program(graph, array)
    assert bool(program.copied) == bool(array.flash)
    x = program.graph.input
    images = np.random.default_rng(1).random((2, *program.graph.tensors[x].user_shape)).astype(
        np.float32)
    found = run(program, images, simulated(program, design=design), tensors=program.places)
    wanted = golden.run(program.source, images)
    output = program.graph.output
    assert np.array_equal(found.output, wanted.mantissas[output])
    assert np.array_equal(found.exponent, wanted.exponents[output])
    assert np.array_equal(found.saturated, wanted.saturated)
    assert found.cycles.tolist() == [sum(layer.predicted_cycles for layer in report(program))] * 2
    assert len(found.tensors) == len(program.layers)
    for tensor, (mantissas, exponents) in found.tensors.items():
        assert np.array_equal(mantissas, wanted.mantissas[tensor]), tensor
        assert np.array_equal(exponents, wanted.exponents[tensor]), tensor


class Memory(wiring.Component):
    """One memory with a port that writes and one that reads, begun with known words."""

    def __init__(self, depth, width, granularity, init):
        self._parts = depth, width, granularity, init
        super().__init__({"write": In(width // granularity), "to": In(range(depth)),
                          "data": In(width), "read": In(1), "at": In(range(depth)),
                          "found": Out(width)})

    def elaborate(self, platform):
        m = Module()
        depth, width, granularity, init = self._parts
        m.submodules.block = block = memory.Memory(
            shape=width, depth=depth, init=init, attrs={"ram_style": "block"})
        write, read = block.write_port(granularity=granularity), block.read_port()
        m.d.comb += [write.en.eq(self.write), write.addr.eq(self.to), write.data.eq(self.data),
                     read.en.eq(self.read), read.addr.eq(self.at), self.found.eq(read.data)]
        return m


@pytest.mark.parametrize(("depth", "width", "granularity"), [
    (64, 18, 9), (512, 36, 9), (512, 32, 32), (512, 64, 16), (1024, 36, 9), (1024, 16, 16),
    (2048, 9, 9), (4096, 4, 4), (8192, 2, 2), (16384, 1, 1), (2048, 64, 16)])
def test_ecp5s_block_memory(depth, width, granularity):
    """In every shape that Yosys gives it, with words that it begins with."""
    rng = np.random.default_rng(depth + width)
    held = rng.integers(0, 1 << min(width, 62), depth).tolist()
    design = netlist(Memory(depth, width, granularity, held), LFE5U[25])
    assert "DP16KD" in design.text
    parts, steps = width // granularity, 3000
    write = np.where(rng.random(steps) < 0.5, rng.integers(0, 1 << parts, steps), 0)
    places = rng.choice(depth, min(depth, 40), replace=False)
    to, at = rng.choice(places, steps), rng.choice(places, steps)
    at = np.where((to == at) & (write != 0), (at + 1) % depth, at)      # no collision is looked at
    data, read = rng.integers(0, 1 << min(width, 62), steps), rng.random(steps) < 0.7
    mask, wanted, last = (1 << granularity) - 1, [], None
    for w, t, d, r, a in zip(*(each.tolist() for each in (write, to, data, read, at)), strict=True):
        wanted.append(last)
        if r:
            last = held[a]
        for part in range(parts):
            if w >> part & 1:
                moved = mask << granularity * part
                held[t] = held[t] & ~moved | d & moved
    text = design.text.replace("module core(", "module block(")
    with Block(text) as block:
        found = block.stream({"write": write, "to": to, "data": data, "read": read, "at": at},
                             ["found"])["found"].tolist()
    first = read.tolist().index(True) + 1
    assert found[first:] == wanted[first:]
