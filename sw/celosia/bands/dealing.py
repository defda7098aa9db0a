"""Which clusters run which batches."""

import numpy as np


def deal(passes: np.ndarray, sets: int) -> np.ndarray:
    """Return the set of clusters that each batch goes to, int64 (batches,): the longest first, each
    to the set that has the least so far.

    passes : int64 (batches,), cycles for a tile.
    """
    found = np.zeros(len(passes), np.int64)
    if sets > 1:
        loads = [0] * sets
        for batch in np.argsort(-passes, kind="stable").tolist():
            found[batch] = loads.index(min(loads))
            loads[found[batch]] += int(passes[batch])
    return found


def loads(passes: np.ndarray, clusters: int) -> dict[int, int]:
    """Return the cycles for a tile of the set that takes the most of them, by how many sets the
    clusters form."""
    return {sets: int(np.bincount(deal(passes, sets), passes, sets).max())
            for sets in range(1, clusters + 1) if clusters % sets == 0}
