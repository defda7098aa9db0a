"""A network with the operands of its layers in block floating point, for experiments in PyTorch.

This is the experiment of P3 (section 6.3) and of Song, Liu, Wang (AAAI 2018, arXiv 1709.07776):
weights and inputs of every convolution and linear layer are block-formatted, products and sums are
exact, everything between layers (bias, shortcut, pooling) stays float. It tells what a width or a
partition costs, fast, and for formats that the accelerator does not have. Every
mantissa has a sign. What the accelerator computes, with mantissas that have none behind a ReLU,
with its rounding of biases and shortcuts too, and with the bits that long rows have on a target, is
`celosia.run`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Collection
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from celosia.compress.entry import entry
from celosia.compress.fusion.fold import fold_batchnorm
from celosia.compress.layers import plain_layers, put, refuse_obstacle
from celosia.compress.precision.float_products import refuse_float_products
from celosia.compress.precision.partition import Partition, partition_of
from celosia_spec.block import ROUNDINGS, Format, bfp, check_bits
from celosia_spec.errors import ArgumentError
from celosia_spec.isa.numbers import EXPONENT_MAX, EXPONENT_MIN

__all__ = ["BlockLayer", "block_format", "block_steps", "emulate"]

_ROUND = {"nearest-even": torch.round, "zero": torch.trunc, "up": torch.ceil, "down": torch.floor}
_REACH = 64
_POWERS = torch.tensor([2.0**power for power in range(-_REACH, _REACH + 1)])
_EXACT, _EXACT_DOUBLE = 1 << 24, 1 << 53
"""Integers up to these are exact in float32 and in float64."""

_PATCHES = 1 << 19
"""Elements of patches that are made at a time."""


@entry
def emulate(
    model: nn.Module,
    *,
    weight_bits: int,
    activation_bits: int,
    partition: str = "rows",
    rounding: str = "nearest-even",
    layers: Collection[str] | None = None,
    example_input: Any | None = None,
) -> nn.Module:
    """Return a copy of a network that computes with block-formatted weights and inputs.

    Batch normalisation is folded first, where `celosia.compress.fold_batchnorm` can. Each image is
    by itself, as on the accelerator: a block of inputs never spans two. Sums are exact: they run
    in float32 where the layer's weights prove that no sum can need more than its 24 bits, else in
    float64. Layers take inputs of any real type; outputs have it where it is floating, else the
    layer's own. The copy is for inference, in eval mode.

    Parameters
    ----------
    model
        The trained network; not changed. Its `Conv2d` and `Linear` layers are emulated.
    weight_bits, activation_bits
        Width of the mantissas, sign included, 2 to 24.
    partition
        "whole" (P3 eq. 6-9: one block for W, one for an image's inputs), "rows-columns" (6-10: one
        for each row of W, one for each output position's inputs), "rows" (6-11: one for each row of
        W, one for an image's inputs; the accelerator's) or "columns" (6-12: one for W, one for each
        output position's inputs).
    rounding
        "nearest-even", "zero", "up" or "down", of weights and inputs.
    layers
        Names of the layers to emulate, and all else stays float; None is all, and whatever else
        multiplies is refused.
    example_input
        Inputs (N, ...), or None; tells which normalisations fold behind linear layers, and what
        multiplies. Without it the model must be one that `torch.fx` can trace.

    Raises
    ------
    ArgumentError
        Width, partition, rounding or a layer's name is not as above; no layer to emulate; the model
        cannot be traced, and has batch normalisation or comes without an example; a layer to
        emulate has a hook, a forward of its own, a weight that a hook computes, or one that is
        read without calling the layer; without `layers`, products that no `Conv2d` or `Linear`
        layer does; without an example, what tracing does not look into, as `fold_batchnorm`; a
        convolution does not pad with zeros; sums may need more than float64's 53 bits; a block
        needs an exponent above 15 (of weights at once, of inputs when they come).
    """
    blocks = partition_of(partition)
    check_bits("weight_bits", weight_bits)
    check_bits("activation_bits", activation_bits)
    if rounding not in ROUNDINGS:
        raise ArgumentError(f"rounding must be one of {', '.join(ROUNDINGS)}, not {rounding!r}")
    result = copy.deepcopy(model)
    fold_batchnorm(result, example_input)
    every = plain_layers(result)
    unknown = [name for name in layers or () if name not in every]
    if unknown:
        raise ArgumentError(f"no layer is called {', '.join(map(repr, unknown))}; layers: "
                            f"{', '.join(map(repr, every))}")
    chosen = {name: layer for name, layer in every.items() if layers is None or name in layers}
    for layer in chosen.values():
        refuse_obstacle(result, layer, allowed=[nn.Module])
    refuse_float_products(result, chosen, every=layers is None, example_input=example_input)
    if not chosen:
        raise ArgumentError("there is no Conv2d or Linear layer to emulate, so nothing would be "
                            "formatted; give a network that has some")
    for name, layer in chosen.items():
        made = BlockLayer(name, layer, blocks, weight_bits, activation_bits, rounding)
        if layer is result:
            return made.eval()
        put(result, layer, made)
    return result.eval()


class BlockLayer(nn.Module):
    """A `Conv2d` or `Linear` layer whose weight and inputs are block-formatted.

    Attributes: `weight`, the formatted values, and `bias` or None, in the layer's type, but at
    least float32: float16 and bfloat16 do not hold every mantissa at every exponent; `wide`,
    whether sums need float64.
    """

    weight: torch.Tensor
    bias: torch.Tensor | None

    def __init__(self, name: str, layer: nn.Conv2d | nn.Linear, blocks: Partition,
                 weight_bits: int, activation_bits: int, rounding: str) -> None:
        super().__init__()
        self.name, self.blocks = name, blocks
        self.bits, self.rounding = activation_bits, rounding
        self.padding = [0, 0, 0, 0]     # left, right, top, bottom
        if isinstance(layer, nn.Conv2d):
            self._take_geometry(layer)
        weight = layer.weight.detach()
        try:
            m, exponents = bfp(weight, weight_bits, 0 if blocks.weight_rows else None, rounding)
        except ArgumentError as problem:
            raise ArgumentError(f"layer {name!r}, weight: {problem}") from None
        mantissas = torch.from_numpy(m).double()
        step = torch.as_tensor(np.ldexp(1.0, Format(bits=weight_bits).lsb(exponents)))
        values = mantissas * step.reshape(-1, *[1] * (weight.ndim - 1))
        largest = float(mantissas.abs().flatten(1).sum(1).max()) * Format(bits=self.bits).largest
        if largest > _EXACT_DOUBLE:
            raise ArgumentError(f"layer {name!r}: sums of {weight_bits}-bit weights and "
                                f"{activation_bits}-bit inputs may reach {largest:.3g}, beyond "
                                "2^53, where float64 is not exact; use fewer bits")
        self.wide = largest > _EXACT
        layout = (torch.channels_last if weight.ndim == 4
                  and weight.is_contiguous(memory_format=torch.channels_last)
                  else torch.contiguous_format)
        kind = _at_least_float32(weight.dtype)
        self.register_buffer("weight", values.to(weight.device, kind, memory_format=layout))
        self.register_buffer("bias", None if layer.bias is None
                             else layer.bias.detach().to(kind, copy=True))

    def _take_geometry(self, conv: nn.Conv2d) -> None:
        if conv.padding_mode != "zeros":
            raise ArgumentError(f"layer {self.name!r} pads with {conv.padding_mode!r}; only zeros "
                                "can be emulated: name the other layers in layers")
        self.stride, self.dilation, self.groups = conv.stride, conv.dilation, conv.groups
        self.kernel = conv.kernel_size
        if conv.padding == "same":      # the odd one goes right and below, as torch has it
            totals = [d * (k - 1) for d, k in zip(conv.dilation, conv.kernel_size, strict=True)]
            self.padding = [side for total in reversed(totals)
                            for side in (total // 2, total - total // 2)]
        elif conv.padding != "valid":
            rows, columns = conv.padding
            self.padding = [columns, columns, rows, rows]

    def operand(self, x: torch.Tensor) -> tuple[torch.Tensor, tuple[int, ...]]:
        """Return the inputs as the product reads them, not formatted yet, and the block's axes.

        That is x itself, at least in float32; or, for a convolution with a block for each column,
        the patches (N, groups, K, positions).
        """
        x = x.to(_at_least_float32(x.dtype))
        if not self.blocks.input_columns:
            return x, tuple(range(1, x.ndim))
        if self.weight.ndim == 2:
            return x, (x.ndim - 1,)
        patches = functional.unfold(functional.pad(x, self.padding), self.kernel, self.dilation,
                                    stride=self.stride)
        return patches.unflatten(1, (self.groups, -1)), (2,)

    def format(self, operand: torch.Tensor, axes: tuple[int, ...]) -> torch.Tensor:
        """Return the formatted values of what `operand` gave."""
        try:
            return block_format(operand, self.bits, axes, self.rounding)
        except ArgumentError as problem:
            raise ArgumentError(f"layer {self.name!r}, inputs: {problem}") from None

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Return the outputs in the type of the inputs: exact sums, rounded once, plus bias.

        It computes in the wider of the types of the inputs and of the layer; outputs for whole
        numbers stay in the layer's.
        """
        with torch.no_grad():
            y = self._outputs(input.to(torch.promote_types(input.dtype, self.weight.dtype)))
            return y.to(input.dtype if input.is_floating_point() else self.weight.dtype)

    def _outputs(self, x: torch.Tensor) -> torch.Tensor:
        if self.weight.ndim == 2:
            y = self._linear(x)
            return y if self.bias is None else y + self.bias
        if self.blocks.input_columns:       # few images at a time: their patches stay in the cache
            patches = self.weight[0].numel() * self.groups * math.prod(self._positions(x))
            y = torch.cat([self._columns(part) for part in x.split(max(1, _PATCHES // patches))])
        else:
            y = self._conv(x)
        return y if self.bias is None else y + self.bias[:, None, None]

    def _linear(self, x: torch.Tensor) -> torch.Tensor:
        return functional.linear(*self._operands(x)).to(x.dtype)

    def _conv(self, x: torch.Tensor) -> torch.Tensor:
        operand, weight = self._operands(x)
        padding: int | tuple[int, ...] = 0
        if self.padding[::2] == self.padding[1::2]:
            padding = tuple(self.padding[::-2])
        else:
            operand = functional.pad(operand, self.padding)
        return functional.conv2d(operand, weight, None, self.stride, padding, self.dilation,
                                 self.groups).to(x.dtype)

    def _columns(self, x: torch.Tensor) -> torch.Tensor:
        columns, weight = self._operands(x)
        rows = weight.reshape(self.groups, -1, columns.shape[2])
        return (rows @ columns).to(x.dtype).flatten(1, 2).unflatten(2, self._positions(x))

    def _operands(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return formatted inputs and the weight, in a type in which sums are exact."""
        operand = self.format(*self.operand(x))
        kind = torch.float64 if self.wide else operand.dtype
        return operand.to(kind), self.weight.to(kind)

    def _positions(self, x: torch.Tensor) -> tuple[int, int]:
        """Return the rows and columns of the output map."""
        left, right, top, bottom = self.padding
        sizes = (x.shape[-2] + top + bottom, x.shape[-1] + left + right)
        rows, columns = ((size - d * (k - 1) - 1) // s + 1 for size, d, k, s in zip(
            sizes, self.dilation, self.kernel, self.stride, strict=True))
        return rows, columns


def _at_least_float32(kind: torch.dtype) -> torch.dtype:
    return torch.promote_types(kind, torch.float32)


def block_steps(x: torch.Tensor, bits: int, axes: tuple[int, ...]) -> torch.Tensor:
    """Return each block's s = exponent - (bits - 2), int64, of x's shape with 1 along `axes`.

    Exponents are those of `compress.bfp`. ArgumentError if a block needs one above 15 or is not
    finite.
    """
    largest = x.abs().amax(axes, keepdim=True)
    if not bool((largest < 2.0 ** (EXPONENT_MAX + 1)).all()):
        raise ArgumentError(f"a block holds {float(largest.max()):g}, and the largest exponent is "
                            f"{EXPONENT_MAX}; scale the network's tensors down")
    exponents = (torch.frexp(largest)[1] - 1).clamp_(min=EXPONENT_MIN)
    return exponents.where(largest > 0, EXPONENT_MIN).long() - (bits - 2)


def block_format(x: torch.Tensor, bits: int, axes: tuple[int, ...],
                 rounding: str = "nearest-even") -> torch.Tensor:
    """Return the values m 2^s of a block-formatted tensor, in its own type.

    x    : float32 or float64, finite.   bits : width of a mantissa, sign included, 2 to 24.
    axes : the axes over which a block spans; one block for each index of the others.

    The values are those of `compress.bfp`, bit for bit. ArgumentError as `block_steps`.
    """
    steps = block_steps(x, bits, axes)
    powers = _POWERS.to(x.device, x.dtype)
    mantissas = x * powers[_REACH - steps]
    _ROUND[rounding](mantissas, out=mantissas)
    largest = Format(bits=bits).largest
    return mantissas.clamp_(-largest, largest).mul_(powers[_REACH + steps])
