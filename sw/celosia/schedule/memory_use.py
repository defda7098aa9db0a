"""Whether what a program needs of each memory fits there."""

from collections.abc import Iterator, Mapping

from celosia_spec.errors import FitError, Need
from celosia_spec.isa import ArrayConfig, Memory, Space, memory_of


def exceeded(words: Mapping[Space, int], array: ArrayConfig, target: str) -> Iterator[FitError]:
    """A refusal for each memory that so many words do not fit.

    target : the array's, as refusals name it.
    """
    for space, used in words.items():
        memory = memory_of(space)
        available = memory.depth(array)
        if used > available:
            yield FitError(
                target, "memory", f"the program needs {used} words of {memory.name} memory, the "
                f"array has {available}", memory.way_out, need=memory_need(memory, used, array))


def memory_need(memory: Memory, words: int, array: ArrayConfig) -> Need:
    """Return what so many words of a memory are, as users know them."""
    one = memory.one(array)
    return Need(memory.need, words * one, memory.depth(array) * one, memory.unit)
