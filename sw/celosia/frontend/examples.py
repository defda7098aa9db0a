"""Examples of a network's input as users give them, and how a network may read them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch

from celosia_spec.errors import ArgumentError

Example: TypeAlias = np.ndarray | torch.Tensor | tuple | list
"""An array or tensor, a tuple or list that holds one, or the numbers of a shape."""

RANKS = (2, 3, 4)
"""Axes that an input may have, the batch axis among them."""


@dataclass(frozen=True, eq=False)
class Reading:
    """One way to read an example.

    example : zeros, one input behind a batch axis of 1.   remark : what had to be done, or "".
    """

    example: torch.Tensor
    remark: str = ""


def example_tensor(given: Example) -> torch.Tensor:
    """Return zeros of an example's shape and type; ArgumentError where it is none."""
    if isinstance(given, (tuple, list)):
        given = _unpacked(given)
    if not isinstance(given, (np.ndarray, torch.Tensor)):
        raise ArgumentError("example_input must be one numpy array or torch tensor, or a shape "
                            f"such as (1, 784), not {type(given).__name__}")
    try:
        kind = (torch.from_numpy(np.empty(0, given.dtype)).dtype
                if isinstance(given, np.ndarray) else given.dtype)
        return torch.zeros(tuple(given.shape), dtype=kind)
    except (TypeError, RuntimeError):
        raise ArgumentError(f"example_input must be float32, not {given.dtype} of the shape "
                            f"{tuple(given.shape)}") from None


def _unpacked(given: tuple | list) -> Any:
    """Return what a tuple holds, or zeros of the shape that it is."""
    sizes = [size for size in given if isinstance(size, (int, np.integer))]
    if given and len(sizes) == len(given):
        if min(sizes) < 0:
            raise ArgumentError(f"example_input is the shape {tuple(map(int, given))}; give sizes "
                                "above 0")
        return torch.empty(tuple(map(int, given)), device="meta", dtype=torch.float32)
    if len(given) == 1:
        return given[0]
    if len(given) > 1 and all(isinstance(part, (np.ndarray, torch.Tensor)) for part in given):
        raise ArgumentError(f"example_input holds {len(given)} tensors, and a network takes one; "
                            "let it take all of them joined along axis 1, and split them itself")
    return given


def check_example(example: torch.Tensor) -> ArgumentError | None:
    """Return what is wrong with an example that no network reads, or None."""
    if not example.is_floating_point():
        return ArgumentError(f"example_input must be float32, not {example.dtype}; give "
                             "example.float()")
    shape = tuple(example.shape)
    if not 1 <= len(shape) <= RANKS[-1] or example.numel() == 0:
        return ArgumentError("example_input must have the shape (1, C, H, W), (1, C, L) or (1, F), "
                             f"not {shape}")
    return None


def readings(example: torch.Tensor) -> Iterator[Reading]:
    """Yield the ways to read an example: as inputs of which the first counts, and as one input
    without its batch axis. What is more likely comes first."""
    example = example.to(torch.float32)
    shape = tuple(example.shape)
    if len(shape) in RANKS:
        yield Reading(example[:1], "" if shape[0] == 1 else
                      f"example_input {shape} is {shape[0]} inputs, of which the first counts")
    if len(shape) < RANKS[-1]:
        yield Reading(example[None], f"example_input {shape} is one input without the batch axis; "
                                     f"the network takes {_batch(shape)}")


def _batch(shape: tuple[int, ...]) -> str:
    return f"(N, {', '.join(map(str, shape))})"
