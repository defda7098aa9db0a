"""Functions that the program has in pieces, and that are known whole."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch.fx import Node as FxNode
from torch.fx import map_arg

from celosia.frontend.kernels import obstacle
from celosia.frontend.origin import operator
from celosia.frontend.quantised import passes
from celosia.pieces import fit
from celosia_spec.errors import said

_CURVES = frozenset({
    "abs", "atan", "celu", "cos", "elu", "erf", "exp", "expm1", "gelu", "hardswish", "log", "log1p",
    "log_sigmoid", "mish", "pow", "reciprocal", "rsqrt", "sigmoid", "silu", "sin", "softplus",
    "sqrt", "square", "tanh", "where"})
"""Functions of one number that the machine has no word for."""

_PARTS = frozenset({"cos", "exp", "expm1", "log", "pow", "reciprocal", "rsqrt", "sin", "sqrt",
                    "square"})
"""Those of them that are not finite everywhere, or not straight far from 0: only what is made of
them can be."""

_PAIRS = frozenset({"mul", "div", "maximum", "minimum"})
"""The same of two tensors, where both are computed from one."""

_SUMS = frozenset({"add", "sub"})
"""Likewise, where a step of such a function is among them."""

_LINES = frozenset({
    "_to_copy", "clamp", "clamp_max", "clamp_min", "eq", "ge", "gt", "hardsigmoid", "hardtanh",
    "le", "leaky_relu", "lt", "ne", "neg", "relu", "rsub", "sign"})
"""What may be a step of such a function, but not its last."""

_EVERY = _CURVES | _PAIRS | _SUMS | _LINES

MOST_STEPS = 64
"""Of a function: each that is looked at may be tried as its first."""


@dataclass(frozen=True)
class Prelu:
    """``where(x > 0, x, slope * x)``.   x, slope : nodes.   steps : those in between."""

    x: FxNode
    slope: FxNode
    steps: tuple[FxNode, FxNode]


@dataclass(frozen=True)
class Function:
    """A function of each element of a tensor.

    x : the tensor's node.   steps : what computes it from that, in order, the result's node last.
    scalars : single numbers that the steps take, beside others.
    """

    x: FxNode
    steps: tuple[FxNode, ...]
    scalars: Mapping[FxNode, torch.Tensor]

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return the function of float64 values; ValueError where a step of it is not run."""
        known = {**self.scalars, self.x: torch.from_numpy(x)}
        for step in self.steps:
            if passes(step):        # what rounds on the way is no part of a function
                known[step] = known[step.all_input_nodes[0]]
                continue
            assert isinstance(step.target, torch._ops.OpOverload)
            args, kwargs = map_arg((step.args, step.kwargs), known.__getitem__)
            if (reason := obstacle(step.target, args, kwargs)) is not None:
                raise ValueError(reason)
            try:
                known[step] = step.target(*args, **kwargs)
            except (RuntimeError, TypeError) as error:   # of truth values, mostly
                raise ValueError(said(error)) from None
        result: np.ndarray = known[self.steps[-1]].to(torch.float64).numpy()
        return result


def prelu(node: FxNode) -> Prelu | None:
    """Return the PReLU that a node is the last piece of, or None."""
    if operator(node) != "where" or len(node.args) != 3:
        return None
    positive, x, other = node.args
    if not all(isinstance(part, FxNode) for part in (positive, x, other)):
        return None
    assert isinstance(positive, FxNode) and isinstance(x, FxNode) and isinstance(other, FxNode)
    if (operator(positive), positive.args) != ("gt", (x, 0)) or operator(other) != "mul":
        return None
    factors = [factor for factor in other.args if factor is not x]
    if len(factors) != 1 or not isinstance(factors[0], FxNode):
        return None
    return Prelu(x, factors[0], (positive, other))


class Patterns:
    """The patterns of one program.

    nodes : all of it, in order.   constants : those that depend on no input.
    scalars : values of parameters that are a single number, float64 ().
    """

    def __init__(self, nodes: Iterable[FxNode], constants: Collection[FxNode],
                 scalars: Mapping[FxNode, torch.Tensor]) -> None:
        self._order = {node: at for at, node in enumerate(nodes)}
        self._constants, self._scalars = constants, scalars
        self._functions: dict[FxNode, Function | None] = {}

    def read(self, node: FxNode) -> Iterable[FxNode]:
        """Return the nodes that a node reads, as a whole function where it is the last piece of
        one."""
        if (found := prelu(node)) is not None:
            return found.x, found.slope
        whole = self.function(node)
        return node.all_input_nodes if whole is None else (whole.x,)

    def function(self, node: FxNode) -> Function | None:
        """Return the function of one tensor's elements that a node is the last step of, where the
        machine has no word for that step; else None.

        It goes back to the nearest tensor that all its steps are computed from, on through steps
        that the machine has no words for either, and on where these, or the next ones, are no
        function in pieces by themselves.
        """
        if node not in self._functions:
            self._functions[node] = self._function(node)
        return self._functions[node]

    def _function(self, node: FxNode) -> Function | None:
        alone = _is_step(node, _CURVES) and prelu(node) is None
        pair = _is_step(node, _PAIRS | _SUMS) and len(self._taken({node})) > 1
        if node in self._constants or not (alone or pair or self._divides(node)):
            return None
        steps, found = {node}, list[Function]()
        while True:
            taken = self._taken(steps)
            last = max(taken, key=self._order.__getitem__)
            if len(taken) == 1:
                found.append(Function(last, tuple(sorted(steps, key=self._order.__getitem__)),
                                      self._scalars))
            onward = len(taken) > 1 or _is_step(last, _CURVES) or self._is_part(last)
            if not self._is_any(last) or len(steps) == MOST_STEPS or not (
                    onward or not _stands(found[-1])):
                break
            steps.add(last)
        best = found[-1] if len(found) == 1 else next(
            filter(_stands, reversed(found)), found[-1] if found else None)
        if best is None or not _bends(best) or (
                self._is_product(node) and not _stands(best)):
            return None
        return best

    def _is_any(self, node: FxNode) -> bool:
        """Whether a step may be one of a function's, not its last."""
        return node not in self._constants and (_is_step(node, _EVERY) or passes(node))

    def _divides(self, node: FxNode) -> bool:
        """Whether a number is divided by a tensor."""
        return _is_step(node, frozenset({"div"})) and node.args[0] in self._scalars

    def _is_product(self, node: FxNode) -> bool:
        """Whether a step multiplies two tensors, or a tensor by itself."""
        if not _is_step(node, frozenset({"pow"})):
            return _is_step(node, frozenset({"mul", "square"}))
        exponent = node.args[1]
        if isinstance(exponent, FxNode):
            exponent = self._scalars.get(exponent)
        return bool(exponent == 2)

    def _is_part(self, node: FxNode) -> bool:
        """Whether a step is computed from one that is no function by itself, or from products."""
        steps: set[FxNode] = set()
        taken = {node}
        while True:
            last = max(taken, key=self._order.__getitem__)
            if not self._is_any(last) or len(steps) == MOST_STEPS:
                return False
            steps.add(last)
            taken = self._taken(steps)
            if _is_step(last, _PARTS) or self._divides(last) or (
                    _is_step(last, _PAIRS) and (
                        len(self._taken({last})) > 1 or last.args[0] is last.args[1])):
                return True

    def _taken(self, steps: Collection[FxNode]) -> set[FxNode]:
        """Return the tensors that some steps take from others."""
        return {n for step in steps for n in step.all_input_nodes[:1 if passes(step) else None]
                if n not in steps and n not in self._scalars}


def _stands(function: Function) -> bool:
    """Whether a function has pieces."""
    try:
        fit(function)
    except ValueError:
        return False
    return True


def _bends(function: Function) -> bool:
    """Whether a function is more than sums of what the machine has words for."""
    return not all(_is_step(step, _SUMS | _LINES) or passes(step) for step in function.steps)


def _is_step(node: FxNode, names: frozenset[str]) -> bool:
    return (isinstance(node.target, torch._ops.OpOverload) and node.target.namespace == "aten"
            and operator(node) in names)
