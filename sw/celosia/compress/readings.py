"""Who reads the numbers of which tensors while a network runs, and what multiplies them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree

__all__ = ["ASKING", "PRODUCTS", "Readings", "function_name", "other_multiplier"]

ASKING = frozenset({
    "dim", "size", "numel", "nelement", "ndimension", "stride", "is_floating_point", "is_complex",
    "is_contiguous", "get_device", "element_size", "requires_grad_", "__len__", "__hash__",
    "shape", "ndim", "dtype", "device", "layout", "is_cuda", "is_cpu", "is_meta", "is_mps",
    "is_nested", "is_quantized", "is_sparse", "is_leaf", "requires_grad", "names", "itemsize",
    "_version"})  # fmt: skip
"""Functions, methods and properties that tell something of a tensor but its numbers."""


PRODUCTS = frozenset({
    "linear", "bilinear", "matmul", "rmatmul", "mm", "bmm", "mv", "dot", "vdot", "inner", "addmm",
    "addmv", "addbmm", "baddbmm", "einsum", "tensordot", "chain_matmul", "multi_dot", "conv1d",
    "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "conv_tbc",
    "convolution", "multi_head_attention_forward", "scaled_dot_product_attention",
    "native_multi_head_attention", "transformer_encoder_layer_fwd", "lstm", "gru", "rnn_tanh",
    "rnn_relu", "lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"})
"""Functions and methods, without their underscores, that sum products of their inputs."""

_MULTIPLIERS = (nn.modules.conv._ConvNd, nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention,
                nn.Bilinear, torch.jit.ScriptModule)  # fmt: skip


def other_multiplier(model: nn.Module, layers: Mapping[str, nn.Module]) -> str | None:
    """Return a module besides these layers that multiplies, "layer 'a' is a Conv1d", or None.

    That is a convolution, a recurrent layer, attention, or TorchScript, into which nothing looks.
    """
    known = {id(layer) for layer in layers.values()}
    for name, module in model.named_modules():
        if id(module) not in known and isinstance(module, _MULTIPLIERS):
            kind = ("TorchScript" if isinstance(module, torch.jit.ScriptModule)
                    else f"a {type(module).__name__}")
            return f"layer {name!r} is {kind}" if name else f"the network is {kind}"
    return None


def function_name(function: Callable[..., Any]) -> str:
    """Return the name of a function of torch; of a property of tensors, the property's."""
    name = getattr(function, "__name__", type(function).__name__)
    if name == "__get__":
        return str(getattr(getattr(function, "__self__", None), "__name__", name))
    return str(name).partition(".")[0]      # of torch.ops: "relu.default"


class Readings(TorchFunctionMode):
    """Watches one run of a model: which layers are called, and whose tensors others read.

    strangers : names of layers whose weight or bias a function read outside of the layer's call.
    products  : names of the `PRODUCTS` that ran outside of all calls of layers.
    """

    def __init__(self, layers: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.layers = layers
        self.owners: defaultdict[int, set[str]] = defaultdict(set)
        for name, layer in layers.items():
            for tensor in layer.parameters():
                self.owners[id(tensor)].add(name)
        self.active: list[str] = []
        self.strangers: set[str] = set()
        self.products: set[str] = set()

    @contextmanager
    def watched(self, called: Callable[[str, nn.Module, torch.Size], None]) -> Iterator[None]:
        """Watch; ``called(name, layer, shape of its input)`` at each call of a layer."""
        handles = []
        for name, layer in self.layers.items():
            def before(layer: nn.Module, given: tuple[Any, ...], named: dict[str, Any],
                       name: str = name) -> None:
                self.active.append(name)
                called(name, layer, (*given, *named.values())[0].shape)

            def after(layer: nn.Module, given: tuple[Any, ...], output: Any) -> None:
                self.active.pop()

            handles += [layer.register_forward_pre_hook(before, with_kwargs=True),
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
        name = function_name(function)
        if name.strip("_") in PRODUCTS and not self.active:
            self.products.add(name.strip("_"))
        if name not in ASKING:
            for part in _pytree.tree_leaves((args, kwargs)):
                owners = self.owners.get(id(part), set())
                if owners.isdisjoint(self.active):
                    self.strangers |= owners
        return function(*args, **(kwargs or {}))
