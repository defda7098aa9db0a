# amaranth: UnusedElaboratable=no
"""Writes that wait for main memory's port: none is lost, whatever the port does."""

from collections import deque
from itertools import product

import numpy as np
import pytest

from blocks.players import verilog_of
from blocks.verilated_block import Block
from celosia_hw.output.queue import WriteQueue
from celosia_sim.clock import queue as clock
from celosia_sim.clock.drains import Drains
from celosia_sim.clock.events import Layer
from celosia_spec.isa.array import Array
from celosia_spec.isa.passes import head_reads, pass_cycles, row_cycles
from celosia_spec.isa.timing import READ

ARRAY = Array(main_words=64, fill=8, clusters=2)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_writes_keep_their_order(share):
    """As many as fit in, and whatever the grants are; the clock model has the same writes."""
    rng = np.random.default_rng(3)
    waiting, model, most, written = deque(), clock.WriteQueue(), 0, 0
    with Block(verilog_of(WriteQueue(ARRAY))) as block:
        for cycle in range(4000):
            write = len(waiting) < WriteQueue.DEPTH and rng.random() < 0.5
            word = [int(rng.integers(0, 1 << bits, dtype=np.uint64)) for bits in (6, 4, 63)]
            grant = rng.random() < share
            for name, value in zip(("request", "address", "enable", "data"), (write, *word),
                                   strict=True):
                block.set(f"write__{name}", int(value))
            block.set("memory__grant", int(grant))
            assert block.get("busy") == block.get("memory__request") == bool(waiting), cycle
            if cycle:
                assert block.get("room") == model._room, cycle
            taken = grant and bool(waiting)
            if taken:
                assert waiting.popleft() == [block.get(f"memory__{name}")
                                             for name in ("address", "enable", "data")], cycle
                written += 1
            if write:
                waiting.append(word)
            model.step(written=bool(word[0] % 2) if write else None, granted=taken)
            assert list(model.waiting) == [address % 2 == 1 for address, *_ in waiting]
            most = max(most, len(waiting))
            block.tick()
    assert written > 500 and (most == WriteQueue.DEPTH) == (share < 0.5)


@pytest.mark.parametrize("lanes", [8, 16])
def test_there_is_room_for_what_comes_when_none_is_left(lanes):
    """Passes end until the sequencer sees that there is no room, and what they write comes later:
    it fits in, though the port takes nothing, for layers of all kinds wherever rows begin."""
    array = Array(lanes=lanes, clamp=True, fill=8, clusters=2)
    drains, most = Drains(array), 0
    for log2, signed, wide, residual, slot in product(
            range(array.groups_max.bit_length()), (False, True), (False, True), (False, True),
            range(4)):
        kind = {"log2_groups": log2, "signed_in": signed, "wide": wide, "residual": residual}
        layer = Layer(groups=1 << log2, phases=1, single=wide or residual, wide=wide,
                      residual=residual, heads=head_reads(array, signed_in=signed),
                      row=row_cycles(array, **kind), least=pass_cycles(array, **kind))
        drain = drains._pass(layer, ((slot, False, True),) * layer.groups,
                             (1 << lanes // layer.groups) - 1, True, True)
        ends = np.arange(0, 400, layer.least)
        writes = np.add.outer(ends, np.array(drain.writes) + READ + drains.lag)
        for now in range(200, 200 + layer.least):
            # The level of two cycles before says whether a pass may end.
            late = writes[ends <= now]
            most = max(most, int((late >= now - 2).sum()))
    assert WriteQueue.AHEAD >= most > WriteQueue.AHEAD - 12
