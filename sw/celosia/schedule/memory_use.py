"""Whether what a program needs of each memory fits there."""

from collections.abc import Iterator, Mapping

from celosia_spec.errors import FitError, Need
from celosia_spec.isa import ArrayConfig, Space, memory_of


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
                f"array has {available}", memory.way_out, need=memory_need(space, used, array))


def memory_need(space: Space, words: int, array: ArrayConfig) -> Need:
    """Return what so many words of a memory are, as users know them."""
    memory = memory_of(space)
    return Need(memory.need, memory.amount(words, array), memory.capacity(array), memory.unit)
