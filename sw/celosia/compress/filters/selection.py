"""Which filters stay: from scores and a target to the indices that are kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from numbers import Real

import numpy as np

from celosia.compress.filters.structure import Kept, Structure
from celosia.compress.weights.selection import keep_largest
from celosia_spec.errors import ArgumentError

__all__ = ["Target", "choose"]

Scores = Mapping[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Target:
    """How much is to go.

    kind  : "rate", the fraction of each layer's filters, or of all filters together; "macs",
            "conv_macs" or "parameters", the least fraction of the network's that goes (see
            `FilterCost`); "threshold", all filters with a lower score.
    value : at least 0 and below 1, a threshold any number; a rate or threshold may be
            {unit: number}.
    """

    kind: str
    value: float | Mapping[str, float]

    @property
    def number(self) -> float:
        """The value of a target that is one number."""
        assert not isinstance(self.value, Mapping)
        return self.value

    @classmethod
    def of(cls, **given: float | Mapping[str, float] | None) -> Target:
        """Return the one target that is not None, by its kind; ArgumentError for none or two."""
        named = {kind: value for kind, value in given.items() if value is not None}
        if len(named) != 1:
            raise ArgumentError(f"give one of {', '.join(given)}; "
                                f"given: {', '.join(named) or 'none'}")
        ((kind, value),) = named.items()
        values = value.values() if isinstance(value, Mapping) else [value]
        for number in values:
            real = isinstance(number, Real) and not isinstance(number, bool)
            if not real or (kind != "threshold" and not 0 <= number < 1):
                wanted = "a number" if kind == "threshold" else "at least 0 and below 1"
                raise ArgumentError(f"{kind} must be {wanted}, not {number!r}")
        if isinstance(value, Mapping) and kind not in ("rate", "threshold"):
            raise ArgumentError(f"{kind} is one number for the whole network, not a mapping")
        return cls(kind=kind, value=dict(value) if isinstance(value, Mapping) else float(value))


def choose(
    structure: Structure,
    kept: Kept,
    scores: Scores,
    target: Target,
    scope: str,
    share: Fraction,
) -> dict[str, np.ndarray]:
    """Return which filters stay.

    Of equal scores the lower index stays, and with scope "global" the earlier layer's. No unit
    loses its last filter.

    Parameters
    ----------
    structure
        The network as it was at first: rates, fractions and indices count from there.
    kept
        {unit: indices of the filters that it has by now}.
    scores
        {unit: their scores, in the same order}.
    target, scope
        What is to go in the end, and whether filters are ranked within their layer ("layer") or
        all together ("global").
    share
        The share of the target that is due by now, above 0, up to 1.

    Returns
    -------
    {unit: indices that stay, ascending}.

    Raises
    ------
    ArgumentError
        The target names an unknown unit or one that cannot be pruned, would empty a unit, or
        cannot be met.
    """
    if isinstance(target.value, Mapping):
        if scope == "global" and target.kind == "rate":
            raise ArgumentError("scope='global' ranks all layers together and takes one rate; "
                                "give a number, or scope='layer'")
        _check_names(structure, target.value)
    if target.kind == "threshold":
        chosen = _by_threshold(scores, target.value)
    elif target.kind != "rate":
        chosen = _by_cost(structure, kept, scores, target, scope, share)
    elif scope == "global":
        chosen = _by_common_rate(structure, scores, target.number, share)
    else:
        chosen = _by_rate(structure, scores, target.value, share)
    return {name: kept[name][indices] for name, indices in chosen.items()}


def _by_rate(
    structure: Structure, scores: Scores, value: float | Mapping[str, float], share: Fraction
) -> dict[str, np.ndarray]:
    counts = {}
    for name, unit in structure.units.items():
        rate = value.get(name, 0.0) if isinstance(value, Mapping) else value
        if _left(unit.channels, _exact(rate)) == 0:
            raise ArgumentError(f"a rate of {rate} leaves layer {name!r} none of its "
                                f"{unit.channels} filters; give it a lower one")
        counts[name] = _left(unit.channels, _exact(rate) * share)
    return _keep_counts(scores, counts)


def _by_common_rate(
    structure: Structure, scores: Scores, rate: float, share: Fraction
) -> dict[str, np.ndarray]:
    total = sum(unit.channels for unit in structure.units.values())
    if _left(total, _exact(rate)) < len(scores):
        raise ArgumentError(f"a rate of {rate} leaves {_left(total, _exact(rate))} filters for "
                            f"{len(scores)} layers; give a lower one")
    now = sum(len(values) for values in scores.values())
    return _keep_together(scores, now - _left(total, _exact(rate) * share))


def _by_threshold(
    scores: Scores, value: float | Mapping[str, float]
) -> dict[str, np.ndarray]:
    chosen = {}
    for name, values in scores.items():
        least = value.get(name, -np.inf) if isinstance(value, Mapping) else value
        chosen[name] = np.flatnonzero(values >= least)
        if len(chosen[name]) == 0:
            chosen[name] = np.array([values.argmax()])
    return chosen


def _by_cost(
    structure: Structure, kept: Kept, scores: Scores, target: Target, scope: str, share: Fraction
) -> dict[str, np.ndarray]:
    """Remove the least that meets a fraction of the cost, found by bisection."""
    if scope == "global":
        levels = range(sum(len(values) for values in scores.values()) - len(scores) + 1)
        at: Callable[[int], dict[str, np.ndarray]] = lambda level: _keep_together(scores, level)
    else:
        rates = sorted({Fraction(lost, unit.channels) for unit in structure.units.values()
                        for lost in range(unit.channels)})
        levels = range(len(rates))
        at = lambda level: _keep_counts(scores, {
            name: max(1, _left(unit.channels, rates[level]))
            for name, unit in structure.units.items()})

    def cost(level: int) -> int:
        left = {name: kept[name][indices] for name, indices in at(level).items()}
        figure: int = getattr(structure.cost(left), target.kind)
        return figure

    dense = getattr(structure.cost(), target.kind)
    most = dense * (1 - _exact(target.number) * share)
    found = _first(levels, lambda level: cost(level) <= most)
    if found is None:
        raise ArgumentError(
            f"{target.kind}={target.value} cannot be met: with one filter left in each layer that "
            f"can be pruned, {1 - cost(levels[-1]) / dense:.1%} is removed")
    return at(found)


def _first(levels: range, met: Callable[[int], bool]) -> int | None:
    """Return the first level that is met, all after it being met too; None if there is none."""
    low, high = 0, len(levels)
    while low < high:
        middle = (low + high) // 2
        if met(levels[middle]):
            high = middle
        else:
            low = middle + 1
    return levels[low] if low < len(levels) else None


def _exact(rate: float) -> Fraction:
    """Return the rate that was meant: 1/10 for the float that is nearest to it."""
    return Fraction(rate).limit_denominator(10**9)


def _left(channels: int, rate: Fraction) -> int:
    """Return how many of C filters a rate leaves: int(C (1 - rate)), in exact arithmetic."""
    return int(channels * (1 - rate))


def _keep_counts(scores: Scores, counts: Mapping[str, int]) -> dict[str, np.ndarray]:
    return {name: np.flatnonzero(keep_largest(values, np.ones(len(values), bool), counts[name]))
            for name, values in scores.items()}


def _keep_together(scores: Scores, removed: int) -> dict[str, np.ndarray]:
    """Remove the lowest scores of all units together, sparing the best of each unit."""
    best = {name: int(values.argmax()) for name, values in scores.items()}
    flat = np.concatenate([np.where(np.arange(len(values)) == best[name], np.inf, values)
                           for name, values in scores.items()])
    mask = keep_largest(flat, np.ones(len(flat), bool), len(flat) - removed)
    parts = np.split(mask, np.cumsum([len(values) for values in scores.values()])[:-1])
    return {name: np.flatnonzero(part) for name, part in zip(scores, parts, strict=True)}


def _check_names(structure: Structure, value: Mapping[str, float]) -> None:
    """Raise ArgumentError if a mapping names something that cannot be pruned."""
    for name in value:
        if name in structure.units:
            continue
        if name in structure.skipped:
            raise ArgumentError(f"layer {name!r} cannot be pruned: {structure.skipped[name]}")
        leader = next((unit.name for unit in structure.units.values() if name in unit.members),
                      None)
        if leader is not None:
            raise ArgumentError(f"the filters of layer {name!r} go with those of {leader!r}; "
                                "name that one")
        raise ArgumentError(f"no convolution is called {name!r}; those that can be pruned: "
                            f"{', '.join(map(repr, structure.units))}")
