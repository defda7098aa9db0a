"""What the host's side of a port has to know of the array behind it, whichever machine it is of."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache, singledispatch

from celosia_spec import isa
from celosia_spec.arrays import AnyArray
from celosia_spec.isa import ArrayConfig
from celosia_spec.isa.fields import Word
from celosia_spec.stream import memories as stream_memories
from celosia_spec.stream import registers as stream_registers
from celosia_spec.stream.array import Array

__all__ = ["HostMemory", "HostSide", "host_side"]

_FIRST = 256
"""Elements of main memory that are read back after a load: half a KiB tells a reset."""


@dataclass(frozen=True, kw_only=True)
class HostMemory:
    """A memory on the host bus.

    name : in messages.   element_bytes : of an element of a frame, 1, 2 or 4.   depth : addresses.
    readable, writable : whether the host can read and write it, while the machine does not run.
    """

    name: str
    element_bytes: int
    depth: int
    readable: bool
    writable: bool


@dataclass(frozen=True, kw_only=True)
class HostSide:
    """An array as its host sees it. Frames, the first space, and how a run is started and counted
    are those of all arrays.

    memories : by their numbers, the ``mem_space`` of the host bus.
    kept     : number of the memory whose words tell whether what was loaded is still there: a run
               leaves them as they are.   first : so many of those that were loaded first, at most.
    status   : fields of ``Register.STATUS``.   errors : codes of its field ``error``.   ways_out :
               what they mean, and what helps.
    """

    memories: tuple[HostMemory, ...]
    kept: int
    first: int
    status: Word
    errors: type[enum.IntEnum]
    ways_out: Mapping[int, str]


@lru_cache
def host_side(array: AnyArray) -> HostSide:
    """Return an array as its host sees it."""
    return _seen(array)


@singledispatch
def _seen(array: AnyArray) -> HostSide:
    raise TypeError(f"no array: {array!r}")


@_seen.register
def _first_machine(array: ArrayConfig) -> HostSide:
    program = isa.memory_of(isa.Space.PROGRAM)
    return HostSide(
        memories=tuple(HostMemory(
            name=memory.name, element_bytes=memory.element_bytes(array),
            depth=memory.depth(array), readable=memory.readable, writable=memory.writable)
            for memory in isa.MEMORIES),
        kept=isa.Space.PROGRAM, first=program.depth(array), status=isa.STATUS, errors=isa.Error,
        ways_out=dict.fromkeys(isa.Error, "compile the program again for this array"))


@_seen.register
def _second_machine(array: Array) -> HostSide:
    return HostSide(
        memories=tuple(HostMemory(
            name=memory.name, element_bytes=memory.element_bytes, depth=memory.depth(array),
            readable=True, writable=memory.writable) for memory in stream_memories.MEMORIES),
        kept=stream_memories.Space.MAIN, first=_FIRST, status=stream_registers.STATUS,
        errors=stream_registers.Error, ways_out=stream_registers.WAYS_OUT)
