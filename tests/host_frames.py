"""Requests of the host port, written apart from the encoder of whole tables that the host has
(`celosia_boards.host.requests`), for the tests that look at frames one by one."""

from collections.abc import Iterator, Sequence

from celosia_spec.isa.frames import (
    ADDRESS,
    DATA_BYTES,
    START,
    TAG_BITS,
    Command,
    request,
)
from celosia_spec.isa.memories import Space


def _check(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name} must be {low} to {high}, not {value!r}")


def _memory_request(command: Command, space: Space, address: int, element_bytes: int,
                    tag: int, data: bytes = b"") -> bytes:
    if element_bytes not in (1, 2, 4, 8):
        raise ValueError(f"element_bytes must be 1, 2, 4 or 8, not {element_bytes!r}")
    field = ADDRESS.pack(space=space, address=address)
    count = DATA_BYTES // element_bytes
    if address % count:
        raise ValueError(f"address must be a multiple of {count} for elements of {element_bytes} "
                         f"bytes, not {address}; move single elements with element_bytes=8")
    return request(command + element_bytes.bit_length() - 1, tag, field, data)


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


def encode_start(at: int, *, tag: int = 0) -> bytes:
    """Return the request that runs the list of chunks at a word of main memory (0 to 65535)."""
    return request(Command.START, tag, START.pack(list=at))


def encode_status(*, tag: int = 0) -> bytes:
    """Return the request that changes nothing and is answered with the machine's state."""
    return request(Command.STATUS, tag)


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
