"""A program's mantissas beside what the float network computes, layer by layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from celosia import original
from celosia.accuracy import decibels_of, values_of
from celosia.beside_float import decibels, tensors
from celosia.calibration import spread
from celosia.compiler import Compiler
from celosia.float_values import Completion, Tensors, completion, weights_of
from celosia.graph import Conv, Graph
from celosia.original import as_imported, has_pieces
from celosia.passes.wide_input import with_low_parts
from celosia.program import Program, check_program
from celosia_spec.errors import CelosiaError, refusals
from celosia_spec.qgraph import QGraph, low_sums

_HALF = 0.5 + 2.0**-20
"""How far a weight may lie from its mantissa: parameters are float32."""

MOST_INPUTS = 64
"""As many are looked at, evenly spread."""


@dataclass(frozen=True, kw_only=True)
class LayerNoise:
    """What a layer stores, beside the float network's.

    name        : of the layer; of the first, of the network's input.
    ratio       : signal to noise, dB; infinite where both are equal.
    alone       : of the network's outputs, dB, in float64 but for this layer, which errs as much
                  as it does behind the mantissas that it reads.
    saturated   : share of the mantissas that are the largest there are, or the least.
    zeros       : share of the mantissas that are 0.   zeros_float : of the float network's values.
    """

    name: str
    ratio: float
    alone: float
    saturated: float
    zeros: float
    zeros_float: float


@dataclass(frozen=True, kw_only=True)
class Noise:
    """The input and all layers in order, measured on so many inputs.

    functions : of a network whose functions and products are made of straight pieces, signal to
                noise of its outputs against those without: the worst of several, dB. Else None;
                the layers are beside what the pieces compute in float64.
    others    : names of layers whose weights are not the program's, before it rounded them: noise
                is that of other weights, too.
    """

    layers: tuple[LayerNoise, ...]
    inputs: int
    functions: float | None = None
    others: tuple[str, ...] = ()

    @property
    def worst(self) -> LayerNoise:
        """The layer whose rounding costs the outputs most."""
        return min(self.layers, key=lambda layer: layer.alone)

    @property
    def output_ratio(self) -> float:
        """Signal to noise of the outputs, dB."""
        return self.layers[-1].ratio


def against_float(program: Program, model: Any, x: np.ndarray, *,
                  progress: Callable[[int, int], None] | None = None) -> Noise:
    """Set what a program computes beside the float network.

    model    : what it was compiled from, as `celosia.compile` takes it.
    x        : float32 (N, *user_shape); of many, 64 are taken, evenly spread.
    progress : called with the inputs that are done, and all.

    CelosiaError where the model has other layers.
    """
    check_program(program)
    if program.steps is not None:
        raise CelosiaError("the program takes steps of time, and the float network none; compile "
                           "the model without stream to compare the two")
    quantised = program.graph
    tensor = quantised.tensors[quantised.input]
    compiler = Compiler(target=program.target, activation_bits=tensor.bits,
                        input_bits=tensor.whole.bits)
    shapes = tuple((1, *one.shape) for one in program.takes)
    imported = compiler.imported(model, shapes or (1, *tensor.user_shape))
    graph = compiler.optimised(imported, like=quantised)
    _check_same(graph, quantised)
    x = spread(x, MOST_INPUTS)
    with refusals():
        found = replace(noise(graph, quantised, x, progress=progress),
                        others=tuple(other_weights(graph, quantised)))
        if not has_pieces(imported):
            return found
        made = as_imported(imported, graph, values_of(quantised, x))
    wanted = original.floats(imported, x)
    return replace(found, functions=min(
        decibels_of(output.part(made), output.part(wanted)) for output in imported.outputs))


def noise(graph: Graph, quantised: QGraph, x: np.ndarray, *,
          progress: Callable[[int, int], None] | None = None) -> Noise:
    """Set a quantised graph beside the float graph that it was made from.

    x : (N, *input_shape).
    """
    sums = {name: _Sums() for name in graph.shapes}
    computed = completion(graph)
    for done, (wanted, found, mantissas) in enumerate(tensors(graph, quantised, x), start=1):
        before: Tensors = {}
        for name, own in sums.items():
            own.add(wanted[name], found[name], mantissas[name],
                    quantised.tensors[name].whole.largest)
            exact = wanted[name] if name == graph.input else _one(computed, found, name)
            made, _ = computed(before | {name: wanted[name] + found[name] - exact})
            own.add_output(wanted[graph.output], made[graph.output])
            before[name] = wanted[name]
        if progress is not None:
            progress(done, len(x))
    return Noise(layers=tuple(_layers(sums)), inputs=len(x))


def _one(computed: Completion, found: Tensors, name: str) -> np.ndarray:
    """Return what a layer makes in float64 of all that others store."""
    made, _ = computed({other: value for other, value in found.items() if other != name})
    return made[name]


class _Sums:
    """What is summed up of a tensor over all inputs."""

    def __init__(self) -> None:
        self.count = self.saturated = self.zeros = self.zeros_float = 0
        self.signal = self.noise = self.output_signal = self.output_noise = 0.0

    def add(self, wanted: np.ndarray, found: np.ndarray, m: np.ndarray, largest: int) -> None:
        self.count += m.size
        self.saturated += int(np.count_nonzero(np.abs(m) == largest))
        self.zeros += int(np.count_nonzero(m == 0))
        self.zeros_float += int(np.count_nonzero(wanted == 0))
        self.signal += float(np.square(wanted).sum())
        self.noise += float(np.square(found - wanted).sum())

    def add_output(self, wanted: np.ndarray, found: np.ndarray) -> None:
        self.output_signal += float(np.square(wanted).sum())
        self.output_noise += float(np.square(found - wanted).sum())


def _layers(sums: dict[str, _Sums]) -> Iterator[LayerNoise]:
    for name, own in sums.items():
        yield LayerNoise(
            name=name, ratio=decibels(own.signal, own.noise),
            alone=decibels(own.output_signal, own.output_noise),
            saturated=own.saturated / own.count, zeros=own.zeros / own.count,
            zeros_float=own.zeros_float / own.count)


def _check_same(graph: Graph, quantised: QGraph) -> None:
    """CelosiaError unless both have the same layers of the same shapes."""
    ours = {name: tensor.numbers for name, tensor in quantised.tensors.items()
            if name not in low_sums(quantised)}
    for name in (*ours, *graph.shapes):
        if ours.get(name) != graph.shapes.get(name):
            raise CelosiaError(
                f"model: layer {name!r} is {_told(graph.shapes.get(name))}, in the program "
                f"{_told(ours.get(name))}; give the model that the program was compiled from")


def other_weights(graph: Graph, quantised: QGraph) -> Iterator[str]:
    """Yield the names of those layers of a float graph whose weights are not what the quantised
    graph has rounded."""
    bits = {name: quantised.tensors[name].larger[:, 0, 0]
            - np.array(graph.raised.get(name, (0,))) for name in graph.shapes}
    graph = with_low_parts(graph, low := quantised.tensors[graph.input].low)
    if low and bits[graph.input].size > 1:
        bits[graph.input] = np.repeat(bits[graph.input], 2)
    layers = {node.name: node for node in graph.nodes if isinstance(node, Conv)}
    for node in quantised.nodes:
        layer = layers.get(node.name)
        if layer is None or node.name in low_sums(quantised):
            continue
        read = np.concatenate([np.broadcast_to(bits[name], graph.shapes[name][:1])
                               for name in layer.read])
        wanted = weights_of(layer)
        rows = np.repeat(np.arange(wanted.shape[0]), np.diff(wanted.indptr))
        own = bits[layer.name]
        moved = (np.repeat(own, -(-wanted.shape[0] // own.size))[rows]
                 - read[wanted.indices // math.prod(layer.weight.shape[2:])])
        most = (1 << quantised.weight_bits - 1) - 1
        wanted.data = np.ldexp(wanted.data, moved - node.sw[rows]).clip(-most, most)
        if abs(wanted - node.matrix).max() > _HALF:
            yield node.name


def _told(shape: tuple[int, ...] | None) -> str:
    return "not there" if shape is None else " x ".join(map(str, shape))
