"""The rounds of a factorisation: decompose, see that the network still runs, fine-tune, keep."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn

from celosia.compress.cost import cost_of_layers
from celosia.compress.layers import put
from celosia.compress.lowrank.decomposition import Decomposition, Ranks, product
from celosia.compress.lowrank.rank_search import as_lists, as_tuples
from celosia.compress.lowrank.sites import Layer
from celosia.compress.promise import Promise, restoring, run_once
from celosia.compress.training.journal import Journal
from celosia.compress.training.rounds import Measure, reproducible
from celosia_spec.errors import ArgumentError, CelosiaError

__all__ = ["FactoriseRound", "Run"]

_LOGGER = logging.getLogger(__name__)

_ROUNDINGS = 2.0
"""Ranks that lose so many roundings of a weight, relative to its norm, lose nothing."""


@dataclass(frozen=True, kw_only=True)
class FactoriseRound:
    """What one round did: its index from 0, of how many, and the network after it.

    ranks      : {layer name: ranks} of the layers that are decomposed.
    parameters : trained numbers of the whole network.
    macs       : of the whole network for one input.
    density    : weights of convolutions and linear layers now that are not zero / all that the
                 network had before the run.
    measured   : what the caller's `measure` returned; empty without one.
    seconds    : how long the round took, fine-tuning and measuring included.
    """

    round: int
    rounds: int
    ranks: Mapping[str, Ranks]
    parameters: int
    macs: int
    density: float
    measured: Mapping[str, float | int | None] = field(default_factory=dict)
    seconds: float = field(default=0.0, compare=False)

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
        return {"round": self.round, "rounds": self.rounds, "ranks": as_lists(self.ranks),
                "parameters": self.parameters, "macs": self.macs, "density": self.density,
                "measured": dict(self.measured), "seconds": self.seconds}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> FactoriseRound:
        """Return the record that `as_json` wrote."""
        return cls(**{**content, "ranks": as_tuples(content["ranks"])})


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """The rounds.

    originals : a copy of each layer as it was given, without masks.
    weights   : of the whole network as it was given, biases not counted.
    """

    model: nn.Module
    example: Any
    way: Decomposition
    final: Mapping[str, Ranks]
    rounds: int
    originals: Mapping[str, Layer]
    weights: int

    def __call__(
        self,
        journal: Journal,
        finetune: Callable[[nn.Module, int], None] | None,
        seed: int,
        measure: Measure | None,
        progress: Callable[[FactoriseRound], None] | None,
    ) -> tuple[FactoriseRound, ...]:
        """Do the rounds that the journal does not have yet; return the records of all."""
        journal.check(self.model.state_dict())
        records = [FactoriseRound.from_json(record) for record in journal.records]
        kept = journal.restore()
        if kept is not None:
            _LOGGER.info("%s: %d of %d rounds found, going on after them", journal.folder,
                         len(records), self.rounds)
            self.install(records[-1].ranks)
            self.model.load_state_dict(kept)
        for index in range(len(records), self.rounds):
            start = time.perf_counter()
            ranks = self.ranks(index)
            self.decompose(ranks)
            with reproducible(self.model, seed + index):
                if finetune is not None:
                    finetune(self.model, index)
            with reproducible(self.model, seed + index):
                measured = {} if measure is None else dict(measure(self.model))
            cost = cost_of_layers(self.model, self.example)
            records.append(FactoriseRound(
                round=index, rounds=self.rounds, ranks=ranks, parameters=cost.parameters,
                macs=cost.macs, density=cost.nonzeros / self.weights, measured=measured,
                seconds=time.perf_counter() - start))
            journal.finish(records[-1].as_json(), self.model.state_dict())
            if progress is not None:
                progress(records[-1])
        return tuple(records)

    def ranks(self, index: int) -> dict[str, Ranks]:
        """Return the ranks of a round, falling to the final ones in equal steps."""
        share = (self.rounds - 1 - index) / self.rounds
        found = {}
        for name, last in self.final.items():
            layer = self.originals[name]
            top = self.way.largest_saving(layer) or last
            between = tuple(round(low + max(high - low, 0) * share)
                            for low, high in zip(last, top, strict=True))
            between = self.way.consistent(layer, between)
            found[name] = between if self.way.saves(layer, between) else last
        return found

    def decompose(self, ranks: Mapping[str, Ranks]) -> None:
        """Do `install`, and put all back if the network does not run or exact ranks change it."""
        exact = [name for name, wanted in ranks.items() if self.loses_nothing(name, wanted)]
        if exact:
            Promise(self.model, self.example).keep(
                self.model, {name: partial(self.install, {name: ranks[name]}) for name in exact},
                "decomposing {layer!r}")
        rest = {name: wanted for name, wanted in ranks.items() if name not in exact}
        try:
            with restoring(self.model):
                self.install(rest)
                run_once(self.model, self.example)
        except ArgumentError as problem:
            raise CelosiaError(f"without layer {self._culprit(rest)!r} as one layer {problem}; "
                               "name it in skip") from problem

    def loses_nothing(self, name: str, ranks: Ranks) -> bool:
        """Tell whether ranks lose no more of a layer's present weight than rounding does."""
        layer = self.present(name)
        epsilon: float = torch.finfo(layer.weight.dtype).eps
        return self.way.lost(layer, self.way.split(layer, ranks)) <= _ROUNDINGS * epsilon

    def _culprit(self, ranks: Mapping[str, Ranks]) -> str:
        """Return the first layer without which, decomposed alone, the network does not run."""
        for name, wanted in ranks.items():
            with restoring(self.model, always=True):
                self.install({name: wanted})
                try:
                    run_once(self.model, self.example)
                except ArgumentError:
                    return name
        return ", ".join(ranks)

    def install(self, ranks: Mapping[str, Ranks]) -> None:
        """Decompose layers to these ranks, from their product where they are decomposed."""
        for name, wanted in ranks.items():
            parts = self.way.split(self.present(name), wanted)
            put(self.model, self.model.get_submodule(name), parts)

    def present(self, name: str) -> Layer:
        """Return the one layer that computes what stands in a layer's place now."""
        current = self.model.get_submodule(name)
        dense = self.originals[name].train(current.training)
        if isinstance(current, nn.Sequential):
            with torch.no_grad():
                dense.weight.copy_(product(current).reshape(dense.weight.shape))
                if dense.bias is not None:
                    dense.bias.copy_(current[-1].bias)
        return dense
