"""Cycle-aware pruning: weights go by their score over what they cost in predicted cycles.

Ours. The budget is in cycles of one inference on a target; `celosia.compress.pruning.prediction`
has the arithmetic of what a weight costs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from celosia.compress.criteria.registry import resolve_options, scores
from celosia.compress.journal import Journal, describe, fingerprint
from celosia.compress.layers import (
    holders,
    prunable_layers,
    refuse_computed_weight,
    refuse_strangers,
)
from celosia.compress.pruning.masks import apply_mask, current_mask
from celosia.compress.pruning.prediction import LayerPlan, Prediction, Predictor, row_costs
from celosia.compress.pruning.prune import DEFAULT_ROUNDS
from celosia.compress.pruning.rounds import LayerDensity, RoundRecord, densities, run_rounds
from celosia.compress.pruning.schedule import SCHEDULES
from celosia.errors import ArgumentError

__all__ = ["CycleReport", "prune_to_cycles"]

Masks = dict[str, np.ndarray]

TRIALS = 16
"""Exact predictions that the search for one round's masks may take."""


@dataclass(frozen=True, kw_only=True)
class CycleReport:
    """The outcome of `prune_to_cycles`.

    cycles       : predicted cycles of the pruned network, at most the budget.
    dense_cycles : those of the network as it was given.
    trimmed      : weights removed after the last fine-tuning, because it had moved weights away
                   from zero that the machine skipped before.
    layers       : each prunable layer's weights and kept weights, in the model's order.
    rounds       : one record a round; ``measured`` holds its "predicted_cycles".
    choices      : every setting that decided the outcome.
    """

    cycles: int
    dense_cycles: int
    trimmed: int
    layers: Mapping[str, LayerDensity]
    rounds: tuple[RoundRecord, ...]
    choices: Mapping[str, Any]

    @property
    def density(self) -> float:
        """Kept weights / all weights of all prunable layers together."""
        return self.rounds[-1].density


def prune_to_cycles(
    model: nn.Module,
    method: str = "magnitude",
    *,
    example_input: Any,
    budget: int,
    target: str = "icebreaker",
    exponents: str = "dynamic",
    inputs: Any | None = None,
    finetune: Callable[[nn.Module, int], None] | None = None,
    rounds: int | None = None,
    schedule: str = "cubic",
    lockstep: bool = True,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    measure: Callable[[nn.Module], Mapping[str, float | int | None]] | None = None,
    progress: Callable[[RoundRecord], None] | None = None,
    **options: Any,
) -> CycleReport:
    """Remove weights, in place, until one inference takes at most `budget` predicted cycles.

    Each round has a goal between the cycles at the start and the budget. A weight's value is its
    squared score over the sum of squared scores of its layer. Weights of all layers are ranked
    by value / cost, and as many are kept as the exact prediction allows. A weight once removed
    stays removed. No layer is emptied: weights in a pass's shortest time are free.

    Parameters
    ----------
    model
        The trained network; it must compile for `target`, though it may be too large for the
        target's memories. Masks stay on it; `celosia.compress.make_permanent` makes them zeros.
    method, inputs, options
        A criterion, its calibration inputs and its options, as `celosia.compress.scores` has them.
    example_input, target, exponents
        float32 (1, ...); a board or a device; "dynamic" or "static".
    budget
        Cycles of one inference, from start to done.
    finetune
        Called as ``finetune(model, round)`` after each round, or None.
    rounds
        Number of rounds; None is 5 with `finetune` and 1 without.
    schedule
        How the saving grows over the rounds: "cubic" or "linear".
    lockstep
        True ranks the steps of the machine, each with the weights of all rows that run together;
        False ranks single weights by `cycle_costs`.
    seed
        As in `celosia.compress.prune`.
    checkpoint
        A folder for the finished rounds; a run that was stopped goes on from there. Or None.
    measure
        ``measure(model)`` -> {name: number} after each round, "accuracy" for one; or None.
    progress
        Called with a `RoundRecord` after each round, or None.

    Returns
    -------
    CycleReport

    Raises
    ------
    ArgumentError
        A setting that is not as above; a weight that a hook computes, or that two layers hold; a
        budget below what can be reached: the message names the fewest cycles.
    CompileError
        The network cannot be compiled for the target.
    """
    if rounds is None:
        rounds = DEFAULT_ROUNDS if finetune is not None else 1
    if schedule not in SCHEDULES:
        raise ArgumentError(f"schedule must be one of {tuple(SCHEDULES)}, not {schedule!r}")
    layers = prunable_layers(model)
    refuse_computed_weight(model, layers.values(), [nn.Module])
    refuse_strangers(model, layers.values())
    for name, layer in layers.items():
        others = [other for other in holders(model, layer) if other != name]
        if others:
            raise ArgumentError(f"layers {name!r} and {others[0]!r} hold one weight, which costs "
                                "cycles in both; give each a copy of it, or use prune")
    predict = Predictor(example_input, target=target, exponents=exponents)
    start = predict(model).cycles
    run = _Run(score=lambda pruned: scores(pruned, method, inputs, **options), predict=predict,
               start=start, budget=budget, rounds=rounds, share=SCHEDULES[schedule],
               lockstep=lockstep, finetune=finetune, measure=measure)
    run.check(model)
    choices = {
        "method": method, "options": describe(resolve_options(method, options)),
        "budget": budget, "target": target, "exponents": exponents,
        "rounds": rounds, "schedule": schedule,
        "values": "squared score / sum of squares of the layer", "lockstep": lockstep,
        "seed": seed, "finetune": describe(finetune),
        "start": fingerprint(model, inputs, example_input),
    }
    records = run_rounds(model, rounds, run.choose, finetune=run.tune, seed=seed,
                         journal=Journal(checkpoint, choices), measure=run.observe,
                         progress=progress)
    last: Mapping[str, Any] = records[-1].measured
    return CycleReport(cycles=last["predicted_cycles"], dense_cycles=start,
                       trimmed=last["trimmed"], layers=densities(model), rounds=records,
                       choices=choices)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Run:
    """What the rounds of one call share; its methods are what `run_rounds` calls.

    found : predicted cycles and trimmed weights of the round that was last fine-tuned.
    """

    score: Callable[[nn.Module], Masks]
    predict: Predictor
    start: int
    budget: int
    rounds: int
    share: Callable[[float], float]
    lockstep: bool
    finetune: Callable[[nn.Module, int], None] | None
    measure: Callable[[nn.Module], Mapping[str, float | int | None]] | None
    found: dict[str, int] = field(default_factory=dict)

    def check(self, model: nn.Module) -> None:
        """Raise ArgumentError where the budget is out of reach, whatever the scores."""
        ones = {name: np.ones(layer.weight.shape)
                for name, layer in prunable_layers(model).items()}
        masks_for(model, ones, self.predict, self.budget, lockstep=self.lockstep)

    def choose(self, model: nn.Module, index: int) -> Masks:
        goal = self.budget
        if index + 1 < self.rounds:
            share = self.share((index + 1) / self.rounds)
            goal = round(self.start + (self.budget - self.start) * share)
        values = _values(model, self.score(model))
        return masks_for(model, values, self.predict, goal, lockstep=self.lockstep)

    def tune(self, model: nn.Module, index: int) -> None:
        if self.finetune is not None:
            self.finetune(model, index)
        prediction, before = self.predict(model), _kept(model)
        if index + 1 == self.rounds and not _within(prediction, self.budget):
            for name, mask in self.choose(model, index).items():
                layer = model.get_submodule(name)
                apply_mask(layer, torch.from_numpy(mask).to(layer.weight.device))
            prediction = self.predict(model)
        self.found.update(predicted_cycles=prediction.cycles, trimmed=before - _kept(model))

    def observe(self, model: nn.Module) -> dict[str, float | int | None]:
        return ({} if self.measure is None else dict(self.measure(model))) | self.found


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
    alive = {name: current_mask(layer).cpu().numpy()
             for name, layer in prunable_layers(model).items()}
    attempt = predict.imported(model)
    plan = attempt({})
    if _within(plan, goal):
        return alive
    ranking = _rank_weights(plan, values, alive)
    if lockstep:
        plan = attempt(ranking.masks(ranking.count(goal - plan.fixed)))
        ranking = _rank_steps(plan, values, alive)
    return ranking.masks(_search(ranking, lambda count: attempt(ranking.masks(count)), goal))


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


def _search(ranking: _Ranking, attempt: Callable[[int], Prediction], goal: int) -> int:
    """Return the largest count found whose exact prediction is within the goal.

    Sorting and padding make a prediction differ a little from `spent`; each trial corrects the
    allowance by the difference that the one before has shown, inside a shrinking bracket.
    """
    low, high = 0, len(ranking.spent) - 1
    least = attempt(0)
    if not _within(least, goal):
        raise ArgumentError(
            f"{least.problem}, even with the fewest weights" if least.problem else
            f"a budget of {goal:,} cycles cannot be met: with the fewest weights the network still "
            f"takes {least.cycles:,}; give at least that, or choose a target with more lanes"
        )
    allowance = float(goal - least.cycles)
    for _ in range(TRIALS):
        if high - low <= 1:
            break
        count = ranking.count(allowance)
        if not low < count < high:
            count = (low + high) // 2
        found = attempt(count)
        low, high = (count, high) if _within(found, goal) else (low, count)
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
    costs = {name: np.broadcast_to(row_costs(plan.layers[name])[:, None],
                                   (len(alive[name]), alive[name][0].size)).ravel().copy()
             for name in names}
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
    tables = {name: _Steps.of(plan.layers[name], values[name], alive[name]) for name in alive}
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


def _values(model: nn.Module, ranking: Mapping[str, np.ndarray]) -> Masks:
    """Return what weights are worth: a share of their layer's squared scores, 0 if removed."""
    result = {}
    for name, layer in prunable_layers(model).items():
        square = np.where(current_mask(layer).cpu().numpy(), ranking[name], 0.0) ** 2
        result[name] = square / max(square.sum(), np.finfo(float).tiny)
    return result


def _within(found: Prediction, goal: int) -> bool:
    return found.problem is None and found.cycles <= goal


def _kept(model: nn.Module) -> int:
    return sum(layer.kept for layer in densities(model).values())
