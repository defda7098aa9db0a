"""What the host's side of a port has to know of the array behind it."""

from dataclasses import dataclass
from functools import lru_cache

from celosia_spec.isa.array import Array
from celosia_spec.isa.memories import MEMORIES

__all__ = ["READ_BACK", "HostMemory", "host_memories"]

READ_BACK = 256
"""Elements of main memory that are read back after a load: half a KiB tells a reset. A run leaves
them as they are."""


@dataclass(frozen=True, kw_only=True)
class HostMemory:
    """A memory on the host bus.

    name : in messages.   element_bytes : of an element of a frame, 2 or 4.   depth : addresses.
    writable : whether the host can write it, as it can read it, while the machine does not run.
    """

    name: str
    element_bytes: int
    depth: int
    writable: bool


@lru_cache
def host_memories(array: Array) -> tuple[HostMemory, ...]:
    """Return the memories of an array by their numbers, the ``mem_space`` of the host bus."""
    return tuple(HostMemory(name=memory.name, element_bytes=memory.element_bytes,
                            depth=memory.depth(array), writable=memory.writable)
                 for memory in MEMORIES)
