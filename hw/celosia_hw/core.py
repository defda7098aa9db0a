"""The core: one array and its output stage behind a memory-mapped host bus."""

from typing import Any

from amaranth.hdl import Module, ResetInserter
from amaranth.lib import wiring
from amaranth.lib.wiring import Out, connect

from celosia_hw.control.sequencer import Sequencer
from celosia_hw.host.memory_bus import MemoryBus
from celosia_hw.lanes.lanes import Lanes
from celosia_hw.memory.weight_memory import WeightMemory
from celosia_hw.output.stage import OutputStage
from celosia_hw.signatures import (
    HOST_BUS,
    MEMORY_ACCESS,
    RUNS,
    connect_members,
    flipped_members,
)
from celosia_hw.weights.decoder import Decoder
from celosia_spec.isa import DESCRIPTOR, ArrayConfig, weight_word
from celosia_spec.isa.memories import MEMORIES

STREAMS = (
    ("control.steps", "weights.steps"), ("memory.rows", "weights.rows"),
    ("weights.operands", "lanes.operands"), ("lanes.sums", "output.sums"),
    ("output.results", "lanes.results"), ("control.prepare", "lanes.prepare"),
    ("control.walks", "output.walks"), ("lanes.peek", "weights.peek"),
)
"""Who gives what to whom: block and member of both."""


class Core(wiring.Component):
    """Run compiled layers out of on-chip memories.

    Parameters
    ----------
    array : ArrayConfig
        Sizes and widths; its hash is readable as ``Register.ARRAY_HASH``.
    mac : str
        Multipliers: "generic", "mac16" (SB_MAC16) or "mult18" (MULT18X18D).
    weight_memory : str
        "bram" or "spram" (SB_SPRAM256KA).

    Members
    -------
    mem_space, mem_address, mem_write, mem_wdata, mem_read, mem_rdata, mem_rvalid
        Host bus, see :class:`celosia_spec.isa.Space`. A write is a strobe with space, address and
        data, any cycle. Space and address of a read must hold from the strobe ``mem_read`` until
        ``mem_rvalid``, a strobe ``read_latency`` cycles later, that comes with the data. Registers
        can be read always, other memories that are ``readable`` while not busy. Writes while busy
        are ignored.
    start, start_first, start_last, busy, done, error, saturated
        See :class:`Sequencer`.
    error_descriptor, layer : Out(8)
        The descriptor that runs, ran last, or raised the error.
    abort : In(1)
        Strobe: stop at once. Memories keep what they have.
    """

    def __init__(self, array: ArrayConfig, *, mac: str = "generic",
                 weight_memory: str = "bram") -> None:
        self.array = array
        self.blocks: dict[str, Any] = {
            "control": Sequencer(array), "weights": Decoder(array), "lanes": Lanes(array, mac),
            "memory": WeightMemory(array.weight_rows, array.groups_max, weight_word(array).bits,
                                   weight_memory),
            "output": OutputStage(array),
        }
        self.bus = MemoryBus(self.blocks["lanes"].host_latency)
        self.read_latency = self.bus.read_latency
        super().__init__({
            **flipped_members(HOST_BUS), "done": Out(1), "error_descriptor": Out(8),
            "layer": Out(8),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        bus, blocks, control = self.bus, self.blocks, self.blocks["control"]
        m.submodules.bus = bus
        for name, block in blocks.items():
            aborted = name in ("control", "output")
            m.submodules[name] = ResetInserter(self.abort)(block) if aborted else block
            if name in DESCRIPTOR.groups and name != "control":
                m.d.comb += block.layer.eq(control.descriptors[name])

        def member(path: str) -> Any:
            block, _, name = path.partition(".")
            return getattr(blocks[block], name)

        for giver, taker in STREAMS:
            connect(m, member(giver), member(taker))
        for memory in MEMORIES:
            side = f"host_{memory.name}"
            owner, = (block for block in blocks.values() if side in block.signature.members)
            connect(m, getattr(bus, memory.name), getattr(owner, side))
        connect_members(m, self, bus, MEMORY_ACCESS)
        connect_members(m, self, control, RUNS)
        m.d.comb += [bus.busy.eq(control.busy), self.done.eq(control.done),
                     self.layer.eq(control.number), self.error_descriptor.eq(control.number)]
        return m
