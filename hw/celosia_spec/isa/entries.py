"""Entries of the stream, words of main memory: the elements that stand in them, the first one in
the lowest bits."""

import numpy as np

from celosia_spec.isa.array import CONTROL_BITS, ENTRY_WORDS

_PLACES = tuple(CONTROL_BITS * k for k in range(ENTRY_WORDS))
_MOST = (1 << CONTROL_BITS) - 1


def elements_of(entries: np.ndarray) -> np.ndarray:
    """Return what stands in entries, uint64 (entries,): int64 (entries, 4)."""
    found = entries[:, None] >> np.array(_PLACES, np.uint64) & np.uint64(_MOST)
    return found.astype(np.int64)


def entries_of(elements: np.ndarray) -> np.ndarray:
    """Return the entries, uint64 (entries,), in which elements stand, int64 (entries, 4).
    ValueError where one is no number of 16 bits."""
    if ((elements < 0) | (elements > _MOST)).any():
        raise ValueError(f"a word of an entry has {CONTROL_BITS} bits")
    entries: np.ndarray = (elements.astype(np.uint64) << np.array(_PLACES, np.uint64)).sum(
        axis=1, dtype=np.uint64)
    return entries


def words_of(entry: int) -> list[int]:
    """Return what stands in one entry."""
    return [entry >> place & _MOST for place in _PLACES]
