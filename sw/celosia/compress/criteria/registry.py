"""How important is each weight, or each filter? One function a criterion, found by its name.

A criterion is ``function(scoring, options) -> {layer name: scores}``, declared with `criterion`. It
gets what it is to score (`Scoring`) and its options, a frozen dataclass made of `option` fields. It
changes nothing, and returns float64 for each layer: of the weight's shape, or (output channels,)
where filters are scored. A larger score means a more important weight or filter.

The help of ``celosia prune`` is made from the declarations: a criterion's module loads without
torch and NumPy, and what computes with them is imported when the function is called.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from celosia.compress.options import NoOptions, resolve
from celosia_spec.errors import ArgumentError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import nn

    from celosia.compress.layers import Prunable

__all__ = ["ACTIVATIONS", "Criterion", "Layers", "Scores", "Scoring", "criteria", "criterion",
           "lookup", "methods", "resolve_options"]

Layers: TypeAlias = "Mapping[str, Prunable]"
Scores: TypeAlias = "dict[str, np.ndarray]"
Function: TypeAlias = "Callable[[Scoring, Any], Scores]"

KINDS = ("weights", "filters")
"""What a criterion can score."""

ACTIVATIONS = ("post", "pre")
"""What a layer's answer is: after the activation function that follows the layer, or before."""


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
    masks : whether it reads filter masks, which are then folded away.
    """

    name: str
    of: str
    about: str
    options: type
    score: Function
    masks: bool = False


_CRITERIA: dict[str, Criterion] = {}


def criterion(
    name: str, *, of: str, options: type = NoOptions, masks: bool = False
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
    masks
        Whether it reads filter masks (`celosia.compress.add_masks`).

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
        _CRITERIA[name] = Criterion(name=name, of=of, about=about, options=options, score=function,
                                    masks=masks)
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
