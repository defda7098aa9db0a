"""Main memory of several clusters: fills have a port of two words, all others share one of two."""

from collections.abc import Sequence
from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from celosia_hw.memory.halves import Port, halves
from celosia_hw.memory.main_memory import Access
from celosia_spec.isa.array import CONTROL_BITS, ENTRY_BITS, ENTRY_WORDS


class SharedMemory(wiring.Component):
    """Words of four elements in block memory, zeros at start. Words with even numbers and with odd
    ones lie in halves of their own, so that neighbours are read at once, and any two clients are
    served at once of which each wants another half. Clusters and block memories lie far apart:
    what is chosen of the shared port's clients goes through a register.

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
    fetched : Out(64) of each cluster
        The word that its fetcher read; of the first cluster, where its fetcher has no grant, the
        one that the host read.
    fill : In(Access), filled : Out(128)
        The other port, which is always granted, and the words that were read there: the one that
        was asked for, and the next one.

    Timing
    ------
    Of each half an access a cycle, of the first client that asks for it; it is made in the cycle
    behind the one in which it was chosen. All of a word are made in their order. Fetchers have
    their ``grant`` in that cycle, too, and are not served in it: so what they read is there in the
    cycle behind, as `Access` says. All others have it in the cycle of the choice, and what the host
    reads is there two cycles later. A word may be read by ``fill`` two cycles behind the choice of
    who wrote it.
    """

    def __init__(self, words: int, clusters: int) -> None:
        if words < 2 or words % 2:
            raise ValueError(f"words must be an even number, and at least 2, not {words!r}")
        self.words = words
        reads, writes, one = (Access(words, width) for width in (0, ENTRY_BITS, CONTROL_BITS))
        super().__init__({
            "writers": In(writes).array(clusters), "host": In(one), "flash": In(one),
            "fetchers": In(reads).array(clusters), "fetched": Out(ENTRY_BITS).array(clusters),
            "fill": In(reads), "filled": Out(2 * ENTRY_BITS)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        clients = (*self.writers, self.host, self.flash, *self.fetchers)
        asks = [client.request for client in clients]
        for k, fetcher in enumerate(self.fetchers, len(asks) - len(self.fetchers)):
            asks[k] = asks[k] & ~fetcher.grant
        grants: list[Value] = [Const(0)] * len(clients)
        wanted: list[list[Value]] = []
        for half in range(2):
            own = [ask & (client.address[0] == half)
                   for ask, client in zip(asks, clients, strict=True)]
            before: Value = Const(0)
            for k, ask in enumerate(own):
                grants[k] = grants[k] | (ask & ~before)
                before = before | ask
            wanted.append(own)
        found, filled = halves(m, self.words, lambda half, name: self._port(
            m, wanted[half], name), self.fill.address)
        m.d.comb += [self.fill.grant.eq(1), self.filled.eq(filled)]
        first = len(clients) - len(self.fetchers)
        m.d.comb += [client.grant.eq(grant)
                     for client, grant in zip(clients[:first], grants[:first], strict=True)]
        m.d.sync += [fetcher.grant.eq(grant)
                     for fetcher, grant in zip(self.fetchers, grants[first:], strict=True)]
        self._fetched(m, *found)
        return m

    def _port(self, m: Module, asks: Sequence[Value], name: str) -> Port:
        """Return a half's access, one a cycle, of the first client that asked in the cycle
        before."""
        address, enable, written = (
            Signal(range(self.words // 2), name=f"{name}_address"),
            Signal(ENTRY_WORDS, name=f"{name}_enable"), Signal(ENTRY_BITS, name=f"{name}_written"))
        writers, host, flash = self.writers, self.host, self.flash
        many, single = asks[:len(writers)], asks[len(writers):len(writers) + 2]
        one = Mux(single[0], host.data, flash.data).replicate(ENTRY_WORDS)
        m.d.sync += [
            address.eq(_first(asks, [client.address[1:] for client in (
                *writers, host, flash, *self.fetchers)])),
            enable.eq(_first([*many, *single, Const(1)], [
                *(client.enable for client in (*writers, host, flash)), Const(0)])),
            written.eq(_first([*many, Const(1)], [*(writer.data for writer in writers), one])),
        ]
        return Port(address, enable, written)

    def _fetched(self, m: Module, even: Value, odd: Value) -> None:
        """Give each fetcher the word of the half that it was served of."""
        def half(client: Any) -> Value:
            """Return which one a client asks for, in the cycle behind."""
            found = Signal(reset_less=True, name="half")
            m.d.sync += found.eq(client.address[0])
            return found

        host = half(self.host)
        for k, (fetcher, fetched) in enumerate(zip(self.fetchers, self.fetched, strict=True)):
            own, turned = half(fetcher), Signal(reset_less=True, name="turned")
            m.d.sync += turned.eq(own if k else Mux(fetcher.grant, own, host))
            m.d.comb += fetched.eq(Mux(turned, odd, even))


def _first(asks: Sequence[Value], values: Sequence[Value]) -> Value:
    """Return the value of the first one that asks, else the last one's: a tree."""
    if len(values) == 1:
        return values[0]
    half = (len(values) + 1) // 2
    return Mux(Cat(*asks[:half]).any(), _first(asks[:half], values[:half]),
               _first(asks[half:], values[half:]))
