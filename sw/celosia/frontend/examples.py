"""Examples of a network's input as users give them, and how a network may read them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch

from celosia_spec.errors import ArgumentError

Example: TypeAlias = (
    np.ndarray | torch.Tensor | tuple[object, ...] | list[Any] | Mapping[str, object])
"""An array or tensor, or the numbers of a shape; of several inputs a tuple or list of such, or a
mapping of names to such."""

RANKS = (2, 3, 4)
"""Axes that an input may have, the batch axis among them."""


@dataclass(frozen=True, eq=False)
class Examples:
    """tensors : of each input.   names : of these, or () where they are in the network's order."""

    tensors: tuple[torch.Tensor, ...]
    names: tuple[str, ...] = ()

    def ordered(self, wanted: Sequence[str]) -> "Examples":
        """Return them in the network's order; ArgumentError where it has inputs of other names."""
        if not self.names:
            return self
        if set(self.names) != set(wanted):
            raise ArgumentError(f"example_input has {', '.join(self.names)}, the network takes "
                                f"{', '.join(wanted)}")
        return Examples(tuple(self.tensors[self.names.index(name)] for name in wanted))

    @property
    def known(self) -> Sequence[Sequence[int]] | Mapping[str, Sequence[int]]:
        """Their shapes, by name where they have some."""
        return dict(zip(self.names, self.shapes, strict=True)) if self.names else self.shapes

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        return tuple(tuple(tensor.shape) for tensor in self.tensors)


@dataclass(frozen=True, eq=False)
class Reading:
    """One way to read examples.

    examples : zeros, of each input one behind a batch axis of 1.   remark : what had to be done, or
    "".
    """

    examples: tuple[torch.Tensor, ...]
    remark: str = ""


def example_tensors(given: Example) -> Examples:
    """Return zeros of the shapes and types of examples; ArgumentError where they are none."""
    if isinstance(given, Mapping):
        return Examples(tuple(_tensor(_unpacked(part), f"example_input {name}")
                              for name, part in given.items()), tuple(map(str, given)))
    if isinstance(given, (tuple, list)) and len(given) > 1 and not all(
            isinstance(part, (int, np.integer)) for part in given):
        return Examples(tuple(_tensor(_unpacked(part), f"example_input {number}")
                              for number, part in enumerate(given)))
    return Examples((_tensor(_unpacked(given), "example_input"),))


def _tensor(given: Any, what: str) -> torch.Tensor:
    """Return zeros of an example's shape and type."""
    if not isinstance(given, (np.ndarray, torch.Tensor)):
        raise ArgumentError(f"{what} must be one numpy array or torch tensor, or a shape "
                            f"such as (1, 784), not {type(given).__name__}")
    try:
        kind = (torch.from_numpy(np.empty(0, given.dtype)).dtype
                if isinstance(given, np.ndarray) else given.dtype)
        return torch.zeros(tuple(given.shape), dtype=kind)
    except (TypeError, RuntimeError):
        raise ArgumentError(f"{what} must be float32, not {given.dtype} of the shape "
                            f"{tuple(given.shape)}") from None


def _unpacked(given: Any) -> Any:
    """Return what a tuple holds, or zeros of the shape that it is."""
    if not isinstance(given, (tuple, list)):
        return given
    sizes = [size for size in given if isinstance(size, (int, np.integer))]
    if given and len(sizes) == len(given):
        if min(sizes) < 0:
            raise ArgumentError(f"example_input is the shape {tuple(map(int, given))}; give sizes "
                                "above 0")
        return torch.empty(tuple(map(int, given)), device="meta", dtype=torch.float32)
    return given[0] if len(given) == 1 else given


def check_examples(examples: Examples) -> ArgumentError | None:
    """Return what is wrong with examples that no network reads, or None."""
    names = examples.names or tuple(map(str, range(len(examples.tensors))))
    for name, example in zip(names, examples.tensors, strict=True):
        what = "example_input" if len(names) == 1 else f"example_input {name}"
        if not example.is_floating_point():
            return ArgumentError(f"{what} must be float32, not {example.dtype}; give "
                                 "example.float()")
        shape = tuple(example.shape)
        if not 1 <= len(shape) <= RANKS[-1] or example.numel() == 0:
            return ArgumentError(f"{what} must have the shape (1, C, H, W), (1, C, L) or (1, F), "
                                 f"not {shape}")
    return None


def readings(examples: Examples) -> Iterator[Reading]:
    """Yield the ways to read examples: as inputs of which the first counts, and as one input
    without its batch axis. What is more likely comes first."""
    tensors = tuple(example.to(torch.float32) for example in examples.tensors)
    shapes = ", ".join(map(str, examples.shapes))
    ranks, counts = {example.ndim for example in tensors}, {len(example) for example in tensors}
    if ranks <= set(RANKS) and len(counts) == 1:
        [count] = counts
        yield Reading(tuple(example[:1] for example in tensors), "" if count == 1 else
                      f"example_input {shapes} is {count} inputs, of which the first counts")
    if max(ranks) < RANKS[-1]:
        wanted = ", ".join(map(_batch, examples.shapes))
        yield Reading(tuple(example[None] for example in tensors),
                      f"example_input {shapes} is one input without the batch axis; the network "
                      f"takes {wanted}")


def _batch(shape: tuple[int, ...]) -> str:
    return f"(N, {', '.join(map(str, shape))})"
