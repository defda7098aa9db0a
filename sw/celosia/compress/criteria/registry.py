"""How important is each weight? One function a method, found by its name.

A criterion is ``function(model, layers, inputs, **options) -> {layer name: scores}``. It gets the
model, the layers to score by name, and calibration inputs or None; it changes none of them and
returns for each layer a float64 array of the weight's shape. A larger score means a more
important weight. It joins with the decorator `criterion`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
from torch import nn

from celosia.compress.entry import entry
from celosia.compress.layers import prunable_layers
from celosia_spec.errors import ArgumentError
from celosia_spec.inputs import as_tensor

__all__ = ["check_options", "criterion", "lookup", "methods", "resolve_options", "scores"]

Layers = Mapping[str, nn.Conv2d | nn.Linear]
Scores = dict[str, np.ndarray]
Criterion = Callable[..., Scores]

_CRITERIA: dict[str, Criterion] = {}


def criterion(name: str) -> Callable[[Criterion], Criterion]:
    """Return a decorator that makes a function known under a method name.

    Raises ArgumentError if the name is taken.
    """

    def register(function: Criterion) -> Criterion:
        if name in _CRITERIA:
            raise ArgumentError(f"the method name {name!r} is taken by {_CRITERIA[name].__name__}")
        _CRITERIA[name] = function
        return function

    return register


def methods() -> tuple[str, ...]:
    """Return the names of the known methods, sorted."""
    return tuple(sorted(_CRITERIA))


@entry
def scores(
    model: nn.Module,
    method: str,
    inputs: Any | None = None,
    *,
    layers: Collection[str] | None = None,
    **options: Any,
) -> dict[str, np.ndarray]:
    """Score every prunable weight of a model.

    Parameters
    ----------
    model
        Any module; its `Conv2d` and `Linear` layers are scored. It is not changed.
    method
        Name of a criterion; `methods` lists them.
    inputs
        Calibration inputs (N, ...), tensor or array, for the methods that need some.
    layers
        Names of the layers to score; None is all of them.
    options
        What the method understands besides.

    Returns
    -------
    {layer name: float64 array of the weight's shape}; larger is more important.

    Raises
    ------
    ArgumentError
        Unknown method or layer; no layer to prune; a score that is not finite.
    TypeError
        An option that the method does not have; the message lists those that it has.
    """
    function = lookup(method)
    check_options(method, function, options)
    every = prunable_layers(model)
    if not every:
        raise ArgumentError("the model has no Conv2d or Linear layer, so nothing can be pruned")
    unknown = [name for name in layers or () if name not in every]
    if unknown:
        raise ArgumentError(
            f"no layer is called {', '.join(map(repr, unknown))}; "
            f"layers: {', '.join(map(repr, every))}"
        )
    chosen = {name: layer for name, layer in every.items() if layers is None or name in layers}
    data = None if inputs is None else as_tensor(inputs, "inputs")
    result = function(model, chosen, data, **options)
    for name, values in result.items():
        if not np.isfinite(values).all():
            raise ArgumentError(
                f"method {method!r} gives layer {name!r} a score that is not finite; "
                "check its weights and the inputs for NaN and infinity"
            )
    return result


def lookup(method: str) -> Criterion:
    """Return a criterion by name, or raise ArgumentError listing the known ones."""
    if method not in _CRITERIA:
        raise ArgumentError(f"unknown method {method!r}; known methods: {', '.join(methods())}")
    return _CRITERIA[method]


def resolve_options(method: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of all options of a method, given or not; errors as `scores`."""
    function = lookup(method)
    check_options(method, function, options)
    defaults = {name: parameter.default
                for name, parameter in list(inspect.signature(function).parameters.items())[3:]}
    return defaults | dict(options)


def check_options(method: str, function: Criterion, options: Mapping[str, Any]) -> None:
    """Raise TypeError for an option that is not a parameter of the criterion."""
    known = list(inspect.signature(function).parameters)[3:]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise TypeError(
            f"method {method!r} has no option {', '.join(unknown)}; "
            f"its options: {', '.join(known) or 'none'}"
        )
