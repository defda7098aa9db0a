"""The end of an exported program that the host computes, split off before the rest is walked."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch.fx import Node as FxNode

from celosia.frontend import origin, quantised
from celosia_spec.errors import CompileError
from celosia_spec.host_layers import ALONG, HostLayer

_OPERATORS = {"_softmax": "softmax", "_safe_softmax": "softmax", "_log_softmax": "log_softmax",
              "sigmoid": "sigmoid", "log_sigmoid": "log_sigmoid", "hardsigmoid": "hardsigmoid",
              "tanh": "tanh", "argmax": "argmax"}
_RESHAPES = frozenset({"view", "_unsafe_view", "squeeze", "unsqueeze"})
_SAME = frozenset({"clone", "alias", "detach", "quantize_per_tensor", "dequantize_per_tensor"})
_CAST, _WIDE = "_to_copy", ("torch.float32", "torch.float64")


@dataclass(frozen=True, eq=False)
class Tail:
    """output : the node whose result the array computes.   layers : what the host makes of it."""

    output: FxNode
    layers: tuple[HostLayer, ...]


def split(output: FxNode) -> Tail:
    """Split off what the host computes at a program's end.

    output : the node whose result the network returns.

    Of the layers there the host gets those from the first that only it has (softmax, sigmoid,
    arg-max, a shape without the batch axis); what lies before, and all in the middle, is the
    array's or refused. CompileError for a softmax or arg-max over the batch.
    """
    chain: list[FxNode] = []
    node = output
    while (before := _operand(node)) is not None:
        chain.insert(0, node)
        node = before
    while chain and (_word(chain[0]) in _SAME or _is_flat(chain[0])):
        node = chain.pop(0)
    if not any(_needs_host(step) for step in chain):
        return Tail(output, ())
    return Tail(node, tuple(_layers(node, chain)))


def _layers(node: FxNode, chain: list[FxNode]) -> Iterator[HostLayer]:
    """Yield the layers of a chain of nodes that reads ``node``, shapes without the batch axis."""
    batched = _dims(node)[:1] == (1,)
    for step in chain:
        before, after = _dims(node), _dims(step)
        own = "argmax" if _word(step) == "getitem" else _word(step)
        word = _OPERATORS.get(own, "reshape")
        node = step
        if _word(step) in _SAME | {_CAST}:
            continue
        name, axis = origin.layer(step, own.strip("_")), None
        if word in ALONG:
            axis = _axis(step)
            if axis is not None:
                axis = axis % len(before) - batched if before else -1
            if axis is not None and axis < 0:
                over = "axis 0, the batch, and so mixes the inputs" if before else "a single number"
                raise CompileError(name, word, f"it works over {over}",
                                   "use dim=1, on outputs (1, F) or (1, C, H, W)",
                                   origin.source(step))
        if word == "reshape":
            batched = after[:1] == (1,)
        elif word == "argmax" and axis is None:
            batched = batched and bool(after)
        yield HostLayer(name=name, operator=word, axis=axis, shape=after[batched:])


def _operand(node: FxNode) -> FxNode | None:
    """Return the tensor that a node computes its result from, if the host could do that too."""
    if quantised.passes(node):
        return node.all_input_nodes[0]
    if node.op != "call_function" or len(node.all_input_nodes) != 1:
        return None
    word, before = _word(node), node.all_input_nodes[0]
    if word == "getitem":       # the indices of torch.max(x, dim) are its arg-max
        arg_max = _word(before) == "max" and len(before.args) > 1 and node.args[1] == 1
        return before.all_input_nodes[0] if arg_max else None
    if word == _CAST:
        return before if str(node.kwargs.get("dtype")) in _WIDE else None
    return before if word in _OPERATORS.keys() | _RESHAPES | _SAME else None


def _needs_host(node: FxNode) -> bool:
    """Whether the array does not have what a node of the end computes."""
    return _word(node) not in _SAME | {_CAST} and not _is_flat(node)


def _is_flat(node: FxNode) -> bool:
    """Whether a node gives a tensor another shape that still has its batch axis."""
    return _word(node) in _RESHAPES and _dims(node)[:1] == (1,)


def _axis(node: FxNode) -> int | None:
    """Return the axis of a softmax, an argmax, or of the max that a node takes the indices of."""
    if _word(node) == "getitem":
        node = node.all_input_nodes[0]
    axis = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
    return axis if isinstance(axis, int) else None


def _word(node: FxNode) -> str:
    return origin.operator(node)


def _dims(node: FxNode) -> tuple[int, ...]:
    return tuple(size if isinstance(size, int) else 0 for size in node.meta["val"].shape)
