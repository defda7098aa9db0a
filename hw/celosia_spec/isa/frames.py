"""Frames of the byte-stream host port: the one definition of their layout, and the host's side
of it. Plain Python: imports neither Amaranth nor NumPy.

Request: ``SYNC, header, [8 data bytes], 3 address bytes, 2 CRC bytes``; only writes carry data.
Reply:   ``SYNC, header, [8 data bytes], 2 CRC bytes``; only accepted reads carry data.
All numbers are little-endian. The CRC covers everything between SYNC and itself.
``docs/host-port.md`` has the whole contract.
"""

import enum
from collections.abc import Iterable
from dataclasses import dataclass

from celosia_spec.isa.fields import Field, Word

SYNC = 0xC5
"""First byte of every frame. Not covered by the CRC; may also occur inside a frame."""

PAD = 0xFF
"""Byte that the machine ignores between frames. 0xFF keeps a UART's line high, which lets a
receiver that lost the start bits find them again."""

DATA_BYTES = 8
"""Payload of a write request and of a read reply."""

ELEMENT_BYTES_MAX = 4
"""Bytes of an element that exist; those of larger ones behind them do not."""

ADDRESS_BYTES = 3
CRC_BYTES = 2
CRC_INIT = 0xFFFF
CRC_POLYNOMIAL = 0x8408  # x^16 + x^12 + x^5 + 1, lowest bit first


class Command(enum.IntEnum):
    """Field ``command`` of a request's header.

    READ and WRITE have log2 of the element size in bytes (0 to 3) added, in their `SIZE_BITS`: a
    frame moves ``8 >> n`` elements of ``1 << n`` bytes.
    """

    READ = 0
    WRITE = 4
    STATUS = 8
    START = 9
    ABORT = 10


SIZE_BITS = 2
"""Lowest bits of a command that tell the size of elements, of READ and WRITE."""


class Kind(enum.IntEnum):
    """Field ``kind`` of a reply's header."""

    IDLE = 0      # request done, the machine stands still
    DATA = 1      # read done, data follows
    RUNNING = 2   # request done, the machine runs
    REJECTED = 3  # request had no effect; its header has a Reason


class Reason(enum.IntEnum):
    """Why a request was rejected: field ``reason`` of a REJECTED reply's header."""

    DAMAGED = 0   # the CRC does not match
    UNKNOWN = 1   # no such command
    BUSY = 2      # the machine runs: only STATUS and ABORT are possible


_TAG = Field("tag", 4, about="the host chooses it, the reply repeats it")

REQUEST = Word("request header", (Field("command", 4, about="`Command`"), _TAG))

REPLY = Word("reply header", (
    Field("kind", 2, about="`Kind`"),
    Field("saturated", 1, about="a result was clipped since the last start"),
    Field("failed", 1, about="the machine's error code is not zero"), _TAG))

REJECTED = Word("header of a rejection", (
    Field("kind", 2, about="`Kind.REJECTED`"), Field("reason", 2, about="`Reason`"), _TAG))

ADDRESS = Word("place", (
    Field("address", 20, about="`mem_address`, of the first element"),
    Field("space", 4, about="`mem_space`: a `Space`")))
"""Address bytes of READ and WRITE."""

START = Word("start", (
    Field("list", 16, about="word of main memory where the list of chunks begins"),
    Field("_", 8)))
"""Address bytes of START; those of STATUS and ABORT are ignored."""

TAG_BITS = _TAG.bits

SHORT_REPLY_BYTES = 2 + CRC_BYTES
LONG_REPLY_BYTES = SHORT_REPLY_BYTES + DATA_BYTES
SHORT_REQUEST_BYTES = SHORT_REPLY_BYTES + ADDRESS_BYTES
LONG_REQUEST_BYTES = SHORT_REQUEST_BYTES + DATA_BYTES

RESYNC = bytes([PAD]) * (LONG_REQUEST_BYTES + LONG_REPLY_BYTES)
"""Completes and flushes whatever the machine took for a frame, which waits for the rest."""


def crc_update(crc: int, byte: int) -> int:
    """Return the CRC after one more byte. Linear over GF(2) in (crc, byte)."""
    crc ^= byte
    for _ in range(8):
        crc = crc >> 1 ^ (CRC_POLYNOMIAL if crc & 1 else 0)
    return crc


CRC_AFTER = tuple(crc_update(0, byte) for byte in range(256))
"""What a byte makes of a CRC of zero."""


def crc16(data: bytes) -> int:
    """Return CRC-16/MCRF4XX of ``data`` (that of b"123456789" is 0x6F91).

    Appending the result, low byte first, makes the CRC of the whole zero.
    """
    crc = CRC_INIT
    for byte in data:
        crc = crc >> 8 ^ CRC_AFTER[(crc ^ byte) & 0xFF]
    return crc


def _frame(body: bytes) -> bytes:
    return bytes([SYNC]) + body + crc16(body).to_bytes(CRC_BYTES, "little")


def request(command: int, tag: int, field: int = 0, data: bytes = b"") -> bytes:
    """Return the frame of a request.

    command : of a read or a write, with the binary logarithm of its elements' bytes.
    field   : `ADDRESS` or `START`.   data : what a write writes.
    """
    header = REQUEST.pack(command=command, tag=tag)
    return _frame(bytes([header]) + data + field.to_bytes(ADDRESS_BYTES, "little"))


def encode_abort(*, tag: int = 0) -> bytes:
    """Return the request that stops the machine at once."""
    return request(Command.ABORT, tag)


def paddings(command: int) -> int:
    """Return the bytes of padding behind a request that let another follow at once on a UART.

    The machine hears nothing while it answers; its clock and the host's may be 2 % apart.
    """
    return LONG_REPLY_BYTES + 1 if command < Command.WRITE else SHORT_REPLY_BYTES


def paced(request: bytes) -> bytes:
    """Return ``request`` with its `paddings`."""
    return request + bytes([PAD]) * paddings(REQUEST.unpack(request[1])["command"])


@dataclass(frozen=True, kw_only=True)
class Reply:
    """One reply frame.

    tag       : of the request; of a damaged request it may be anything.
    kind      : what follows from it.   reason : only with Kind.REJECTED, else None.
    saturated, failed : the machine's flags; False with Kind.REJECTED.
    data      : eight bytes with Kind.DATA, else empty.
    """

    tag: int
    kind: Kind
    reason: Reason | None = None
    saturated: bool = False
    failed: bool = False
    data: bytes = b""

    def elements(self, element_bytes: int, *, signed: bool = False) -> list[int]:
        """Return the elements read; of ``element_bytes=8`` only the low 32 bits exist."""
        if self.kind is not Kind.DATA:
            raise ValueError(f"a reply of kind {self.kind.name} has no elements; check kind first")
        used = min(element_bytes, ELEMENT_BYTES_MAX)
        return [int.from_bytes(self.data[at:at + used], "little", signed=signed)
                for at in range(0, DATA_BYTES, element_bytes)]

    def encode(self) -> bytes:
        """Return the frame, as the machine sends it."""
        if self.reason is not None:
            header = REJECTED.pack(kind=self.kind, reason=self.reason, tag=self.tag)
        else:
            header = REPLY.pack(kind=self.kind, saturated=self.saturated, failed=self.failed,
                                tag=self.tag)
        return _frame(bytes([header]) + self.data)


class Decoder:
    """Finds replies in the bytes from the machine, whatever stands between them.

    A frame whose CRC does not match costs one byte: the search goes on right after its SYNC,
    so no good reply behind a damaged one is lost.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self.skipped = 0
        """Bytes so far that belonged to no reply."""

    def feed(self, data: Iterable[int]) -> list[Reply]:
        """Take more bytes; return the replies that they complete, in order."""
        self._buffer += bytes(data)
        replies = []
        while len(self._buffer) >= 2:
            size = self._frame_bytes()
            if size > len(self._buffer):
                break
            body = bytes(self._buffer[1:size])
            if size and crc16(body) == 0 and (reply := _parse(body)):
                replies.append(reply)
                del self._buffer[:size]
            else:
                del self._buffer[0]
                self.skipped += 1
        return replies

    def clear(self) -> None:
        """Forget an incomplete reply; call it when no more bytes are to come."""
        self.skipped += len(self._buffer)
        self._buffer.clear()

    def _frame_bytes(self) -> int:
        """Return the length of the frame that starts the buffer; 0 where none does."""
        if self._buffer[0] != SYNC:
            return 0
        data = REPLY.unpack(self._buffer[1])["kind"] == Kind.DATA
        return LONG_REPLY_BYTES if data else SHORT_REPLY_BYTES


def _parse(body: bytes) -> Reply | None:
    """Return the reply in ``body`` (header, data, CRC); None where its reason is undefined."""
    head = REPLY.unpack(body[0])
    kind, tag = Kind(head["kind"]), head["tag"]
    if kind is Kind.REJECTED:
        reason = REJECTED.unpack(body[0])["reason"]
        known = reason in Reason._value2member_map_
        return Reply(tag=tag, kind=kind, reason=Reason(reason)) if known else None
    return Reply(tag=tag, kind=kind, saturated=bool(head["saturated"]),
                 failed=bool(head["failed"]), data=body[1:-CRC_BYTES])
