"""One operator call of the exported program, with its operands resolved."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from celosia_spec.errors import CompileError


@dataclass(frozen=True)
class Value:
    """A tensor that depends on the input. shape : as PyTorch sees it, batch axis first."""

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Constant:
    """A parameter or buffer, or what was computed from such.

    value  : a tensor, or a tuple of results of an operator that has several.
    origin : its first parameter.
    """

    value: Any
    origin: str


@dataclass(frozen=True, eq=False)
class Moved:
    """A tensor, or several, whose elements are those of others; nothing has been computed.

    names    : of the others.
    elements : float64 as PyTorch sees its shape, or a list or tuple of such: which one of all
               others' elements each is, counted from 1; 0 where it is a zero.
    call     : of the last operator that moved them.   remedy : where the machine cannot do that.
    """

    names: tuple[str, ...]
    elements: Any
    call: "Call"
    remedy: str


@dataclass(frozen=True, eq=False, kw_only=True)
class Call:
    """name : of the result.   operator : in the words of PyTorch.   args : by schema name.

    layer  : what the user calls it, for messages.
    shape  : of the result, batch axis first.
    source : the user's line, or None.
    free   : returns a name that no node has, like another.
    """

    name: str
    layer: str
    operator: str
    args: dict[str, Any]
    shape: tuple[int, ...]
    source: str | None
    free: Callable[[str], str]

    def part(self, what: str) -> str:
        """Return a free name for a node that is made in front of the result's own."""
        return self.free(f"{self.name}.{what}")

    def refuse(self, problem: str, remedy: str) -> CompileError:
        return CompileError(self.layer, self.operator, problem, remedy, self.source)

    def value(self, argument: str) -> Value:
        """Return an operand that must depend on the input."""
        value = self.args[argument]
        if not isinstance(value, Value):
            raise self.refuse("an operand is a constant, not a tensor of the network",
                              "give it a tensor that the network computes from its input")
        return value

    def optional(self, argument: str, what: str) -> np.ndarray | None:
        """Return a constant operand as float64, or None where it is left out."""
        return None if self.args[argument] is None else self.constant(argument, what)

    def constant(self, argument: str, what: str) -> np.ndarray:
        """Return an operand that must be constant, a tensor or a number, as float64."""
        return self.of(self.args[argument], what)

    def of(self, value: Any, what: str) -> np.ndarray:
        """Return what must be constant, as float64."""
        if isinstance(value, (bool, int, float)):
            tensor = torch.tensor(value, dtype=torch.float64)
        elif isinstance(value, Constant) and isinstance(value.value, torch.Tensor):
            tensor = value.value.detach().cpu()
        else:
            raise self.refuse(f"its {what} is computed from the input",
                              f"keep the {what} a parameter of the layer")
        if tensor.is_complex():
            raise self.refuse(f"its {what} is complex", "keep the network in float32")
        array: np.ndarray = tensor.to(torch.float64).numpy().copy()
        bad = int(np.count_nonzero(~np.isfinite(array)))
        if bad:
            raise self.refuse(f"its {what} holds {bad} of {array.size} values that are not finite",
                              "train the model again or repair the checkpoint")
        return array

    def pair(self, argument: str, default: tuple[int, int] | None = None) -> tuple[int, int]:
        """Return a (y, x) argument; PyTorch gives one number for both, or none for ``default``."""
        value = self.args[argument]
        numbers = [int(v) for v in (value if isinstance(value, (list, tuple)) else [value])]
        if not numbers and default is not None:
            return default
        return (numbers[0], numbers[-1])

    def map_result(self) -> tuple[int, int, int]:
        """Return the result's shape as a map (C, H, W)."""
        return map_shape(self.shape)


def map_shape(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return a tensor's shape, batch axis first, as a map: a line (C, L) is one of height 1, and
    all else but maps is a vector."""
    if len(shape) == 4:
        return shape[1], shape[2], shape[3]
    if len(shape) == 3:
        return shape[1], 1, shape[2]
    return math.prod(shape), 1, 1
