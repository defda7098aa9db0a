"""Training in the machine's number format.

The network's outputs are the golden model's, bit for bit; gradients are those of the float network
around them, and go straight through every rounding (Bengio, Léonard, Courville, arXiv 1308.3432).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from celosia.calibration import calibration_array
from celosia.closest_exponents import clipped_rows
from celosia.compiler import Compiler
from celosia.compress.entry import entry
from celosia.graph import Conv, Graph
from celosia.range_exponents import check_static
from celosia_sim import golden
from celosia_sim.golden.linear import bordered
from celosia_sim.golden.model import GoldenResult
from celosia_spec.epilogue import STATIC
from celosia_spec.errors import ArgumentError, located, refusals
from celosia_spec.host_layers import MOVES, HostLayer, compute
from celosia_spec.qgraph import Border, NodeKind, QGraph, QNode

if TYPE_CHECKING:
    from celosia.program import Program
    from celosia_spec.preprocessing import Preprocessing

__all__ = ["InFormat", "in_format"]

_TRAINED = (NodeKind.CONV, NodeKind.LINEAR)
"""Nodes that have weights of the network; averages and selections have none."""


@entry
def in_format(
    model: nn.Module,
    example_input: Any,
    *,
    target: str = Compiler.target,
    weight_bits: int = Compiler.weight_bits,
    activation_bits: int = Compiler.activation_bits,
    exponents: str = Compiler.exponents,
    calibration: Any = None,
    clip: bool = False,
    preprocessing: Preprocessing | None = None,
) -> InFormat:
    """Return a network to be trained that computes what the target does, bit for bit.

    It has the weights and biases of the network that the compiled program has, batch normalisation
    folded; a weight that is 0, because it was pruned, stays so. The straight pieces of functions
    and products stay as they are, and so do slopes of `LeakyReLU` and averages; a batch
    normalisation behind one of these is trained as a factor and a bias for each row. Train it with
    any loop, such as `FineTune`, with the float network as teacher where labels are few;
    `InFormat.program` compiles it. What the host computes behind the output, such as a softmax, is
    left out here, but not where it only moves elements.

    clip : give each row of weights, and with static exponents each stored tensor but the output,
           the exponent at which its mantissas are nearest to it, in the mean of squares, and clip
           what is beyond. Of few bits that is better, for training goes around what is clipped.

    All other arguments are as `celosia.compile` has them; the model is not changed. Static
    exponents are those that calibration gives, found anew for every batch; some 30 inputs are
    enough.

    Errors are those of `celosia.compile`.
    """
    compiler = Compiler(target=target, exponents=exponents, weight_bits=weight_bits,
                        activation_bits=activation_bits, clipped=clip and exponents == STATIC)
    compiler.check(calibrated=calibration is not None)
    imported = compiler.imported(model, example_input)
    samples = calibration_array(calibration, imported.takes, imported.input_shape, preprocessing)
    prepared = compiler.prepared(imported, samples, preprocessing)
    graph = replace(prepared.graph, ranges={})      # which training changes
    check_static(graph, exponents, calibrated=calibration is not None)
    samples, acc_bits = prepared.samples, None
    if samples is not None and exponents != STATIC:     # which tell of the accumulators alone
        with located(graph.sources), refusals():
            found, plain = (prepared.compiler.quantised(graph, given).acc_bits
                            for given in (samples, None))
        samples, acc_bits = None, None if found == plain else found
    return InFormat(graph, prepared.compiler, samples, preprocessing, clip=clip,
                    acc_bits=acc_bits)


class InFormat(nn.Module):
    """A network whose every stored number is the machine's.

    Parameters are float32, called ``weights.3`` and ``biases.3`` of node 3 of `graph`, or
    ``factors.3`` where its weights are given but a batch normalisation is in them. Inputs are
    (N, ...) as the model had them, outputs (N, ...) likewise, several as a dictionary by their
    names; both on the parameters' device, while the golden model runs on the CPU.
    """

    def __init__(self, graph: Graph, compiler: Compiler, samples: np.ndarray | None,
                 preprocessing: Preprocessing | None, *, clip: bool,
                 acc_bits: int | None = None) -> None:
        super().__init__()
        self._graph, self._compiler, self._samples = graph, compiler, samples
        self._preprocessing, self._clip, self._acc_bits = preprocessing, clip, acc_bits
        self.weights, self.biases = nn.ParameterDict(), nn.ParameterDict()
        self.factors = nn.ParameterDict()
        self._alive: dict[str, np.ndarray] = {}
        self._given: dict[str, np.ndarray] = {}
        for number, node in enumerate(graph.nodes):
            assert isinstance(node, Conv), node.name
            if node.kind in _TRAINED and not node.fixed:
                self.weights[str(number)] = nn.Parameter(torch.tensor(node.weight).float())
                self._alive[str(number)] = node.weight != 0
            elif node.normed:
                self.factors[str(number)] = nn.Parameter(torch.ones(len(node.weight)))
                self._given[str(number)] = node.weight
            else:
                continue
            if node.bias is not None:
                self.biases[str(number)] = nn.Parameter(torch.tensor(node.bias).float())

    def graph(self) -> Graph:
        """Return the float graph with the weights and biases of now."""
        with located(self._graph.sources):
            return replace(self._graph, nodes=tuple(
                self._now(number, node) for number, node in enumerate(self._graph.nodes)))

    def _now(self, number: int, node: Any) -> Any:
        key = str(number)
        if key in self.weights:
            weight = np.where(self._alive[key], _array(self.weights[key]), 0.0)
            if self._clip:
                weight = clipped_rows(weight, self._compiler.weight_bits)
        elif key in self.factors:
            weight = node.weight * _array(self.factors[key])[:, None, None, None]
        else:
            return node
        return replace(node, weight=weight, bias=_array(self.biases[key])
                       if key in self.biases else node.bias)

    def quantised(self) -> QGraph:
        """Return the quantised graph of now."""
        return self._quantised(self.graph())

    def _quantised(self, graph: Graph) -> QGraph:
        with located(self._graph.sources), refusals():
            return self._compiler.quantised(graph, self._samples, acc_bits=self._acc_bits)

    def program(self) -> Program:
        """Return the program for the target; FitError where that does not take the network, for
        which `celosia.compile` of the model tells what helps."""
        with located(self._graph.sources), refusals():
            return replace(self._compiler.program(self.quantised()), host=self._graph.host,
                           returns=self._graph.returns, takes=self._graph.takes,
                           preprocessing=self._preprocessing)

    def _returned(self, output: torch.Tensor) -> torch.Tensor | dict[str, torch.Tensor]:
        """Return what is made of the output (N, C, H, W); of several tensors each by its name."""
        graph = self._graph
        if (raised := graph.raised.get(graph.output)) is not None:
            output = output * torch.tensor(raised, device=output.device).neg().exp2()[:, None, None]
        if not graph.returns:
            return _moved(output.reshape(-1, *graph.output_shape), graph.host)
        flat = _moved(output, graph.host).flatten(1)
        return {part.name: _moved(flat[:, part.first:part.first + math.prod(part.shape)].reshape(
            -1, *part.shape), part.host) for part in graph.returns}

    def forward(self, input: torch.Tensor) -> torch.Tensor | dict[str, torch.Tensor]:
        if torch.compiler.is_exporting():
            raise ArgumentError("a network in the format has its program already: call its "
                                "program(), or give the network that it was made of")
        graph = self.graph()
        found = self._quantised(graph)
        with refusals():
            result = golden.run(found, input.detach().cpu().numpy())
        stored = {graph.input: _stored(input.reshape(-1, *graph.input_map), found, result,
                                       graph.input)}
        for number, (node, made) in enumerate(zip(graph.nodes, found.nodes, strict=True)):
            assert isinstance(node, Conv), node.name
            read = self._read(node, made, found, result, stored)
            sums = self._sums(str(number), node, made, read)
            if (add := node.epilogue.add) is not None:
                sums = sums + stored[add]
            values = sums.clamp(*node.epilogue.activation.bounds)
            if (pool := node.epilogue.pool) is not None:
                values = functional.max_pool2d(values, pool.window, pool.stride)
            if node.map is not None:
                values = values.reshape(-1, *node.map)
            stored[node.name] = _stored(values, found, result, node.name)
        return self._returned(stored[graph.output])

    def _read(self, node: Conv, made: QNode, found: QGraph, result: GoldenResult,
              stored: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return what a node multiplies."""
        read = torch.cat([stored[name] for name in node.read], dim=1)
        if not made.rounds:
            return read
        together = result.readings[node.name]
        lsb = found.tensors[made.input].format.lsb(together.exponents)
        return _straight(read, np.ldexp(together.mantissas.astype(float),
                                        lsb[:, None, None, None]))

    def _sums(self, key: str, node: Conv, made: QNode, read: torch.Tensor) -> torch.Tensor:
        """Return the sums in float of a node of now, of what it reads and its weights as they are
        stored. A weight that is 0 for good, or clipped, has no gradient."""
        rows, own = len(node.weight), node.weight[0].size
        first = np.arange(rows) // (rows // node.groups) * own
        columns = first[:, None] + np.arange(own)
        values = np.ldexp(np.take_along_axis(made.matrix.toarray(), columns, 1).astype(float),
                          made.sw[:, None]).reshape(node.weight.shape)
        if key in self.weights:
            given = self.weights[key]
            follows = node.weight == _array(given)
            given = given * torch.from_numpy(follows & self._alive[key]).to(given.device)
        elif key in self.factors:
            given = read.new_tensor(self._given[key]) * self.factors[key].to(
                read.dtype)[:, None, None, None]
        else:
            given = read.new_tensor(node.weight)
        bias = self.biases[key] if key in self.biases else (
            None if node.bias is None else read.new_tensor(node.bias))
        top, left, bottom, right = node.padding
        return functional.conv2d(
            functional.pad(_bordered(read, node.border), [left, right, top, bottom]),
            _straight(given, values).to(read.dtype), None if bias is None else bias.to(read.dtype),
            node.stride, 0, node.dilation, node.groups)


def _bordered(read: torch.Tensor, border: Border) -> torch.Tensor:
    """Return maps (N, C, H, W) with what stands around them."""
    if not any(border):
        return read
    numbers = np.arange(read[0].numel()).reshape(1, *read.shape[1:])
    return _taken(read, bordered(numbers, border)[0])


def _moved(output: torch.Tensor, layers: Sequence[HostLayer]) -> torch.Tensor:
    """Return what those first layers of the host make of an output that change no value."""
    moves = list(takewhile(lambda layer: layer.operator in MOVES, layers))
    if not moves:
        return output
    numbers = np.arange(output[0].numel()).reshape(1, *output.shape[1:])
    return _taken(output, compute(moves, numbers)[0])


def _taken(maps: torch.Tensor, at: np.ndarray) -> torch.Tensor:
    """Return elements of maps (N, ...) by their numbers (...)."""
    return maps.flatten(1)[:, torch.from_numpy(at.ravel()).to(maps.device)].reshape(-1, *at.shape)


class _Straight(torch.autograd.Function):
    """Some values for others, whose gradients they take."""

    @staticmethod
    def forward(ctx: Any, instead_of: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        return values

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradients[0], None


def _straight(instead_of: torch.Tensor, values: np.ndarray) -> torch.Tensor:
    found: torch.Tensor = _Straight.apply(
        instead_of, torch.from_numpy(values).to(instead_of.device, instead_of.dtype))
    return found


def _stored(values: torch.Tensor, graph: QGraph, result: GoldenResult, name: str) -> torch.Tensor:
    """Return a stored tensor (N, C, H, W) in place of the values that it is made of. What is
    clipped, by more than rounding does, has no gradient."""
    format, mantissas = graph.tensors[name].format, result.mantissas[name]
    lsb = format.lsb(result.exponents[name])[:, None, None, None]
    made = np.ldexp(mantissas.astype(float), lsb)
    beyond = (np.abs(mantissas) == format.largest) & (
        np.abs(_array(values)) - np.abs(made) > np.ldexp(1.0, lsb))
    return _straight(torch.where(torch.from_numpy(beyond).to(values.device), values.detach(),
                                 values), made)


def _array(parameter: torch.Tensor) -> np.ndarray:
    found: np.ndarray = parameter.detach().cpu().double().numpy()
    return found
