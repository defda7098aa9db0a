"""Byte-stream host port: takes request frames, drives the host bus, sends reply frames."""

from collections.abc import Mapping
from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from celosia_hw.host.checksum import Checksum
from celosia_hw.host.frame_buffer import WORD_BITS, FrameBuffer
from celosia_hw.signatures import HOST_BUS
from celosia_spec.isa import frames as protocol
from celosia_spec.isa.frames import Command, Kind, Reason

STATES = ("sync", "header", "data", "address", "checksum", "dispatch", "write", "read", "wait",
          "rotate")
"""Parts of a frame, received or sent; what is done in between."""


class HostPort(wiring.Component):
    """Executes the requests of `celosia_spec.isa.frames` and answers each with one reply.

    A request has an effect only after its CRC was found right. A damaged one is answered with
    REJECTED/DAMAGED, an incomplete one with nothing; bytes outside frames are ignored.

    Parameters
    ----------
    timeout_cycles : int
        Age at which an incomplete request is dropped, cycles from the one after its SYNC was
        accepted; 32 to 2**30. Also how long a read waits for ``mem_rvalid``.

    Members
    -------
    i : In(stream of 8)
        Bytes from the host. Not ready while a request is executed and answered.
    o : Out(stream of 8)
        Bytes to the host.
    mem_space, mem_address : Out(4), Out(20)
        Valid with ``mem_write`` and ``mem_read``.
    mem_write : Out(1)
        Strobe. Several cycles in a row for several elements.
    mem_wdata : Out(32)
        Valid with ``mem_write``. Above an element of 1 or 2 bytes stand the elements after it:
        a memory takes the low bits that it has.
    mem_read : Out(1)
        Strobe; the next one comes after ``mem_rvalid``.
    mem_rdata, mem_rvalid : In(32), In(1)
        ``mem_rdata`` is taken where ``mem_rvalid`` is 1, at least one cycle after ``mem_read``.
    start, start_first, start_last : Out(1), Out(8), Out(8)
        Strobe and descriptor range. Never while ``busy``.
    abort : Out(1)
        Strobe. Also while ``busy``.
    busy, error, saturated : In(1), In(8), In(1)
        Levels. ``busy`` is 1 from the cycle after ``start`` on; memory is accessed while it is 0.

    Timing
    ------
    Domain ``sync``. Takes a byte a cycle. From a request's last byte to the first of its reply:
    2 cycles, a write 10, a read 10 + 8 / element_bytes * (1 + latency), latency from ``mem_read``
    to ``mem_rvalid``. After reset: waits for SYNC.
    """

    def __init__(self, *, timeout_cycles: int) -> None:
        if not 32 <= timeout_cycles <= 1 << 30:
            raise ValueError(f"timeout_cycles must be 32 to {1 << 30}, not {timeout_cycles!r}")
        self.timeout_cycles = timeout_cycles
        super().__init__({"i": In(stream.Signature(8)), "o": Out(stream.Signature(8)), **HOST_BUS})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.buffer = buffer = FrameBuffer()
        m.submodules.checksum = checksum = Checksum()
        # One of the states is 1: parts of the frame that is received or sent, what a request does.
        at = {name: Signal(name=f"at_{name}", init=name == "sync") for name in STATES}
        parts = Cat(at[name] for name in STATES[1:5])
        sending, moved, expired = (Signal(name=name) for name in ("sending", "moved", "expired"))
        header = Signal(8, reset_less=True)
        count = Signal(3)      # bytes done of a block; 7 with each part's last one
        elements = Signal(3)   # mask: bits of count that number bytes of one element
        size = header[:2]      # log2 of the element size
        m.d.comb += [
            self.i.ready.eq((at["sync"] | parts.any()) & ~sending & ~expired),
            self.o.valid.eq((at["sync"] | parts.any()) & sending),
            moved.eq(Mux(sending, self.o.ready, self.i.valid & ~expired)),
            self.o.payload.eq(Mux(at["sync"], protocol.SYNC, Mux(at["header"], header, Mux(
                at["data"], buffer.payload[:8], checksum.crc[:8])))),
            checksum.data.eq(Mux(sending, self.o.payload, self.i.payload)),
            checksum.valid.eq(moved & parts.any()), checksum.fresh.eq(at["sync"]),
            elements.eq((1 << size) - 1),
            buffer.i.eq(self.i.payload), buffer.word.eq(self.mem_rdata),
            buffer.receive.eq(moved & ~sending & (at["data"] | at["address"])),
            buffer.rotate.eq(at["write"] | at["rotate"] | (moved & sending & at["data"])),
            buffer.load.eq(Cat(1, elements[0], elements[1].replicate(2))
                           & (at["wait"] & self.mem_rvalid).replicate(4)),
            self.mem_space.eq(buffer.address[protocol.ADDRESS_BITS:]),
            self.mem_address.eq(buffer.address[:protocol.ADDRESS_BITS] | count >> size),
            self.mem_wdata.eq(buffer.payload[:WORD_BITS]),
            self.mem_write.eq(at["write"] & ((count & elements) == 0)),
            self.mem_read.eq(at["read"]),
            Cat(self.start_first, self.start_last).eq(buffer.address[:16]),
        ]
        does = self._dispatch(m, at, header, sending, moved, checksum.crc != 0)
        self._go(m, at, does, header, count, elements, sending, moved, expired)
        self._watch(m, at["sync"] & ~sending, expired)
        return m

    def _dispatch(self, m: Module, at: Mapping[str, Value], header: Signal, sending: Value,
                  moved: Value, damaged: Value) -> Value:
        """Choose what to do about a whole request, and what its reply says: the header's low bits
        are those of the reply behind its SYNC. Return whether it writes, and whether it reads."""
        command, does = header[:4], Signal(2)
        rejected = Signal(reset_less=True)
        answer = Cat(Mux(self.busy, Kind.RUNNING, Mux(header[2:4] == 0, Kind.DATA, Kind.IDLE))[:2],
                     self.saturated, self.error != 0)
        with m.If(at["header"] & ~sending & moved):
            m.d.sync += header.eq(self.i.payload)
        with m.If(at["sync"] & sending & ~rejected & moved):
            m.d.sync += command.eq(answer)
        with m.If(at["dispatch"]):
            m.d.sync += rejected.eq(1)
            with m.If(damaged):
                m.d.sync += command.eq(Reason.DAMAGED << 2 | Kind.REJECTED)
            with m.Elif(command > Command.ABORT):
                m.d.sync += command.eq(Reason.UNKNOWN << 2 | Kind.REJECTED)
            with m.Elif(self.busy & ((command < Command.STATUS) | (command == Command.START))):
                m.d.sync += command.eq(Reason.BUSY << 2 | Kind.REJECTED)
            with m.Else():
                m.d.sync += rejected.eq(0)
                m.d.comb += [self.abort.eq(command == Command.ABORT),
                             self.start.eq(command == Command.START),
                             does.eq(Cat(header[2:4] == Command.WRITE >> 2, header[2:4] == 0))]
        return does

    def _go(self, m: Module, at: Mapping[str, Signal], does: Value, header: Value, count: Signal,
            elements: Value, sending: Signal, moved: Value, expired: Value) -> None:
        """Go from state to state."""
        full, long, brief = (Signal(name=name) for name in ("full", "long", "brief"))
        drops, found = expired & ~sending, moved & (sending | (self.i.payload == protocol.SYNC))
        m.d.comb += [
            full.eq(count == protocol.DATA_BYTES - 1),
            long.eq(Mux(sending, header[:2] == Kind.DATA,
                        self.i.payload[2:4] == Command.WRITE >> 2)),
            brief.eq((at["header"] & moved & ~long) | (at["data"] & moved & full)),
        ]
        over = at["checksum"] & moved & full
        answers = (at["dispatch"] & ~does.any()) | ((at["write"] | at["rotate"]) & full)
        part = (count | ~elements).all() & ~full
        comes = {
            "sync": answers | (over & sending) | (drops & Cat(at[n] for n in STATES[1:5]).any())
                    | (expired & at["wait"] & ~self.mem_rvalid),
            "header": at["sync"] & found, "data": at["header"] & moved & long,
            "address": brief & ~sending,
            "checksum": (brief & sending) | (at["address"] & moved & full),
            "dispatch": over & ~sending, "write": at["dispatch"] & does[0],
            "read": (at["dispatch"] & does[1]) | (at["rotate"] & part),
            "wait": at["read"], "rotate": at["wait"] & self.mem_rvalid,
        }
        ends = {
            "sync": found, "header": moved | drops, "data": (moved & full) | drops,
            "address": (moved & full) | drops, "checksum": (moved & full) | drops,
            "dispatch": Const(1), "write": full, "read": Const(1),
            "wait": self.mem_rvalid | expired, "rotate": full | part,
        }
        m.d.sync += [state.eq(comes[name] | (state & ~ends[name])) for name, state in at.items()]
        with m.If(answers | over):
            m.d.sync += sending.eq(answers)
        with m.If(at["write"] | at["rotate"]
                  | (moved & (at["data"] | at["address"] | at["checksum"]))):
            m.d.sync += count.eq(count + 1)
        with m.If(at["header"] & moved):
            m.d.sync += count.eq(0)
        with m.If(brief):
            m.d.sync += count.eq(Mux(sending, 8 - protocol.CRC_BYTES, 8 - protocol.ADDRESS_BYTES))
        with m.If(at["address"] & moved & full):
            m.d.sync += count.eq(8 - protocol.CRC_BYTES)

    def _watch(self, m: Module, hunting: Value, expired: Signal) -> None:
        """Count the age of the request; ``expired`` stays 1 until the next hunt."""
        left = Signal((self.timeout_cycles - 1).bit_length() + 1)   # set by the hunt behind a reset
        m.d.comb += expired.eq(left[-1])
        with m.If(hunting):
            m.d.sync += left.eq(self.timeout_cycles - 1)
        with m.Elif(~expired):
            m.d.sync += left.eq(left - 1)
