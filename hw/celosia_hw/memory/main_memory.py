"""Main memory and its port."""

from dataclasses import dataclass
from typing import Any

from amaranth.hdl import ClockSignal, Const, Instance, Module, Mux, Signal, Value
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Member, Out

from celosia_hw.blocks import SPRAM_BITS, SPRAM_ROWS
from celosia_hw.memory.halves import Port, halves
from celosia_spec.isa.array import CONTROL_BITS, ENTRY_BITS, ENTRY_WORDS

__all__ = ["MAIN_KINDS", "Access", "MainMemory"]

MAIN_KINDS = ("bram", "spram")
"""``bram``: inferred block memory; ``spram``: four SB_SPRAM256KA of iCE40 UltraPlus, which have one
port."""


@dataclass(frozen=True)
class _Client:
    """Who uses the port. written : width of what it writes, 0 where it only reads."""

    name: str
    written: int = 0


_CLIENTS = (_Client("writer", ENTRY_BITS), _Client("host", CONTROL_BITS),
            _Client("flash", CONTROL_BITS), _Client("fetcher"), _Client("fill"))
"""Who uses the port; who stands first is served first."""


class Access(wiring.Signature):
    """A client's side of the port, seen from the client.

    request : an access is wanted, to word ``address``. Both are the client's registers, and stay
              until ``grant``.
    grant   : in the same cycle: it is made at the edge that ends it. What was read is in the
              port's ``data`` in the cycle after that. The last client has it where no other one
              asks, whether it asks itself or not.
    enable  : elements of the word that are written; 0 reads.   data : what they get, a word, or
              one element for all. Only of clients that write.
    """

    def __init__(self, words: int, written: int) -> None:
        members: dict[str, Member] = {"request": Out(1), "grant": In(1),
                                      "address": Out(range(words))}
        if written:
            members |= {"enable": Out(ENTRY_WORDS), "data": Out(written)}
        super().__init__(members)


class MainMemory(wiring.Component):
    """Words of four elements; one access a cycle, of the first client that asks for one.

    Parameters
    ----------
    words : int
        Depth, `Array.main_words`; at most 16384 for ``spram``.
    two_ports : bool
        Fills have a port of their own, of two words; only of ``bram``, and of an even number.
    kind : str
        One of `MAIN_KINDS`. Both have the same timing. ``bram`` holds zeros at start, ``spram``
        holds nothing defined. Amaranth's own simulator ignores device blocks: simulate ``bram``.

    Members
    -------
    writer, host, flash, fetcher, fill : In(Access)
        The clients, by rank. The writer always gets its grant.
    data : Out(64)
        The word that was read, for all clients.
    filled : Out(128)
        With two ports, which the fill is always granted, what it read: the word that it asked for,
        and the next one.

    Timing
    ------
    An access a cycle. ``grant`` hangs on ``request`` by logic, and on nothing else. ``data``
    belongs to the access that was granted in the cycle before; it means nothing where that wrote,
    or where there was none. A word may be read in the cycle after the one that wrote it. Reset
    leaves contents and data alone.
    """

    LATENCY = 1

    def __init__(self, words: int = 16384, kind: str = "bram", *, two_ports: bool = False) -> None:
        if kind not in MAIN_KINDS:
            raise ValueError(f"kind must be one of {', '.join(MAIN_KINDS)}, not {kind!r}")
        if words < 2:
            raise ValueError(f"words must be at least 2, not {words!r}")
        if kind == "spram" and words > SPRAM_ROWS:
            raise ValueError(f"words must be at most {SPRAM_ROWS} for kind 'spram', not {words}")
        if two_ports and (kind == "spram" or words % 2):
            raise ValueError(f"kind must be 'bram' and words even with two ports, not {kind!r} and "
                             f"{words}")
        self.words, self.kind, self.two_ports = words, kind, two_ports
        super().__init__({
            **{client.name: In(Access(words, client.written)) for client in _CLIENTS},
            "data": Out(ENTRY_BITS), **({"filled": Out(2 * ENTRY_BITS)} if two_ports else {})})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        *ranked, last = (getattr(self, client.name) for client in _CLIENTS)
        before: Value = Const(0)
        for client in ranked:
            m.d.comb += client.grant.eq(client.request & ~before)
            before = before | client.request
        m.d.comb += last.grant.eq(1 if self.two_ports else ~before)
        address, enable, written = (Signal(range(self.words)), Signal(ENTRY_WORDS),
                                    Signal(ENTRY_BITS))
        fetcher, fill = self.fetcher, self.fill
        writer, host, flash, one = self.writer, self.host, self.flash, Signal(CONTROL_BITS)
        # The writer's request comes latest: it chooses last. Who writes one by one, and who reads,
        # gives zeros where it is not served.
        ones = Mux(host.request, host.address, Mux(flash.request, flash.address, 0))
        reads = Mux(host.request | flash.request, 0,
                    fetcher.address if self.two_ports else
                    Mux(fetcher.request, fetcher.address, fill.address))
        m.d.comb += [
            address.eq(Mux(writer.request, writer.address, ones | reads)),
            enable.eq(Mux(writer.request, writer.enable, Mux(
                host.request, host.enable, Mux(flash.request, flash.enable, 0)))),
            one.eq(Mux(host.request, host.data, flash.data)),
            written.eq(Mux(writer.request, writer.data, one.replicate(ENTRY_WORDS))),
        ]
        build = (self._halves if self.two_ports else
                 self._spram if self.kind == "spram" else self._bram)
        build(m, address, enable, written)
        return m

    def _bram(self, m: Module, address: Signal, enable: Signal, written: Signal) -> None:
        m.submodules.block = block = memory.Memory(
            shape=ENTRY_BITS, depth=self.words, init=[], attrs={"ram_style": "block"})
        write, read = block.write_port(granularity=CONTROL_BITS), block.read_port()
        m.d.comb += [write.addr.eq(address), write.en.eq(enable), write.data.eq(written),
                     read.addr.eq(address), self.data.eq(read.data)]

    def _halves(self, m: Module, address: Signal, enable: Signal, written: Signal) -> None:
        odd = Signal(reset_less=True)
        m.d.sync += odd.eq(address[0])

        def port(half: int, _: str) -> Port:
            own = (address[0] == half).replicate(len(enable))
            return Port(address[1:], enable & own, written)

        (even_word, odd_word), filled = halves(m, self.words, port, self.fill.address)
        m.d.comb += [self.filled.eq(filled),
                     self.data.eq(Mux(odd, odd_word, even_word))]

    def _spram(self, m: Module, address: Signal, enable: Signal, written: Signal) -> None:
        wide = Signal(range(SPRAM_ROWS))
        m.d.comb += wide.eq(address)
        for k in range(ENTRY_WORDS):
            m.submodules[f"element{k}"] = Instance(
                "SB_SPRAM256KA",
                i_CLOCK=ClockSignal(), i_ADDRESS=wide, i_DATAIN=written.word_select(k, SPRAM_BITS),
                i_MASKWREN=Const(15, 4), i_WREN=enable[k], i_CHIPSELECT=Const(1),
                i_STANDBY=Const(0), i_SLEEP=Const(0), i_POWEROFF=Const(1),  # 1 keeps the power on
                o_DATAOUT=self.data.word_select(k, SPRAM_BITS))
