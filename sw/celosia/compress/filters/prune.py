"""Structured pruning: removing whole filters, so that a smaller dense network is left."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from celosia.compress.criteria.registry import Criterion, lookup
from celosia.compress.criteria.scoring import filter_scores
from celosia.compress.entry import entry
from celosia.compress.filters.removal import remove
from celosia.compress.filters.selection import Target, choose
from celosia.compress.filters.structure import FilterCost, Kept, Structure, trace
from celosia.compress.layers import prunable_layers
from celosia.compress.masks.filters import filter_masks
from celosia.compress.options import resolve
from celosia.compress.spans import COUNT
from celosia.compress.training.journal import Journal, describe, fingerprint
from celosia.compress.training.rounds import Measure, reproducible
from celosia.compress.words import SCOPES
from celosia_spec.errors import ArgumentError

__all__ = ["FilterReport", "FilterRound", "LayerFilters", "prune_filters", "trace_for"]


@dataclass(frozen=True, kw_only=True)
class LayerFilters:
    """A convolution's filters: how many there were, and the indices of those that are kept."""

    filters: int
    kept: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class FilterRound:
    """What one round did: its index from 0, of how many, and the network after it.

    measured : what the caller's `measure` returned; empty without one.
    """

    round: int
    rounds: int
    macs: int
    parameters: int
    measured: Mapping[str, float | int | None] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class FilterReport:
    """The outcome of `prune_filters`.

    layers  : the convolutions that can lose filters, in the model's order.
    skipped : {convolution that cannot: why}.
    before  : MACs for one input, those of the convolutions alone, and parameters, at first.
    after   : the same at the end.
    rounds  : one record a round.
    choices : every setting that decided the outcome, as it was resolved.
    """

    layers: Mapping[str, LayerFilters]
    skipped: Mapping[str, str]
    before: FilterCost
    after: FilterCost
    rounds: tuple[FilterRound, ...]
    choices: Mapping[str, Any]

    @property
    def macs_removed(self) -> float:
        """Fraction of the MACs that is gone."""
        return 1 - self.after.macs / self.before.macs

    @property
    def parameters_removed(self) -> float:
        """Fraction of the parameters that is gone."""
        return 1 - self.after.parameters / self.before.parameters

    def with_choices(self, more: Mapping[str, Any]) -> FilterReport:
        """Return the report with further choices recorded."""
        return replace(self, choices={**self.choices, **more})


@entry
def prune_filters(
    model: nn.Module,
    example_input: Any,
    method: str,
    *,
    rate: float | Mapping[str, float] | None = None,
    macs: float | None = None,
    parameters: float | None = None,
    conv_macs: float | None = None,
    threshold: float | Mapping[str, float] | None = None,
    finetune: Callable[[nn.Module, int], None] | None = None,
    rounds: int = 1,
    scope: str = "layer",
    coupled: str = "keep",
    ignore: Collection[str] = (),
    constants: str = "fold",
    seed: int = 0,
    checkpoint: str | Path | None = None,
    measure: Measure | None = None,
    progress: Callable[[FilterRound], None] | None = None,
    inputs: Any | None = None,
    **options: Any,
) -> FilterReport:
    """Remove filters of a model's convolutions, in place.

    With a filter go its bias, its channel of the batch normalisation behind, and its slice of
    every layer that reads it; what is left is a plain, smaller network that exports, saves and
    trains as any other. Parameters are replaced, so make optimisers afterwards.

    What is left computes what the network did with these filters zeroed: weights and bias of the
    filter, gamma and beta of a batch normalisation that alone reads it. Where such a map is still
    a number further on, its reader's bias holds that; a reader that has none gets one. The two
    networks are compared on the example, and the model is as it was where they differ.

    Each round removes the lowest-scoring filters of the current model, the same share of the
    target in each round, and calls `finetune`.

    Parameters
    ----------
    model
        The trained network.
    example_input
        One input (1, ...), tensor or array.
    method
        "std", "l1" or "mask" (`celosia.compress.filter_scores`). "mask" folds the masks into the
        weights first, and takes one round.
    rate
        Fraction of filters to remove, at least 0 and below 1: one number for all layers, or
        {layer: number}, layers not named being left alone. int(C * (1 - rate)) of C filters stay
        (Li et al., arXiv 1608.08710). With scope "global", the fraction of all filters.
    macs, parameters, conv_macs
        Fraction to remove of all multiply-accumulates, all parameters, or the multiply-accumulates
        of the convolutions alone. The smallest rate that meets it is taken, the same for all
        layers; with scope "global" the smallest number of filters.
    threshold
        All filters with a lower score go, but a layer's best; one number or {layer: number}.
        Exactly one of these five is given.
    finetune
        Called as ``finetune(model, round)`` after each round, round = 0, 1, ...; or None.
    rounds
        Number of rounds, at least 1.
    scope
        "layer": filters are ranked within their layer. "global": the filters of all layers
        compete with their plain scores.
    coupled
        "keep": convolutions whose outputs are added, as those that write a residual stream, are
        left alone. "prune": they lose the same filters, ranked by the sum of their scores; not
        possible where a shortcut pads channels with zeros.
    ignore
        Names of convolutions to leave alone.
    constants
        "fold": a filter stays if its map, zeroed, is a number at a reader that cannot hold it: in
        front of a border of zeros. "drop": it goes, and the reader does without that number.
    seed
        In round r torch's global generators are set to ``seed + r``, and put back afterwards.
    checkpoint
        Folder that keeps the finished rounds, or None. Called again on the unpruned model with
        the same settings, a run that was stopped goes on after its last finished round.
    measure
        ``measure(model)`` -> {name: number or None} after each round, kept in its record; or None.
    progress
        Called with a `FilterRound` after each round, or None.
    inputs, options
        Calibration inputs (N, ...) of the method, and its options, where it has any.

    Returns
    -------
    FilterReport

    Raises
    ------
    ArgumentError
        Settings that are not as above; a target that cannot be met; a layer that would be left
        without a filter, or that has filters with one score, of which some would have to go;
        masked or computed weights; a network that without the filters does not
        run or computes something else. The model is as it was before the round.
    TypeError
        An option that the method does not have.
    """
    asked = _Settings(
        target=Target.of(rate=rate, macs=macs, parameters=parameters, conv_macs=conv_macs,
                         threshold=threshold),
        method=method, scope=scope, coupled=coupled, ignore=ignore, constants=constants,
        rounds=rounds, seed=seed, finetune=finetune, inputs=inputs, options=options)
    return asked.run(model, example_input, checkpoint, measure, progress)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Settings:
    """What a call of `prune_filters` asks for."""

    target: Target
    method: str
    scope: str
    coupled: str
    ignore: Collection[str]
    constants: str
    rounds: int
    seed: int
    finetune: Callable[[nn.Module, int], None] | None
    inputs: Any | None
    options: Mapping[str, Any]

    def run(self, model: nn.Module, example_input: Any, checkpoint: str | Path | None,
            measure: Measure | None, progress: Callable[[FilterRound], None] | None
            ) -> FilterReport:
        """Prune the model as they say."""
        _check(model, self.method, self.target, self.rounds, self.scope)
        look = partial(trace_for, model, example_input, self.method, self.coupled, self.ignore,
                       self.constants)
        start = look()
        choices = self.choices(model)
        journal = Journal(checkpoint, choices)
        run = _Run(model, example_input, look, start, lookup(self.method, "filters"),
                   partial(filter_scores, method=self.method, inputs=self.inputs, **self.options))
        if journal.records:
            run.rebuild(journal.records[-1]["kept"], journal.restore())
        for index in range(len(journal.records), self.rounds):
            self.one_round(run, index, journal, measure)
            if progress is not None:
                progress(_round(index, self.rounds, journal.records[-1]))
        return FilterReport(
            layers=run.layers(), skipped=start.skipped, before=start.cost(),
            after=start.count(model), choices=choices,
            rounds=tuple(_round(index, self.rounds, record)
                         for index, record in enumerate(journal.records)))

    def choices(self, model: nn.Module) -> dict[str, Any]:
        """Return them as a report has them."""
        options = resolve(self.method, lookup(self.method, "filters").options, self.options)
        return {"method": self.method, self.target.kind: self.target.value, "scope": self.scope,
                "coupled": self.coupled, "ignore": sorted(self.ignore),
                "constants": self.constants, "rounds": self.rounds, "schedule": "linear",
                "seed": self.seed, "ties": "lower index stays",
                "finetuned": self.finetune is not None, "finetune": describe(self.finetune),
                "options": asdict(options), "start": fingerprint(model, self.inputs)}

    def one_round(self, run: _Run, index: int, journal: Journal, measure: Measure | None) -> None:
        """Remove a round's filters, fine-tune, and keep the round."""
        with reproducible(run.model, self.seed + index):
            run.remove(self.target, self.scope, Fraction(index + 1, self.rounds))
            if self.finetune is not None:
                self.finetune(run.model, index)
        with reproducible(run.model, self.seed + index):
            measured = {} if measure is None else dict(measure(run.model))
        journal.finish(run.record() | {"measured": measured}, run.model.state_dict())


class _Run:
    """A network that is losing filters, and which of its first filters it still has."""

    def __init__(
        self, model: nn.Module, example_input: Any, look: Callable[[], Structure],
        start: Structure, method: Criterion, score: Callable[[nn.Module], dict[str, np.ndarray]],
    ) -> None:
        self.model, self.example_input = model, example_input
        self.look, self.start, self.method, self.score = look, start, method, score
        self.kept = start.everything()
        self._now: Structure | None = start

    def remove(self, target: Target, scope: str, share: Fraction) -> None:
        """Remove filters until this share of the target is met."""
        by_layer = self.score(self.model)
        scores = {name: np.sum([by_layer[member] for member in unit.members], axis=0)
                  for name, unit in self.start.units.items()}
        kept = choose(self.start, self.kept, scores, target, scope, share)
        if target.kind != "threshold" and not self.method.masks:
            self._refuse_unranked(scores, kept)
        self._remove(kept)

    def _refuse_unranked(self, scores: Mapping[str, np.ndarray], kept: Kept) -> None:
        """Raise ArgumentError for a layer that would lose filters by their index alone."""
        for name, values in scores.items():
            if len(kept[name]) < len(values) and np.ptp(values) == 0:
                method = self.method.name
                other = "take 'l1', or name it" if method == "std" else "name it"
                raise ArgumentError(
                    f"method {method!r} gives all filters of layer {name!r} the same score, "
                    f"so it cannot say which are to go; {other} in `ignore`")

    def rebuild(
        self, kept: Mapping[str, list[int]], tensors: Mapping[str, torch.Tensor] | None
    ) -> None:
        """Give the untouched model the structure and the tensors of a finished round."""
        self._remove({name: np.array(indices) for name, indices in kept.items()})
        self.model.load_state_dict(dict(tensors or {}))

    def record(self) -> dict[str, Any]:
        """Return what a finished round is rebuilt from, as JSON has it."""
        cost = self.start.count(self.model)
        return {"kept": {name: indices.tolist() for name, indices in self.kept.items()},
                "macs": cost.macs, "parameters": cost.parameters}

    def layers(self) -> dict[str, LayerFilters]:
        """Return all convolutions that can lose filters with what they have left."""
        found = {member: LayerFilters(filters=unit.channels,
                                      kept=tuple(self.kept[unit.name].tolist()))
                 for unit in self.start.units.values() for member in unit.members}
        return {name: found[name] for name in prunable_layers(self.model) if name in found}

    def _remove(self, kept: Kept) -> None:
        now = self._now or self.look()      # training has changed what constants there are
        left = {name: np.searchsorted(self.kept[name], indices) for name, indices in kept.items()}
        remove(self.model, now, left, self.example_input)
        self.kept, self._now = dict(kept), None


def trace_for(
    model: nn.Module,
    example_input: Any,
    method: str,
    coupled: str = "keep",
    ignore: Collection[str] = (),
    constants: str = "fold",
) -> Structure:
    """Trace the model; where the method reads masks, layers without one are left alone."""
    if not lookup(method, "filters").masks:
        return trace(model, example_input, coupled=coupled, ignore=ignore, constants=constants)
    if constants != "fold":
        raise ArgumentError("masks are folded exactly, so constants must be 'fold' with them")
    masked = filter_masks(model)
    bare = {name for name, layer in prunable_layers(model).items()
            if isinstance(layer, nn.Conv2d) and name not in masked}
    found = trace(model, example_input, coupled=coupled, ignore={*ignore, *bare})
    reasons = dict.fromkeys(bare - set(ignore), "has no filter mask")
    return replace(found, skipped=dict(found.skipped) | reasons)


def _check(model: nn.Module, method: str, target: Target, rounds: int, scope: str) -> None:
    """Raise ArgumentError for settings that cannot be meant."""
    found = lookup(method, "filters")
    if scope not in SCOPES:
        raise ArgumentError(f"scope must be one of {', '.join(SCOPES)}, not {scope!r}")
    COUNT.check("rounds", rounds)
    if rounds > 1 and (found.masks or target.kind == "threshold"):
        raise ArgumentError("masks, which are folded away, and a threshold take one round; "
                            "leave `rounds` at 1")
    masks = filter_masks(model)
    if masks and not found.masks:
        raise ArgumentError(f"the model has filter masks, which method {method!r} does not look "
                            "at; call celosia.compress.fold_masks first, or use 'mask'")
    if found.masks and not masks:
        raise ArgumentError("the model has no filter masks; add and train them first "
                            "(celosia.compress.add_masks)")


def _round(index: int, rounds: int, record: Mapping[str, Any]) -> FilterRound:
    return FilterRound(round=index, rounds=rounds, macs=record["macs"],
                       parameters=record["parameters"], measured=record["measured"])
