"""What running a network takes and gives: inputs checked, results in the user's shapes."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from celosia_spec.errors import ArgumentError, CelosiaError, quoted
from celosia_spec.inputs import wrong_shape
from celosia_spec.network_inputs import joined as joined_inputs
from celosia_spec.network_inputs import numbers
from celosia_spec.preprocessing import of_pictures, scaled_by, unscaled
from celosia_spec.qgraph import static_exponent
from celosia_spec.steps import Ring

if TYPE_CHECKING:
    from celosia.bands.session import SimResult
    from celosia.program import Program
    from celosia_spec.qgraph import QGraph

Progress = Callable[[int, int], None]
"""Called with the number of inputs done and the number of all."""

Notice = Callable[[str], None]

Stages = Callable[[str, int, int], None]
"""Called as a simulator is built for an array, which the first time takes minutes: the stage, how
many of its steps are begun, and how many it has (0 of 0 where they are not known)."""


Tensors = bool | Sequence[str]
"""Which stored tensors are asked for: all of them, none, or those of these names."""

Stored = Mapping[str, tuple[np.ndarray, np.ndarray]]
"""Stored tensors by name: mantissas, int (N, C, H, W), and exponents, int (N,)."""


@dataclass(frozen=True, eq=False, kw_only=True)
class StoredTensor:
    """What a layer has stored of N inputs, behind its activation and pooling; or the input itself.

    mantissa : int32 (N, C, H, W), as layers that read it see it, and of the network's output the
               host; a vector is (N, F, 1, 1). Of a wide input channels are high and low parts.
    exponent : int32 (N,).
    values   : float64 (N, F) of a vector, else (N, C, H, W), exact, in the float network's scale.
    """

    mantissa: np.ndarray
    exponent: np.ndarray
    values: np.ndarray


@dataclass(frozen=True, eq=False, kw_only=True)
class RunResult:
    """Outputs of N inputs. The output's value is ``mantissa * 2 ** (exponent - (bits - 2))``; of
    channels that are stored larger (`QTensor.raised`) it is so many bits less.

    mantissa : int32 (N, ...), as the array computes it.   exponent : int32 (N,).
    values   : float64 (N, ...), exact.
    answers  : what the network returns, by the names of its outputs (`Program.outputs`): parts of
               the values, or what the host's layers make of them, float64, behind an argmax int64.
    saturated: bool (N,), True where a rounding or the input was clipped.
    cycles   : int64 (N,), from start to done; None from the golden model.
    layer_cycles : int64 (N, layers), as predicted, where their sums are ``cycles``; else None.
    tensors  : the stored tensors that were asked for, by the names of their layers, or that of the
               input; the same on every backend. Of a step the lines that it has made.
    """

    mantissa: np.ndarray
    exponent: np.ndarray
    values: np.ndarray
    answers: Mapping[str, np.ndarray]
    saturated: np.ndarray
    cycles: np.ndarray | None
    layer_cycles: np.ndarray | None
    tensors: Mapping[str, StoredTensor] = field(default_factory=dict)

    @property
    def answer(self) -> np.ndarray:
        """What a network with one output returns; CelosiaError where it has several."""
        if len(self.answers) > 1:
            first = next(iter(self.answers))
            raise CelosiaError(f"the network returns {', '.join(self.answers)}; take one of "
                               f"result.answers, such as result.answers[{first!r}]")
        return next(iter(self.answers.values()))

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """All of it as arrays with names: an only answer is "answer", others "answer.NAME"; stored
        tensors are "tensor.NAME.mantissa", "tensor.NAME.exponent" and "tensor.NAME.values"."""
        found = {name: value for name, value in vars(self).items() if isinstance(value, np.ndarray)}
        found |= {f"tensor.{name}.{part}": value for name, tensor in self.tensors.items()
                  for part, value in vars(tensor).items()}
        if len(self.answers) == 1:
            return found | {"answer": self.answer}
        return found | {f"answer.{name}": answer for name, answer in self.answers.items()}


def joined(parts: Sequence[RunResult]) -> RunResult:
    """Return results as one."""
    def of(name: str) -> np.ndarray:
        return np.concatenate([getattr(part, name) for part in parts])

    first = parts[0]
    return RunResult(
        mantissa=of("mantissa"), exponent=of("exponent"), values=of("values"),
        answers={name: np.concatenate([part.answers[name] for part in parts])
                 for name in first.answers},
        saturated=of("saturated"), cycles=None if first.cycles is None else of("cycles"),
        layer_cycles=None if any(part.layer_cycles is None for part in parts) else of(
            "layer_cycles"),
        tensors={name: StoredTensor(**{field: np.concatenate(
            [vars(part.tensors[name])[field] for part in parts]) for field in vars(tensor)})
                 for name, tensor in first.tensors.items()})


def _read(graph: QGraph) -> np.ndarray:
    """Return which channels of the input a layer reads, bool (C, 1, 1). Others are stored as 0, as
    large values there would take the bits of those that are read."""
    tensor = graph.tensors[graph.input]
    read = np.zeros(tensor.shape[0], bool)
    for node in graph.nodes:
        if graph.input in node.inputs:
            height, width = node.geometry.kernel
            read[np.unique(node.matrix.indices[node.matrix.data != 0]) // (height * width)] = True
    return np.asarray(read.reshape(tensor.numbers[0], -1).any(axis=1))[:, None, None]


def as_images(program: Program, x: Any, notice: Notice | None = None) -> np.ndarray:
    """Return the inputs as float32 (N, ...), checked against the network's input shape.

    x      : an array; of several inputs a tuple of arrays, or a mapping of their names to such,
             which are joined here, but of a program in steps.
    notice : called with a line where the inputs seem to be pixels as they are.

    ArgumentError where they are no inputs, such as pixels: uint8 where
    `celosia_spec.preprocessing.of_pictures` says so.
    """
    tensor, several = program.graph.tensors[program.graph.input], bool(program.takes)
    several, known = several and program.steps is None, program.preprocessing
    array = joined_inputs(program.takes, x, tensor.user_shape) if several else numbers(
        x, pixels=scaled_by(known) if of_pictures(tensor.user_shape, known) else None)
    if array.shape[1:] != tuple(tensor.user_shape):
        raise ArgumentError(f"input: {wrong_shape(array.shape, tensor.user_shape)}")
    if len(array) == 0:
        raise ArgumentError(f"input: no inputs in it, the network takes (N, "
                            f"{', '.join(map(str, tensor.user_shape))}) with N > 0")
    if notice is not None and unscaled(array, largest := _largest(program)):
        notice(f"input: numbers from {array.min():g} to {array.max():g}, and the program's inputs "
               f"are up to {largest:.3g}; if they are pixels, make inputs of them as in training")
    if several:
        array = np.where(_read(program.graph), array.reshape(len(array), *tensor.numbers), 0)
        array = array.astype(np.float32).reshape(-1, *tensor.user_shape)
    return array


def _largest(program: Program) -> float:
    """Return the largest magnitude that inputs are meant to have, as far as the program says; 0
    where it does not."""
    static = static_exponent(program.graph.tensors, program.graph.input)
    if program.preprocessing is not None and program.preprocessing.scale is not None:
        return program.preprocessing.largest
    return 0.0 if static is None else 2.0 ** (static + 1)


def warned(words: str) -> None:
    """Tell of what is told of inputs where nobody asked to be told: as Python warns, of the line
    that called a function of this package."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("celosia."):
        level, frame = level + 1, frame.f_back
    warnings.warn(words, stacklevel=level)


def once(notice: Notice) -> Notice:
    """Return a notice that passes on the first line and no other."""
    told: list[str] = []

    def first(words: str) -> None:
        if not told:
            told.append(words)
            notice(words)

    return first


def stored_names(program: Program, wanted: Tensors) -> tuple[str, ...]:
    """Return the names of the stored tensors that are asked for, in the program's order; of one in
    steps those that are there when a step is done: what is kept for the next ones, and the output.
    CelosiaError where one is none, or not there then."""
    graph = program.graph
    known = (graph.input, *(node.output for node in graph.nodes))
    kept = known if program.steps is None else tuple(
        name for name in known if name == graph.output or isinstance(graph.tensors[name], Ring))
    names = kept if wanted is True else wanted or ()
    names = (names,) if isinstance(names, str) else tuple(names)
    for name in names:
        if name not in known:
            raise CelosiaError(f"tensors: no layer {quoted(str(name))}; the program stores "
                               f"{', '.join(known)}")
        if name not in kept:
            raise CelosiaError(f"tensors: of a step {', '.join(kept)} are kept, and {quoted(name)} "
                               f"is not; leave it out, or compile the model without stream")
    return tuple(name for name in known if name in names)


def of_all_runs(progress: Progress | None, program: Program,
                tensors: Collection[str]) -> Progress | None:
    """Return what runs of all inputs to each of some tensors, and one to the end, call, for
    ``progress`` to see them as one."""
    runs, whole = 1 + len({*tensors} - {program.graph.output}), 0
    if progress is None or runs == 1:
        return progress

    def one(done: int, of: int) -> None:
        nonlocal whole
        if whole < runs:
            progress((whole * of + done) // runs, of)
            whole += done == of

    return one


def result_of(program: Program, simulation: SimResult, tensors: Collection[str]) -> RunResult:
    """Return what users get of a run on the machine, simulated or on a board.

    tensors : names of those that they asked for.
    """
    output = {program.graph.output: (simulation.output, simulation.exponent)}
    return from_parts(program, simulation.output, simulation.exponent, simulation.saturated,
                      simulation.cycles, {name: (simulation.tensors | output)[name]
                                          for name in tensors})


def from_parts(program: Program, mantissa: np.ndarray, exponent: np.ndarray,
               saturated: np.ndarray, cycles: np.ndarray | None, tensors: Stored) -> RunResult:
    """Return the result of output mantissas, int (N, C, H, W), and what came with them."""
    tensor = program.graph.tensors[program.graph.output]
    values = tensor.values(mantissa, exponent)
    mantissa = mantissa.reshape(values.shape).astype(np.int32)
    layers = np.array([layer.predicted_cycles for layer in program.layers])
    exact = cycles is not None and (cycles == layers.sum()).all()
    returned = program.returned(values)
    return RunResult(mantissa=mantissa, exponent=exponent.astype(np.int32), values=values,
                     answers={output.name: output.answer(returned) for output in program.outputs},
                     saturated=saturated, cycles=cycles,
                     layer_cycles=np.tile(layers, (len(mantissa), 1)) if exact else None,
                     tensors={name: _stored(program.graph, name, *stored)
                              for name, stored in tensors.items()})


def _stored(graph: QGraph, name: str, mantissa: np.ndarray, exponent: np.ndarray) -> StoredTensor:
    return StoredTensor(mantissa=mantissa.astype(np.int32), exponent=exponent.astype(np.int32),
                        values=graph.tensors[name].values(mantissa, exponent))
