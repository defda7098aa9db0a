"""Round after round: choose masks, fine-tune, measure, keep; and go on after a stop.

What every method that removes weights bit by bit shares. Which weights go in a round is up to the
caller's function.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from celosia.compress.entry import entry
from celosia.compress.layers import (
    distinct_weights,
    holders,
    prunable_layers,
    refuse_computed_weight,
    refuse_strangers,
)
from celosia.compress.masks.weights import current_mask, mask_weight
from celosia.compress.spans import COUNT
from celosia.compress.training.journal import Journal
from celosia_spec.errors import ArgumentError

__all__ = ["LayerDensity", "RoundRecord", "RoundsReport", "densities", "reproducible", "run_rounds"]

Masks = Mapping[str, np.ndarray]
Measure = Callable[[nn.Module], Mapping[str, float | int | None]]

_LOGGER = logging.getLogger(__name__)

_MASK = re.compile(r"^(?:(.*)\.)?parametrizations\.weight\.\d+\.kept$")


@dataclass(frozen=True, kw_only=True)
class LayerDensity:
    """A layer's weights, biases not counted, and how many of them are kept."""

    weights: int
    kept: int

    @property
    def density(self) -> float:
        """Kept weights / all weights."""
        return self.kept / self.weights


@dataclass(frozen=True, kw_only=True)
class RoundRecord:
    """What one round did: its index from 0, of how many, and the network after it.

    layers   : each prunable layer's weights and kept weights, in the model's order; of layers that
               hold one weight, the first.
    ties     : {layer: how many weights went in this round while others with the same score stayed,
               for their higher index alone}, of the layers where any did.
    measured : what the caller's `measure` returned; empty without one.
    seconds  : how long the round took, fine-tuning and measuring included.
    """

    round: int
    rounds: int
    layers: Mapping[str, LayerDensity]
    ties: Mapping[str, int] = field(default_factory=dict)
    measured: Mapping[str, float | int | None] = field(default_factory=dict)
    seconds: float = field(default=0.0, compare=False)

    @property
    def density(self) -> float:
        """Kept weights / all weights of the prunable layers together, after this round."""
        return sum(layer.kept for layer in self.layers.values()) / sum(
            layer.weights for layer in self.layers.values()
        )

    @property
    def accuracy(self) -> float | None:
        """What was measured under this name, or None."""
        return self.measured.get("accuracy")

    @property
    def predicted_cycles(self) -> float | None:
        """What was measured under this name, or None."""
        return self.measured.get("predicted_cycles")

    def as_json(self) -> dict[str, Any]:
        """Return the record as JSON has it."""
        return {
            "round": self.round,
            "rounds": self.rounds,
            "layers": {name: {"weights": layer.weights, "kept": layer.kept}
                       for name, layer in self.layers.items()},
            "ties": dict(self.ties),
            "measured": dict(self.measured),
            "seconds": self.seconds,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> RoundRecord:
        """Return the record that `as_json` wrote."""
        layers = {name: LayerDensity(**layer) for name, layer in content["layers"].items()}
        return cls(**{**content, "layers": layers})


@dataclass(frozen=True, kw_only=True)
class RoundsReport:
    """The outcome of removing single weights in rounds.

    layers  : each prunable layer's weights and kept weights, in the model's order.
    rounds  : one record a round, those of a run that was resumed included.
    choices : every setting that decided the outcome, as it was resolved and as JSON has it.
    skipped : {layer with weights that is of no prunable kind: why it was left alone}.
    """

    layers: Mapping[str, LayerDensity]
    rounds: tuple[RoundRecord, ...]
    choices: Mapping[str, Any]
    skipped: Mapping[str, str]

    @property
    def density(self) -> float:
        """Kept weights / all weights of all prunable layers together."""
        return self.rounds[-1].density


@entry
def run_rounds(
    model: nn.Module,
    count: int,
    choose: Callable[[nn.Module, int], Masks],
    *,
    finetune: Callable[[nn.Module, int], None] | None = None,
    seed: int = 0,
    journal: Journal | None = None,
    measure: Measure | None = None,
    progress: Callable[[RoundRecord], None] | None = None,
    ties: Callable[[], Mapping[str, int]] | None = None,
) -> tuple[RoundRecord, ...]:
    """Do `count` rounds of masking and fine-tuning on a model, in place.

    Round r sets torch's global generators to ``seed + r``, asks `choose` for masks, puts them on
    the layers, calls `finetune` and `measure`, and keeps the round in the journal. After it the
    generators and the train and eval modes of all modules are as they were before. If the journal
    holds finished rounds, the model gets the masks, parameters and buffers that it had after the
    last of them, and the rest is done; the result has the same bits as if the run had never
    stopped, provided that `choose` and `finetune` depend on nothing but the model, the round and
    torch's generators. The logger ``celosia.compress.training.rounds`` says that rounds were found.

    Parameters
    ----------
    model
        The network. A resumed run must be given the same one as the run that was stopped.
    count
        Number of rounds, at least 1.
    choose
        ``choose(model, round)`` -> {layer name: bool array of the weight's shape, True where the
        weight is kept}. Layers not named stay as they are. A weight that is masked stays masked,
        whatever `choose` says, and a layer that loses nothing gets no mask. Layers that hold one
        weight get the mask of any of them.
    finetune
        ``finetune(model, round)`` after the masks, or None.
    seed
        An integer, at least 0.
    journal
        Where finished rounds are kept and found; None keeps them nowhere.
    measure
        ``measure(model)`` -> {name: number or None} after each round, kept in the record; the
        names "accuracy" (0 to 1) and "predicted_cycles" are shown. Or None.
    progress
        Called with the `RoundRecord` of each round done now, not of those found, or None.
    ties
        Called after `choose` for the record's `ties`, or None.

    Returns
    -------
    The records of all rounds, those of the stopped run included, in order.

    Raises
    ------
    ArgumentError
        Less than one round, a mask of an unknown layer, a mask that is not bool or not of the
        weight's shape, or one that leaves a layer without a weight; a weight that a hook
        computes, or that another kind of module holds too.
    """
    COUNT.check("rounds", count)
    journal = Journal(None, {}) if journal is None else journal
    journal.check(model.state_dict())
    kept = journal.restore()
    if kept is not None:
        _put_back(model, kept)
        _LOGGER.info("%s: %d of %d rounds found, going on after them", journal.folder,
                     len(journal.records), count)
    records = [RoundRecord.from_json(record) for record in journal.records]
    for index in range(len(records), count):
        start = time.perf_counter()
        with reproducible(model, seed + index):
            _mask(model, choose(model, index))
            equal = {} if ties is None else dict(ties())
            if finetune is not None:
                finetune(model, index)
        layers = densities(model)
        with reproducible(model, seed + index):
            measured = {} if measure is None else dict(measure(model))
        records.append(RoundRecord(round=index, rounds=count, layers=layers, ties=equal,
                                   measured=measured, seconds=time.perf_counter() - start))
        journal.finish(records[-1].as_json(), model.state_dict())
        if progress is not None:
            progress(records[-1])
    return tuple(records)


@contextmanager
def reproducible(model: nn.Module, seed: int) -> Iterator[None]:
    """Set torch's global generators to a seed; afterwards put them and the modules' modes back."""
    modes = {module: module.training for module in model.modules()}
    devices = {parameter.device for parameter in model.parameters()}
    cards = [device for device in devices if device.type == "cuda"]
    try:
        with torch.random.fork_rng(devices=cards):
            torch.manual_seed(seed)
            yield
    finally:
        for module in model.modules():      # masks put on meanwhile take the model's mode
            module.training = modes.get(module, model.training)


def densities(model: nn.Module) -> dict[str, LayerDensity]:
    """Return the weights and kept weights of each prunable layer, in the model's order.

    A weight that several layers hold is counted once, under the first.
    """
    return {
        name: LayerDensity(weights=layer.weight.numel(), kept=int(current_mask(layer).sum()))
        for name, layer in distinct_weights(model).items()
    }


def _mask(model: nn.Module, masks: Masks) -> None:
    """Put masks on layers, on top of those that they have; check all before changing any."""
    layers = prunable_layers(model)
    concerned = [layers[name] for name in masks if name in layers]
    refuse_computed_weight(model, concerned, [nn.Module])
    refuse_strangers(model, concerned)
    wanted: dict[str, torch.Tensor] = {}
    for name, mask in masks.items():
        if name not in layers:
            raise ArgumentError(f"a mask for layer {name!r}, which is not among the prunable "
                                f"layers {', '.join(map(repr, layers))}")
        first = next(iter(holders(model, layers[name])))
        alive = wanted.get(first, current_mask(layers[name]))
        given = np.asarray(mask)
        if given.dtype != bool or given.shape != tuple(alive.shape):
            raise ArgumentError(f"the mask of layer {name!r} must be bool of shape "
                                f"{tuple(alive.shape)}, not {given.dtype} {given.shape}")
        kept = alive & torch.tensor(given, device=alive.device)
        if not kept.any():
            raise ArgumentError(f"a round would leave layer {name!r} without a weight; give it a "
                                "lower rate")
        if not torch.equal(kept, alive):
            wanted[first] = kept
    for name, kept in wanted.items():
        mask_weight(model, layers[name], kept)


def _put_back(model: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """Give a model the masks, parameters and buffers that it had when they were kept."""
    for name, tensor in tensors.items():
        found = _MASK.match(name)
        if found is not None:
            mask_weight(model, model.get_submodule(found.group(1) or ""), tensor)
    model.load_state_dict(tensors)
