"""The host port: requests and replies bit by bit."""

from functools import reduce
from operator import or_
from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import crc, data, stream, wiring
from amaranth.lib.wiring import In, Out

from celosia_hw.layouts import layout
from celosia_hw.parts.compare import at_least
from celosia_hw.parts.count import counted
from celosia_hw.signatures import HOST_BUS
from celosia_spec.isa import frames as protocol
from celosia_spec.isa.array import CONTROL_BITS
from celosia_spec.isa.frames import REJECTED, REPLY, REQUEST, SIZE_BITS, Command, Kind, Reason
from celosia_spec.isa.memories import MEMORIES

_CRC_BITS = 8 * protocol.CRC_BYTES
_CRC = crc.Algorithm(
    crc_width=_CRC_BITS, polynomial=int(f"{protocol.CRC_POLYNOMIAL:0{_CRC_BITS}b}"[::-1], 2),
    initial_crc=protocol.CRC_INIT, reflect_input=True, reflect_output=True,
    xor_output=0)(data_width=1)

_ADDRESS = protocol.DATA_BYTES
_CHECKSUM = _ADDRESS + protocol.ADDRESS_BYTES
_DISPATCH = _CHECKSUM + protocol.CRC_BYTES
_SYNC, _HEADER = _DISPATCH + 1, _DISPATCH + 2
"""Numbers of a frame's bytes, the first of each part; data have those from 0 on. So they follow
each other: SYNC, header, data, address, checksum, what is done then, and the reply's SYNC. Frames
leave out what they lack."""

assert protocol.CRC_BYTES == 2 and 2 * _ADDRESS == _HEADER + 1 == 1 << 4


class _Frame:
    """A frame on its way.

    byte    : number of the byte.   at : by its name, whether that is of a part.
    sending : the frame is a reply.   writing : what was kept is written.
    header  : of the request, then of the reply.
    moved, value : strobe: a bit goes; which it is.   whole : strobe: that is its byte's last one.
    """

    def __init__(self) -> None:
        self.byte = Signal(4, init=_SYNC, name="byte")
        self.at = {name: Signal(name=f"at_{name}") for name in (
            "sync", "header", "data", "address", "checksum", "dispatch")}
        self.sending, self.writing = Signal(name="sending"), Signal(name="writing")
        self.header = Signal(REQUEST.bits, reset_less=True, name="header")
        self.moved, self.value, self.whole = (
            Signal(name=name) for name in ("moved", "value", "whole"))

    @property
    def long(self) -> Value:
        """Whether data follow the header, with its last bit."""
        came = Cat(self.header[1:], self.value)
        return Mux(self.sending, data.View(layout(REPLY), came).kind == Kind.DATA,
                   _is(data.View(layout(REQUEST), came).command, Command.WRITE))


class BitPort(wiring.Component):
    """Executes the requests of `celosia_spec.isa.frames` and answers each with one reply.

    A request has an effect only after its CRC was found right. A damaged one is answered with
    REJECTED/DAMAGED; bytes outside frames are ignored. An incomplete one waits for the rest.

    The bus has elements of 16 bits, and so have frames. A register has two, the second one with 4
    in its address. Of elements of eight bytes the first one alone is written. What is read from a
    multiple of four on, is read in its order.

    Members
    -------
    i : In(stream of 1), o : Out(stream of 1)
        Bits of bytes from the host and to it, the lowest one first; from the reset on eight are a
        byte. None is taken while a request is executed and answered.
    first : Out(1), last : Out(1)
        The byte is a frame's first one, or none of a frame. The bit is the last one of its byte.
    mem_space, mem_address : Out(4), Out(20)
        Valid with ``mem_write`` and ``mem_read``.
    mem_write, mem_wdata : Out(1), Out(16)
        Strobe.
    mem_read, mem_rdata, mem_rvalid : Out(1), In(16), In(1)
        Strobe; ``mem_rdata`` is taken where ``mem_rvalid`` is 1, at least one cycle later.
    mem_keep, mem_kept : Out(1), Out(1)
        Strobe: of four elements that the machine keeps, each becomes the one behind it, and the
        last one ``mem_wdata``; not while ``busy``. While ``mem_kept``, and not ``busy``,
        ``mem_rdata`` is the first of them two cycles behind a strobe.
    start, start_list : Out(1), Out(16)
        Strobe and its word. Never while ``busy``.
    abort : Out(1)
        Strobe. Also while ``busy``.
    busy, error, saturated : In(1), In(8), In(1)
        Levels. ``busy`` is 1 from the cycle after ``start`` on; memory is accessed while it is 0.

    Timing
    ------
    Domain ``sync``. Takes a bit a cycle. From a request's last bit to the first one of its reply: 2
    cycles, behind a write 10. Elements are read one by one as the reply comes to them. After reset:
    waits for SYNC.
    """

    def __init__(self) -> None:
        super().__init__({"i": In(stream.Signature(1)), "o": Out(stream.Signature(1)),
                          "first": Out(1), "last": Out(1), **HOST_BUS})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        frame, bit = _Frame(), Signal(3)
        byte, at, sending, moved = frame.byte, frame.at, frame.sending, frame.moved
        m.d.comb += [
            at["sync"].eq(byte == _SYNC), at["header"].eq(byte == _HEADER),
            at["data"].eq(~byte[3]), at["dispatch"].eq(byte == _DISPATCH),
            at["address"].eq(at_least(byte, _ADDRESS) & ~at_least(byte, _CHECKSUM)),
            at["checksum"].eq((byte == _CHECKSUM) | (byte == _DISPATCH - 1)),
            self.last.eq(bit.all()), self.first.eq(at["sync"]),
            self.i.ready.eq(~(sending | frame.writing | at["dispatch"])),
            moved.eq(Mux(sending, self.o.valid & self.o.ready, self.i.valid & self.i.ready)),
            frame.value.eq(Mux(sending, self.o.payload, self.i.payload)),
            frame.whole.eq(moved & self.last),
        ]
        m.d.sync += bit.eq(counted(bit, moved))
        crc, wrong = self._checksum(m, frame)
        bit_of, late = self._data(m, frame)
        m.d.comb += self.o.payload.eq(Mux(
            at["sync"], Const(protocol.SYNC, 8).bit_select(bit, 1),
            Mux(at["header"], frame.header[0], Mux(at["data"], bit_of, crc))))
        self._address(m, frame)
        writes = self._dispatch(m, frame, wrong, late)
        found = self._is_sync(m, bit, moved, self.i.payload)
        self._go(m, frame, found, writes)
        return m

    def _checksum(self, m: Module, frame: _Frame) -> tuple[Value, Signal]:
        """Return the bit of the checksum that comes next, and whether one that came was wrong."""
        at, moved, value = frame.at, frame.moved, frame.value
        m.submodules.crc = crc = _CRC.create()
        wrong = Signal(reset_less=True)
        m.d.comb += [crc.start.eq(moved & at["sync"]), crc.valid.eq(moved & ~at["sync"]),
                     crc.data.eq(value)]
        with m.If(moved):
            m.d.sync += wrong.eq(at["checksum"] & (wrong | (crc.crc[0] ^ value)))
        return crc.crc[0], wrong

    def _data(self, m: Module, frame: _Frame) -> tuple[Value, Signal]:
        """Keep elements that came, read those that go; return the next bit of one, and whether the
        machine ran when the header came: then nothing was kept."""
        at, byte, sending = frame.at, frame.byte, frame.sending
        element = Signal(CONTROL_BITS, reset_less=True)
        late = Signal(reset_less=True)
        # An element has ended, or the header: of a request one more is kept, before the others.
        ended, loaded = Signal(name="ended"), Signal(name="loaded")
        m.d.sync += [
            ended.eq(frame.whole & byte[0] & (
                at["data"] | (at["header"] & (~sending | frame.long)))),
            loaded.eq(self.mem_rvalid | (loaded & ~ended)),
        ]
        with m.If(at["header"]):
            m.d.sync += late.eq(self.busy)
        first = frame.writing & ~byte[0]
        with m.If(self.mem_rvalid | first | (frame.moved & at["data"])):
            m.d.sync += element.eq(Mux(self.mem_rvalid | first, self.mem_rdata,
                                       Cat(element[1:], frame.value)))
        command = data.View(layout(REQUEST), frame.header).command
        single = command[:SIZE_BITS].all()
        m.d.sync += self.mem_write.eq(first & ~(single & byte[1:3].any()))
        m.d.comb += [
            self.mem_read.eq(ended & sending), self.mem_keep.eq(first | (ended & ~sending & ~late)),
            self.mem_kept.eq(command[SIZE_BITS] & ~sending), self.mem_wdata.eq(element),
            self.o.valid.eq(sending & (~at["data"] | (loaded & ~ended))),
        ]
        return element[0], late

    def _address(self, m: Module, frame: _Frame) -> None:
        """Hold the address, and give that of each element."""
        address = Signal(8 * protocol.ADDRESS_BYTES, reset_less=True)
        with m.If(frame.moved & frame.at["address"]):
            m.d.sync += address.eq(Cat(address[1:], frame.value))
        place, double = data.View(layout(protocol.ADDRESS), address), Signal(reset_less=True)
        number = frame.byte[1:3]
        m.d.sync += double.eq(reduce(or_, (self.mem_space == memory.space for memory in MEMORIES
                                           if memory.has_halves)))
        m.d.comb += [
            self.mem_space.eq(place.space), self.mem_address.eq(place.address | Mux(
                double, Cat(number[1], Const(0, 1), number[0]), number)),
            self.start_list.eq(data.View(layout(protocol.START), address).list),
        ]

    def _dispatch(self, m: Module, frame: _Frame, wrong: Value, late: Value) -> Signal:
        """Choose what to do about a whole request, and what its reply says: the header's low bits
        are those of the reply behind its SYNC. Return whether it writes."""
        at, header = frame.at, frame.header
        command = data.View(layout(REQUEST), header).command
        reply = data.View(layout(REPLY), header)
        writes = Signal()
        rejected, unknown, refused = (Signal(name=name, reset_less=True)
                                      for name in ("rejected", "unknown", "refused"))
        reads, kind = _is(command, Command.READ), _is(command, Command.WRITE)
        with m.If(at["header"] & frame.moved):
            m.d.sync += header.eq(Cat(header[1:], frame.value))
        with m.If(at["sync"] & frame.sending & frame.whole & ~rejected):
            m.d.sync += [reply.kind.eq(Mux(self.busy, Kind.RUNNING, Mux(
                reads, Kind.DATA, Kind.IDLE))), reply.saturated.eq(self.saturated),
                reply.failed.eq(self.error != 0)]
        # A header stands for bytes before it is judged.
        m.d.sync += [
            unknown.eq(at_least(command, Command.ABORT + 1)),
            refused.eq(Mux(kind, late, self.busy & (reads | (command == Command.START)))),
            self.abort.eq(0), self.start.eq(0),
        ]
        with m.If(at["dispatch"]):
            m.d.sync += rejected.eq(1)
            with m.If(wrong):
                m.d.sync += command.eq(REJECTED.pack(kind=Kind.REJECTED, reason=Reason.DAMAGED))
            with m.Elif(unknown):
                m.d.sync += command.eq(REJECTED.pack(kind=Kind.REJECTED, reason=Reason.UNKNOWN))
            with m.Elif(refused):
                m.d.sync += command.eq(REJECTED.pack(kind=Kind.REJECTED, reason=Reason.BUSY))
            with m.Else():
                m.d.sync += [rejected.eq(0), self.abort.eq(command == Command.ABORT),
                             self.start.eq(command == Command.START)]
                m.d.comb += writes.eq(kind)
        return writes

    def _is_sync(self, m: Module, bit: Value, moved: Value, value: Value) -> Signal:
        """Return whether the byte is a SYNC, as far as it has come."""
        alike = Signal(reset_less=True)
        same = Signal()
        m.d.comb += same.eq((alike | (bit == 0)) & (
            value == Const(protocol.SYNC, 8).bit_select(bit, 1)))
        with m.If(moved):
            m.d.sync += alike.eq(same)
        return same

    def _go(self, m: Module, frame: _Frame, found: Value, writes: Value) -> None:
        """Go from byte to byte."""
        at, byte, sending, writing, whole, long = (
            frame.at, frame.byte, frame.sending, frame.writing, frame.whole, frame.long)
        m.d.sync += byte.eq(counted(byte, whole | writing | at["dispatch"]))
        ends = byte[:3].all() & at["data"]
        with m.If(whole & at["header"] & ~long & ~sending):
            m.d.sync += byte.eq(_ADDRESS)
        with m.If(whole & sending & (ends | (at["header"] & ~long))):
            m.d.sync += byte.eq(_CHECKSUM)
        with m.If(writes):
            m.d.sync += byte.eq(0)
        over = whole & sending & (byte == _DISPATCH - 1)
        with m.If((whole & at["sync"] & ~sending & ~found) | over | (writing & ends)):
            m.d.sync += byte.eq(_SYNC)
        m.d.sync += [writing.eq(writes | (writing & ~ends)),
                     sending.eq((sending & ~over) | (at["dispatch"] & ~writes) | (writing & ends))]


def _is(command: Value, kind: Command) -> Value:
    """Return whether a command is a READ or a WRITE, of elements of any size."""
    return command[SIZE_BITS:] == kind >> SIZE_BITS
