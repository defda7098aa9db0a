"""Which weights stay, given scores and how many: stable, deterministic, never reviving."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from celosia.compress.words import SELECTIONS
from celosia_spec.errors import ArgumentError

__all__ = ["find_selection", "keep_global", "keep_largest", "refuse_equal", "ties"]

Select = Callable[[np.ndarray, np.ndarray, int, np.random.Generator], np.ndarray]


def find_selection(select: str, method: str, strong: float) -> Select:
    """Return ``function(scores, alive, count, generator) -> mask`` that picks a layer's weights.

    Parameters
    ----------
    select
        "topk_abs": the highest scores, see `keep_largest`. "sun2016": sampled from the strong and
        the weak half of the positive and of the negative correlations of each neuron (Sun, Wang,
        Tang, arXiv 1512.01891), see `celosia.compress.weights.sun2016`; it wants signed scores.
    method
        The criterion that gives the scores; "sun2016" goes with "correlation" only.
    strong
        Share of the kept weights that "sun2016" takes from the strong half, 0 to 1; their lambda.

    Raises
    ------
    ArgumentError
        Unknown selection, or one that does not go with the method.
    """
    if select not in SELECTIONS:
        raise ArgumentError(f"select must be one of {', '.join(SELECTIONS)}, not {select!r}")
    if select == "topk_abs":
        return lambda scores, alive, count, generator: keep_largest(scores, alive, count)
    if method != "correlation":
        raise ArgumentError(
            f"select='sun2016' splits signed correlations and goes with method 'correlation' "
            f"only, not with {method!r}; take select='topk_abs'"
        )
    from celosia.compress.weights.sun2016 import keep_sun2016

    return lambda scores, alive, count, generator: keep_sun2016(
        scores, alive, count, strong, generator
    )


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


def ties(scores: Mapping[str, np.ndarray], alive: Mapping[str, np.ndarray],
         kept: Mapping[str, np.ndarray]) -> dict[str, int]:
    """Return how many weights of each layer go while one with the same score stays.

    Masks as `keep_largest` has them; those of `keep_global` must be given together, those of
    layers that were ranked apart one by one. Layers without such a weight are left out.
    """
    staying = [float(scores[name][mask].min()) for name, mask in kept.items() if mask.any()]
    least = min(staying, default=np.nan)
    counts = {name: int((scores[name][alive[name] & ~mask] == least).sum())
              for name, mask in kept.items()}
    return {name: count for name, count in counts.items() if count}


def refuse_equal(method: str, name: str, scores: np.ndarray, alive: np.ndarray, count: int) -> None:
    """Raise ArgumentError where the scores do not tell which weights of a layer should stay.

    That is where all alive ones have the same score, and `count` of them, but not all, stay.
    """
    values = scores[alive]
    if count < len(values) and len(values) > 1 and (values == values[0]).all():
        raise ArgumentError(
            f"method {method!r} gives all weights of layer {name!r} the same score, which does not "
            "tell which to remove; leave the layer out, or use other inputs or another method")
