"""Who reads the numbers of which tensors while a network runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree

__all__ = ["ASKING", "Readings", "function_name"]

ASKING = frozenset({
    "dim", "size", "numel", "nelement", "ndimension", "stride", "is_floating_point", "is_complex",
    "is_contiguous", "get_device", "element_size", "requires_grad_", "__len__", "__hash__",
    "shape", "ndim", "dtype", "device", "layout", "is_cuda", "is_cpu", "is_meta", "is_mps",
    "is_nested", "is_quantized", "is_sparse", "is_leaf", "requires_grad", "names", "itemsize",
    "_version"})  # fmt: skip
"""Functions, methods and properties that tell something of a tensor but its numbers."""


def function_name(function: Callable[..., Any]) -> str:
    """Return the name of a function of torch; of a property of tensors, the property's."""
    name = getattr(function, "__name__", type(function).__name__)
    if name == "__get__":
        return str(getattr(getattr(function, "__self__", None), "__name__", name))
    return str(name).partition(".")[0]      # of torch.ops: "relu.default"


class Readings(TorchFunctionMode):  # type: ignore[misc]
    """Watches one run of a model: which layers are called, and whose tensors others read.

    strangers : names of layers whose weight or bias a function read outside of the layer's call.
    """

    def __init__(self, layers: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.layers = layers
        self.owners = {id(tensor): name for name, layer in layers.items()
                       for tensor in layer.parameters()}
        self.active: list[str] = []
        self.strangers: set[str] = set()

    @contextmanager
    def watched(self, called: Callable[[str, nn.Module, torch.Size], None]) -> Iterator[None]:
        """Watch; ``called(name, layer, shape of its input)`` at each call of a layer."""
        handles = []
        for name, layer in self.layers.items():
            def before(layer: nn.Module, given: tuple[Any, ...], name: str = name) -> None:
                self.active.append(name)
                called(name, layer, given[0].shape)

            def after(layer: nn.Module, given: tuple[Any, ...], output: Any) -> None:
                self.active.pop()

            handles += [layer.register_forward_pre_hook(before),
                        layer.register_forward_hook(after, always_call=True)]
        try:
            with self:
                yield
        finally:
            for handle in handles:
                handle.remove()

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Run a function of torch as it is."""
        if function_name(function) not in ASKING:
            read = {self.owners.get(id(part)) for part in _pytree.tree_leaves((args, kwargs))}
            self.strangers |= {name for name in read if name is not None} - set(self.active)
        return function(*args, **(kwargs or {}))
