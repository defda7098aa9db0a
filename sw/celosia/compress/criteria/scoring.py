"""Scores of a model's weights or filters, by the name of a criterion."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
from torch import nn

from celosia.compress.criteria.registry import Scores, Scoring, lookup, resolve_options
from celosia.compress.entry import entry
from celosia.compress.layers import prunable_layers
from celosia.compress.options import resolve
from celosia_spec.errors import ArgumentError
from celosia_spec.inputs import as_tensor

__all__ = ["filter_scores", "scores"]


@entry
def scores(
    model: nn.Module,
    method: str,
    inputs: Any | None = None,
    *,
    layers: Collection[str] | None = None,
    seed: int = 0,
    **options: Any,
) -> dict[str, np.ndarray]:
    """Score every prunable weight of a model.

    Parameters
    ----------
    model
        Any module; its `Conv1d`, `Conv2d` and `Linear` layers are scored. It is not changed.
    method
        Name of a criterion; `methods` lists them.
    inputs
        Calibration inputs (N, ...), tensor or array, for the methods that need some.
    layers
        Names of the layers to score; None is all of them.
    seed
        Of what a method draws at random.
    options
        What the method understands besides.

    Returns
    -------
    {layer name: float64 array of the weight's shape}; larger is more important.

    Raises
    ------
    ArgumentError
        Unknown method or layer; no layer to prune; an option that is out of range; a score that is
        not finite.
    TypeError
        An option that the method does not have; the message lists those that it has.
    """
    found, resolved = lookup(method), resolve_options(method, options)
    every = prunable_layers(model)
    if not every:
        raise ArgumentError("the model has no Conv1d, Conv2d or Linear layer, so nothing can be "
                            "pruned")
    unknown = [name for name in layers or () if name not in every]
    if unknown:
        raise ArgumentError(
            f"no layer is called {', '.join(map(repr, unknown))}; "
            f"layers: {', '.join(map(repr, every))}"
        )
    chosen = {name: layer for name, layer in every.items() if layers is None or name in layers}
    scoring = Scoring(model=model, layers=chosen, seed=seed,
                      inputs=None if inputs is None else as_tensor(inputs, "inputs"))
    return _finite(method, found.score(scoring, resolved))


@entry
def filter_scores(
    model: nn.Module, method: str, inputs: Any | None = None, **options: Any
) -> dict[str, np.ndarray]:
    """Score every filter of a model.

    Parameters
    ----------
    model
        Any module; its `Conv2d` layers are scored. It is not changed.
    method
        "std": standard deviation of a filter's weights (P2). "l1": sum of their absolute values
        (Li et al., arXiv 1608.08710). "mask": absolute value of the filter's mask (P3, 6.4.1), for
        the layers that have one (`celosia.compress.add_masks`).
    inputs
        Calibration inputs (N, ...), for a method that looks at activations; these three look at
        parameters alone and do without.
    options
        What the method understands besides; these three have none.

    Returns
    -------
    {layer name: float64 array (output channels,)}; larger is more important.

    Raises
    ------
    ArgumentError
        Unknown method; no convolution, or with "mask" no mask; a score that is not finite.
    TypeError
        An option that the method does not have.
    """
    found = lookup(method, "filters")
    resolved = resolve(method, found.options, options)
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d)}
    if not layers:
        raise ArgumentError("nothing to score: the model has no convolutions")
    result = found.score(Scoring(model=model, layers=layers, inputs=None if inputs is None
                                 else as_tensor(inputs, "inputs")), resolved)
    if not result:
        raise ArgumentError("nothing to score: the model has no filter masks; add them with "
                            "add_masks")
    return _finite(method, result)


def _finite(method: str, result: Scores) -> Scores:
    """Return scores, or raise ArgumentError for a layer with one that is not finite."""
    for name, values in result.items():
        if not np.isfinite(values).all():
            raise ArgumentError(
                f"method {method!r} gives layer {name!r} a score that is not finite; "
                "check its weights and the inputs for NaN and infinity"
            )
    return result
