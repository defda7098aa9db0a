"""Unstructured pruning: score, remove, retrain, again.

Three separate things meet here: what makes a weight important (`criteria`), how much goes in each
round (`schedule`) and how the network recovers in between (any callable, such as
`finetune.FineTune`). The rounds themselves are `rounds.run_rounds`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from celosia.compress.criteria.registry import resolve_options
from celosia.compress.criteria.scoring import scores
from celosia.compress.entry import entry
from celosia.compress.layers import (
    distinct_weights,
    first_names,
    left_alone,
    prunable_layers,
    refuse_computed_weight,
    refuse_strangers,
)
from celosia.compress.masks.weights import current_mask
from celosia.compress.training.journal import Journal, describe, fingerprint
from celosia.compress.training.rounds import (
    LayerDensity,
    Measure,
    RoundRecord,
    RoundsReport,
    run_rounds,
)
from celosia.compress.weights.schedule import ORDERS, count_kept, plan_rounds, resolve_rates
from celosia.compress.weights.search import GRID, search_rates
from celosia.compress.weights.selection import (
    Select,
    find_selection,
    keep_global,
    refuse_equal,
    ties,
)
from celosia.compress.words import SCOPES
from celosia_spec.errors import ArgumentError

__all__ = ["LayerDensity", "PruneReport", "RoundRecord", "prune"]

Masks = dict[str, np.ndarray]

DEFAULT_ROUNDS = 5
"""Rounds when there is a `finetune` and no number is given."""


@dataclass(frozen=True, kw_only=True)
class PruneReport(RoundsReport):
    """The outcome of `prune`.

    choices : method and its options, rates and how they were found, layers, scope, schedule,
              order, selection, rounds, seed, fine-tuning, the rule for equal scores, and the
              SHA-256 of the starting weights and calibration inputs.
    """


@entry
def prune(
    model: nn.Module,
    method: str,
    *,
    inputs: Any | None = None,
    rates: float | Mapping[str, float] | str,
    finetune: Callable[[nn.Module, int], None] | None = None,
    rounds: int | None = None,
    schedule: str | None = None,
    seed: int = 0,
    scope: str = "layer",
    order: str = "together",
    select: str = "topk_abs",
    strong: float = 0.75,
    layers: Collection[str] | None = None,
    evaluate: Callable[[nn.Module], float] | None = None,
    accuracy_budget: float | None = None,
    grid: Collection[float] = GRID,
    checkpoint: str | Path | None = None,
    measure: Measure | None = None,
    progress: Callable[[RoundRecord], None] | None = None,
    **options: Any,
) -> PruneReport:
    """Remove weights of a model's `Conv1d`, `Conv2d` and `Linear` layers, in place.

    Each round scores the current model, keeps the best weights, masks the rest and calls
    `finetune`. A weight once removed stays removed, also by an earlier call on the same model. A
    weight that several layers hold is one: it is scored in the first of them, masked in all, and
    counted once.

    Of weights with equal scores those with the lower index stay; how often that decided is in the
    rounds' ``ties``.

    The masks stay on the model and hold through further training; `celosia.compress.
    make_permanent` turns them into plain zeros, which exporting and saving want.

    Parameters
    ----------
    model
        The trained network.
    method
        Name of a criterion (`celosia.compress.methods`).
    inputs
        Calibration inputs (N, ...) for the methods that need some, else None.
    rates
        The fraction of weights to remove, at least 0 and below 1: one number for all layers, or
        {layer name: number}; layers not named are left alone. Of n weights, round(rate * n) go. A
        layer may be named by any of its names.
        "search": see `celosia.compress.search_rates`; needs `evaluate` and `accuracy_budget`.
    finetune
        Called as ``finetune(model, round)`` after each round, round = 0, 1, ...; or None.
    rounds
        Number of rounds, for the orders "forward" and "backward" of each layer; None is 5 with
        `finetune` and 1 without.
    schedule
        How the removed share grows over the rounds: "cubic" or "linear". None is "cubic" for the
        order "together" and else "linear".
    seed
        In round r torch's global generator is set to ``seed + r`` for the criterion and
        `finetune`, and put back afterwards.
    scope
        "layer": each layer reaches its own rate. "global": one rate; weights of all layers
        compete with their plain scores.
    order
        "together": all layers lose weights in each round. "forward": layer by layer from the
        first to the last, all rounds of one before the next (P1). "backward": from the last
        layer to the first (Sun et al., arXiv 1512.01891).
    select, strong
        How a layer's weights are picked by their scores: "topk_abs", or "sun2016" with its
        lambda, for method "correlation" (`celosia.compress.weights.selection.find_selection`).
    layers
        Names of the layers that one number or the search concerns; None is all prunable ones.
    evaluate, accuracy_budget, grid
        Of the search only: ``evaluate(model)`` -> accuracy, the fall allowed in each layer's
        curve in the same unit, and the rates to try.
    checkpoint
        A folder that keeps the finished rounds. If it holds rounds of this very run, the run goes
        on after them and ends with the same bits as if it had never stopped.
    measure, progress
        As in `celosia.compress.training.rounds.run_rounds`.
    options
        Passed to the criterion.

    Returns
    -------
    PruneReport

    Raises
    ------
    ArgumentError
        Unknown method, schedule, order, selection, scope or layer; rates that are not as above; a
        layer that would be left without a weight or that the method does not score, or whose
        weights it scores all alike in the layer's first round; one whose weight a hook computes
        (`torch.nn.utils.prune`, the old `weight_norm`); a checkpoint of another run. The model is
        unchanged if it is raised before the first round.
    TypeError
        An option that the method does not have.
    """
    asked = _Settings(
        method=method, inputs=inputs, rates=rates, finetune=finetune, rounds=rounds,
        schedule=schedule, seed=seed, scope=scope, order=order, select=select, strong=strong,
        layers=layers, evaluate=evaluate, budget=accuracy_budget, grid=grid, options=options)
    return asked.settled(model).run(model, checkpoint, measure, progress)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Settings:
    """What a call of `prune` asks for; `settled` is the first stage of it, `run` all others."""

    method: str
    inputs: Any | None
    rates: Any
    finetune: Callable[[nn.Module, int], None] | None
    rounds: Any
    schedule: Any
    seed: int
    scope: str
    order: str
    select: str
    strong: float
    layers: Collection[str] | None
    evaluate: Callable[[nn.Module], float] | None
    budget: float | None
    grid: Collection[float]
    options: Mapping[str, Any]

    def settled(self, model: nn.Module) -> _Settings:
        """Return them with nothing left open, and layers under first names; ArgumentError where
        they mean nothing together."""
        rounds, schedule = self.rounds, self.schedule
        if rounds is None:
            rounds = DEFAULT_ROUNDS if self.finetune is not None else 1
        if schedule is None:
            schedule = ORDERS.get(self.order, "cubic")
        _check(self.scope, self.rates, self.order, self.select, self.layers)
        find_selection(self.select, self.method, self.strong)
        rates, layers = _concerned(model, self.rates, self.layers)
        plan_rounds({}, rounds, schedule, self.order)
        signed = {"signed": True} if self.select == "sun2016" else {}
        return replace(self, rounds=rounds, schedule=schedule, rates=rates, layers=layers,
                       options={**self.options, **signed})

    def run(self, model: nn.Module, checkpoint: str | Path | None, measure: Measure | None,
            progress: Callable[[RoundRecord], None] | None) -> PruneReport:
        """Prune the model as they say."""
        choices = self.choices(model)
        journal = Journal(checkpoint, choices)
        if self.rates == "search":
            choices |= self.searched(model, journal, choices["search"])
        steps = plan_rounds(choices["rates"], self.rounds, self.schedule, self.order)
        if not any(choices["rates"].values()) and (not steps or self.rates == "search"):
            raise ArgumentError("no layer has a rate above 0, so there is nothing to prune; give "
                                "higher rates, or the search a larger budget or lower rates to try")
        chooser = _Chooser(method=self.method, inputs=self.inputs, options=self.options,
                           steps=steps, scope=self.scope, seed=self.seed,
                           pick=find_selection(self.select, self.method, self.strong))
        records = run_rounds(model, len(steps), chooser, finetune=self.finetune, seed=self.seed,
                             journal=journal, measure=measure, progress=progress,
                             ties=None if self.select == "sun2016" else lambda: chooser.ties)
        return PruneReport(layers=records[-1].layers, rounds=records, choices=choices,
                           skipped=left_alone(model))

    def choices(self, model: nn.Module) -> dict[str, Any]:
        """Return them as a report has them; the rates of a search are still missing."""
        return {
            "method": self.method, "options": asdict(resolve_options(self.method, self.options)),
            "rates": ("search" if self.rates == "search" else
                      _resolve(model, self.rates, self.layers)),
            "layers": describe(self.layers), "scope": self.scope, "schedule": self.schedule,
            "order": self.order, "select": self.select,
            "strong": self.strong if self.select == "sun2016" else None,
            "rounds": self.rounds, "seed": self.seed, "ties": "lower index stays",
            "finetuned": self.finetune is not None, "finetune": describe(self.finetune),
            "search": _check_search(self.rates, self.evaluate, self.budget, self.grid),
            "start": fingerprint(model, self.inputs),
        }  # fmt: skip

    def searched(self, model: nn.Module, journal: Journal,
                 search: Mapping[str, Any]) -> dict[str, Any]:
        """Return the rates that the search finds, and what it found; from the journal if it has
        been done before."""
        assert self.evaluate is not None and self.budget is not None    # by _check_search
        if "search" not in journal.notes:
            journal.note("search", search_rates(
                model, self.method, inputs=self.inputs, evaluate=self.evaluate,
                budget=self.budget, grid=self.grid, layers=self.layers, select=self.select,
                strong=self.strong, seed=self.seed, **self.options).as_json())
        found = journal.notes["search"]
        return {"rates": _resolve(model, found["rates"], None), "search": {**search, **found}}


@dataclass(frozen=True, kw_only=True, eq=False)
class _Chooser:
    """Gives the masks of a round.

    steps : the densities to reach, for each round.   ties : of the round that was last chosen.
    """

    method: str
    inputs: Any | None
    options: Mapping[str, Any]
    steps: list[dict[str, float]]
    scope: str
    pick: Select
    seed: int
    ties: dict[str, int] = field(default_factory=dict)

    def __call__(self, model: nn.Module, index: int) -> Masks:
        """Return {layer name: mask} of round `index`, without changing the model."""
        wanted = self.steps[index]
        ranking = scores(model, self.method, self.inputs, layers=wanted, **self.options)
        missing = [name for name in wanted if name not in ranking]
        if missing:
            raise ArgumentError(
                f"method {self.method!r} does not score layer {', '.join(map(repr, missing))}; "
                "name the layers to prune, with rates={layer: rate} or layers="
            )
        layers = prunable_layers(model)
        alive = {name: current_mask(layers[name]).cpu().numpy() for name in wanted}
        self.ties.clear()
        if self.scope == "global":
            chosen = self._choose_global(ranking, alive, min(wanted.values(), default=1.0))
            self.ties.update(ties(ranking, alive, chosen))
            return chosen
        chosen = {}
        for position, (name, mask) in enumerate(alive.items()):
            count = count_kept(wanted[name], mask.size)
            if not any(name in step for step in self.steps[:index]):
                refuse_equal(self.method, name, ranking[name], mask, count)
            generator = np.random.default_rng((self.seed, index, position))
            chosen[name] = self.pick(ranking[name], mask, count, generator)
            self.ties.update(ties(ranking, alive, {name: chosen[name]}))
        return chosen

    @staticmethod
    def _choose_global(ranking: Masks, alive: Masks, density: float) -> Masks:
        if not alive:
            return {}
        chosen = keep_global(
            ranking, alive, count_kept(density, sum(mask.size for mask in alive.values()))
        )
        for name, mask in chosen.items():
            if not mask.any():
                raise ArgumentError(
                    f"this rate with scope='global' leaves layer {name!r} without a weight; give "
                    "a lower rate, or scope='layer'"
                )
        return chosen


def _concerned(model: nn.Module, rates: Any,
               layers: Collection[str] | None) -> tuple[Any, list[str] | None]:
    """Return rates and layers under first names; refuse weights that cannot be masked."""
    first = None if layers is None else list(dict.fromkeys(first_names(model, layers).values()))
    if isinstance(rates, Mapping):
        rates = _by_first_names(model, rates)
    concerned = rates if isinstance(rates, Mapping) else first
    wanted = [layer for name, layer in distinct_weights(model).items()
              if concerned is None or name in concerned]
    refuse_computed_weight(model, wanted, [nn.Module])
    refuse_strangers(model, wanted)
    return rates, first


def _by_first_names(model: nn.Module, rates: Mapping[str, Any]) -> dict[str, Any]:
    """Return the rates under the names that `distinct_weights` has."""
    names = first_names(model, rates)
    found: dict[str, Any] = {}
    for name, rate in rates.items():
        if names[name] in found:
            other = next(given for given, first in names.items() if first == names[name])
            raise ArgumentError(f"{other!r} and {name!r} name one weight; give it one rate")
        found[names[name]] = rate
    return found


def _resolve(model: nn.Module, rates: Any, layers: Collection[str] | None) -> dict[str, float]:
    """Return a rate for each prunable layer; of those that hold one weight, for the first."""
    sizes = {name: layer.weight.numel() for name, layer in distinct_weights(model).items()}
    if layers is not None and not isinstance(rates, Mapping):
        rates = dict.fromkeys(layers, rates)
    return resolve_rates(rates, sizes)


def _check(
    scope: str, rates: object, order: str, select: str, layers: Collection[str] | None
) -> None:
    """Raise ArgumentError for a combination that means nothing."""
    if scope not in SCOPES:
        raise ArgumentError(f"scope must be one of {', '.join(SCOPES)}, not {scope!r}")
    if scope == "global" and (isinstance(rates, Mapping) or rates == "search"):
        raise ArgumentError(
            "scope='global' ranks all layers together and takes one rate; give one number, or "
            "scope='layer' for a rate each"
        )
    if scope == "global" and (order != "together" or select != "topk_abs"):
        raise ArgumentError(
            "scope='global' ranks all layers together, which goes with order='together' and "
            "select='topk_abs' only; give scope='layer'"
        )
    if layers is not None and isinstance(rates, Mapping):
        raise ArgumentError("rates name the layers already; give layers= with one number only")


def _check_search(
    rates: object, evaluate: object, budget: float | None, grid: Collection[float]
) -> dict[str, Any] | None:
    """Return the search's settings as JSON has them, None without a search."""
    if rates == "search":
        if evaluate is None or budget is None:
            raise ArgumentError("rates='search' needs evaluate=, a callable(model) -> accuracy, "
                                "and accuracy_budget=, the fall allowed in each layer's curve")
        return {"budget": float(budget), "grid": sorted(map(float, grid)),
                "evaluate": describe(evaluate)}
    if budget is not None or evaluate is not None:
        raise ArgumentError("evaluate and accuracy_budget go with rates='search'; with given "
                            "rates, measure= is called after each round")
    return None
