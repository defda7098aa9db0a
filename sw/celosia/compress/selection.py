"""Which weights stay, given scores and how many: stable, deterministic, never reviving."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

__all__ = ["keep_global", "keep_largest"]


def keep_largest(scores: np.ndarray, alive: np.ndarray, count: int) -> np.ndarray:
    """Return the mask of the `count` highest-scoring weights among those still alive.

    Equal scores: the lower flat index stays. `torch.topk` promises no order among equals, so a
    stable sort is used. If fewer than `count` weights are alive, all of them stay and no other.

    Parameters
    ----------
    scores
        float64, any shape, finite.
    alive
        bool, the same shape: False for weights removed before.
    count
        Number of weights to keep, at least 0.

    Returns
    -------
    bool array of that shape, True where the weight stays.
    """
    flat = alive.ravel()
    survivors = np.flatnonzero(flat)
    order = np.argsort(-scores.ravel()[survivors], kind="stable")
    kept = np.zeros(flat.size, bool)
    kept[survivors[order[:count]]] = True
    return kept.reshape(alive.shape)


def keep_global(
    scores: Mapping[str, np.ndarray], alive: Mapping[str, np.ndarray], count: int
) -> dict[str, np.ndarray]:
    """Return masks that keep the `count` highest-scoring weights of all layers together.

    As `keep_largest`; layers count as one long row of weights in the order of `alive`.
    """
    every = keep_largest(
        np.concatenate([scores[name].ravel() for name in alive]),
        np.concatenate([mask.ravel() for mask in alive.values()]),
        count,
    )
    ends = np.cumsum([mask.size for mask in alive.values()])[:-1]
    parts = np.split(every, ends)
    return {
        name: part.reshape(mask.shape)
        for (name, mask), part in zip(alive.items(), parts, strict=True)
    }
