"""What mantissas of more and of fewer bits give a network: accuracy, cycles and bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from celosia import original
from celosia.accuracy import decibels_of, more_accurate, too_few, values_of
from celosia.calibration import calibration_array
from celosia.compiler import Compiler
from celosia.evaluate import accuracy as share_right
from celosia.extras import names_extra
from celosia.graph import Graph
from celosia.original import as_imported
from celosia_spec.errors import ArgumentError, CelosiaError, located, refusals
from celosia_spec.inputs import real_array


@dataclass(frozen=True, kw_only=True)
class Width:
    """A network with weights and activations of so many bits.

    ratio     : signal to noise of the outputs, dB; infinite where they are the float network's.
    agreement : share of the inputs whose largest output is that of the float network.
    accuracy  : share of the inputs whose largest output is at their label; None without labels.
    cycles, weight_bytes : of an inference; None where the target does not take the network.
    problem   : why it does not, or cannot have such mantissas; None where it takes it.
    """

    weight_bits: int
    activation_bits: int
    ratio: float | None = None
    agreement: float | None = None
    accuracy: float | None = None
    cycles: int | None = None
    weight_bytes: int | None = None
    problem: str | None = None


@dataclass(frozen=True, kw_only=True)
class Widths:
    """A network at several widths, on so many inputs.

    accuracy : of the float network; None without labels.
    remarks  : what was done with the model and its example, and why nothing was done for accuracy
               where that was asked for.
    """

    target: str
    inputs: int
    accuracy: float | None
    widths: tuple[Width, ...]
    remarks: tuple[str, ...] = ()


@names_extra
def widths(model: Any, example_input: Any = None, *, bits: Sequence[tuple[int, int]],
           calibration: Any, labels: Any = None, target: str = Compiler.target,
           exponents: str = Compiler.exponents, input_bits: int | None = None,
           lanes: int | None = None,
           sparse: bool = True, accuracy: str | None = None,
           progress: Callable[[int, int], None] | None = None) -> Widths:
    """Measure a network with weights and activations of several widths.

    bits        : pairs of weight bits and activation bits.
    calibration : inputs, float32 (N, ...). All of them are measured, and static exponents found
                  and passes for accuracy made with them.
    labels      : whole numbers (N,), or None.
    progress    : called with the pairs that are done, and all.

    The rest is as `celosia.compile` has it. CelosiaError for what no width could be compiled with.
    """
    settings = [Compiler(target=target, exponents=exponents, weight_bits=weight, lanes=lanes,
                         activation_bits=activation, sparse=sparse, accuracy=accuracy,
                         input_bits=input_bits) for weight, activation in bits]
    if not settings:
        raise ArgumentError("bits holds no pairs; give at least one, such as (8, 8)")
    if calibration is None:
        raise ArgumentError("widths are measured on inputs: give calibration an array "
                            "(N, C, H, W) or (N, F)")
    replace(settings[0], weight_bits=4, activation_bits=4, input_bits=None).check(calibrated=True)
    compiler = Compiler(target=target)
    imported = compiler.imported(model, example_input)
    samples = calibration_array(calibration, imported.takes, imported.input_shape)
    prepared = compiler.prepared(imported, samples)
    graph, samples = prepared.graph, prepared.samples
    assert samples is not None
    known = None if labels is None else _labels(labels, len(samples))
    if known is not None and graph.returns:
        raise ArgumentError("labels are classes of one output, and the network returns "
                            f"{len(graph.returns)}; leave labels out, or give a network that "
                            "returns the one with the classes")
    wanted = original.floats(imported, samples)
    found = []
    for done, compiler in enumerate(settings):
        if progress is not None:
            progress(done, len(settings))
        own = compiler.of_inputs(samples, graph=graph)
        found.append(_measured(own, imported, graph, samples, wanted, known))
    told = too_few(samples) if settings[0].passes(samples) else None
    return Widths(target=target, inputs=len(samples), widths=tuple(found),
                  remarks=graph.remarks if told is None else (*graph.remarks, told),
                  accuracy=None if known is None else share_right(wanted, known))


def _labels(labels: Any, count: int) -> np.ndarray:
    found = real_array(labels, "labels")
    if found.shape != (count,) or found.dtype.kind not in "iu":
        raise ArgumentError(f"labels: {found.dtype} of shape {found.shape}; give a whole number "
                            f"for each of the {count} inputs")
    return found


def _largest(graph: Graph, values: np.ndarray) -> np.ndarray:
    """Return which element is largest in each output of an imported graph's values, int64
    (N, outputs)."""
    return np.stack([output.part(values).reshape(len(values), -1).argmax(axis=1)
                     for output in graph.outputs], axis=1)


def _measured(compiler: Compiler, imported: Graph, graph: Graph, samples: np.ndarray,
              wanted: np.ndarray, labels: np.ndarray | None) -> Width:
    """Return what a width gives.

    graph : optimised.   wanted : outputs of the imported one in float64.
    """
    width = Width(weight_bits=compiler.weight_bits, activation_bits=compiler.activation_bits)
    try:
        compiler.check(calibrated=True)
        with located(graph.sources), refusals():
            graph = compiler.separated(graph)
            if compiler.passes(samples):
                improved = more_accurate(graph, compiler, samples)
                graph, compiler = improved.graph, improved.compiler
            quantised = compiler.quantised(graph, samples)
            made = as_imported(imported, graph, values_of(quantised, samples)).reshape(wanted.shape)
    except CelosiaError as refusal:
        return replace(width, problem=str(refusal))
    largest = [_largest(imported, values) for values in (made, wanted)]
    width = replace(width, ratio=decibels_of(made, wanted),
                    agreement=float(np.mean((largest[0] == largest[1]).all(axis=1))),
                    accuracy=None if labels is None else share_right(made, labels))
    try:
        schedule = compiler.fitting(quantised)
    except CelosiaError as refusal:
        return replace(width, problem=str(refusal))
    return replace(width, cycles=schedule.predicted_cycles,
                   weight_bytes=sum(layer.weight_bytes for layer in schedule.layers))
