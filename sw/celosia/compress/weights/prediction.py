"""Predicted cycles of a network on a target, and what a weight contributes to them.

The prediction is the compiler's own and exact: the network is imported, quantised and scheduled as
`celosia.compile` does it. The arithmetic behind the price of a weight, layer by layer:

A layer's rows (output channels) run in batches of G, one row for each of the array's row groups,
in lockstep: in step k every group multiplies the k-th non-zero of its row. A batch of rows with at
most n non-zeros takes max(n, p) cycles a pass and T passes: output tiles times positions of the
pooling window; p is the time that the sums of the pass before need to drain. So

    cycles = fixed + sum over layers of T * sum over batches of max(n, p).

A step beyond the p-th costs T cycles and holds a weight of each of the G rows; those up to the
p-th are free.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import nn

from celosia.bands.schedule import StreamSchedule
from celosia.calibration import calibration_array
from celosia.compiler import Compiler, Prepared, as_if_calibrated
from celosia.compress.entry import entry
from celosia.compress.layers import names_of, prunable_layers
from celosia.graph import Conv, Graph
from celosia_spec.epilogue import DYNAMIC, STATIC, check_exponents
from celosia_spec.errors import ArgumentError

__all__ = ["LayerPlan", "Prediction", "Predictor", "cycle_costs"]


@dataclass(frozen=True, eq=False, kw_only=True)
class LayerPlan:
    """How one layer runs.

    batches : int64 (batches, G), numbers of the rows of each batch; -1 for none.
    lengths : int64 (batches,), steps of a batch, its longest row's words.
    passes  : times that each batch runs, T.
    least   : cycles of the shortest pass, p.
    """

    batches: np.ndarray
    lengths: np.ndarray
    passes: int
    least: int

    @property
    def cycles(self) -> int:
        """Cycles in which the layer's weights are multiplied or a pass waits."""
        return self.passes * int(np.maximum(self.lengths, self.least).sum())

    def of_rows(self, name: str, rows: int) -> LayerPlan:
        """Return the plan; ArgumentError unless it is of so many rows, as the layer has.

        One that works on an enlarged map runs with more: its phases have rows of their own.
        """
        if np.count_nonzero(self.batches >= 0) != rows:
            raise ArgumentError(f"layer {name!r} works on an enlarged map, where each of its "
                                f"weights stands several times, and none has a cost of its own; "
                                f"prune by another method")
        return self


@dataclass(frozen=True, eq=False, kw_only=True)
class Prediction:
    """Cycles of one inference, the plan of each prunable layer, and the cycles beside them.

    macs    : products of one inference with a weight that is not 0.
    problem : what does not fit the target's memories, or None.
    """

    cycles: int
    macs: int
    layers: Mapping[str, LayerPlan]
    problem: str | None

    @property
    def fixed(self) -> int:
        """Cycles that do not depend on the weights."""
        return self.cycles - sum(plan.cycles for plan in self.layers.values())


class Predictor:
    """Predicts a model's cycles: ``Predictor(x, target=..., exponents=...)(model)``.

    Parameters
    ----------
    example_input
        float32 (1, C, H, W) or (1, F).
    target
        A board or a device (`celosia targets`).
    exponents
        "dynamic" or "static". Static ones need no calibration here: cycles do not depend on their
        values.
    calibration
        Inputs as `celosia.compile` takes them, or None: how a network's products and its outputs
        of unlike sizes run depends on them. Cycles are those with ``accuracy="none"``.
    signs
        Of each kind of inputs that counts, whether they may be below 0. `celosia.compile` learns
        it of its preprocessing or its calibration inputs; cycles differ by a few in a thousand. Of
        several kinds, the one that takes most is predicted. None is what ``calibration`` says,
        and without it that they may.

    A call takes any model, leaves it as it is and returns a `Prediction`. It raises ArgumentError
    for a layer that does not become a layer of the program, and CompileError where the compiler
    refuses the network. Weights and tables that need more memory than the target has are no error
    but ``problem``: the network may yet be pruned.
    """

    def __init__(self, example_input: Any, *, target: str = Compiler.target,
                 exponents: str = Compiler.exponents, calibration: Any = None,
                 signs: Sequence[bool] | None = None) -> None:
        check_exponents(exponents)
        self._compiler = Compiler(target=target, exponents=(
            DYNAMIC if calibration is None else exponents))
        self._calibration, self._signs = calibration, signs
        self._compiler.array()
        self.example_input, self.exponents = example_input, exponents

    def __call__(self, model: nn.Module) -> Prediction:
        return self.imported(model)({})

    def imported(self, model: nn.Module) -> Callable[[Mapping[str, np.ndarray]], Prediction]:
        """Return a function of masks, {layer name: bool of the weight's shape}: the prediction of
        the model as it is now with these masks put on besides. Layers not named stay as they are.
        """
        layers = prunable_layers(model)
        graph = self._compiler.imported(model, self.example_input)
        samples = calibration_array(self._calibration, graph.takes, graph.input_shape)
        called = {node.name for node in graph.nodes}
        # The program has a layer under the name that forward calls it by.
        names = {name: next((other for other in names_of(model, layer) if other in called), name)
                 for name, layer in layers.items()}
        return lambda masks: self._predict(self._compiler.prepared(
            _masked(graph, {names[name]: mask for name, mask in masks.items()}), samples), names)

    def _predict(self, prepared: Prepared, names: Mapping[str, str]) -> Prediction:
        """names : {layer: its name in the graph}."""
        signs = self._signs or (not prepared.compiler.unsigned_input,)
        return max((self._of_sign(prepared, names, signed) for signed in signs),
                   key=lambda found: (found.problem is not None, found.cycles))

    def _of_sign(self, prepared: Prepared, names: Mapping[str, str], signed: bool) -> Prediction:
        graph, samples = prepared.graph, prepared.samples
        compiler = replace(prepared.compiler, unsigned_input=not signed)
        quantised = compiler.quantised(graph, samples)
        if self.exponents == STATIC and samples is None:
            quantised = as_if_calibrated(quantised)
        found = compiler.schedule(quantised)
        problem = next(map(str, compiler.refusals(found)), None)
        plans = _plans(found)
        return Prediction(cycles=found.predicted_cycles, problem=problem, macs=found.macs,
                          layers={name: _known(plans, called, joined=bool(graph.returns))
                                  for name, called in names.items()})


@entry
def cycle_costs(model: nn.Module, example_input: Any, *, target: str = Compiler.target,
                exponents: str = Compiler.exponents,
                calibration: Any = None) -> dict[str, np.ndarray]:
    """Return what a weight costs: predicted cycles that one weight less in its row saves.

    The rows of a batch run in lockstep, so the saving comes when each of them has a weight less;
    it is shared among them. A row of a batch that is no longer than the shortest pass costs 0.

    Parameters
    ----------
    model
        The network as it is, masks included. It is not changed.
    example_input, target, exponents, calibration
        As `Predictor` has them.

    Returns
    -------
    {layer name: float64 array (rows, 1, ...)}, which broadcasts to the weight's shape: cycles of
    one inference for each weight of a row.

    Raises
    ------
    ArgumentError, CompileError
        As `Predictor` does.
    """
    plans = Predictor(example_input, target=target, exponents=exponents,
                      calibration=calibration)(model).layers
    return {
        name: row_costs(plans[name].of_rows(name, len(layer.weight))).reshape(
            -1, *[1] * (layer.weight.dim() - 1))
        for name, layer in prunable_layers(model).items()
    }


def row_costs(plan: LayerPlan) -> np.ndarray:
    """Return cycles for each weight of a row, float64 (rows,); see `cycle_costs`."""
    real = plan.batches >= 0
    cost = np.where(plan.lengths > plan.least, plan.passes / real.sum(axis=1), 0.0)
    costs = np.empty(int(real.sum()))
    costs[plan.batches[real]] = np.broadcast_to(cost[:, None], real.shape)[real]
    return costs


def _masked(graph: Graph, masks: Mapping[str, np.ndarray]) -> Graph:
    """Return an imported graph with zeros where masks are False; passes keep zeros."""
    nodes = [
        replace(node, weight=np.where(masks[node.name].reshape(node.weight.shape), node.weight, 0))
        if isinstance(node, Conv) and node.name in masks else node
        for node in graph.nodes
    ]
    return replace(graph, nodes=tuple(nodes))


def _plans(found: StreamSchedule) -> dict[str, LayerPlan]:
    """Return the plan of each of a schedule's layers, by its name."""
    return {layer.node.name: LayerPlan(
        batches=np.concatenate([part.rows.reshape(-1, layer.groups) for part in layer.parts]),
        lengths=np.concatenate([part.steps for part in layer.parts]),
        passes=layer.phases * max(part.tiles for part in layer.parts), least=layer.least)
        for layer in found.stream.layers}


def _known(plans: Mapping[str, LayerPlan], name: str, *, joined: bool) -> LayerPlan:
    """joined : the network returns several tensors, which layers may make together."""
    if name not in plans and joined:
        raise ArgumentError(f"layer {name!r} makes an output together with others, and its weights "
                            f"have no cost of their own; prune by another method")
    if name not in plans:
        raise ArgumentError(
            f"layer {name!r} is not one of the program's ({', '.join(map(repr, plans))}); "
            "its cycles are not known, so remove it from the model or call it in the forward pass"
        )
    return plans[name]
