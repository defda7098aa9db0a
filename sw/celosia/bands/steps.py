"""From a network over a window of time to what one step of it makes, keeps and reads.

Time runs along the lines of the input; where all maps have one line, along their columns, which
then are taken as lines.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from celosia_spec.errors import ArgumentError, CompileError
from celosia_spec.isa.array import ENTRY_WORDS
from celosia_spec.qgraph import QGraph, QNode, QTensor, as_made, static_exponent
from celosia_spec.steps import Ring, Steps, View

_PHASE = 10
"""Words of main memory that a node which reads a ring has for each step of a period, about."""


def steps(window: QGraph, hop: int | None = None) -> Steps:
    """Return a network in steps of ``hop`` new lines of its input; None takes the fewest.

    CompileError names what cannot be done step by step, ArgumentError a hop that cannot be.
    """
    window = _upright(window)
    _check(window)
    least = _least_hop(window)
    hop = least if hop is None else hop
    height = window.tensors[window.input].shape[1]
    if isinstance(hop, bool) or not isinstance(hop, int) or not 1 <= hop <= height:
        raise ArgumentError(f"hop must be 1 to {height}, the lines of a window, not {hop!r}")
    made = _made(window, hop, least)
    reads = {node.name: dict(_reads(window, node, made[node.output])) for node in window.nodes}
    kept = dict(made)
    for seen in reads.values():
        for name, (first, _) in seen.items():
            kept[name] = max(kept[name], window.tensors[name].shape[1] - first)
    period, rings = _rings(window, made, kept, reads.values())
    tensors = {name: _tensor(window, tensor, made[name], rings)
               for name, tensor in window.tensors.items()}
    nodes = []
    for node in window.nodes:
        names = {}
        for name, (first, end) in reads[node.name].items():
            tensor = window.tensors[name]
            back = tensor.shape[1] - first
            if name in rings or (back, end - first) != (made[name], made[name]):
                view = f"{name}, {end - first} of the last {back}"
                shape = tensor.shape[0], end - first, tensor.shape[2]
                tensors[view] = View(**vars(replace(tensor, name=view, shape=shape,
                                                    user_shape=shape)), of=name, back=back)
                names[name] = view
        add = node.epilogue.add
        nodes.append(replace(
            node, inputs=tuple(names.get(name, name) for name in node.inputs),
            epilogue=replace(node.epilogue, add=names.get(add, add) if add else None)))
    return Steps(window=window, hop=hop, period=period,
                 graph=replace(window, tensors=tensors, nodes=tuple(nodes)))


def _upright(graph: QGraph) -> QGraph:
    """Return a graph with time along its lines."""
    if graph.tensors[graph.input].shape[1] > 1 or any(
            tensor.shape[1] > 1 for tensor in graph.tensors.values()) or any(
            node.geometry.kernel[0] > 1 for node in graph.nodes):
        return graph

    def turned(node: QNode) -> QNode:
        own, pool = node.geometry, node.epilogue.pool
        top, left, bottom, right = own.padding
        if pool is not None:
            pool = replace(pool, window=pool.window[::-1], stride=pool.stride[::-1])
        return replace(node, epilogue=replace(node.epilogue, pool=pool), geometry=replace(
            own, kernel=own.kernel[::-1], stride=own.stride[::-1], dilation=own.dilation[::-1],
            padding=(left, top, right, bottom),
            border=(own.border[1], own.border[0], own.border[3], own.border[2])))

    return replace(graph, nodes=tuple(map(turned, graph.nodes)), tensors={
        name: replace(tensor, shape=(tensor.shape[0], tensor.shape[2], tensor.shape[1]))
        for name, tensor in graph.tensors.items()})


def _check(graph: QGraph) -> None:
    source = graph.tensors[graph.input]
    if source.shape[1] < 2:
        raise CompileError(
            source.name, "input", "it has one line, and time runs along lines",
            "give it a window of time: (C, T, W), or (C, 1, T)")
    for name in graph.tensors:
        if static_exponent(graph.tensors, name) is None:
            raise CompileError(
                name, "tensor", "its exponent is found for each window, and lines that are kept "
                "would need another one with each step", "use static exponents (exponents="
                "\"static\" and calibration inputs)")
    for node in graph.nodes:
        if as_made(graph.tensors, node) is not graph.tensors[node.output]:
            raise CompileError(
                node.name, str(node.kind), "it makes a map of its rows, and of time each line is "
                "made by itself", "compile it without stream, a window at a time")
        top, bottom = (node.geometry.padding[side] + len(node.geometry.border[side])
                       for side in (0, 2))
        if top or bottom:
            raise CompileError(
                node.name, str(node.kind), f"it pads time by {top} lines before and {bottom} "
                f"behind, and in a stream other lines stand there",
                "pad no time (padding=(0, p)), and give the network a longer window")


def _reach(node: QNode) -> tuple[int, int]:
    """Return the lines of the input from one line of the output to the next, and those that one
    line reads."""
    own, pool = node.geometry, node.epilogue.pool
    step, size = own.stride[0], (own.kernel[0] - 1) * own.dilation[0] + 1
    if pool is None:
        return step, size
    return step * pool.stride[0], (pool.window[0] - 1) * step + size


def _least_hop(graph: QGraph) -> int:
    """Return the fewest lines of the input that make whole lines of every tensor."""
    rates = {graph.input: 1}
    for node in graph.nodes:
        if graph.tensors[node.output].shape[1] > 1:
            rates[node.output] = rates.get(node.input, 1) * _reach(node)[0]
    return min(math.lcm(*rates.values()), graph.tensors[graph.input].shape[1])


def _made(graph: QGraph, hop: int, least: int) -> dict[str, int]:
    """Return the lines of each tensor that a step makes. What has one line in a window has one
    each step; where the lines that a node reads do not move together, it makes all anew."""
    made = {graph.input: hop}
    for node in graph.nodes:
        step, height = _reach(node)[0], graph.tensors[node.output].shape[1]
        whole = all(made[name] == graph.tensors[name].shape[1] for name in node.inputs)
        news = {made[name] for name in node.inputs}
        if (add := node.epilogue.add) is not None:
            news.add(made[add] * node.geometry.stride[0])
        if height == 1 or whole or len(news) > 1:
            made[node.output] = height
        elif news.pop() % step:
            raise CompileError(
                node.name, str(node.kind), f"a step of {hop} lines brings it {made[node.input]}, "
                f"and it takes every {step}th", f"take steps of {least} lines, or a multiple "
                f"(hop={least})")
        else:
            made[node.output] = min(made[node.input] // step, height)
    return made


def _reads(graph: QGraph, node: QNode, made: int) -> Iterator[tuple[str, tuple[int, int]]]:
    """Yield what a node reads to make its last lines: a tensor, and from which to before which of
    its lines in a window."""
    step, size = _reach(node)
    height = graph.tensors[node.output].shape[1]
    for name in node.inputs:
        yield name, ((height - made) * step, (height - 1) * step + size)
    if (add := node.epilogue.add) is not None:
        pool = node.epilogue.pool
        step, size = (pool.stride[0], pool.window[0]) if pool else (1, 1)
        yield add, ((height - made) * step, (height - 1) * step + size)


def _tensor(graph: QGraph, tensor: QTensor, made: int, rings: Mapping[str, int]) -> QTensor:
    """Return a tensor of which so many lines are made in a step."""
    count, height, width = tensor.numbers
    user = tensor.user_shape
    if made != height and len(user) == 2 and user != (count, height):
        user = (made, width)            # a map of one channel, which has no axis
    elif made != height and len(user) == 2:
        user = (count, made)
    elif made != height:
        user = (count, made, width) if len(user) != 3 or user[1] == height else (count, width, made)
    own = replace(tensor, shape=(tensor.shape[0], made, width), user_shape=user)
    return Ring(**vars(own), lines=rings[own.name]) if own.name in rings else own


@dataclass(frozen=True)
class _Round:
    """How many steps' lines each ring holds, all divisors of a period."""

    period: int
    turns: dict[str, int]
    words: int


def _rings(graph: QGraph, made: Mapping[str, int], kept: Mapping[str, int],
           reads: Iterable[Mapping[str, tuple[int, int]]]) -> tuple[int, dict[str, int]]:
    """Return the period, and the lines of each ring: a period that is short enough for what each
    of its steps has in the stream, and rings that are not much longer than they must be."""
    turns = {name: -(-lines // made[name]) for name, lines in kept.items()
             if lines > made[name]}
    if not turns:
        return 1, {}
    readers = sum(any(name in turns for name in seen) for seen in reads)

    def tried(period: int) -> _Round:
        own = {name: next(count for count in range(least, period + 1) if period % count == 0)
               for name, least in turns.items()}
        words = sum(count * -(-graph.tensors[name].shape[0] * made[name]
                              * graph.tensors[name].shape[2] // ENTRY_WORDS)
                    for name, count in own.items())
        return _Round(period, own, words + period * readers * _PHASE)

    longest = max(turns.values())
    best = min(map(tried, range(longest, 2 * longest + 1)), key=lambda found: found.words)
    return best.period, {name: count * made[name] for name, count in best.turns.items()}
