"""Cycle-aware pruning: weights go by their score over what they cost in predicted cycles.

Ours. The budget is in cycles of one inference on a target; `celosia.compress.weights.prediction`
has the arithmetic of what a weight costs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from celosia.compiler import Compiler
from celosia.compress.criteria.registry import resolve_options
from celosia.compress.criteria.scoring import scores
from celosia.compress.entry import entry
from celosia.compress.layers import (
    holders,
    left_alone,
    prunable_layers,
    refuse_computed_weight,
    refuse_strangers,
)
from celosia.compress.masks.weights import apply_mask, current_mask
from celosia.compress.training.journal import Journal, describe, fingerprint
from celosia.compress.training.rounds import RoundRecord, RoundsReport, densities, run_rounds
from celosia.compress.weights.cycle_masks import Masks, masks_for, refuse_out_of_reach, within
from celosia.compress.weights.prediction import Predictor
from celosia.compress.weights.prune import DEFAULT_ROUNDS
from celosia.compress.weights.schedule import SCHEDULES
from celosia.compress.weights.selection import refuse_equal
from celosia_spec.errors import ArgumentError

__all__ = ["CycleReport", "prune_to_cycles"]


@dataclass(frozen=True, kw_only=True)
class CycleReport(RoundsReport):
    """The outcome of `prune_to_cycles`.

    cycles       : predicted cycles of the pruned network, at most the budget, whether its inputs
                   may be below 0 or not: of the two the more.
    dense_cycles : those of the network as it was given.
    trimmed      : weights removed after the last fine-tuning, because it had moved weights away
                   from zero that the machine skipped before.
    rounds       : ``measured`` of each holds its "predicted_cycles".
    """

    cycles: int
    dense_cycles: int
    trimmed: int


@entry
def prune_to_cycles(
    model: nn.Module,
    method: str = "magnitude",
    *,
    example_input: Any,
    budget: int,
    target: str = Compiler.target,
    exponents: str = Compiler.exponents,
    calibration: Any = None,
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
    example_input, target, exponents, calibration
        float32 (1, ...); a board or a device; "dynamic" or "static"; inputs that the network will
        be compiled with, as `Predictor` has them, or None.
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
        raise ArgumentError(f"schedule must be one of {', '.join(SCHEDULES)}, not {schedule!r}")
    layers = prunable_layers(model)
    refuse_computed_weight(model, layers.values(), [nn.Module])
    refuse_strangers(model, layers.values())
    _refuse_shared(model, layers)
    predictor = partial(Predictor, example_input, target=target, exponents=exponents,
                        calibration=calibration)
    predict, either = predictor(), predictor(signs=(True, False))
    start = predict(model).cycles
    run = _Run(method=method, score=lambda pruned: scores(pruned, method, inputs, **options),
               predict=predict, either=either, start=start, budget=budget, rounds=rounds,
               share=SCHEDULES[schedule], lockstep=lockstep, finetune=finetune, measure=measure)
    run.check(model)
    choices = {
        "method": method, "options": asdict(resolve_options(method, options)),
        "budget": budget, "target": target, "exponents": exponents,
        "calibration": describe(calibration),
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
                       choices=choices, skipped=left_alone(model))


def _refuse_shared(model: nn.Module, layers: Mapping[str, nn.Module]) -> None:
    """Raise ArgumentError for a weight that several layers hold."""
    for name, layer in layers.items():
        others = [other for other in holders(model, layer) if other != name]
        if others:
            raise ArgumentError(f"layers {name!r} and {others[0]!r} hold one weight, which costs "
                                "cycles in both; give each a copy of it, or use prune")


@dataclass(frozen=True, kw_only=True, eq=False)
class _Run:
    """What the rounds of one call share; its methods are what `run_rounds` calls.

    either : predicts the cycles that inputs take which may be below 0, or others, if more.
    found  : predicted cycles and trimmed weights of the round that was last fine-tuned.
    """

    method: str
    score: Callable[[nn.Module], Masks]
    predict: Predictor
    either: Predictor
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
        refuse_out_of_reach(model, self.either, self.budget, lockstep=self.lockstep)

    def choose(self, model: nn.Module, index: int) -> Masks:
        goal = self.budget
        if index + 1 < self.rounds:
            share = self.share((index + 1) / self.rounds)
            goal = round(self.start + (self.budget - self.start) * share)
        found = self.score(model)
        masks = masks_for(model, _values(model, found), self._predictor(index), goal,
                          lockstep=self.lockstep)
        if index == 0:
            for name, layer in prunable_layers(model).items():
                refuse_equal(self.method, name, found[name], current_mask(layer).cpu().numpy(),
                             int(masks[name].sum()))
        return masks

    def tune(self, model: nn.Module, index: int) -> None:
        if self.finetune is not None:
            self.finetune(model, index)
        predict = self._predictor(index)
        prediction, before = predict(model), _kept(model)
        if index + 1 == self.rounds and not within(prediction, self.budget):
            for name, mask in self.choose(model, index).items():
                layer = model.get_submodule(name)
                apply_mask(layer, torch.from_numpy(mask).to(layer.weight.device))
            prediction = predict(model)
        self.found.update(predicted_cycles=prediction.cycles, trimmed=before - _kept(model))

    def _predictor(self, index: int) -> Predictor:
        """Return what a round is predicted by: only the last one has to keep the budget."""
        return self.either if index + 1 == self.rounds else self.predict

    def observe(self, model: nn.Module) -> dict[str, float | int | None]:
        return ({} if self.measure is None else dict(self.measure(model))) | self.found


def _values(model: nn.Module, ranking: Mapping[str, np.ndarray]) -> Masks:
    """Return what weights are worth: a share of their layer's squared scores, 0 if removed."""
    result = {}
    for name, layer in prunable_layers(model).items():
        square = np.where(current_mask(layer).cpu().numpy(), ranking[name], 0.0) ** 2
        result[name] = square / max(square.sum(), np.finfo(float).tiny)
    return result


def _kept(model: nn.Module) -> int:
    return sum(layer.kept for layer in densities(model).values())
