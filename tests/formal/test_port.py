# amaranth: UnusedElaboratable=no
"""The host port: what arrives damaged has no effect, and it comes back to where it hunts, whatever
bytes and answers come, and however long."""

import pytest
from amaranth.hdl import Assert, Assume, Cat, Module, Mux, Signal, Value

from celosia_hw.host.port import STATES, HostPort
from celosia_spec.isa import frames as protocol
from celosia_spec.isa.frames import CRC_INIT, Command, Kind
from formal.prove import holds, inside

TIMEOUT = 32
POLYNOMIAL = 0x8408         # x^16 + x^12 + x^5 + 1, lowest bit first
RECEIVING = ("header", "data", "address", "checksum")
READING = ("read", "wait", "rotate")
REPLYING = ("reply sync", "reply header", "reply data", "reply checksum")


def crc_after(crc: Value, byte: Value) -> Value:
    """Return the CRC after one more byte, bit by bit."""
    value = crc ^ byte
    for _ in range(8):
        value = (value >> 1)[:15] ^ Mux(value[0], POLYNOMIAL, 0)
    return value[:16]


class Bench:
    """The port in a module, with whatever may come."""

    def __init__(self) -> None:
        self.module = m = Module()
        self.port = port = HostPort(timeout_cycles=TIMEOUT)
        self.core = core = port.elaborate(None)
        m.submodules.port = core
        self.byte, self.rdata = Signal(8, name="byte"), Signal(32, name="rdata")
        self.valid, self.ready, self.rvalid, self.busy = (
            Signal(name=name) for name in ("valid", "ready", "rvalid", "busy"))
        self.inputs = (self.byte, self.rdata, self.valid, self.ready, self.rvalid, self.busy)
        m.d.comb += [
            port.i.payload.eq(self.byte), port.i.valid.eq(self.valid),
            port.o.ready.eq(self.ready), port.mem_rdata.eq(self.rdata),
            port.mem_rvalid.eq(self.rvalid), port.busy.eq(self.busy)]
        self.header, self.count, self.left, self.rejected, self.sending = (
            inside(core, name) for name in ("header", "count", "left", "rejected", "sending"))
        self.states = Cat(inside(core, f"at_{name}") for name in STATES)
        self.checksum = core.submodules.checksum

    def at(self, *states: str) -> Value:
        """Whether the port is in one of some states; parts of frames are received, or are those of
        a reply."""
        found = [self.states[STATES.index(state.removeprefix("reply "))]
                 & (self.sending if state in REPLYING else ~self.sending) for state in states]
        return Cat(found).any()


def observed(bench: Bench) -> Module:
    """Add what the page of the protocol says of requests, and what of it must hold."""
    m, port, byte = bench.module, bench.port, bench.byte
    taken = bench.valid & port.i.ready
    within, right, at = Signal(), Signal(), Signal(4)
    header, crc, age = Signal(8), Signal(16), Signal(range(TIMEOUT + 1))
    writes, after = header[2:4] == Command.WRITE >> 2, crc_after(crc, byte)
    with m.If(within):
        m.d.sync += age.eq(age + 1)
        with m.If(taken):
            m.d.sync += [crc.eq(after), at.eq(at + 1)]
            with m.If(at == 0):
                m.d.sync += header.eq(byte)
            with m.Elif(at == Mux(writes, 13, 5)):
                m.d.sync += [within.eq(0), right.eq(after == 0)]
        with m.Elif(age == TIMEOUT):
            m.d.sync += within.eq(0)
    with m.Elif(taken & (byte == protocol.SYNC)):
        m.d.sync += [within.eq(1), at.eq(0), crc.eq(CRC_INIT), right.eq(0), age.eq(0)]
    wants = [right & (header[:4] == command) for command in (Command.ABORT, Command.START)]
    kinds = [right & (header[2:4] == command >> 2) for command in (Command.WRITE, Command.READ)]
    m.d.comb += [
        # What is to be shown.
        Assert(~port.abort | wants[0]), Assert(~port.start | (wants[1] & ~bench.busy)),
        Assert(~port.mem_write | kinds[0]), Assert(~port.mem_read | kinds[1]),
        Assert(right | ~bench.at("reply header") | (port.o.payload[:2] == Kind.REJECTED)),
        # What else holds, and carries that from cycle to cycle.
        Assert(within == bench.at(*RECEIVING)), Assert(~within | (age <= TIMEOUT)),
        Assert(~within | (crc == bench.checksum.crc)),
        Assert(~within | (bench.left == (TIMEOUT - 1 - age).as_unsigned()[:len(bench.left)])),
        Assert(bench.at("sync", "header", *REPLYING) | (header == bench.header)),
        Assert(bench.at("header") == (within & (at == 0))),
        # The port counts each part's bytes up to 7.
        Assert(~bench.at("data") | (writes & (at == bench.count + 1))),
        Assert(~bench.at("address") | (at + 8 - protocol.ADDRESS_BYTES
                                       == bench.count + Mux(writes, 9, 1))),
        Assert(~bench.at("checksum") | (at + 8 - protocol.CRC_BYTES
                                        == bench.count + Mux(writes, 12, 4))),
        Assert(~bench.at("dispatch") | (right == (bench.checksum.crc == 0))),
        Assert(~bench.at("write") | kinds[0]), Assert(~bench.at(*READING) | kinds[1]),
        Assert(right | ~bench.at("reply sync") | bench.rejected),
        Assert(right | ~bench.at("reply sync", "reply header")
               | (bench.header[:2] == Kind.REJECTED)),
    ]
    return counted(bench)


def counted(bench: Bench) -> Module:
    """Add what holds of the bytes that the port counts."""
    m, states = bench.module, bench.states
    m.d.comb += [
        Assert(states.any() & ~(states & (states - 1)[:len(states)]).any()),
        Assert(~bench.sending | bench.at(*REPLYING)),
        Assert(~bench.at("dispatch", "reply sync", "reply header") | (bench.count == 0)),
        Assert(~bench.at("address") | (bench.count >= 8 - protocol.ADDRESS_BYTES)),
        Assert(~bench.at("checksum", "reply checksum")
               | (bench.count >= 8 - protocol.CRC_BYTES)),
    ]
    return m


def test_a_damaged_request_has_no_effect_and_is_rejected(tmp_path):
    bench = Bench()
    holds(observed(bench), bench.inputs, tmp_path)


def test_a_port_that_takes_damaged_requests_is_found(tmp_path, monkeypatch):
    """The proof can fail."""
    real = HostPort._dispatch
    monkeypatch.setattr(HostPort, "_dispatch", lambda self, m, at, header, sending, moved, damaged:
                        real(self, m, at, header, sending, moved, damaged & ~header[7]))
    bench = Bench()
    with pytest.raises(AssertionError, match="Assert failed"):
        holds(observed(bench), bench.inputs, tmp_path)


def test_the_port_comes_back_to_where_it_hunts(tmp_path):
    """A number falls in every cycle until it does, where the host takes what it sends."""
    bench = Bench()
    m, left = counted(bench), bench.left
    more = 8 - bench.count
    rest = Mux(left[-1], 0, left + 1)       # cycles in which the request does not expire
    number, before, begun = Signal(10), Signal(10), Signal()
    for states, value in (
            (RECEIVING, 600 + rest), (("dispatch",), 500), (("read",), 60 + more * 40 + 36),
            (("wait",), 60 + more * 40 + rest + 1), (("rotate",), 60 + more * 40),
            (("write",), 60 + more), (("reply sync",), 50), (("reply header",), 40),
            (("reply data",), 20 + more), (("reply checksum",), 5 + more)):
        with m.If(bench.at(*states)):
            m.d.comb += number.eq(value)
    m.d.sync += [before.eq(number), begun.eq(~bench.at("sync"))]
    m.d.comb += [Assume(bench.ready), Assert(~begun | (number < before)),
                 Assert(bench.at("sync") == (number == 0)), Assert(rest <= TIMEOUT)]
    holds(m, bench.inputs, tmp_path)
