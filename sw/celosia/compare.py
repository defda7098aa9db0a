"""A program beside its dense baseline, beside the bound, and beside a board, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from celosia.bands.schedule import stream_schedule
from celosia.densify import densify
from celosia.program import Program, check_program
from celosia_spec.errors import CelosiaError, refusals
from celosia_spec.isa.array import MAIN_WORDS_MAX
from celosia_spec.program import Layer

if TYPE_CHECKING:
    from celosia.board import Board
    from celosia.results import Stages


@dataclass(frozen=True, kw_only=True)
class LayerComparison:
    """Cycles of one layer on the same lanes.

    density       : stored weights / all weights.
    cycles_sparse : of the program; predicted, which is exact.
    cycles_dense  : of the same layer with its zeros kept.
    cycles_bound  : max(useful multiply-accumulates / lanes, weight words / port words).
    utilisation   : useful multiply-accumulates / (lanes * cycles_sparse).
    """

    name: str
    density: float
    cycles_sparse: int
    cycles_dense: int
    cycles_bound: int
    utilisation: float


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All layers, and the same figures of the whole network."""

    layers: tuple[LayerComparison, ...]
    total: LayerComparison


def compare(program: Program) -> Comparison:
    """Compile the program's graph with its zeros kept for the same lanes, and set it beside.

    The dense weights may not fit main memory; the baseline gets a deeper one.
    """
    check_program(program)
    dense = _dense(program)
    lanes = program.array.lanes_all
    layers = tuple(
        LayerComparison(name=sparse.name, density=sparse.nonzeros / sparse.weights,
                        cycles_sparse=sparse.predicted_cycles, cycles_dense=full.predicted_cycles,
                        cycles_bound=sparse.bound_cycles,
                        utilisation=sparse.macs / (lanes * sparse.predicted_cycles))
        for sparse, full in zip(program.layers, dense, strict=True))
    return Comparison(layers=layers, total=LayerComparison(
        name="total",
        density=sum(layer.nonzeros for layer in program.layers)
        / sum(layer.weights for layer in program.layers),
        cycles_sparse=program.predicted_cycles,
        cycles_dense=sum(layer.predicted_cycles for layer in dense),
        cycles_bound=sum(layer.bound_cycles for layer in program.layers),
        utilisation=sum(layer.macs for layer in program.layers)
        / (lanes * program.predicted_cycles)))


def _dense(program: Program) -> tuple[Layer, ...]:
    """Return the layers of the dense baseline, on an array with room for it."""
    graph = densify(program.graph)
    steps = None if program.steps is None else replace(program.steps, graph=graph)
    return stream_schedule(graph, replace(program.array, main_words=MAIN_WORDS_MAX), steps).layers


@dataclass(frozen=True, kw_only=True)
class LayerCount:
    """Cycles of one layer, or of all.

    predicted : by the compiler.   simulated : of the gateware's Verilog.   counted : by the board.
    """

    name: str
    predicted: int
    simulated: int
    counted: int

    @property
    def agrees(self) -> bool:
        """Whether all three are equal."""
        return self.predicted == self.simulated == self.counted


def count(program: Program, board: Board, stages: Stages | None = None) -> list[LayerCount]:
    """Count every layer's cycles on a board that the program is loaded on; the last is the total.

    A board counts whole runs: from the start to the end of one layer, and of the next. A run that
    ends at a layer takes some cycles to end; those that it takes in the simulation are left out.
    """
    check_program(program)
    if program.steps is not None:
        raise CelosiaError("the program takes steps of time, and its layers are not counted one by "
                           "one; run it on the board: the cycles of each step are compared")
    passed, ends = simulated_layers(program, stages)
    counted = board.count_to_each_end()
    layers = [LayerCount(name=layer.name, predicted=layer.predicted_cycles, simulated=int(own),
                         counted=int(own + more))
              for layer, own, more in zip(program.layers, passed, _steps(counted - ends),
                                          strict=True)]
    return [*layers, LayerCount(name="total", predicted=program.predicted_cycles,
                                simulated=int(ends[-1]), counted=int(counted[-1]))]


def simulated_layers(program: Program,
                     stages: Stages | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return, int64 (layers,) each, the cycles of every layer as the Verilog takes them, and those
    from the start to its end where nothing follows it.

    The machine does not tell at which layer it is, but runs to a layer's end are predicted, too: a
    layer takes what is predicted of it, and as many cycles more as the run to its end takes more,
    beside the run to the end of the layer before.
    """
    from celosia.bands.session import count_to_each_end as count_stream
    from celosia.bands.session import ends as predicted_ends
    from celosia.bands.simulate import simulated
    from celosia_boards.cache import unseen

    stages = stages or unseen
    with refusals():
        ends = count_stream(program.program, simulated(program.program, stages=stages))
    stages("counting what runs to each layer take", 0, 0)
    predicted = np.array([layer.predicted_cycles for layer in program.layers])
    passed = predicted + _steps(ends - predicted_ends(program.program))
    return passed, ends


def _steps(ends: np.ndarray) -> np.ndarray:
    return np.diff(ends, prepend=0)
