"""Both halves of a network at once: filters of the convolutions, weights of the linear layers.

P3, section 6.4.3: a mask layer decides on the convolutions, neuron correlation on the hidden linear
layers, and the network is fine-tuned as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from celosia.compress.entry import entry
from celosia.compress.filters.mask_layer import Trainer, prune_with_masks
from celosia.compress.filters.owners import Owners
from celosia.compress.filters.prune import FilterReport
from celosia.compress.filters.record import record
from celosia.compress.layers import prunable_layers
from celosia.compress.promise import example_for
from celosia.compress.weights.prune import PruneReport, prune
from celosia_spec.errors import ArgumentError

__all__ = ["CombinedReport", "prune_combined"]


@dataclass(frozen=True, kw_only=True)
class CombinedReport:
    """The outcome of `prune_combined`.   filters : of the convolutions.   weights : of the rest."""

    filters: FilterReport
    weights: PruneReport

    @property
    def choices(self) -> Mapping[str, Any]:
        """Every setting that decided the outcome, of both halves."""
        return {"filters": self.filters.choices, "weights": self.weights.choices}


@entry
def prune_combined(
    model: nn.Module,
    example_input: Any,
    *,
    inputs: Any,
    rates: float | Mapping[str, float],
    method: str = "correlation",
    train: Callable[..., Trainer],
    strength: float,
    conv_macs: float,
    finetune: Trainer | None = None,
    recover: Trainer | None = None,
    rounds: int = 1,
    checkpoint: str | Path | None = None,
    seed: int = 0,
    filter_options: Mapping[str, Any] | None = None,
    **options: Any,
) -> CombinedReport:
    """Prune the convolutions by filters and the hidden linear layers by weights, in place.

    The filters go first, since the first linear layer loses inputs with them.

    Parameters
    ----------
    model, example_input
        The trained network and one input (1, ...).
    inputs
        Calibration inputs (N, ...) of the linear layers' method.
    rates
        Fraction of weights to remove from the hidden linear layers: one number, or {layer:
        number}. A layer that gives the classes, with no other layer behind it, is never pruned.
    method, options
        The linear layers' criterion (`celosia.compress.methods`) and its options.
    train, strength, conv_macs
        How masks are trained, and the fraction of the convolutions' multiply-accumulates to
        remove (`celosia.compress.prune_with_masks`).
    recover
        Called once as ``recover(model, 0)`` when the filters are gone, or None.
    finetune
        Called as ``finetune(model, round)`` after each round on the linear layers; it trains the
        whole network.
    rounds
        Rounds on the linear layers.
    checkpoint
        Folder that keeps finished stages and rounds, or None.
    seed
        Of every stage.
    filter_options
        Further options of `prune_with_masks`, such as ``on`` and ``scope``.

    Returns
    -------
    CombinedReport

    Raises
    ------
    ArgumentError
        A rate for a layer that gives the classes or for one that is not linear; no hidden linear
        layer; and as the two methods do.
    """
    linear = [name for name, layer in prunable_layers(model).items()
              if isinstance(layer, nn.Linear)]
    last = Owners(model, record(model, example_for(model, example_input))).last()
    chosen = _hidden_rates(linear, last, rates)
    folder = None if checkpoint is None else Path(checkpoint)
    filters = prune_with_masks(
        model, example_input, train=train, strength=strength, conv_macs=conv_macs,
        finetune=recover, seed=seed, checkpoint=None if folder is None else folder / "convolutions",
        **dict(filter_options or {}))
    weights = prune(
        model, method, inputs=inputs, rates=chosen, finetune=finetune, rounds=rounds, seed=seed,
        checkpoint=None if folder is None else folder / "linear", **options)
    return CombinedReport(filters=filters, weights=weights)


def _hidden_rates(
    linear: list[str], last: Collection[str], rates: float | Mapping[str, float]
) -> dict[str, float]:
    """Return {hidden linear layer: rate}.   last : names of layers that give the classes."""
    hidden = [name for name in linear if name not in last]
    if not hidden:
        raise ArgumentError("the model has no hidden linear layer; use prune_with_masks for its "
                            "convolutions alone")
    if not isinstance(rates, Mapping):
        return dict.fromkeys(hidden, rates)
    for name in rates:
        if name in last and name in linear:
            raise ArgumentError(f"layer {name!r} gives the classes and is not pruned; leave it "
                                "out of `rates`")
        if name not in hidden:
            raise ArgumentError(f"no hidden linear layer is called {name!r}; there are "
                                f"{', '.join(map(repr, hidden))}")
    return dict(rates)
