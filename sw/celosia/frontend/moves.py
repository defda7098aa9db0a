"""Operators that compute nothing: the same elements elsewhere.

They are run on the numbers of elements, and so whatever a model makes of them, a channel shuffle or
a pixel shuffle out of views and permutations, is known as one move.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch.fx import Node as FxNode
from torch.fx import map_arg

from celosia.frontend import kernels, origin
from celosia.frontend.call import Call, Constant, Moved, Value, map_shape
from celosia.frontend.examples import RANKS
from celosia.graph import Move, Node, Reshape
from celosia.passes.views import PHASES

ELEMENTS = 1 << 24
"""Most elements of what is moved."""

_MOVES = frozenset({
    "cat", "chunk", "expand", "flip", "index", "index_select", "narrow", "permute", "repeat",
    "roll", "select", "slice", "split", "split_with_sizes", "stack", "t", "transpose", "unbind"})
_RESIZES = frozenset({"upsample_nearest2d", "_upsample_nearest_exact2d"})
_AS_WELL = frozenset({"view", "_unsafe_view", "squeeze", "unsqueeze", "clone", "alias", "detach",
                      "getitem"})
"""What moves nothing: moves where it has more axes than a tensor of the network, or another first
one, or reads moved tensors."""


def moves(node: FxNode, operands: Sequence[Value | Constant | Moved]) -> bool:
    """Whether a node moves elements of tensors that depend on the input, and does nothing else."""
    word = origin.operator(node)
    if word == "constant_pad_nd":
        return _moves_by_padding(node)
    if word in ("expand", "repeat", *_RESIZES) and isinstance(
            operands[0], Value) and spreads(operands[0].shape, _first_shape(node)):
        return False
    if word in _RESIZES:
        return _moves_by_resizing(node)
    return word in _MOVES or (word in _AS_WELL and (
        len(_first_shape(node)) > RANKS[-1] or _first_shape(node)[:1] != (1,)
        or any(isinstance(operand, Moved) for operand in operands)))


def _moves_by_padding(node: FxNode) -> bool:
    """Whether padding cuts something off, or gives zeros to channels."""
    amounts, value = node.args[1], node.args[2] if len(node.args) > 2 else 0
    rank = len(node.meta["val"].shape)
    assert isinstance(amounts, (list, tuple))
    return value == 0 and rank > 1 and len(amounts) <= 2 * (rank - 1) and (
        min(amounts) < 0 or any(amounts[2 * (rank - 2):]))


def _moves_by_resizing(node: FxNode) -> bool:
    before, after = (_first_shape(of)[2:] for of in (node.all_input_nodes[0], node))
    return repeats(before, after)


def spreads(before: tuple[int, ...], after: tuple[int, ...]) -> bool:
    """Whether one element of each channel becomes a map."""
    return len(before) == len(after) == 4 and before[:2] == after[:2] and (
        before[2:] == (1, 1) != after[2:])


def repeats(before: Sequence[int], after: Sequence[int]) -> bool:
    """Whether of a map of some size that is enlarged to another every element stands as often as
    every other, or one in so many is taken; and no oftener than a view tells."""
    return all(old % new == 0 or (new % old == 0 and new <= PHASES * old)
               for old, new in zip(before, after, strict=True))


def moved(node: FxNode, operands: Mapping[FxNode, Value | Constant | Moved], call: Call,
          remedy: str, size: Callable[[str], int]) -> Moved:
    """Return what a node makes, as elements of tensors that are not moved.

    size : of such a tensor, by its name.   CompileError where it takes no such operands.
    """
    names: list[str] = []
    for operand in operands.values():
        own = (operand.name,) if isinstance(operand, Value) else (
            operand.names if isinstance(operand, Moved) else ())
        names += [name for name in own if name not in names]
    starts = dict(zip(names, accumulate((size(name) for name in names), initial=0), strict=False))
    if sum(map(size, names)) > ELEMENTS or math.prod(_first_shape(node)) > ELEMENTS:
        raise call.refuse(f"it moves more than {ELEMENTS} elements", "use smaller maps")

    def numbered(of: FxNode) -> Any:
        operand = operands[of]
        if isinstance(operand, Constant):
            return operand.value
        if isinstance(operand, Moved):
            before = _numbers(operand.names, starts, size)
            return _each(operand.elements, lambda elements: before[elements.long()])
        first = starts[operand.name] + 1
        return torch.arange(first, first + math.prod(operand.shape), dtype=torch.float64).reshape(
            operand.shape)

    args, kwargs = map_arg((node.args, node.kwargs), numbered)
    if not kernels.runs(node.target, kwargs) or any(
            not isinstance(operands[of], Constant) for of in _others(node)):
        raise call.refuse("not supported by this machine", remedy)
    try:
        with torch.no_grad():
            elements = node.target(*args, **kwargs)
    except (RuntimeError, ValueError, TypeError, IndexError):
        raise call.refuse("its arguments do not fit its operands", "export the model again"
                          ) from None
    return Moved(tuple(names), elements, call, remedy)


def _first_shape(node: FxNode) -> tuple[int, ...]:
    value = node.meta.get("val")
    first = value[0] if isinstance(value, (tuple, list)) and value else value
    return tuple(getattr(first, "shape", ()))


def _others(node: FxNode) -> list[FxNode]:
    """Return the operands that say how elements are moved."""
    found: list[FxNode] = []
    map_arg((node.args[1:], node.kwargs), found.append)
    return found


def joined_constants(node: FxNode, operands: Mapping[FxNode, Value | Constant | Moved]
                     ) -> list[FxNode]:
    """Return what is constant, and not 0, of the tensors whose elements a node moves: it has no
    numbers of elements."""
    read: list[FxNode] = []
    map_arg(node.args[:1], read.append)
    return [of for of in dict.fromkeys(read) if isinstance(own := operands[of], Constant)
            and bool((own.value != 0).any())]


def _numbers(names: Sequence[str], starts: Mapping[str, int],
             size: Callable[[str], int]) -> torch.Tensor:
    """Return the new number of each element of some tensors, which are counted together; 0 stays.
    """
    own = [torch.arange(starts[name] + 1, starts[name] + 1 + size(name), dtype=torch.float64)
           for name in names]
    return torch.cat([torch.zeros(1, dtype=torch.float64), *own])


def _each(elements: Any, function: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    if isinstance(elements, (tuple, list)):
        return type(elements)(map(function, elements))
    return function(elements)


def node_of(found: Moved, name: str, source: tuple[int, int, int]) -> Node | None:
    """Return the node of what was moved; None where it is the one tensor whose elements it has.

    source : the first of those tensors' shape.
    """
    index = found.elements.long().numpy() - 1
    shape = map_shape(index.shape)
    index = np.ascontiguousarray(index.reshape(shape))
    if len(found.names) == 1 and index.size == math.prod(source) and bool(
            (index.ravel() == np.arange(index.size)).all()):
        return None if shape == source else Reshape(name=name, input=found.names[0], shape=shape)
    return Move(name=name, inputs=found.names, index=index, operator=found.call.operator,
                remedy=found.remedy)
