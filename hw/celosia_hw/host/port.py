"""Byte-stream host port: takes request frames, drives the host bus, sends reply frames."""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, ResetInserter, Signal, Value
from amaranth.lib import crc, stream, wiring
from amaranth.lib.wiring import In, Out

from celosia_hw.host.frame_buffer import WORD_BITS, FrameBuffer
from celosia_hw.signatures import HOST_BUS
from celosia_spec.isa import frames as protocol
from celosia_spec.isa.frames import Command, Kind, Reason


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
        checksum, fresh = crc.catalog.CRC16_MCRF4XX().create(), Signal()
        m.submodules.checksum = ResetInserter(fresh)(checksum)
        header = Signal(8, reset_less=True)
        count = Signal(3)      # bytes done of the frame part or block under way
        rejected = Signal(reset_less=True)
        expired = Signal()
        taken, sent = self.i.valid & self.i.ready, self.o.valid & self.o.ready
        size = header[:2]      # log2 of the element size
        elements = Signal(3)   # mask: bits of count that number bytes of one element
        m.d.comb += [
            elements.eq((1 << size) - 1),
            buffer.i.eq(self.i.payload), buffer.word.eq(self.mem_rdata),
            checksum.data.eq(Mux(self.o.valid, self.o.payload, self.i.payload)),
            self.mem_space.eq(buffer.address[protocol.ADDRESS_BITS:]),
            self.mem_address.eq(buffer.address[:protocol.ADDRESS_BITS] | count >> size),
            self.mem_wdata.eq(buffer.payload[:WORD_BITS]),
            Cat(self.start_first, self.start_last).eq(buffer.address[:16]),
        ]
        with m.FSM() as fsm:
            self._receive(m, header, count, buffer, checksum, fresh, taken, expired)
            with m.State("DISPATCH"):
                m.d.sync += rejected.eq(0)
                m.next = "SYNC"
                self._dispatch(m, header, ~checksum.match_detected, rejected)
            self._execute(m, count, elements, buffer, expired)
            self._reply(m, header, count, rejected, buffer, checksum, fresh, sent)
        self._watch(m, fsm.ongoing("HUNT"), expired)
        return m

    def _receive(self, m: Module, header: Signal, count: Signal, buffer: FrameBuffer,
                 checksum: crc.Processor, fresh: Signal, taken: Value,
                 expired: Signal) -> None:
        """Collect one request, its CRC behind the data that it is of."""
        with m.State("HUNT"):
            m.d.comb += [self.i.ready.eq(1), fresh.eq(1)]
            m.d.sync += count.eq(0)
            with m.If(taken & (self.i.payload == protocol.SYNC)):
                m.next = "HEADER"
        parts = (("DATA", protocol.DATA_BYTES, "ADDRESS"),
                 ("ADDRESS", protocol.ADDRESS_BYTES, "CHECKSUM"),
                 ("CHECKSUM", protocol.CRC_BYTES, "DISPATCH"))
        with m.State("HEADER"):
            m.d.comb += [self.i.ready.eq(~expired), checksum.valid.eq(taken)]
            with m.If(taken):
                m.d.sync += header.eq(self.i.payload)
                writes = self.i.payload[2:4] == Command.WRITE >> 2
                m.next = "ADDRESS"
                with m.If(writes):
                    m.next = "DATA"
            with m.If(expired):
                m.next = "HUNT"
        for name, size, after in parts:
            with m.State(name):
                m.d.comb += [self.i.ready.eq(~expired), checksum.valid.eq(taken)]
                if name != "CHECKSUM":
                    m.d.comb += buffer.receive.eq(taken)
                with m.If(taken):
                    m.d.sync += count.eq(count + 1)
                    with m.If(count == size - 1):
                        m.d.sync += count.eq(0)
                        m.next = after
                with m.If(expired):
                    m.next = "HUNT"

    def _dispatch(self, m: Module, header: Signal, damaged: Value, rejected: Signal) -> None:
        """Choose what to do about a whole request: one cycle."""
        def reject(reason: Reason) -> None:
            m.d.sync += [rejected.eq(1), header[:4].eq(reason << 2 | Kind.REJECTED)]

        with m.If(damaged):
            reject(Reason.DAMAGED)
        with m.Elif(header[:4] > Command.ABORT):
            reject(Reason.UNKNOWN)
        with m.Elif(header[:4] == Command.ABORT):
            m.d.comb += self.abort.eq(1)
        with m.Elif(header[:4] != Command.STATUS):
            with m.If(self.busy):
                reject(Reason.BUSY)
            with m.Elif(header[3]):
                m.d.comb += self.start.eq(1)
            with m.Elif(header[2]):
                m.next = "WRITE"
            with m.Else():
                m.next = "READ"

    def _execute(self, m: Module, count: Signal, elements: Signal, buffer: FrameBuffer,
                 expired: Signal) -> None:
        """Write or read the elements of one block; count goes once from 0 round to 0."""
        with m.State("WRITE"):
            m.d.comb += [self.mem_write.eq((count & elements) == 0), buffer.rotate.eq(1)]
            m.d.sync += count.eq(count + 1)
            with m.If(count == protocol.DATA_BYTES - 1):
                m.next = "SYNC"
        with m.State("READ"):
            m.d.comb += self.mem_read.eq(1)
            m.next = "WAIT"
        with m.State("WAIT"):
            with m.If(self.mem_rvalid):
                m.d.comb += buffer.load.eq(Cat(1, elements[0], elements[1].replicate(2)))
                m.next = "ROTATE"
            with m.Elif(expired):
                m.next = "HUNT"
        with m.State("ROTATE"):
            m.d.comb += buffer.rotate.eq(1)
            m.d.sync += count.eq(count + 1)
            with m.If(count == protocol.DATA_BYTES - 1):
                m.next = "SYNC"
            with m.Elif((count | ~elements).all()):
                m.next = "READ"

    def _reply(self, m: Module, header: Signal, count: Signal, rejected: Signal,
               buffer: FrameBuffer, checksum: crc.Processor, fresh: Signal,
               sent: Value) -> None:
        """Send one reply; the header's low bits become those of the reply while SYNC is sent."""
        kind = Mux(self.busy, Kind.RUNNING, Mux(header[2:4] == 0, Kind.DATA, Kind.IDLE))
        with m.State("SYNC"):
            m.d.comb += [self.o.valid.eq(1), self.o.payload.eq(protocol.SYNC),
                         fresh.eq(1)]
            with m.If(sent):
                with m.If(~rejected):
                    m.d.sync += header[:4].eq(Cat(kind[:2], self.saturated, self.error != 0))
                m.next = "REPLY_HEADER"
        with m.State("REPLY_HEADER"):
            m.d.comb += [self.o.valid.eq(1), self.o.payload.eq(header), checksum.valid.eq(sent)]
            with m.If(sent):
                m.next = "REPLY_CHECKSUM"
                with m.If(header[:2] == Kind.DATA):
                    m.next = "REPLY_DATA"
        parts = (("REPLY_DATA", protocol.DATA_BYTES, buffer.payload, "REPLY_CHECKSUM"),
                 ("REPLY_CHECKSUM", protocol.CRC_BYTES, checksum.crc, "HUNT"))
        for name, size, source, after in parts:
            with m.State(name):
                m.d.comb += [self.o.valid.eq(1), self.o.payload.eq(source[:8]),
                             checksum.valid.eq(sent)]
                if name == "REPLY_DATA":
                    m.d.comb += buffer.rotate.eq(sent)
                with m.If(sent):
                    m.d.sync += count.eq(count + 1)
                    with m.If(count == size - 1):
                        m.d.sync += count.eq(0)
                        m.next = after

    def _watch(self, m: Module, hunting: Value, expired: Signal) -> None:
        """Count the age of the request; ``expired`` stays 1 until the next hunt."""
        left = Signal((self.timeout_cycles - 1).bit_length() + 1, init=self.timeout_cycles - 1)
        m.d.comb += expired.eq(left[-1])
        with m.If(hunting):
            m.d.sync += left.eq(left.init)
        with m.Elif(~expired):
            m.d.sync += left.eq(left - 1)
