"""How important is each weight, or each filter? One function a criterion, found by its name.

A criterion is ``function(scoring, options) -> {layer name: scores}``, declared with `criterion`. It
gets what it is to score (`Scoring`) and its options, a frozen dataclass made of `option` fields. It
changes nothing, and returns float64 for each layer: of the weight's shape, or (output channels,)
where filters are scored. A larger score means a more important weight or filter.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from celosia.compress.entry import entry
from celosia.compress.layers import prunable_layers
from celosia.compress.options import NoOptions, resolve
from celosia_spec.errors import ArgumentError
from celosia_spec.inputs import as_tensor

__all__ = ["Criterion", "Scores", "Scoring", "criteria", "criterion", "lookup", "methods",
           "resolve_options", "scores"]

Layers = Mapping[str, nn.Conv2d | nn.Linear]
Scores = dict[str, np.ndarray]
Function = Callable[["Scoring", Any], Scores]

KINDS = ("weights", "filters")
"""What a criterion can score."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Scoring:
    """What a criterion is to score; it changes none of it.

    model  : the network.   layers : those to score, by name; convolutions where filters are scored.
    inputs : calibration inputs (N, ...), or None.
    seed   : of what the criterion draws at random.
    """

    model: nn.Module
    layers: Layers
    inputs: torch.Tensor | None
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Criterion:
    """A declared criterion.

    of    : "weights" or "filters".   about : the first paragraph of the function's docstring.
    options : the dataclass of its options.
    """

    name: str
    of: str
    about: str
    options: type
    score: Function


_CRITERIA: dict[str, Criterion] = {}


def criterion(
    name: str, *, of: str, options: type = NoOptions
) -> Callable[[Function], Function]:
    """Return a decorator that makes a function known as a criterion.

    Parameters
    ----------
    name
        What `prune`, `prune_filters` and ``celosia prune --method`` call it.
    of
        "weights" or "filters".
    options
        A frozen dataclass whose fields are `celosia.compress.options.option`.

    Raises
    ------
    ArgumentError
        The name is taken; `of` is not as above.
    """
    if of not in KINDS:
        raise ArgumentError(f"a criterion is of {' or of '.join(KINDS)}, not of {of!r}")

    def register(function: Function) -> Function:
        if name in _CRITERIA:
            raise ArgumentError(f"the method name {name!r} is taken by "
                                f"{_CRITERIA[name].score.__name__}")
        about = " ".join((inspect.getdoc(function) or "").split("\n\n")[0].split())
        _CRITERIA[name] = Criterion(name=name, of=of, about=about, options=options, score=function)
        return function

    return register


def criteria(of: str) -> tuple[Criterion, ...]:
    """Return the criteria of "weights" or "filters", in the order in which they joined."""
    return tuple(found for found in _CRITERIA.values() if found.of == of)


def methods(of: str = "weights") -> tuple[str, ...]:
    """Return the names of the criteria of weights, or of "filters", in the order they joined."""
    return tuple(found.name for found in criteria(of))


def lookup(method: str, of: str = "weights") -> Criterion:
    """Return a criterion by name, or raise ArgumentError listing the known ones."""
    found = _CRITERIA.get(method)
    if found is None or found.of != of:
        raise ArgumentError(f"unknown method {method!r}; known methods: {', '.join(methods(of))}")
    return found


def resolve_options(method: str, given: Mapping[str, Any]) -> Any:
    """Return the options of a criterion of weights, given or not; errors as `scores`."""
    return resolve(method, lookup(method).options, given)


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
        Any module; its `Conv2d` and `Linear` layers are scored. It is not changed.
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
        raise ArgumentError("the model has no Conv2d or Linear layer, so nothing can be pruned")
    unknown = [name for name in layers or () if name not in every]
    if unknown:
        raise ArgumentError(
            f"no layer is called {', '.join(map(repr, unknown))}; "
            f"layers: {', '.join(map(repr, every))}"
        )
    chosen = {name: layer for name, layer in every.items() if layers is None or name in layers}
    scoring = Scoring(model=model, layers=chosen, seed=seed,
                      inputs=None if inputs is None else as_tensor(inputs, "inputs"))
    return finite(method, found.score(scoring, resolved))


def finite(method: str, result: Scores) -> Scores:
    """Return scores, or raise ArgumentError for a layer with one that is not finite."""
    for name, values in result.items():
        if not np.isfinite(values).all():
            raise ArgumentError(
                f"method {method!r} gives layer {name!r} a score that is not finite; "
                "check its weights and the inputs for NaN and infinity"
            )
    return result
