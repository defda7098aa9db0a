"""Many requests of the host port at once, as arrays, and their bytes.

`celosia_spec.isa.frames` says what one request is; a network takes thousands of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np

from celosia_spec.host_side import HostMemory, host_memories
from celosia_spec.isa import frames as protocol
from celosia_spec.isa.array import Array
from celosia_spec.isa.frames import Command, Kind
from celosia_spec.isa.memories import Space, memory_of
from celosia_spec.isa.registers import Register

__all__ = ["BLOCK_BYTES", "READ_EVENTS", "READ_HASH", "REGISTER_BYTES", "STATUS", "Access",
           "Requests"]

BLOCK_BYTES = protocol.DATA_BYTES
"""Bytes of memory that a frame reads or writes."""

REGISTER_BYTES = memory_of(Space.REGISTERS).element_bytes

_TAGS = 1 << protocol.TAG_BITS
_CRC = np.array(protocol.CRC_AFTER, f"<u{protocol.CRC_BYTES}")
"""What a byte does to a CRC of zero; the CRC is linear."""

_PADDINGS = np.array([protocol.paddings(command) for command in range(16)])
"""Bytes behind a request, by its command."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Requests:
    """N requests in the order in which they are to be carried out.

    command : uint8 (N,), low four bits of the header: a `Command`, size of elements added.
    address : uint32 (N,), the 24 bits of the address field.
    data    : uint8 (N, 8), what writes write; zeros elsewhere.
    pause   : int64 (N,), bytes of padding behind a request beyond those that its reply needs.
    """

    command: np.ndarray
    address: np.ndarray
    data: np.ndarray
    pause: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    def __post_init__(self) -> None:
        if not len(self.pause):
            object.__setattr__(self, "pause", np.zeros(len(self.command), np.int64))

    def __len__(self) -> int:
        return len(self.command)

    @classmethod
    def one(cls, command: int, address: int = 0, *, pause: int = 0) -> Self:
        """Return one request that writes nothing."""
        return cls(command=np.array([command], np.uint8), address=np.array([address], np.uint32),
                   data=np.zeros((1, protocol.DATA_BYTES), np.uint8),
                   pause=np.array([pause], np.int64))

    @classmethod
    def joined(cls, parts: Sequence["Requests"]) -> Self:
        """Return the requests of all parts, one after another."""
        return cls(command=np.concatenate([part.command for part in parts]),
                   address=np.concatenate([part.address for part in parts]),
                   data=np.concatenate([part.data for part in parts]),
                   pause=np.concatenate([part.pause for part in parts]))

    def at(self, indices: Sequence[int] | np.ndarray | slice) -> "Requests":
        """Return some of the requests."""
        return Requests(command=self.command[indices], address=self.address[indices],
                        data=self.data[indices], pause=self.pause[indices])

    def kinds(self) -> list[tuple[Kind, ...]]:
        """Return, for each request, the kinds of reply that mean that it was carried out."""
        accepted = {True: (Kind.DATA,), False: (Kind.IDLE,)}
        either = (Kind.IDLE, Kind.RUNNING)
        return [either if code >= Command.STATUS else accepted[code < Command.WRITE]
                for code in self.command.tolist()]

    def frames(self, first_tag: int) -> list[bytes]:
        """Return the bytes of every request, padded as `frames.paced` does, and paused.

        first_tag : of the first; those of the others count up from it, modulo 16.
        """
        writes = (self.command >= Command.WRITE) & (self.command < Command.STATUS)
        tags = (first_tag + np.arange(len(self))) % _TAGS
        header = protocol.REQUEST.pack(command=self.command.astype(np.int64),
                                       tag=tags).astype(np.uint8)
        address = _bytes(self.address.astype("<u4"))[:, :protocol.ADDRESS_BYTES]
        found: list[bytes] = [b""] * len(self)
        for long in (False, True):
            which = np.flatnonzero(writes == long)
            body = np.concatenate([header[which, None], *([self.data[which]] if long else []),
                                   address[which]], axis=1)
            crc = np.full(len(which), protocol.CRC_INIT, _CRC.dtype)
            for column in body.T:
                crc = crc >> 8 ^ _CRC[(crc ^ column) & 0xFF]
            sync = np.full((len(which), 1), protocol.SYNC, np.uint8)
            frames = np.concatenate([sync, body, _bytes(crc)], axis=1)
            size, text = frames.shape[1], frames.tobytes()
            pads = _PADDINGS[self.command[which]] + self.pause[which]
            for row, (index, pad) in enumerate(zip(which.tolist(), pads.tolist(), strict=True)):
                found[index] = (text[row * size:(row + 1) * size]
                                + bytes([protocol.PAD]) * pad)
        return found


def _bytes(numbers: np.ndarray) -> np.ndarray:
    """Return the bytes of numbers (N,), uint8 (N, bytes of each), in their order in memory."""
    return np.ascontiguousarray(numbers)[:, None].view(np.uint8)


def _log2(count: int) -> int:
    return count.bit_length() - 1


def _register_read(register: Register) -> Requests:
    """Return what reads a register, and the one behind it; registers of even numbers alone."""
    place = protocol.ADDRESS.pack(space=Space.REGISTERS, address=register)
    return Requests.one(Command.READ + _log2(REGISTER_BYTES), place)


STATUS = Requests.one(Command.STATUS)
READ_HASH = _register_read(Register.ARRAY_HASH)
"""Reads the array's hash and, behind it, `Register.STATUS`."""
READ_EVENTS = _register_read(Register.EVENTS)


@dataclass(frozen=True, eq=False, kw_only=True)
class Access:
    """Words of memories, cut into blocks of eight aligned bytes, one for each frame.

    space, address : int64 (blocks,), of each block's first element.
    size   : int64 (blocks,), log2 of the element's bytes.
    block  : int64 (words,), which block a word is in.   place : its element there.
    memories : of the array, by their numbers.
    """

    space: np.ndarray
    address: np.ndarray
    size: np.ndarray
    block: np.ndarray
    place: np.ndarray
    memories: tuple[HostMemory, ...]

    @classmethod
    def of(cls, at: np.ndarray, array: Array) -> Self:
        """Return how the words are cut; at : uint32 (words, 2), space and address of each.

        Blocks stand in the order in which their first words do. ValueError for an address beyond
        its memory.
        """
        memories = host_memories(array)
        sizes = np.array([_log2(memory.element_bytes) for memory in memories])
        depths = np.array([memory.depth for memory in memories])
        space, address = at[:, 0].astype(np.int64), at[:, 1].astype(np.int64)
        for number, beyond in at[address >= depths[space]][:1].tolist():
            raise ValueError(f"{memories[number].name} has {depths[number]} addresses, not "
                             f"{beyond + 1}")
        size = sizes[space]
        shift = _log2(protocol.DATA_BYTES) - size
        key = protocol.ADDRESS.pack(space=space, address=address >> shift << shift)
        _, first, inverse = np.unique(key, return_index=True, return_inverse=True)
        order = np.argsort(first)
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        first = first[order]
        return cls(space=space[first], address=address[first] >> shift[first] << shift[first],
                   size=size[first], block=rank[inverse.reshape(-1)],
                   place=address & (1 << shift) - 1, memories=memories)

    def __len__(self) -> int:
        return len(self.space)

    def _requests(self, command: Command, data: np.ndarray) -> Requests:
        place = protocol.ADDRESS.pack(space=self.space, address=self.address)
        return Requests(command=(command + self.size).astype(np.uint8),
                        address=place.astype(np.uint32), data=data)

    def writes(self, values: np.ndarray) -> Requests:
        """Return what writes the words, and zeros beside them in their blocks.

        values : uint32 (words,); of a word that stands twice the last one counts.

        ValueError for a memory that the machine alone writes.
        """
        may = np.array([memory.writable for memory in self.memories])
        for number in self.space[~may[self.space]][:1].tolist():
            raise ValueError(f"{self.memories[number].name} cannot be written")
        data = np.zeros((len(self), protocol.DATA_BYTES), np.uint8)
        width = np.int64(1) << self.size[self.block]
        for byte in range(protocol.ELEMENT_BYTES_MAX):
            inside = byte < width
            at = self.place * width + byte
            data[self.block[inside], at[inside]] = values[inside] >> np.uint32(8 * byte) & 0xFF
        return self._requests(Command.WRITE, data)

    def reads(self) -> Requests:
        """Return what reads the blocks."""
        return self._requests(Command.READ, np.zeros((len(self), protocol.DATA_BYTES), np.uint8))

    def values(self, data: np.ndarray) -> np.ndarray:
        """Return the words, uint32, from the data of the blocks, uint8 (blocks, 8).

        Only as many low bits as the elements of a block have are the memory's, all others zero.
        """
        width = np.int64(1) << self.size[self.block]
        found = np.zeros(len(self.block), np.uint32)
        for byte in range(protocol.ELEMENT_BYTES_MAX):
            inside = byte < width
            at = self.place * width + byte
            found[inside] |= (data[self.block[inside], at[inside]].astype(np.uint32)
                              << np.uint32(8 * byte))
        return found
