"""What users know of a compiled program."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from celosia_spec.errors import CelosiaError
from celosia_spec.host_layers import HostLayer, Scoring, compute, host_remark
from celosia_spec.isa.array import Array
from celosia_spec.network_inputs import Input
from celosia_spec.outputs import Output, outputs_of
from celosia_spec.preprocessing import Preprocessing
from celosia_spec.qgraph import QGraph, low_sums, static_exponent
from celosia_spec.steps import Steps, View


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One node's share of the work. Cycles are predicted and exact.

    rows, columns      : of the weight matrix.   positions : output positions, before pooling.
    weights, nonzeros  : all weights of the layer, and those that are stored.
    dense_macs, macs   : multiply-accumulates of the dense layer, and useful ones (weight not zero).
    predicted_cycles   : from the layer's first cycle to the next layer's.
    bound_cycles       : max(macs / lanes, weights that are stored / most that an entry holds),
                         rounded up.
    groups             : row groups the array is split into.
    weight_words       : weight words of its batches, padding included.   padding : padding words.
    raised_rows        : (row, bits) of the rows whose weights were made coarser by so much, so that
                         their bias fits (numerics, section 5).
    weight_bytes       : its entries of the stream, bytes: weights, heads, commands.
    lane_cycles        : where lanes x predicted_cycles went: useful, idle, and what else cycles
                         were spent on (`celosia_sim.clock.machine_clock.SPENT`). Sums to lanes *
                         predicted_cycles.
    """

    name: str
    kind: str
    rows: int
    columns: int
    positions: int
    weights: int
    nonzeros: int
    dense_macs: int
    macs: int
    predicted_cycles: int
    bound_cycles: int
    groups: int
    weight_words: int
    padding: int
    weight_bytes: int
    lane_cycles: dict[str, int]
    raised_rows: tuple[tuple[int, int], ...]


class MemoryUse(NamedTuple):
    """What a program needs of a memory, the highest address used plus one, and what there is."""

    name: str
    used: int
    available: int


@dataclass(frozen=True, eq=False, kw_only=True)
class Compiled(ABC):
    """What users know of a program.

    target      : name of the target it was compiled for.   array : the array's parameters.
    exponents   : "dynamic" or "static".
    graph       : the quantised graph (for the golden model); of a program in steps, of one step.
    layers      : one entry a layer, as the machine runs them.
    host        : what the host computes from the array's output; mostly nothing.
    returns     : the parts of what it then has that the network returns; empty where it returns one
                  tensor, which is all of it.
    takes       : the tensors that the network takes, joined into the array's input; empty where it
                  takes one, which is all of it.
    preprocessing : how pixels become inputs and what outputs are called, or None.
    """

    target: str
    array: Array
    exponents: str
    graph: QGraph
    layers: tuple[Layer, ...]
    host: tuple[HostLayer, ...] = ()
    returns: tuple[Output, ...] = ()
    takes: tuple[Input, ...] = ()
    preprocessing: Preprocessing | None = None

    @property
    def predicted_cycles(self) -> int:
        """Cycles of one inference, from the edge that accepts start to the one that raises done."""
        return sum(layer.predicted_cycles for layer in self.layers)

    @property
    def steps(self) -> Steps | None:
        """Of a program that takes a step of time at a run: what a step is; else None."""
        return None

    @property
    @abstractmethod
    def memory_use(self) -> tuple[MemoryUse, ...]:
        """How full every memory is that a program fills."""

    @property
    @abstractmethod
    def fullest(self) -> str:
        """Which memory is fullest, in words."""

    @property
    def fits(self) -> bool:
        """Whether every memory holds what the program needs of it."""
        return all(use.used <= use.available for use in self.memory_use)

    @property
    def lanes(self) -> int:
        return self.array.lanes_all

    @property
    def accumulator_bits(self) -> int:
        return self.graph.acc_bits

    @property
    def remarks(self) -> tuple[str, ...]:
        """What was done with the model and its example, what narrow accumulators cost, or why they
        are wide, and what the host computes; mostly none."""
        return self.graph.remarks + ((host_remark(self.host_layers),) if self.host_layers else ())

    @property
    def host_layers(self) -> tuple[HostLayer, ...]:
        """All that the host computes."""
        return (*self.host, *(layer for output in self.returns for layer in output.host))

    @property
    def low_sums(self) -> set[str]:
        """Names of the layers that sum up the low parts of a wide input."""
        return low_sums(self.graph if self.steps is None else self.steps.window)

    @property
    def inputs(self) -> tuple[Input, ...]:
        """The tensors that the network takes, in their order."""
        tensor = self.graph.tensors[self.graph.input]
        return self.takes or (Input(name=tensor.name, shape=tensor.user_shape),)

    @property
    def outputs(self) -> tuple[Output, ...]:
        """The tensors that the network returns, in their order."""
        shape = self.graph.tensors[self.graph.output].user_shape
        return outputs_of(self.returns, self.host, shape)

    def output(self, name: str | None = None) -> Output:
        """Return the output of a name; None is the only one. CelosiaError where there is none, or
        several."""
        names = {output.name: output for output in self.outputs}
        if name is None and len(names) == 1:
            return self.outputs[0]
        if name not in names:
            said = "say which is meant, with --of NAME" if name is None else (
                f"none of them is {name[:40]!r}")
            raise CelosiaError(f"the network returns {', '.join(names)}; {said}")
        return names[name]

    def returned(self, values: np.ndarray) -> np.ndarray:
        """Return what `outputs` are parts of: values, float64 (N, ...), of the array's output, or
        what the host makes of all of them."""
        return compute(self.host, values) if self.returns else values

    @property
    def scoring(self) -> Scoring:
        """How the network's only answer tells classes apart."""
        return self.output().scoring

    @property
    def tensors(self) -> list[dict[str, object]]:
        """Name, shape, smallest exponent and static exponent of every stored tensor."""
        tensors = self.graph.tensors
        return [{"name": t.name, "shape": t.user_shape, "exponent_min": t.exponent.least,
                 "exponent": static_exponent(tensors, t.name)} for t in tensors.values()
                if not isinstance(t, View)]
