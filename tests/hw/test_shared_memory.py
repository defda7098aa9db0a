# amaranth: UnusedElaboratable=no
"""Main memory of several clusters against a list of words: who is served, what is read and
written."""

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import Out, connect, flipped

from blocks.players import verilog_of
from blocks.verilated_block import Block
from celosia_hw.memory.shared_memory import SharedMemory
from celosia_spec.isa.array import ENTRY_WORDS

CYCLES, WORDS = 6000, 64


class Halves(wiring.Component):
    """Main memory, what fills read in two words, and what fetchers read by names of their own."""

    def __init__(self, clusters):
        self.memory = SharedMemory(WORDS, clusters)
        self.others = {name: member for name, member in self.memory.signature.members.items()
                       if name not in ("filled", "fetched")}
        super().__init__({**self.others, "filled": Out(64), "next_filled": Out(64),
                          **{f"fetched__{k}": Out(64) for k in range(clusters)}})

    def elaborate(self, platform):
        m = Module()
        m.submodules.memory = memory = self.memory
        for name, member in self.others.items():
            own, inner = getattr(self, name), getattr(memory, name)
            if member.is_port:
                m.d.comb += own.eq(inner)
                continue
            pairs = zip(own, inner, strict=True) if member.dimensions else [(own, inner)]
            for one, other in pairs:
                connect(m, flipped(one), other)
        m.d.comb += [self.filled.eq(memory.filled[:64]), self.next_filled.eq(memory.filled[64:]),
                     *(getattr(self, f"fetched__{k}").eq(word)
                       for k, word in enumerate(memory.fetched))]
        return m


def stimulus(clusters):
    """Return the clients of the shared port by rank, each with whether its grant comes a cycle
    behind the choice, and random inputs."""
    rng, each = np.random.default_rng(clusters), range(clusters)
    clients = {f"writers__{k}": False for k in each} | {"host": False, "flash": False} | {
        f"fetchers__{k}": True for k in each}
    found = {"fill__address": rng.integers(0, WORDS, CYCLES)}
    for name in clients:
        found[f"{name}__request"] = rng.random(CYCLES) < 0.6 / clusters
        found[f"{name}__address"] = rng.integers(0, WORDS, CYCLES)
        if not name.startswith("fetchers"):
            found[f"{name}__enable"] = rng.integers(0, 16, CYCLES) * rng.integers(0, 2, CYCLES)
            bits = 64 if name.startswith("writers") else 16
            found[f"{name}__data"] = rng.integers(0, 1 << bits, CYCLES, dtype=np.uint64)
    return clients, {name: np.asarray(values, np.uint64) for name, values in found.items()}


@pytest.mark.parametrize("clusters", [2, 4])
def test_ports(clusters):
    """Of words with even and with odd numbers one access each; nobody sees another one's word."""
    clients, inputs = stimulus(clusters)
    with Block(verilog_of(Halves(clusters))) as block:
        found = block.stream(inputs, [*(f"{name}__grant" for name in clients), "fill__grant",
                                      "filled", "next_filled",
                                      *(f"fetched__{k}" for k in range(clusters))])
    assert found["fill__grant"].all()
    known = [[0] * ENTRY_WORDS for _ in range(WORDS)]
    late, made, read, filled, behind = set(), {}, {}, None, None
    reads = fills = both = 0
    for cycle in range(CYCLES):
        now = {name: int(values[cycle]) for name, values in inputs.items()}
        chosen = {}     # of either half, who is served
        for name in clients:
            if now[f"{name}__request"] and name not in late:
                chosen.setdefault(now[f"{name}__address"] % 2, name)
        granted = late | {name for name in chosen.values() if not clients[name]}
        assert {name for name in clients if found[f"{name}__grant"][cycle]} == granted, cycle
        for name, wanted in read.items():
            reader = "fetched__0" if name == "host" else name.replace("fetchers", "fetched")
            assert int(found[reader][cycle]) == wanted, (cycle, name)
        for name, wanted in (("filled", filled), ("next_filled", behind)):
            assert wanted is None or int(found[name][cycle]) == wanted, (cycle, name)
        reads, both = reads + len(read), both + len(chosen) // 2
        fills += filled is not None
        # What was chosen in the cycle before is done.
        written = {place for place, enable, _ in made.values() if enable}
        filled, behind = (None if word == WORDS or word in written else value(known[word])
                          for word in (now["fill__address"], now["fill__address"] + 1))
        read = {name: value(known[place]) for name, (place, enable, _) in made.items()
                if not enable and name.startswith(("fetchers", "host"))}
        if late and "fetchers__0" in late:
            read.pop("host", None)
        for place, enable, data in made.values():
            for k in range(ENTRY_WORDS):
                if enable >> k & 1:
                    known[place][k] = data[k]
        late = {name for name in chosen.values() if clients[name]}
        made = {name: (now[f"{name}__address"], now.get(f"{name}__enable", 0),
                       elements(name, now.get(f"{name}__data", 0))) for name in chosen.values()}
    assert min(reads, fills, both) > 1500


def elements(client, data):
    """Return the elements that a client writes: one for all, or each its own."""
    return [data >> 16 * k * client.startswith("writers") & 0xFFFF for k in range(ENTRY_WORDS)]


def value(word):
    """Return the number that elements are."""
    return sum(element << 16 * k for k, element in enumerate(word))


def test_refusal():
    with pytest.raises(ValueError) as caught:
        SharedMemory(1, 2)
    assert str(caught.value) == "words must be an even number, and at least 2, not 1"
