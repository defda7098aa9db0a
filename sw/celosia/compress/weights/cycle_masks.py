"""The weights that are worth most for a number of predicted cycles: ranking and exact search."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from torch import nn

from celosia.compress.layers import left_alone, prunable_layers
from celosia.compress.masks.weights import current_mask
from celosia.compress.weights.prediction import LayerPlan, Prediction, Predictor, row_costs
from celosia_spec.errors import ArgumentError

__all__ = ["masks_for", "refuse_out_of_reach", "within"]

Masks = dict[str, np.ndarray]

TRIALS = 16
"""Exact predictions that the search for one round's masks may take."""


def within(found: Prediction, goal: int) -> bool:
    """Tell whether a network fits its target and takes at most `goal` cycles."""
    return found.problem is None and found.cycles <= goal


def masks_for(
    model: nn.Module,
    values: Mapping[str, np.ndarray],
    predict: Predictor,
    goal: int,
    *,
    lockstep: bool = True,
) -> Masks:
    """Return masks that keep the most value in at most `goal` predicted cycles.

    Parameters
    ----------
    model
        The network with the masks that it has; it is not changed.
    values
        {layer name: float64 of the weight's shape}, at least 0, 0 for removed weights.
    predict, goal
        Exact prediction, and cycles of one inference.
    lockstep
        As in `prune_to_cycles`.

    Raises
    ------
    ArgumentError
        `goal` is below what can be reached, or the smallest network does not fit the target.
    """
    alive, attempt = _alive(model), predict.imported(model)
    ranking = _ranking(attempt, values, alive, goal, lockstep=lockstep)
    if ranking is None:
        return alive
    return ranking.masks(_search(ranking, lambda count: attempt(ranking.masks(count)), goal,
                                 left_alone(model)))


def refuse_out_of_reach(model: nn.Module, predict: Predictor, goal: int, *,
                        lockstep: bool) -> None:
    """Raise the ArgumentError of `masks_for` where `goal` is out of reach, whatever the values."""
    alive, attempt = _alive(model), predict.imported(model)
    ones = {name: np.ones(mask.shape) for name, mask in alive.items()}
    ranking = _ranking(attempt, ones, alive, goal, lockstep=lockstep)
    if ranking is not None:
        _least(attempt(ranking.masks(0)), goal, left_alone(model))


def _alive(model: nn.Module) -> Masks:
    return {name: current_mask(layer).cpu().numpy()
            for name, layer in prunable_layers(model).items()}


@dataclass(frozen=True, eq=False)
class _Ranking:
    """Weights or steps in the order in which they are taken.

    spent : float64 (n + 1,), cycles of the first 0, 1, ... n of them.
    masks : count -> masks that keep the free weights and the first `count` of the others.
    """

    spent: np.ndarray
    masks: Callable[[int], Masks]

    def count(self, cycles: float) -> int:
        """Return how many can be had for so many cycles."""
        return max(int(np.searchsorted(self.spent, cycles, "right")) - 1, 0)


def _ranking(attempt: Callable[[Masks], Prediction], values: Mapping[str, np.ndarray],
             alive: Mapping[str, np.ndarray], goal: int, *, lockstep: bool) -> _Ranking | None:
    """Return the order in which weights or steps are taken; None where all of them may stay."""
    plan = attempt({})
    if within(plan, goal):
        return None
    ranking = _rank_weights(plan, values, alive)
    if lockstep:
        plan = attempt(ranking.masks(ranking.count(goal - plan.fixed)))
        ranking = _rank_steps(plan, values, alive)
    return ranking


def _least(found: Prediction, goal: int, left: Mapping[str, str]) -> int:
    """Return the cycles of what is left of the fewest weights; ArgumentError unless they are
    within the goal.   left : {layer whose weights all stay: why}."""
    if not within(found, goal):
        raise ArgumentError(
            (f"{found.problem}, even with the fewest weights" if found.problem else
             f"a budget of {goal:,} cycles cannot be met: with the fewest weights the network "
             f"still takes {found.cycles:,}; give at least that, or choose a target with more "
             "lanes")
            + "".join(f"; layer {name!r} keeps all of its weights, as it {why}"
                      for name, why in left.items()))
    return found.cycles


def _search(ranking: _Ranking, attempt: Callable[[int], Prediction], goal: int,
            left: Mapping[str, str]) -> int:
    """Return the largest count found whose exact prediction is within the goal.

    Sorting and padding make a prediction differ a little from `spent`; each trial corrects the
    allowance by the difference that the one before has shown, inside a shrinking bracket.
    """
    low, high = 0, len(ranking.spent) - 1
    allowance = float(goal - _least(attempt(0), goal, left))
    for _ in range(TRIALS):
        if high - low <= 1:
            break
        count = ranking.count(allowance)
        if not low < count < high:
            count = (low + high) // 2
        found = attempt(count)
        low, high = (count, high) if within(found, goal) else (low, count)
        slack = goal - found.cycles if found.cycles > goal or not found.problem else -goal / 16
        allowance = float(ranking.spent[count] + slack)
        if low == count and slack < ranking.spent[count + 1] - ranking.spent[count]:
            break
    return low


def _rank_weights(
    plan: Prediction, values: Mapping[str, np.ndarray], alive: Mapping[str, np.ndarray]
) -> _Ranking:
    """Rank single weights by value / cost; the best of each layer is always kept."""
    names = list(alive)
    costs = {name: np.broadcast_to(
        row_costs(plan.layers[name].of_rows(name, len(alive[name])))[:, None],
        (len(alive[name]), alive[name][0].size)).ravel().copy() for name in names}
    for name in names:
        costs[name][np.argmax(np.where(alive[name], values[name], -1.0))] = 0.0
    sizes = np.cumsum([alive[name].size for name in names])[:-1]
    every = np.concatenate([alive[name].ravel() for name in names])
    cost = np.concatenate(list(costs.values()))
    value = np.concatenate([values[name].ravel() for name in names])
    paid = np.flatnonzero(every & (cost > 0))
    order = paid[np.argsort(-value[paid] / cost[paid], kind="stable")]

    def masks(count: int) -> Masks:
        kept = every & (cost == 0)
        kept[order[:count]] = True
        return {name: part.reshape(alive[name].shape)
                for name, part in zip(names, np.split(kept, sizes), strict=True)}

    return _Ranking(np.concatenate([[0.0], np.cumsum(cost[order])]), masks)


def _rank_steps(
    plan: Prediction, values: Mapping[str, np.ndarray], alive: Mapping[str, np.ndarray]
) -> _Ranking:
    """Rank the steps of all batches by the value of their weights / passes.

    Step k of a batch holds the k-th most valuable weight of each of its rows, so value falls with
    k, and taking steps by value / cost is the best use of the cycles for these batches.
    """
    tables = {name: _Steps.of(plan.layers[name].of_rows(name, len(alive[name])), values[name],
                              alive[name]) for name in alive}
    ratio = np.concatenate([(table.value / table.passes)[table.paid] for table in tables.values()])
    cost = np.concatenate([np.full(int(table.paid.sum()), float(table.passes))
                           for table in tables.values()])
    sizes = np.cumsum([int(table.paid.sum()) for table in tables.values()])[:-1]
    order = np.argsort(-ratio, kind="stable")

    def masks(count: int) -> Masks:
        taken = np.zeros(len(order), bool)
        taken[order[:count]] = True
        return {name: table.mask(part) for (name, table), part
                in zip(tables.items(), np.split(taken, sizes), strict=True)}

    return _Ranking(np.concatenate([[0.0], np.cumsum(cost[order])]), masks)


@dataclass(frozen=True, eq=False)
class _Steps:
    """The steps of one layer.

    alive : bool of the weight's shape.   rank : int64 (rows, columns), of a weight in its row.
    batch : int64 (rows,).   passes : cycles that a step costs.   least : steps that are free.
    value : float64 (batches, columns), of the weights of a step.
    paid  : bool (batches, columns), steps that cost cycles and hold a weight.
    """

    alive: np.ndarray
    rank: np.ndarray
    batch: np.ndarray
    passes: int
    least: int
    value: np.ndarray
    paid: np.ndarray

    @classmethod
    def of(cls, plan: LayerPlan, values: np.ndarray, alive: np.ndarray) -> _Steps:
        rows = len(alive)
        flat = np.where(alive, values, -1.0).reshape(rows, -1)
        order = np.argsort(-flat, axis=1, kind="stable")
        rank = np.empty_like(order)
        np.put_along_axis(rank, order, np.broadcast_to(np.arange(flat.shape[1]), flat.shape), 1)
        batch = np.empty(rows, np.int64)
        real = plan.batches >= 0
        batch[plan.batches[real]] = np.nonzero(real)[0]
        sorted_values = np.maximum(np.take_along_axis(flat, order, 1), 0.0)
        value = np.zeros((len(plan.batches), flat.shape[1]))
        np.add.at(value, batch, sorted_values)
        longest = np.zeros(len(plan.batches), np.int64)
        np.maximum.at(longest, batch, alive.reshape(rows, -1).sum(axis=1))
        step = np.arange(flat.shape[1])
        return cls(alive=alive, rank=rank, batch=batch, passes=plan.passes, least=plan.least,
                   value=value, paid=(step >= plan.least) & (step < longest[:, None]))

    def mask(self, taken: np.ndarray) -> np.ndarray:
        """Return the mask for the paid steps that are taken, bool (paid steps,)."""
        steps = np.zeros(self.paid.shape, bool)
        steps[self.paid] = taken
        lengths = steps.sum(axis=1) + self.least
        first = (self.rank < lengths[self.batch][:, None]).reshape(self.alive.shape)
        kept: np.ndarray = first & self.alive
        return kept
