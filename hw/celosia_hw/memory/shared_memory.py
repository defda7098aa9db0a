"""Main memory of several clusters: fills have a port of two words, all others share one."""

from collections.abc import Sequence
from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from celosia_hw.memory.main_memory import Access
from celosia_spec.isa.array import CONTROL_BITS, ENTRY_BITS, ENTRY_WORDS


class SharedMemory(wiring.Component):
    """Words of four elements in block memory, zeros at start. Clusters and block memories lie far
    apart: what is chosen of the shared port's clients goes through a register.

    Parameters
    ----------
    words : int
        Depth, `Array.main_words`; an even number.
    clusters : int

    Members
    -------
    writers : In(Access) of each cluster, host : In(Access), flash : In(Access),
    fetchers : In(Access) of each cluster
        The clients of the shared port, by rank.
    data : Out(64)
        The word that was read, for all of them.
    fill : In(Access), filled : Out(128)
        The other port, which is always granted, and the words that were read there: the one that
        was asked for, and the next one.

    Timing
    ------
    An access a cycle, which is made in the cycle behind the one in which it was chosen; all are
    made in their order. Fetchers have their ``grant`` in that cycle, too, and are not served in
    it: so ``data`` is there in the cycle behind, as `Access` says. All others have it in the cycle
    of the choice, and what the host reads is there two cycles later. A word may be read by ``fill``
    two cycles behind the choice of who wrote it.
    """

    def __init__(self, words: int, clusters: int) -> None:
        if words < 2 or words % 2:
            raise ValueError(f"words must be an even number, and at least 2, not {words!r}")
        self.words = words
        reads, writes, one = (Access(words, width) for width in (0, ENTRY_BITS, CONTROL_BITS))
        super().__init__({
            "writers": In(writes).array(clusters), "host": In(one), "flash": In(one),
            "fetchers": In(reads).array(clusters), "data": Out(ENTRY_BITS),
            "fill": In(reads), "filled": Out(2 * ENTRY_BITS)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        writers, host, flash, fetchers = self.writers, self.host, self.flash, self.fetchers
        asks: list[Value] = []
        before: Value = Const(0)
        for client in (*writers, host, flash):
            m.d.comb += client.grant.eq(client.request & ~before)
            asks.append(client.request)
            before = before | client.request
        for fetcher in fetchers:
            ask = fetcher.request & ~fetcher.grant
            m.d.sync += fetcher.grant.eq(ask & ~before)
            asks.append(ask)
            before = before | ask
        address, enable, written = (Signal(range(self.words)), Signal(ENTRY_WORDS),
                                    Signal(ENTRY_BITS))
        many, single = asks[:len(writers)], asks[len(writers):len(writers) + 2]
        one = Mux(single[0], host.data, flash.data).replicate(ENTRY_WORDS)
        m.d.sync += [
            address.eq(_first(asks, [client.address for client in (
                *writers, host, flash, *fetchers)])),
            enable.eq(_first([*many, *single, Const(1)], [
                *(client.enable for client in (*writers, host, flash)), Const(0)])),
            written.eq(_first([*many, Const(1)], [*(writer.data for writer in writers), one])),
        ]
        m.d.comb += self.fill.grant.eq(1)
        self._blocks(m, address, enable, written)
        return m

    def _blocks(self, m: Module, address: Value, enable: Value, written: Value) -> None:
        """Words with even and with odd numbers lie in blocks of their own, so that neighbours are
        read at once."""
        asked = self.fill.address
        odd, turned = Signal(reset_less=True), Signal(reset_less=True)
        m.d.sync += [odd.eq(address[0]), turned.eq(asked[0])]
        found, filled = [], []
        for number, name in enumerate(("even", "odd")):
            m.submodules[name] = block = memory.Memory(
                shape=ENTRY_BITS, depth=self.words // 2, init=[], attrs={"ram_style": "block"})
            write, read, other = (block.write_port(granularity=CONTROL_BITS), block.read_port(),
                                  block.read_port())
            own = (address[0] == number).replicate(len(enable))
            m.d.comb += [write.addr.eq(address[1:]), write.en.eq(enable & own),
                         write.data.eq(written), read.addr.eq(address[1:]),
                         other.addr.eq((asked + 1 - number)[1:])]
            found.append(read.data)
            filled.append(other.data)
        even, other_word = filled
        m.d.comb += [self.data.eq(Mux(odd, found[1], found[0])),
                     self.filled.eq(Mux(turned, Cat(other_word, even), Cat(even, other_word)))]


def _first(asks: Sequence[Value], values: Sequence[Value]) -> Value:
    """Return the value of the first one that asks, else the last one's: a tree."""
    if len(values) == 1:
        return values[0]
    half = (len(values) + 1) // 2
    return Mux(Cat(*asks[:half]).any(), _first(asks[:half], values[:half]),
               _first(asks[half:], values[half:]))
