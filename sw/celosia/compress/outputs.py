"""The numbers that a network returns, whatever they are packed in."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils import _pytree

__all__ = ["returned_tensors", "tensors_in"]

_NUMBERS = (bool, int, float, complex, np.number, np.bool_)


def returned_tensors(outputs: Any) -> list[torch.Tensor]:
    """Return the tensors of a network's outputs, dense and real, in float64 on the CPU.

    Those that `tensors_in` finds; complex numbers get a last axis of two.
    """
    return [part for leaf in tensors_in(outputs) for part in _dense(leaf)]


def tensors_in(outputs: Any) -> list[torch.Tensor]:
    """Return the tensors of a network's outputs themselves.

    It looks into tuples, lists and dictionaries, dataclasses, and the attributes of any other
    object, modules and functions left out. Numbers and arrays are made tensors.
    """
    return list(_leaves(outputs, set()))


def _leaves(outputs: Any, seen: set[int]) -> Iterator[torch.Tensor]:
    for leaf in _pytree.tree_leaves(outputs):
        if isinstance(leaf, torch.Tensor):
            yield leaf
        elif isinstance(leaf, _NUMBERS):
            yield torch.tensor(leaf, dtype=torch.complex128 if np.iscomplexobj(leaf)
                               else torch.float64)
        elif isinstance(leaf, np.ndarray) and leaf.dtype.kind in "fiubc":
            yield torch.from_numpy(leaf.astype(np.complex128 if leaf.dtype.kind == "c"
                                               else np.float64))
        elif id(leaf) not in seen and not isinstance(leaf, nn.Module) and not callable(leaf):
            seen.add(id(leaf))
            yield from _leaves(_parts(leaf), seen)


def _parts(value: Any) -> dict[Any, Any]:
    """Return what an object holds; nothing of a string or of what has no attributes."""
    parts: dict[Any, Any] = {}
    if isinstance(value, Mapping):
        parts |= enumerate(value.values())
    elif isinstance(value, Sequence | Set) and not isinstance(value, str | bytes):
        parts |= enumerate(value)
    names = {name for kind in type(value).__mro__ for name in _slots(kind)}
    if dataclasses.is_dataclass(value):
        names |= {field.name for field in dataclasses.fields(value)}
    parts |= {name: getattr(value, name) for name in sorted(names) if hasattr(value, name)}
    return parts | getattr(value, "__dict__", {})


def _slots(kind: type) -> tuple[str, ...]:
    slots = vars(kind).get("__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(slots)


def _dense(tensor: torch.Tensor) -> list[torch.Tensor]:
    tensor = tensor.detach()
    if tensor.is_nested:
        return [part for row in tensor.unbind() for part in _dense(row)]
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
    return [tensor.cpu().to(torch.float64)]
