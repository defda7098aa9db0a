"""What a network costs: parameters, multiply-accumulates, and bytes in the machine's weight format.

The format's widths come from `celosia_spec.isa` and `celosia.bands.rows`, as the compiler
takes them; nothing is scheduled, so a network that fits no board has a cost too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from celosia.bands.rows import row_words
from celosia.compress.entry import entry
from celosia.compress.layers import Prunable, parameter_count, prunable_layers
from celosia.compress.promise import example_for, run_once
from celosia.compress.readings import Readings, other_multiplier
from celosia_spec.errors import ArgumentError
from celosia_spec.isa.array import CONTROL_BITS
from celosia_spec.isa.controls import HEAD
from celosia_spec.isa.numbers import DELTA_BITS
from celosia_spec.isa.words import BLOCK

__all__ = ["Cost", "LayerCost", "cost_of_layers", "measure", "output_positions"]

FLOAT_BYTES = 4
_TABLES_BYTES = (len(HEAD.words) + 1) * CONTROL_BITS // 8
"""Head (bias, exponents, place of the results) and batch word (length) of one row."""


@dataclass(frozen=True, kw_only=True)
class LayerCost:
    """The cost of one convolution or linear layer, for one input.

    weights      : of the layer, biases not counted.   nonzeros : those that are not 0.
    positions    : outputs that each weight contributes to (H x W of the output map, L of
                   a line; 1 for a vector), summed over the calls where a layer is called more
                   than once.
    macs         : weights x positions.   useful_macs : nonzeros x positions.
    weight_bytes : in the machine's format, see `measure`.
    dense_bytes  : of all weights and biases as float32.
    """

    weights: int
    nonzeros: int
    positions: int
    weight_bytes: int
    dense_bytes: int

    @property
    def macs(self) -> int:
        return self.weights * self.positions

    @property
    def useful_macs(self) -> int:
        return self.nonzeros * self.positions

    @property
    def density(self) -> float:
        """Non-zeros / weights."""
        return self.nonzeros / self.weights


@dataclass(frozen=True, kw_only=True)
class Cost:
    """The cost of a network for one input.

    parameters         : trained numbers of all modules, each counted once, zeros too.
    nonzero_parameters : of these, without the weights that are 0; a weight that several layers
                         share counts once.
    layers             : {name: cost} of the convolutions and linear layers, in the model's order.

    The other figures are sums over `layers`, under the names that `LayerCost` explains: a shared
    weight counts in each of its layers, as the machine stores and multiplies it for each.
    """

    parameters: int
    nonzero_parameters: int
    layers: Mapping[str, LayerCost]

    @property
    def weights(self) -> int:
        return sum(layer.weights for layer in self.layers.values())

    @property
    def nonzeros(self) -> int:
        return sum(layer.nonzeros for layer in self.layers.values())

    @property
    def macs(self) -> int:
        return sum(layer.macs for layer in self.layers.values())

    @property
    def useful_macs(self) -> int:
        return sum(layer.useful_macs for layer in self.layers.values())

    @property
    def weight_bytes(self) -> int:
        return sum(layer.weight_bytes for layer in self.layers.values())

    @property
    def dense_bytes(self) -> int:
        return sum(layer.dense_bytes for layer in self.layers.values())

    @property
    def density(self) -> float:
        """Non-zeros / weights of all layers together."""
        return self.nonzeros / self.weights

    @property
    def compression(self) -> float:
        """`dense_bytes` / `weight_bytes`. For a network with fewer channels or factorised layers,
        divide the original's `dense_bytes` by this one's `weight_bytes` instead."""
        return self.dense_bytes / self.weight_bytes


@entry
def measure(model: nn.Module, example_input: Any, *, weight_bits: int = 8) -> Cost:
    """Count what a network costs.

    Parameters
    ----------
    model
        Any module; its `Conv1d`, `Conv2d` and `Linear` layers are counted. Masks count as zeros. It
        runs once, in eval mode and without gradients, and is left in the mode that it was in.
    example_input
        One input (1, ...), tensor or array; tells the output positions.
    weight_bits
        Mantissa width of a weight, sign included.

    Returns
    -------
    Cost

    Notes
    -----
    ``weight_bytes`` is the compressed sparse row form that the machine reads, with one row group,
    which needs no padding of rows:

    - for each non-zero a word of `weight_bits` + 8 bits, mantissa and step of the column index;
      a step above 255 takes further words; a layer's words are rounded up to whole bytes;
    - for each row a head of 6 bytes (16-bit bias, exponents of weights and bias, place of its
      results) and a row length of 2 bytes.

    The machine's words have 16 bits also of narrower weights. A weight that is not zero but rounds
    to a zero mantissa is counted; the compiler drops it. A compiled program's
    ``layers[].weight_bytes`` are all of a layer's entries: its tables and the padding of its row
    groups are among them, and where hardly a zero is left out a weight takes a byte.

    Raises
    ------
    ArgumentError
        No layer to count; something else that multiplies, whose cost is not known: a transposed or
        three-dimensional convolution, a recurrent layer, attention, TorchScript, a product in the
        forward; a model that does not run on the example.
    """
    layers = prunable_layers(model)
    other = other_multiplier(model, layers)
    if other is not None:
        raise ArgumentError(f"{other}; only Conv1d, Conv2d and Linear layers are counted, so "
                            "replace it by one of these")
    readings = Readings(layers)
    with readings.watched(lambda name, layer, shape: None):
        run_once(model, example_for(model, example_input))
    if readings.strangers:
        raise ArgumentError(f"the weight of layer {min(readings.strangers)!r} is read without "
                            "calling the layer, so what it costs is not known; call it")
    if readings.products:
        raise ArgumentError(f"the forward multiplies by {min(readings.products)!r} itself; only "
                            "Conv1d, Conv2d and Linear layers are counted, so let one of these do "
                            "it")
    return cost_of_layers(model, example_input, weight_bits=weight_bits)


def cost_of_layers(model: nn.Module, example_input: Any, *, weight_bits: int = 8) -> Cost:
    """Return what `measure` does, of prunable layers, whatever else there is.

    ArgumentError for no layer, another convolution, or a model that does not run on the example.
    """
    layers = prunable_layers(model)
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.conv._ConvNd) and name not in layers:
            raise ArgumentError(
                f"layer {name!r} is a {type(module).__name__}; only Conv1d, Conv2d and Linear "
                "layers are counted, so replace it by one of these"
            )
    if not layers:
        raise ArgumentError("the model has no Conv1d, Conv2d or Linear layer, so there is nothing "
                            "to count")
    positions = output_positions(model, example_input)
    rows = {
        name: _layer_cost(layer, positions[name], weight_bits) for name, layer in layers.items()
    }
    parameters = parameter_count(model)
    return Cost(parameters=parameters, nonzero_parameters=parameters - _zeros(layers),
                layers=rows)


def output_positions(model: nn.Module, example_input: Any) -> dict[str, int]:
    """Return how many outputs of one input each weight of a layer contributes to, by layer name.

    model, example_input as in `measure`. A layer that is not called has 0, such as the output
    projection of torch's attention, which reads its weight without calling it.
    """
    layers = prunable_layers(model)
    counts = dict.fromkeys(layers, 0)

    def counter(name: str) -> Any:
        def count(module: nn.Module, _: Any, output: torch.Tensor) -> None:
            channels = output.shape[-1 if isinstance(module, nn.Linear) else 1]
            counts[name] += output.numel() // (channels * len(x))    # forward may split images up

        return count

    x = example_for(model, example_input)
    handles = [layer.register_forward_hook(counter(name)) for name, layer in layers.items()]
    try:
        run_once(model, x)
    finally:
        for handle in handles:
            handle.remove()
    return counts


def _zeros(layers: Mapping[str, Prunable]) -> int:
    """Return how many weights are 0, a tensor that several layers share counted once."""
    zero: dict[int, torch.Tensor] = {}
    for layer in layers.values():
        stored = next((parameter for name, parameter in layer.named_parameters()
                       if name in ("weight", "weight_orig", "parametrizations.weight.original")),
                      layer.weight)
        now = layer.weight == 0
        zero[id(stored)] = zero.get(id(stored), now) & now
    return sum(int(part.sum()) for part in zero.values())


def _layer_cost(layer: Prunable, positions: int, weight_bits: int) -> LayerCost:
    weight = layer.weight.detach().cpu().double().numpy()
    rows = weight.shape[0]
    biases = 0 if layer.bias is None else rows
    bits = _words(weight, getattr(layer, "groups", 1)) * (weight_bits + DELTA_BITS)
    return LayerCost(
        weights=weight.size,
        nonzeros=int(np.count_nonzero(weight)),
        positions=positions,
        weight_bytes=-(-bits // 8) + rows * _TABLES_BYTES,
        dense_bytes=FLOAT_BYTES * (weight.size + biases),
    )


def _words(weight: np.ndarray, groups: int) -> int:
    """Return the words of a layer's weight stream: one for each non-zero, more for long steps.

    weight : (rows, channels of a group, ...). Stream index of a weight: tap first, then input
    channel, each tap beginning with a whole block of channels.
    """
    rows, own = weight.shape[:2]
    taps = weight[0, 0].size
    row, channel, tap = np.nonzero(weight.reshape(rows, own, taps))
    channel = channel + row // (rows // groups) * own
    block = -(-own * groups // BLOCK) * BLOCK
    starts = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=rows))])
    return int(row_words(starts, tap * block + channel).sum())
