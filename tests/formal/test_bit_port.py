# amaranth: UnusedElaboratable=no
"""The machine's host port: what arrives damaged has no effect, and it comes back to where it
hunts, whatever bits and answers come, and however long."""

import pytest
from amaranth.hdl import Assert, Assume, Cat, Module, Mux, Signal, Value

from celosia_hw.host.bit_port import BitPort
from celosia_spec.isa import frames as protocol
from celosia_spec.isa.frames import CRC_INIT, Command, Kind
from formal.prove import holds, inside

POLYNOMIAL = 0x8408         # x^16 + x^12 + x^5 + 1, lowest bit first
PARTS = ("sync", "header", "data", "address", "checksum", "dispatch")


class Bench:
    """The port in a module, with whatever may come."""

    def __init__(self) -> None:
        self.module = m = Module()
        self.port = port = BitPort()
        self.core = core = port.elaborate(None)
        m.submodules.port = core
        self.bit, self.rdata = Signal(name="value_in"), Signal(16, name="rdata")
        self.valid, self.ready, self.rvalid, self.busy = (
            Signal(name=f"{name}_in") for name in ("valid", "ready", "rvalid", "busy"))
        self.inputs = (self.bit, self.rdata, self.valid, self.ready, self.rvalid, self.busy)
        m.d.comb += [
            port.i.payload.eq(self.bit), port.i.valid.eq(self.valid), port.o.ready.eq(self.ready),
            port.mem_rdata.eq(self.rdata), port.mem_rvalid.eq(self.rvalid), port.busy.eq(self.busy)]
        (self.header, self.byte, self.number, self.rejected, self.sending, self.writing,
         self.wrong, self.alike, self.ended, self.loaded, self.unknown, self.refused) = (
             inside(core, name) for name in (
                 "header", "byte", "bit", "rejected", "sending", "writing", "wrong", "alike",
                 "ended", "loaded", "unknown", "refused"))
        self.crc = core.submodules.crc.crc
        self.parts = {name: inside(core, f"at_{name}") for name in PARTS}

    def at(self, *parts: str) -> Value:
        """Whether some parts of a frame are received, or of a reply are sent."""
        found = [self.parts[part.removeprefix("reply ")] & ~self.writing
                 & (self.sending if part.startswith("reply") else ~self.sending) for part in parts]
        return Cat(found).any()


def observed(bench: Bench) -> Module:
    """Add what the page of the protocol says of requests, and what of it must hold."""
    m, port, bit = bench.module, bench.port, bench.bit
    taken = bench.valid & port.i.ready
    within, right, at, number = Signal(), Signal(), Signal(4), Signal(3)
    so_far, header, crc = Signal(8), Signal(8), Signal(16)
    writes, byte = header[2:4] == Command.WRITE >> 2, Cat(so_far[1:], bit)
    after = (crc >> 1)[:15] ^ Mux(crc[0] ^ bit, POLYNOMIAL, 0)
    with m.If(taken):
        m.d.sync += [number.eq(number + 1), so_far.eq(byte), crc.eq(after)]
    whole = taken & (number == 7)
    with m.If(within & whole):
        m.d.sync += at.eq(at + 1)
        with m.If(at == 0):
            m.d.sync += header.eq(byte)
        with m.Elif(at == Mux(writes, 13, 5)):
            m.d.sync += [within.eq(0), right.eq(after[:16] == 0)]
    with m.Elif(whole & (byte == protocol.SYNC)):
        m.d.sync += [within.eq(1), at.eq(0), crc.eq(CRC_INIT), right.eq(0)]
    wants = [right & (header[:4] == command) for command in (Command.ABORT, Command.START)]
    kinds = [right & (header[2:4] == command >> 2) for command in (Command.WRITE, Command.READ)]
    receives = bench.at("header", "data", "address", "checksum")
    # The machine begins to run when it is told to.
    may_run = Signal()
    m.d.sync += may_run.eq(bench.busy | port.start)
    m.d.comb += Assume(~bench.busy | may_run)
    m.d.comb += [
        # What is to be shown.
        Assert(~port.abort | wants[0]), Assert(~port.start | (wants[1] & ~bench.busy)),
        Assert(~port.mem_write | kinds[0]), Assert(~port.mem_read | kinds[1]),
        # What else holds, and carries that from cycle to cycle.
        Assert(within == receives), Assert(~within | (crc == bench.crc)),
        Assert(bench.sending | bench.writing | (number == bench.number)),
        Assert(~(bench.sending | bench.writing | bench.at("dispatch")) | (number == 0)),
        Assert(~bench.at("header") | (at == 0)),
        Assert(~bench.at("data") | (writes & (at == bench.byte + 1))),
        Assert(~bench.at("address") | (at == Mux(writes, bench.byte + 1, bench.byte - 7))),
        Assert(~bench.at("checksum") | (at == Mux(writes, bench.byte + 1, bench.byte - 7))),
        Assert(bench.at("sync", "header", "reply sync", "reply header", "reply data",
                        "reply checksum") | (header == bench.header)),
        Assert(~bench.at("dispatch") | ((right == (bench.crc == 0)) & (right == ~bench.wrong))),
        Assert(~bench.at("dispatch") | (bench.unknown == (header[:4] > Command.ABORT))),
        Assert(~bench.at("dispatch") | bench.refused | (header[:4] != Command.START) | ~may_run),
        Assert(~(port.start | port.abort) | bench.sending), Assert(~port.start | ~may_run),
        Assert(~bench.writing | (kinds[0] & ~bench.rejected)),
        Assert(~bench.at("reply data") | kinds[1]),
        Assert(~bench.at("reply sync") | Mux(bench.rejected, bench.header[:2] == Kind.REJECTED,
                                             right & (header == bench.header))),
    ]
    for k in range(8):
        there = bench.number == k
        kind = Cat(bench.header[-k % 8], bench.header[(1 - k) % 8])     # it turns as it goes
        m.d.comb += [
            Assert(~(bench.at("header") & there) | (bench.header[8 - k:] == so_far[8 - k:])),
            Assert(bench.sending | bench.writing | ~there | (k == 0)
                   | (bench.alike == (so_far[8 - k:] == protocol.SYNC & (1 << k) - 1))),
            Assert(~(bench.at("reply header") & there) | right | (kind == Kind.REJECTED)),
            Assert(~(bench.at("reply header") & there) | kinds[1] | (kind != Kind.DATA)),
        ]
        # A bit of the checksum that is not right leaves a one among those that came in.
        for j, part in ((k, 11), (8 + k, 12)):
            m.d.comb += Assert(~(bench.at("checksum") & there & (bench.byte == part))
                               | (bench.wrong == (bench.crc[16 - j:].any() if j else 0)))
    return counted(bench)


def counted(bench: Bench) -> Module:
    """Add what holds of parts and bits."""
    m = bench.module
    dispatch = bench.byte == 13
    m.d.comb += [
        Assert(~(bench.sending & bench.writing)),
        Assert(~bench.writing | ~bench.byte[3]),
        Assert(~dispatch | ~bench.sending),
        Assert(~(bench.writing | dispatch) | (bench.number == 0)),
        Assert(~bench.sending | bench.at("reply sync", "reply header", "reply data",
                                         "reply checksum")),
    ]
    return m


def test_a_damaged_request_has_no_effect_and_is_rejected(tmp_path):
    bench = Bench()
    holds(observed(bench), bench.inputs, tmp_path)


def test_a_port_that_takes_damaged_requests_is_found(tmp_path, monkeypatch):
    """The proof can fail."""
    real = BitPort._dispatch
    monkeypatch.setattr(BitPort, "_dispatch", lambda self, m, frame, wrong, late: real(
        self, m, frame, wrong & ~frame.header[7], late))
    bench = Bench()
    with pytest.raises(AssertionError, match="Assert failed"):
        holds(observed(bench), bench.inputs, tmp_path)


def test_the_port_comes_back_to_where_it_hunts(tmp_path):
    """A number falls in every cycle until it does, where bits come, the host takes what it sends,
    and memory answers."""
    bench = Bench()
    m = counted(bench)
    byte, more = bench.byte, 8 - bench.number
    waits = Mux(bench.ended, 2, ~bench.loaded)
    number, before, begun = Signal(11), Signal(11), Signal()
    for states, value in (
            (bench.at("header"), 1500 + more), (bench.at("data"), 1400 - 8 * byte[:3] + more),
            (bench.at("address", "checksum"), 900 + 8 * (15 - byte) + more),
            (bench.at("dispatch"), 800), (bench.writing, 500 + 8 - byte[:3]),
            (bench.at("reply sync"), 400 + more), (bench.at("reply header"), 300 + more),
            (bench.at("reply data"), 30 + 3 * (56 - 8 * byte[:3] + more) + waits),
            (bench.at("reply checksum"), 8 * (12 - byte) + more)):
        with m.If(states):
            m.d.comb += number.eq(value)
    m.d.sync += [before.eq(number), begun.eq(~bench.at("sync"))]
    m.d.comb += [
        Assume(bench.ready), Assume(bench.valid),
        Assume(bench.rvalid | ~bench.at("reply data") | bench.ended | bench.loaded),
        Assert(~begun | (number < before)), Assert(bench.at("sync") == (number == 0))]
    holds(m, bench.inputs, tmp_path)
