"""Frames of the byte-stream host port: the one definition of their layout, and the host's side
of it. Plain Python: imports neither Amaranth nor NumPy.

Request: ``SYNC, header, [8 data bytes], 3 address bytes, 2 CRC bytes``; only writes carry data.
Reply:   ``SYNC, header, [8 data bytes], 2 CRC bytes``; only accepted reads carry data.
All numbers are little-endian. The CRC covers everything between SYNC and itself.
``docs/host-port.md`` has the whole contract.
"""

import enum
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from celosia_spec.isa.fields import Field, Word
from celosia_spec.isa.memories import Space

SYNC = 0xC5
"""First byte of every frame. Not covered by the CRC; may also occur inside a frame."""

PAD = 0xFF
"""Byte that the machine ignores between frames. 0xFF keeps a UART's line high, which lets a
receiver that lost the start bits find them again."""

DATA_BYTES = 8
"""Payload of a write request and of a read reply."""

ADDRESS_BYTES = 3
CRC_BYTES = 2
CRC_INIT = 0xFFFF
_CRC_POLY = 0x8408  # x^16 + x^12 + x^5 + 1, lowest bit first


class Command(enum.IntEnum):
    """Field ``command`` of a request's header.

    READ and WRITE have log2 of the element size in bytes (0 to 3) added: a frame moves
    ``8 >> n`` elements of ``1 << n`` bytes.
    """

    READ = 0
    WRITE = 4
    STATUS = 8
    START = 9
    ABORT = 10


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

DESCRIPTORS = Word("start", (
    Field("first", 8, about="first descriptor to run"), Field("last", 8, about="last one"),
    Field("_", 8)))
"""Address bytes of START; those of STATUS and ABORT are ignored."""

ADDRESS_BITS, TAG_BITS = ADDRESS["address"].bits, _TAG.bits

SHORT_REPLY_BYTES = 2 + CRC_BYTES
LONG_REPLY_BYTES = SHORT_REPLY_BYTES + DATA_BYTES
LONG_REQUEST_BYTES = 2 + DATA_BYTES + ADDRESS_BYTES + CRC_BYTES

RESYNC = bytes([PAD]) * (LONG_REQUEST_BYTES + LONG_REPLY_BYTES)
"""Completes and flushes whatever the machine took for a frame, without waiting for its timeout."""


def crc_update(crc: int, byte: int) -> int:
    """Return the CRC after one more byte. Linear over GF(2) in (crc, byte)."""
    crc ^= byte
    for _ in range(8):
        crc = crc >> 1 ^ (_CRC_POLY if crc & 1 else 0)
    return crc


_AFTER = [crc_update(0, byte) for byte in range(256)]
"""What a byte makes of a CRC of zero."""


def crc16(data: bytes) -> int:
    """Return CRC-16/MCRF4XX of ``data`` (that of b"123456789" is 0x6F91).

    Appending the result, low byte first, makes the CRC of the whole zero.
    """
    crc = CRC_INIT
    for byte in data:
        crc = crc >> 8 ^ _AFTER[(crc ^ byte) & 0xFF]
    return crc


def _frame(body: bytes) -> bytes:
    return bytes([SYNC]) + body + crc16(body).to_bytes(CRC_BYTES, "little")


def _check(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name} must be {low} to {high}, not {value!r}")


def _request(command: int, tag: int, field: int = 0, data: bytes = b"") -> bytes:
    header = REQUEST.pack(command=command, tag=tag)
    return _frame(bytes([header]) + data + field.to_bytes(ADDRESS_BYTES, "little"))


def _memory_request(command: Command, space: Space, address: int, element_bytes: int,
                    tag: int, data: bytes = b"") -> bytes:
    if element_bytes not in (1, 2, 4, 8):
        raise ValueError(f"element_bytes must be 1, 2, 4 or 8, not {element_bytes!r}")
    field = ADDRESS.pack(space=Space(space), address=address)
    count = DATA_BYTES // element_bytes
    if address % count:
        raise ValueError(f"address must be a multiple of {count} for elements of {element_bytes} "
                         f"bytes, not {address}; move single elements with element_bytes=8")
    return _request(command + element_bytes.bit_length() - 1, tag, field, data)


def encode_write(space: Space, address: int, elements: Sequence[int], *, element_bytes: int,
                 tag: int = 0) -> bytes:
    """Return the request that writes ``8 // element_bytes`` elements from ``address`` on.

    elements      : integers of ``element_bytes`` bytes, signed or unsigned; with
                    ``element_bytes=8`` one element of at most 32 bits.
    element_bytes : 1, 2, 4 or 8; at least the memory's own (``Memory.element_bytes``).
    address       : a multiple of the number of elements.
    """
    count = DATA_BYTES // element_bytes if element_bytes else 0
    if len(elements) != count:
        raise ValueError(f"elements must be {count} of {element_bytes} bytes, not {len(elements)}")
    bits = min(8 * element_bytes, 32)
    data = b""
    for element in elements:
        _check("element", element, -(1 << bits - 1), (1 << bits) - 1)
        data += (element & (1 << bits) - 1).to_bytes(element_bytes, "little")
    return _memory_request(Command.WRITE, space, address, element_bytes, tag, data)


def encode_read(space: Space, address: int, *, element_bytes: int, tag: int = 0) -> bytes:
    """Return the request that reads ``8 // element_bytes`` elements from ``address`` on.

    Arguments as for ``encode_write``. ``Reply.elements`` takes the answer apart.
    """
    return _memory_request(Command.READ, space, address, element_bytes, tag)


def encode_start(first: int, last: int, *, tag: int = 0) -> bytes:
    """Return the request that runs descriptors ``first`` to ``last`` (0 to 255)."""
    return _request(Command.START, tag, DESCRIPTORS.pack(first=first, last=last))


def encode_status(*, tag: int = 0) -> bytes:
    """Return the request that changes nothing and is answered with the machine's state."""
    return _request(Command.STATUS, tag)


def encode_abort(*, tag: int = 0) -> bytes:
    """Return the request that stops the machine at once."""
    return _request(Command.ABORT, tag)


def split_run(address: int, count: int, element_bytes: int) -> Iterator[tuple[int, int, int]]:
    """Cut ``count`` elements from ``address`` on into frames: (address, elements, element_bytes).

    Whole aligned blocks go eight bytes a frame, the elements before and after one by one.
    """
    block = DATA_BYTES // element_bytes
    end = address + count
    while address < end:
        whole = address % block == 0 and address + block <= end
        step = block if whole else 1
        yield address, step, element_bytes if whole else DATA_BYTES
        address += step


def encode_write_run(space: Space, address: int, words: Sequence[int], *, element_bytes: int,
                     tag: int = 0) -> list[bytes]:
    """Return the requests that write ``words`` from ``address`` on, tags counting up from ``tag``.

    element_bytes : 1, 2 or 4. Join ``paced(request)`` of each to send them in one go.
    """
    frames = []
    runs = split_run(address, len(words), element_bytes)
    for number, (at, count, size) in enumerate(runs):
        part = [int(word) for word in words[at - address:at - address + count]]
        frames.append(encode_write(space, at, part, element_bytes=size,
                                   tag=(tag + number) % (1 << TAG_BITS)))
    return frames


def reply_bytes(request: bytes) -> int:
    """Return the length of the reply to ``request``, bytes, if it is accepted."""
    reads = REQUEST.unpack(request[1])["command"] < Command.WRITE
    return LONG_REPLY_BYTES if reads else SHORT_REPLY_BYTES


def paced(request: bytes) -> bytes:
    """Return ``request`` with the padding after it that lets another follow at once on a UART.

    The machine takes no bytes while it answers; it hands the reply's last byte to the
    transmitter one byte time before that byte is over.
    """
    return request + bytes([PAD]) * (reply_bytes(request) - 1)


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
        used = min(element_bytes, 4)
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
