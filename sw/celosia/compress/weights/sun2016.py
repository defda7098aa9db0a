"""The sampled selection of the paper that neuron correlation comes from.

Sun, Wang, Tang, "Sparsifying neural network connections for face recognition", CVPR 2016,
arXiv 1512.01891, section 3.
"""

from __future__ import annotations

import numpy as np

from celosia.compress.spans import UNIT

__all__ = ["keep_sun2016"]


def keep_sun2016(
    signed: np.ndarray, alive: np.ndarray, kept: int, strong: float, rng: np.random.Generator
) -> np.ndarray:
    """Return a mask that keeps mostly strong and some weak connections of each neuron.

    For each neuron, its K positive correlations are sorted in descending order and cut into two
    halves (the strong one has one more if K is odd). ``strong * S * K`` are drawn at random from
    the strong half and ``(1 - strong) * S * K`` from the weak half, S = `kept` / (all living
    connections with a correlation that is not zero). The same for the negative ones, by absolute
    value. What exceeds a half is drawn from the other one.

    These numbers are fractions; to keep exactly `kept` in the whole layer they are rounded down,
    and the draws that are left go to the halves with the largest fractions, one each (equal
    fractions: at random). Connections with a correlation of exactly 0 stay only if `kept` exceeds
    the number of the others, lower index first. Nothing that is not alive comes back; if fewer
    than `kept` are alive, all of them stay.

    Parameters
    ----------
    signed
        Correlations, float64 of the weight's shape (neurons, ...), as method "correlation" gives
        them with ``signed=True``.
    alive
        bool, the same shape: False for weights removed before.
    kept
        Number of weights to keep in the layer, at least 0.
    strong
        The share drawn from the strong half, 0 to 1; the paper's lambda, 0.75 there.
    rng
        Source of the random numbers.

    Returns
    -------
    bool array of that shape, True where the weight stays.

    Raises
    ------
    ArgumentError
        `strong` is not in [0, 1].
    """
    UNIT.check("strong", strong)
    if kept >= np.count_nonzero(alive):
        return alive.copy()
    r = np.where(alive, signed, 0.0).reshape(len(signed), -1)
    mask = np.zeros(r.size, bool)
    related = np.count_nonzero(r)
    drawn = min(kept, int(related))
    idle = np.flatnonzero(alive.ravel() & (r.ravel() == 0))
    mask[idle[: kept - drawn]] = True
    cells = _halves(r)
    counts = _counts([len(cell) for cell in cells], drawn, strong, rng)
    for cell, count in zip(cells, counts, strict=True):
        mask[rng.choice(cell, count, replace=False)] = True
    return mask.reshape(signed.shape)


def _halves(r: np.ndarray) -> list[np.ndarray]:
    """Return flat indices: of each row and sign the strong half, then the weak half."""
    cells: list[np.ndarray] = []
    for index, row in enumerate(r):
        order = np.argsort(-np.abs(row), kind="stable")
        for sign in (1, -1):
            same = order[np.sign(row[order]) == sign] + index * r.shape[1]
            middle = (len(same) + 1) // 2
            cells += [same[:middle], same[middle:]]
    return cells


def _counts(
    sizes: list[int], drawn: int, strong: float, rng: np.random.Generator
) -> np.ndarray:
    """Return how many to draw from each cell, `drawn` in all, none more than its size."""
    room = np.array(sizes, dtype=np.float64).reshape(-1, 2)
    wanted = room.sum(1) * (drawn / max(room.sum(), 1))
    first = np.minimum(strong * wanted, room[:, 0])
    second = np.minimum(wanted - first, room[:, 1])
    exact = np.stack([wanted - second, second], 1).ravel()
    counts = np.minimum(np.floor(exact + 1e-9), room.ravel()).astype(np.int64)
    fraction = np.where(counts < room.ravel(), exact - counts, -1.0)
    order = np.lexsort((rng.random(len(exact)), -fraction.round(9)))
    counts[order[: drawn - counts.sum()]] += 1
    return counts
