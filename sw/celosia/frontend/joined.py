"""Several tensors that a network returns, joined into the one that the array makes."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from celosia.frontend.call import Value
from celosia.frontend.ends import End
from celosia.graph import Move, Node, Reshape, Shape
from celosia_spec.errors import CompileError
from celosia_spec.outputs import Output

_TOLD = 5
MOST_FLATTENED = 4096
"""Most numbers of maps of several sizes: the layer that joins them has as many rows."""


@dataclass(frozen=True, eq=False)
class Whole:
    """value : all that the network returns.   node : that joins it; None where one tensor has it.
    """

    value: Value
    node: Move | None


def joined(ends: Sequence[End], found: Sequence[Value], nodes: Sequence[Node],
           shapes: Mapping[str, Shape], name: str) -> tuple[Whole, tuple[Output, ...]]:
    """Return a tensor of the values that are found of a network's ends, each of them once, and
    which parts of it are returned.

    They lie along the channels where all are maps of one size, or vectors; else each is flattened.

    nodes, shapes : so far.   name : of that tensor.
    CompileError where maps of several sizes have more than `MOST_FLATTENED` numbers.
    """
    before = {node.name: node.input for node in nodes if isinstance(node, Reshape)}
    first: dict[str, int] = {}
    size = 0
    outputs = []
    for end, value in zip(ends, found, strict=True):
        source = value.name
        while source in before:         # the host gives a part its shape
            source = before[source]
        if source not in first:
            first[source], size = size, size + math.prod(value.shape)
        outputs.append(Output(name=end.name, first=first[source], shape=value.shape[1:],
                              host=end.tail.layers))
    if len(first) == 1:
        return Whole(found[0], None), tuple(outputs)
    sizes = {shapes[source][1:] for source in first}
    if len(sizes) > 1 and size > MOST_FLATTENED:
        largest = max(outputs, key=lambda output: math.prod(output.shape))
        more = f" and {len(ends) - _TOLD} more" if len(ends) > _TOLD else ""
        raise CompileError(
            largest.name, "output", f"maps of several sizes are joined number by number, up to "
            f"{MOST_FLATTENED:,}, and {', '.join(end.name for end in ends[:_TOLD])}{more} have "
            f"{size:,}",
            "return maps of one size (pool or enlarge some), or each from a network of its own")
    height, width = sizes.pop() if len(sizes) == 1 else (1, 1)
    index = np.arange(size).reshape(-1, height, width)
    vector = (height, width) == (1, 1)
    shape = (1, size) if vector else (1, *index.shape)
    move = Move(name=name, inputs=tuple(first), index=index, operator="output",
                remedy="return maps of one size, or vectors")
    return Whole(Value(name, shape), move), tuple(outputs)
