# amaranth: UnusedElaboratable=no
"""Main memory's port against a list of words: who is served, what is read and written."""

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import Out, connect, flipped
from harness import cells

from blocks.players import verilog_of
from blocks.verilated_block import Block
from celosia_boards.families.ice40 import ICE40
from celosia_hw.memory.main_memory import MainMemory
from celosia_spec.isa.array import ENTRY_WORDS

CLIENTS = ("writer", "host", "flash", "fetcher", "fill")
"""Who uses the port; who stands first is served first."""

WIDTHS = {"writer": 64, "host": 16, "flash": 16}


def stimulus(rng, words, cycles):
    """Return random accesses to few words, by clients that ask often or seldom, and the words."""
    few = np.unique([0, words - 1, *rng.integers(0, words, 12)])
    found = {}
    for rank, client in enumerate(CLIENTS):
        found[f"{client}__request"] = (rng.random(cycles) < 0.1 + 0.15 * rank).astype(int)
        found[f"{client}__address"] = rng.choice(few, cycles)
        if (width := WIDTHS.get(client)) is not None:
            found[f"{client}__enable"] = rng.integers(0, 16, cycles) * rng.integers(0, 2, cycles)
            found[f"{client}__data"] = rng.integers(0, 1 << width, cycles, dtype=np.uint64)
    return {name: np.asarray(values, np.uint64) for name, values in found.items()}, few


def served(inputs, known):
    """Yield (client that gets its grant or None, word that is read or None) of every cycle.

    known : address to elements; an element that nobody wrote is None."""
    for cycle in range(len(inputs["fill__request"])):
        now = {name: int(values[cycle]) for name, values in inputs.items()}
        client = next((name for name in CLIENTS if now[f"{name}__request"]), None)
        if client is None:
            yield None, None
            continue
        word = known[now[f"{client}__address"]]
        enable = now.get(f"{client}__enable", 0)
        yield client, None if enable else list(word)
        for k in range(ENTRY_WORDS):
            if enable >> k & 1:
                data = now[f"{client}__data"]
                word[k] = data >> 16 * k & 0xFFFF if client == "writer" else data


@pytest.mark.parametrize(("kind", "words"), [("bram", 64), ("bram", 4096), ("spram", 16384),
                                             ("spram", 256)])
def test_port(kind, words):
    inputs, few = stimulus(np.random.default_rng(words), words, 6000)
    text = verilog_of(MainMemory(words, kind))
    assert text.count("  SB_SPRAM256KA ") == (ENTRY_WORDS if kind == "spram" else 0)
    with Block(text, [cells.models(ICE40)] * (kind == "spram")) as block:
        found = block.stream(inputs, [*(f"{client}__grant" for client in CLIENTS), "data"])
    start = 0 if kind == "bram" else None
    known = {int(address): [start] * ENTRY_WORDS for address in few}
    reads = 0
    for cycle, (client, word) in enumerate(served(inputs, known)):
        grants = [name for name in CLIENTS if found[f"{name}__grant"][cycle]]
        assert grants == [client or CLIENTS[-1]], cycle
        if word and cycle + 1 < len(found["data"]):
            data = int(found["data"][cycle + 1])
            for k, element in enumerate(word):
                assert element is None or data >> 16 * k & 0xFFFF == element, (cycle, k)
                reads += element is not None
    assert reads > 8000


class Halves(wiring.Component):
    """Main memory with two ports, and what fills read in two words."""

    def __init__(self, words):
        self.memory = MainMemory(words, two_ports=True)
        self.others = {name: member for name, member in self.memory.signature.members.items()
                       if name != "filled"}
        super().__init__({**self.others, "filled": Out(64), "next_filled": Out(64)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.memory = memory = self.memory
        for name, member in self.others.items():
            if member.is_port:
                m.d.comb += getattr(self, name).eq(getattr(memory, name))
            else:
                connect(m, flipped(getattr(self, name)), getattr(memory, name))
        m.d.comb += [self.filled.eq(memory.filled[:64]), self.next_filled.eq(memory.filled[64:])]
        return m


def test_two_ports():
    """Fills read two words a cycle, whatever others do."""
    words = 64
    inputs, _ = stimulus(np.random.default_rng(4), words, 6000)
    others = CLIENTS[:-1]
    with Block(verilog_of(Halves(words))) as block:
        found = block.stream(inputs, [*(f"{client}__grant" for client in CLIENTS), "data",
                                      "filled", "next_filled"])
    assert found["fill__grant"].all()
    known = {address: [0] * ENTRY_WORDS for address in range(words)}
    reads = fills = 0
    ranked = served(inputs | {"fill__request": np.zeros(6000, np.uint64)}, known)
    for cycle in range(5999):
        client, word = next(ranked)
        begin = int(inputs["fill__address"][cycle])
        two = [list(known[at]) if at < words else None for at in (begin, begin + 1)]
        assert [name for name in others if found[f"{name}__grant"][cycle]] == [
            name for name in [client] if name], cycle
        written = int(inputs[f"{client}__address"][cycle]) if client and word is None else None
        for at, name, wanted in ((begin, "filled", two[0]), (begin + 1, "next_filled", two[1]),
                                 (None, "data", word)):
            if wanted is not None and (at is None or at != written):
                assert int(found[name][cycle + 1]) == sum(
                    element << 16 * k for k, element in enumerate(wanted)), (cycle, name)
                reads, fills = reads + (at is None), fills + (at is not None)
    assert reads > 1500 and fills > 8000


@pytest.mark.parametrize(("arguments", "message"), [
    ((64, "flash"), "kind must be one of bram, spram, not 'flash'"),
    ((1,), "words must be at least 2, not 1"),
    ((32768, "spram"), "words must be at most 16384 for kind 'spram', not 32768"),
    ((64, "spram", True), "kind must be 'bram' and words even with two ports, not 'spram' and 64")])
def test_refusals(arguments, message):
    with pytest.raises(ValueError) as caught:
        MainMemory(*arguments[:2], two_ports=len(arguments) > 2)
    assert str(caught.value) == message
