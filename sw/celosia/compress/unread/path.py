"""One tensor of numbers that may be other than 0, and the register of what operators do with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import fx

from celosia.frontend.origin import module, operator, source
from celosia_spec.errors import ArgumentError

__all__ = ["RULES", "Path", "pattern", "rule", "unknown"]

Rule = Callable[..., Any]
R = TypeVar("R", bound=Rule)

RULES: dict[str, Rule] = {}
"""{operator: function(node, *args, **kwargs)} on arguments of which some are Paths."""


class Path:
    """Where a tensor's numbers may be other than 0.   value : float32, 0 and 1, of its shape."""

    def __init__(self, value: torch.Tensor) -> None:
        self.value = _Binary.apply(value)

    @property
    def shape(self) -> torch.Size:
        """The tensor's shape."""
        return self.value.shape


class _Binary(torch.autograd.Function):
    """1 where a number is not 0; the gradient likewise."""

    @staticmethod
    def forward(context: Any, x: torch.Tensor) -> torch.Tensor:
        return (x != 0).to(torch.float32)

    @staticmethod
    def backward(context: Any, slope: torch.Tensor) -> torch.Tensor:
        return (slope != 0).to(torch.float32)


def rule(*names: str) -> Callable[[R], R]:
    """Return a decorator that makes a function the rule of some operators."""

    def register(function: R) -> R:
        RULES.update(dict.fromkeys(names, function))
        return function

    return register


def unknown(node: fx.Node) -> ArgumentError:
    """Return the error for an operator of which it is not known what it reads."""
    where, line = module(node)[0], source(node)
    return ArgumentError(
        f"{f'layer {where!r}' if where else 'the network'} has the operator {operator(node)!r}"
        f"{f' ({line})' if line else ''}, and what that reads is not known; apply it to the "
        "network's outputs instead, or do without dropping weights")


def pattern(value: Any) -> Any:
    """Return where an operand may be other than 0, float32: of a Path, tensor or number."""
    if isinstance(value, Path):
        return value.value
    if isinstance(value, torch.Tensor):
        return (value != 0).to(torch.float32)
    return float(value != 0)
