"""The error model of block floating point: noise-to-signal ratios, stage by stage, and measured.

eta = E[error^2] / E[signal^2] = 1 / SNR. Stages of Song, Liu, Wang (AAAI 2018, arXiv 1709.07776),
which P3 (section 6.3) follows; the quantisation noise is that of Kalliojärvi and Astola:

1. Formatting a block of step s: sigma^2 = s^2 / 12, or s^2 / 3 where rounding is directed (zero,
   up, down) and the error lies in [0, s). Several blocks: the sum over blocks weighted by size.
   Numbers that are zero have no error and are not counted: ReLU makes half of them so, pruning
   most.
2. One layer: eta_o = eta_i + eta_w + eta_i eta_w. Song leaves the product out; it is the error of
   the inputs seen through the error of the weights, and counts from a few per cent of noise on.
3. ReLU, pooling, reshaping: unchanged, signal and error shrink alike.
4. Between layers: inherited noise and the next formatting combine as in 2.

Ours, for networks that are not a chain without biases: a bias adds signal and no error, so eta
falls by the ratio of the energies; where tensors are added or joined, their errors' energies add.
"""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from celosia.compress.entry import entry
from celosia.compress.fusion.fold import fold_batchnorm
from celosia.compress.fusion.graph import trace, used_once
from celosia.compress.layers import plain_layers
from celosia.compress.precision.emulate import BlockLayer, block_steps, emulate
from celosia.compress.promise import example_for, run_once
from celosia_spec.block import bfp
from celosia_spec.errors import ArgumentError
from celosia_spec.inputs import as_tensor, real_array

__all__ = ["LayerNsr", "Nsr", "NsrReport", "array_nsr", "combine", "nsr"]


@dataclass(frozen=True, kw_only=True)
class Nsr:
    """A noise-to-signal ratio of the model and the one that was found; NaN where all is zero."""

    predicted: float
    measured: float

    @property
    def predicted_db(self) -> float:
        """Signal-to-noise ratio of the model, dB."""
        return _decibel(self.predicted)

    @property
    def measured_db(self) -> float:
        """Signal-to-noise ratio found, dB."""
        return _decibel(self.measured)


@dataclass(frozen=True, kw_only=True)
class LayerNsr:
    """One layer in its network.

    shape     : M, K, N of its matrix product, N for one image; K of one group.
    weight    : eta_w, formatting the weights.
    formatted : formatting its inputs, alone.
    input     : eta_i, of the formatted inputs against those of the float network: inherited noise
                and formatting.
    output    : eta_o, of the sums before the bias.
    """

    shape: tuple[int, int, int]
    weight: Nsr
    formatted: Nsr
    input: Nsr
    output: Nsr


@dataclass(frozen=True, kw_only=True)
class NsrReport:
    """The outcome of `nsr`.   layers : by name, in the order in which they run."""

    layers: Mapping[str, LayerNsr]
    choices: Mapping[str, Any]


def combine(first: float, second: float) -> float:
    """Return the ratio after two independent sources of noise: eta_1 + eta_2 + eta_1 eta_2."""
    return first + second + first * second


def array_nsr(array: Any, bits: int, axis: int | None = None,
              rounding: str = "nearest-even") -> Nsr:
    """Return what formatting an array costs; arguments as of `compress.bfp`."""
    m, exponents = bfp(array, bits, axis, rounding)
    x = real_array(array, "array").astype(np.float64)
    shape = [1] * x.ndim
    if axis is not None:
        shape[axis] = -1
    step = np.ldexp(1.0, exponents - (bits - 2)).reshape(shape)
    noise = (np.square(step) * (x != 0)).sum() * _variance(rounding)
    return Nsr(predicted=_ratio(noise, np.square(x).sum()),
               measured=_ratio(np.square(m * step - x).sum(), np.square(x).sum()))


@entry
def nsr(
    model: nn.Module,
    inputs: Any,
    *,
    bits: int | tuple[int, int] = 8,
    partition: str = "rows",
    rounding: str = "nearest-even",
    batch_size: int = 50,
) -> NsrReport:
    """Predict and measure the noise of block floating point in every layer of a network.

    The float network is run once; the model works from its signals' energies and block exponents.
    The measured ratios compare it with `emulate`'s network on the same inputs.

    Parameters
    ----------
    model
        The trained network, traceable by `torch.fx`; not changed.
    inputs
        (N, ...), tensor or array; moved to the model's device by `batch_size`.
    bits
        Width of the mantissas, sign included: one number, or those of weights and of inputs.
    partition, rounding
        As for `emulate`.

    Raises
    ------
    ArgumentError
        As `emulate`; no inputs; the model cannot be traced, or a layer runs twice; a model in
        float16 or bfloat16, whose own rounding is larger than the noise.
    """
    weight_bits, activation_bits = _widths(bits)
    data = as_tensor(inputs, "inputs")
    if data.ndim == 0 or len(data) == 0:
        raise ArgumentError("no inputs; a few dozen images will do")
    if not plain_layers(model):
        raise ArgumentError("the model has no Conv2d and no Linear layer, so nothing is formatted")
    kind = next(model.parameters()).dtype
    if kind not in (torch.float32, torch.float64):
        raise ArgumentError(f"the model computes in {str(kind).removeprefix('torch.')}, whose own "
                            "rounding would be counted as noise; give a copy: "
                            "copy.deepcopy(model).float()")
    run_once(model, example_for(model, data[:1]))
    float_model = copy.deepcopy(model).eval()
    fold_batchnorm(float_model, data[:1])
    emulated = emulate(float_model, weight_bits=weight_bits, activation_bits=activation_bits,
                       partition=partition, rounding=rounding, example_input=data[:1])
    layers = {name: layer for name, layer in emulated.named_modules()
              if isinstance(layer, BlockLayer)}
    reference = _Reference(trace(float_model), layers, rounding)
    parameter = next(float_model.parameters())
    with torch.no_grad():
        for part in data.split(batch_size):
            batch = part.to(parameter.device, parameter.dtype)
            reference.run(batch.clone())
            _compare(emulated, layers, batch.clone(), reference)
    shapes = {name: reference.product(name) for name in reference.order}
    weights = {name: _weight_nsr(float_model, name, layers[name], weight_bits, rounding)
               for name in reference.order}
    choices = {"weight_bits": weight_bits, "activation_bits": activation_bits,
               "partition": partition, "rounding": rounding, "inputs": len(data)}
    return NsrReport(layers=_report(reference, shapes, weights), choices=choices)


def _widths(bits: int | tuple[int, int]) -> tuple[int, int]:
    """Return the widths of weights and of inputs."""
    both = bits if isinstance(bits, tuple) else (bits, bits)
    if len(both) != 2:
        raise ArgumentError(f"bits must be one number or those of weights and of inputs, "
                            f"not {bits!r}")
    return both


class _Reference(fx.Interpreter):
    """Runs the float network and adds up what the model and the comparison need.

    energy : of each node's result, by its name.   sums : of a layer, {what: energy}, by its name.
    kept   : inputs and outputs of each layer in the last batch.
    """

    def __init__(self, traced: fx.GraphModule, layers: Mapping[str, BlockLayer],
                 rounding: str) -> None:
        super().__init__(traced.eval())
        self.traced, self.layers, self.variance = traced, layers, _variance(rounding)
        self.energy: defaultdict[str, float] = defaultdict(float)
        self.sums: dict[str, defaultdict[str, float]] = {}
        self.kept: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        self.order = [node.target for node in traced.graph.nodes if self._is_layer(node)]
        for node in traced.graph.nodes:
            if self._is_layer(node) and not used_once(traced, node):
                raise ArgumentError(f"layer {node.target!r} runs more than once; give each run a "
                                    "layer of its own")
        for name in self.order:
            self.sums[name] = defaultdict(float)

    def _is_layer(self, node: fx.Node) -> bool:
        return node.op == "call_module" and node.target in self.layers

    def run_node(self, n: fx.Node) -> Any:
        """Run a node; note its energy before anything can overwrite the result."""
        before = None
        if self._is_layer(n):
            before = self.env[n.all_input_nodes[0]].clone()
        result = super().run_node(n)
        if isinstance(result, torch.Tensor) and n.op != "output":
            self.energy[n.name] += _energy(result)
        if before is not None:
            self._note(n.target, before, result)
        return result

    def _note(self, name: str, x: torch.Tensor, y: torch.Tensor) -> None:
        layer, sums = self.layers[name], self.sums[name]
        operand, axes = layer.operand(x)
        steps = torch.exp2(block_steps(operand, layer.bits, axes).double())
        filled = (operand != 0).sum(axes, keepdim=True)
        sums["operand"] += _energy(operand)
        sums["formatting"] += self.variance * float((steps.square() * filled).sum())
        bias = 0.0 if layer.bias is None else layer.bias
        if layer.bias is not None and y.ndim == 4:
            bias = layer.bias[:, None, None]
        sums["products"] += _energy(y - bias)
        self.kept[name] = (operand.clone(), y.clone())

    def product(self, name: str) -> tuple[int, int, int]:
        """Return M, K and N of a layer."""
        weight, y = self.layers[name].weight, self.kept[name][1]
        positions = y[0].numel() // len(weight)
        return len(weight), weight[0].numel(), positions


def _compare(emulated: nn.Module, layers: Mapping[str, BlockLayer], batch: torch.Tensor,
             reference: _Reference) -> None:
    """Run the emulated network and add up its errors against what the reference kept."""

    def compare(layer: BlockLayer, arguments: tuple[torch.Tensor, ...],
                named: dict[str, torch.Tensor], y: torch.Tensor) -> None:
        operand, axes = layer.operand((*arguments, *named.values())[0])
        found = layer.format(operand, axes)
        wanted, outputs = reference.kept[layer.name]
        sums = reference.sums[layer.name]
        sums["own signal"] += _energy(operand)
        sums["own error"] += _energy(found - operand)
        sums["input error"] += _energy(found - wanted)
        sums["output error"] += _energy(y - outputs)

    hooks = [layer.register_forward_hook(compare, with_kwargs=True) for layer in layers.values()]
    try:
        emulated(batch)
    finally:
        for hook in hooks:
            hook.remove()


def _report(reference: _Reference, shapes: Mapping[str, tuple[int, int, int]],
            weights: Mapping[str, Nsr]) -> dict[str, LayerNsr]:
    """Carry the model's ratios through the graph."""
    eta: dict[str, float] = {}
    layers = {}
    for node in reference.traced.graph.nodes:
        before = [other for other in node.all_input_nodes if other.name in reference.energy]
        if node.op == "call_module" and node.target in weights:
            name = node.target
            sums = reference.sums[name]
            layers[name] = _layer(eta[before[0].name], sums, shapes[name], weights[name])
            # NaN (a layer of zeros) carries no noise on
            noise = layers[name].output.predicted * sums["products"]
            eta[node.name] = _ratio(0.0 if math.isnan(noise) else noise,
                                    reference.energy[node.name], empty=0.0)
        elif len(before) == 1:
            eta[node.name] = eta[before[0].name]
        else:
            noise = sum(eta[other.name] * reference.energy[other.name] for other in before)
            eta[node.name] = _ratio(noise, reference.energy[node.name], empty=0.0)
    return layers


def _layer(inherited: float, sums: Mapping[str, float], shape: tuple[int, int, int],
           weight: Nsr) -> LayerNsr:
    formatted = Nsr(predicted=_ratio(sums["formatting"], sums["operand"]),
                    measured=_ratio(sums["own error"], sums["own signal"]))
    inputs = Nsr(predicted=combine(inherited, formatted.predicted),
                 measured=_ratio(sums["input error"], sums["operand"]))
    outputs = Nsr(predicted=combine(inputs.predicted, weight.predicted),
                  measured=_ratio(sums["output error"], sums["products"]))
    return LayerNsr(shape=shape, weight=weight, formatted=formatted, input=inputs, output=outputs)


def _weight_nsr(model: nn.Module, name: str, layer: BlockLayer, bits: int, rounding: str) -> Nsr:
    axis = 0 if layer.blocks.weight_rows else None
    return array_nsr(model.get_submodule(name).weight, bits, axis, rounding)


def _variance(rounding: str) -> float:
    """Return E[error^2] / step^2: uniform around zero, or from zero to a step."""
    return 1 / 12 if rounding == "nearest-even" else 1 / 3


def _energy(x: torch.Tensor) -> float:
    return float(x.double().square().sum())


def _ratio(noise: float, signal: float, empty: float = math.nan) -> float:
    return float(noise / signal) if signal else empty


def _decibel(eta: float) -> float:
    """Return -10 log10(eta); infinity where there is no noise."""
    return math.inf if eta == 0 else -10 * math.log10(eta)
