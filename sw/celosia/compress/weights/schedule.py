"""How much of each layer is kept after each round: from pruning rates to densities.

A schedule is a function of one number, the elapsed share of the rounds (above 0, up to 1), giving
the share of the final rate that is reached by then; it must give 1 at 1 and must not fall.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from numbers import Real

from celosia.compress.spans import COUNT
from celosia_spec.errors import ArgumentError

__all__ = [
    "ORDERS",
    "SCHEDULES",
    "count_kept",
    "count_removed",
    "plan",
    "plan_rounds",
    "resolve_rates",
]


def _cubic(elapsed: float) -> float:
    """Remove much at first and little at the end (Zhu and Gupta, arXiv 1710.01878, eq. 1)."""
    return 1 - (1 - elapsed) ** 3


def _linear(elapsed: float) -> float:
    """Remove the same amount in each round."""
    return elapsed


SCHEDULES: dict[str, Callable[[float], float]] = {"cubic": _cubic, "linear": _linear}
"""The named schedules."""

ORDERS = {"together": "cubic", "forward": "linear", "backward": "linear"}
"""The orders in which layers are pruned, and the schedule that each has by default."""

_ACCEPTED = (
    "rates must be one number for all layers or {layer name: number}, each the fraction of "
    "weights to remove, at least 0 and below 1"
)


def resolve_rates(rates: object, sizes: Mapping[str, int]) -> dict[str, float]:
    """Turn what the user gave as rates into one rate for each layer.

    Parameters
    ----------
    rates
        One number, or {layer name: number}; layers not named are left as they are (rate 0).
    sizes
        {layer name: number of weights}.

    Returns
    -------
    {layer name: fraction of the weights to remove}, in the order of `sizes`.

    Raises
    ------
    ArgumentError
        Anything else, a number outside [0, 1), an unknown layer name, or a rate that would leave
        a layer without a weight.
    """
    if isinstance(rates, Mapping):
        unknown = [name for name in rates if name not in sizes]
        if unknown:
            raise ArgumentError(
                f"no layer is called {', '.join(map(repr, unknown))}; "
                f"layers: {', '.join(map(repr, sizes))}"
            )
        chosen = {name: rates.get(name, 0.0) for name in sizes}
    else:
        chosen = dict.fromkeys(sizes, rates)
    return {name: _check_rate(name, rate, sizes[name]) for name, rate in chosen.items()}


def _check_rate(name: str, rate: object, weights: int) -> float:
    """Return a layer's rate as a float, or raise ArgumentError."""
    if isinstance(rate, bool) or not isinstance(rate, Real) or not 0 <= float(rate) < 1:
        raise ArgumentError(f"{_ACCEPTED}; layer {name!r} has {rate!r}")
    if count_removed(float(rate), weights) == weights:
        raise ArgumentError(
            f"a rate of {rate!r} removes all {weights} weights of layer {name!r}; "
            "give it a lower one"
        )
    return float(rate)


def plan(
    rates: Mapping[str, float], rounds: int, schedule: str = "cubic"
) -> list[dict[str, float]]:
    """Return the densities to reach, {layer name: kept fraction}, for each round in turn.

    Parameters
    ----------
    rates
        {layer name: final fraction removed}, as `resolve_rates` gives them.
    rounds
        Number of rounds, at least 1; the last one reaches the final rates exactly.
    schedule
        A name of `SCHEDULES`.

    Raises
    ------
    ArgumentError
        Unknown schedule, or less than one round.
    """
    if schedule not in SCHEDULES:
        raise ArgumentError(f"unknown schedule {schedule!r}; known: {', '.join(sorted(SCHEDULES))}")
    COUNT.check("rounds", rounds)
    shares = [SCHEDULES[schedule](done / rounds) for done in range(1, rounds)] + [1.0]
    return [{name: 1 - rate * share for name, rate in rates.items()} for share in shares]


def plan_rounds(
    rates: Mapping[str, float], rounds: int, schedule: str, order: str
) -> list[dict[str, float]]:
    """Return which layers are pruned in each round, and the densities to reach.

    Parameters
    ----------
    rates
        {layer name: final fraction removed}, in the model's order. Layers with rate 0 take no
        part.
    rounds
        Number of rounds, at least 1; for the orders "forward" and "backward", of each layer.
    schedule
        A name of `SCHEDULES`.
    order
        "together": all layers in every round. "forward": the first layer gets all its rounds,
        then the second (AE-LIP, P1). "backward": from the last layer to the first (Sun et al.,
        arXiv 1512.01891).

    Returns
    -------
    {layer name: density} for each round, only of the layers that are pruned in it.

    Raises
    ------
    ArgumentError
        Unknown order or schedule, or less than one round.
    """
    if order not in ORDERS:
        raise ArgumentError(f"unknown order {order!r}; known: {', '.join(ORDERS)}")
    active = {name: rate for name, rate in rates.items() if rate > 0}
    if order == "together":
        return plan(active, rounds, schedule)
    names = list(active) if order == "forward" else list(active)[::-1]
    return [step for name in names for step in plan({name: active[name]}, rounds, schedule)]


def count_removed(rate: float, weights: int) -> int:
    """Return how many of a layer's weights a rate removes: the nearest integer, halves up.

    The rate is read to nine decimals, so that 0.29 of 50 weights is the 14.5 that was meant, not
    the 14.499... that the nearest float gives.
    """
    return int(Fraction(rate).limit_denominator(10**9) * weights + Fraction(1, 2))


def count_kept(density: float, weights: int) -> int:
    """Return how many of a layer's weights stay at a density."""
    return weights - count_removed(1 - density, weights)
