"""Layers whose results are returned together become one layer, which makes the output."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from celosia.calibration import MOST_INPUTS, spread
from celosia.expected import expected_exponents
from celosia.float_values import largest
from celosia.graph import Conv, Graph, Shape
from celosia.passes.read_views import full_weight
from celosia.passes.rewriting import fresh, identity
from celosia_spec.block import floor_log2
from celosia_spec.epilogue import PLAIN
from celosia_spec.isa.numbers import EXPONENT_MAX
from celosia_spec.qgraph import NodeKind, windows

_NAME_LENGTH = 200
_FAINT_COPIED, _FAINT_INLINED = 3, 8
"""Tensors that are smaller by so many bits are told of."""
_LEAST_BITS, _MOST_BITS, _MARGIN = 2, 12, 4
"""By so many bits a tensor is made larger, or not at all: how large it is, is not known better. So
far from the largest exponent all stay."""


@dataclass(frozen=True)
class Parts:
    """What is done with the tensors that are copied into the output, by their names.

    bits : by which each is made larger.   left : by which it is then smaller than the largest.
    far  : layers that are copied, too, as they read much smaller tensors than the others.
    """

    bits: Mapping[str, int]
    left: Mapping[str, int]
    far: Collection[str]


Sizes = Callable[[Graph, Conv, Mapping[str, Conv]], Parts]
"""Decides that, of a graph, the layer that copies, and those that it could compute."""


def estimated(graph: Graph, last: Conv, free: Mapping[str, Conv]) -> Parts:
    """Decide by how large tensors are likely to be, by the weights."""
    exponents = expected_exponents(graph)
    most = max(exponents[name] for name in last.read)
    room = dict.fromkeys(last.read, EXPONENT_MAX - _MARGIN - most)
    return _parts(graph, last, free, exponents, room)


def measured(samples: np.ndarray) -> Sizes:
    """Return what decides by the largest values for inputs (N, *input_shape). A tensor that is 0
    for all of them counts as large: nothing is known of it."""
    def sizes(graph: Graph, last: Conv, free: Mapping[str, Conv]) -> Parts:
        found = largest(graph, spread(samples, MOST_INPUTS))
        top = max(found.values()) or 1.0
        exponents = {name: int(floor_log2(np.array(most or top))) for name, most in found.items()}
        room = {name: EXPONENT_MAX - _MARGIN - _weight_exponent(graph, name)
                for name in last.read}
        return _parts(graph, last, free, exponents, room)
    return sizes


def as_in(output: str, raised: Sequence[int], layers: Collection[str]) -> Sizes:
    """Return what decides as it was decided for a graph with an output, whose channels are larger
    by so many bits, and layers."""
    def sizes(graph: Graph, last: Conv, free: Mapping[str, Conv]) -> Parts:
        bits = dict(zip((last.read[at] for at in _sources(last, graph.shapes)), raised,
                        strict=True))
        return Parts(bits, {}, {name for name in free if name in layers and name != output})
    return sizes


def join_outputs(graph: Graph, sizes: Sizes = estimated) -> Graph:
    """Let the layer that copies several tensors into the output compute them, where it can.

    It can where nothing else reads them, their layers move over maps of one size in equal steps, do
    the same behind their sums and pool nothing. Then all rows are rounded once, to the output's
    mantissas; what is copied was rounded to fewer bits before.

    Tensors that are smaller than others are made larger by powers of two, as all share the output's
    block exponent; the host makes them small again (`Graph.raised`). So are those that are
    flattened on the way, which no layer joins.

    sizes : what decides by how many, and which layers stay by themselves.
    """
    made = {node.name: node for node in graph.nodes if isinstance(node, Conv)}
    last = made.get(graph.output)
    if not graph.returns or last is None or not _copies(last):
        return graph
    if last.kernel != (1, 1):
        return _flattened(graph, last, sizes(graph, last, {}))
    shapes, uses = graph.shapes, graph.uses
    free = {name: made[name] for name in last.read
            if name in made and uses[name] == 1 and _plain(made[name])}
    near = {name: node for name, node in free.items() if shapes[node.input][1:]
            == shapes[graph.output][1:] and node.stride == (1, 1) and node.epilogue == PLAIN}
    parted = sizes(graph, last, free)
    bits, left = parted.bits, parted.left
    for some in (free, near, {}):
        inlined = {name: node for name, node in some.items() if name not in parted.far}
        copied = _larger_copies(last, {name: bit for name, bit in bits.items()
                                       if name not in inlined}, shapes)
        parts = [_larger(inlined[name], bits[name]) if name in inlined else
                 _copy(name, copied[name].name if name in copied else name, shapes[name][0])
                 for name in last.read]
        node = _joined(last, parts, shapes | {copy.name: shapes[name]
                                              for name, copy in copied.items()}, graph.input)
        if node is not None:
            break
    assert node is not None
    node = replace(node, name=_name(graph, last, inlined))
    nodes = [other for other in graph.nodes if other.name not in inlined and other is not last]
    faint = [_told(name, bit) for name, bit in left.items()
             if bit >= (_FAINT_INLINED if name in inlined else _FAINT_COPIED)]
    return replace(graph, nodes=(*nodes, *copied.values(), node), output=node.name,
                   remarks=(*graph.remarks, *faint), ranges={
                       name: ends for name, ends in graph.ranges.items()
                       if name not in (*inlined, last.name, node.name)},
                   raised={**graph.raised, **_raised(node.name, last, bits, shapes)})


def _flattened(graph: Graph, last: Conv, parts: Parts) -> Graph:
    """Return the graph with tensors larger that a layer flattens and copies into the output."""
    shapes, uses = graph.shapes, graph.uses
    faint = [_told(name, bit) for name, bit in parts.left.items() if bit >= _FAINT_COPIED]
    own = {node.name: parts.bits[node.name] for node in graph.nodes if isinstance(node, Conv)
           and parts.bits.get(node.name) and uses[node.name] == 1 and not node.keeps
           and node.epilogue.add is None and not node.epilogue.activation.clamps}
    copied = _larger_copies(last, {name: bit for name, bit in parts.bits.items()
                                   if name not in own}, shapes)
    read = [copied[name].name if name in copied else name for name in last.read]
    nodes = [_larger(node, own[node.name]) if isinstance(node, Conv) and node.name in own else node
             for node in graph.nodes if node is not last]
    return replace(
        graph, nodes=(*nodes, *copied.values(), replace(last, input=read[0],
                                                        others=tuple(read[1:]))),
        remarks=(*graph.remarks, *faint), ranges={
            name: (math.ldexp(low, own.get(name, 0)), math.ldexp(high, own.get(name, 0)))
            for name, (low, high) in graph.ranges.items() if name != last.name},
        raised={**graph.raised, **{name: (bit,) * shapes[name][0] for name, bit in own.items()},
                **_raised(last.name, last, parts.bits, shapes)})


def _raised(name: str, last: Conv, bits: Mapping[str, int],
            shapes: Mapping[str, Shape]) -> dict[str, tuple[int, ...]]:
    """Return by how many bits each channel of the output is larger, by its name; {} if none is."""
    raised = tuple(bits[last.read[at]] for at in _sources(last, shapes))
    return {name: raised} if any(raised) else {}


def _told(name: str, bits: int) -> str:
    return (f"{name}: the network's outputs share one exponent, and it is likely to be 2^{bits} "
            f"times smaller than another; scale it up in the model, and down on the host")


def _name(graph: Graph, last: Conv, inlined: Mapping[str, Conv]) -> str:
    """Return a name of the layer that does what others did: theirs."""
    name = ", ".join(inlined)
    free = name in inlined or name not in graph.shapes
    return name if name and free and len(name) <= _NAME_LENGTH else last.name


def _parts(graph: Graph, last: Conv, free: Mapping[str, Conv], exponents: Mapping[str, int],
           room: Mapping[str, int]) -> Parts:
    """Decide by the tensors' exponents.   room : bits by which each may become larger."""
    made = {node.name: node for node in graph.nodes if isinstance(node, Conv)}
    clamped = last.kernel == (1, 1) and any(
        name in made and made[name].epilogue.activation.clamps for name in last.read)
    most = max(exponents[name] for name in last.read)
    smaller = {name: most - exponents[name] for name in last.read}
    bits = {name: min(_MOST_BITS, room[name], bit) for name, bit in smaller.items()}
    bits = {name: 0 if clamped or bit < _LEAST_BITS else bit for name, bit in bits.items()}
    read = {name: max(exponents[source] for source in free[name].read) if name in free
            else exponents[name] + bits[name] for name in last.read}
    far = {name for name in free if read[name] + _FAINT_COPIED <= max(read.values())}
    return Parts(bits, {name: bit - bits[name] for name, bit in smaller.items()}, far)


def _weight_exponent(graph: Graph, name: str) -> int:
    """Return the exponent of the largest weight or bias of the layer that makes a tensor; 0
    without one."""
    for node in graph.nodes:
        if node.name == name and isinstance(node, Conv):
            numbers = node.weight if node.bias is None else np.append(node.weight, node.bias)
            return int(floor_log2(np.abs(numbers).max()))
    return 0


def _larger(node: Conv, bits: int) -> Conv:
    """Return a layer that makes its tensor larger."""
    bias = None if node.bias is None else np.ldexp(node.bias, bits)
    return replace(node, weight=np.ldexp(node.weight, bits), bias=bias)


def _larger_copies(last: Conv, bits: Mapping[str, int],
                   shapes: Mapping[str, Shape]) -> dict[str, Conv]:
    """Return layers that make tensors larger before the output is copied from them."""
    taken = {*shapes}
    return {name: _larger(identity(fresh(name, taken), name, shapes[name][0], last.kind), bit)
            for name, bit in bits.items() if bit}


def _copies(node: Conv) -> bool:
    """Whether each row of a layer is one channel of what it reads, or one element of a channel,
    as it is."""
    one = node.weight != 0
    return (node.epilogue == PLAIN and node.bias is None and node.map is None
            and node.stride == (1, 1) and not any(node.padding + node.border)
            and bool((node.weight[one] == 1).all() and (one.sum(axis=(1, 2, 3)) == 1).all()))


def _plain(node: Conv) -> bool:
    return node.epilogue.add is None and node.epilogue.pool is None and node.map is None


@dataclass(frozen=True)
class _Axis:
    """Kernels of several layers as parts of one. first : where each begins in it."""

    first: list[int]
    kernel: int
    dilation: int
    padding: tuple[int, int]


def _joined(last: Conv, parts: Sequence[Conv], shapes: Mapping[str, Shape],
            source: str) -> Conv | None:
    """Return ``last`` doing what several layers do; None where one layer cannot do all.

    source : the network's input, which no layer reads together with other tensors.
    """
    read = list(dict.fromkeys(name for part in parts for name in part.read))
    sizes = {shapes[name][1:] for name in read}
    if (len(sizes) > 1 or any(any(part.border) for part in parts)
            or len({part.stride for part in parts}) > 1
            or len({part.epilogue for part in parts}) > 1 or (source in read and len(read) > 1)):
        return None
    size, out = sizes.pop(), shapes[last.name][1:]
    lines, columns = (_axis(parts, number, size[number], out[number]) for number in range(2))
    if lines is None or columns is None:
        return None
    first = dict(zip(read, np.cumsum([0, *(shapes[name][0] for name in read)]), strict=False))
    rows = sum(len(part.weight) for part in parts)
    channels = sum(shapes[name][0] for name in read)
    weight = np.zeros((rows, channels, lines.kernel, columns.kernel))
    live, bias, at = np.zeros(weight.shape, bool), np.zeros(rows), 0
    for part, y, x in zip(parts, lines.first, columns.first, strict=True):
        own = np.concatenate([first[name] + np.arange(shapes[name][0]) for name in part.read])
        end, (high, wide) = at + len(part.weight), part.kernel
        place = np.s_[at:end, own, y:y + high, x:x + wide]
        weight[place], live[place] = full_weight(part)
        if part.bias is not None:
            bias[at:end] = part.bias
        at = end
    order = _order(last)
    weight, live, bias = weight[order], live[order], bias[order]
    return replace(
        parts[0], input=read[0], others=tuple(read[1:]), weight=weight, groups=1,
        bias=bias if bias.any() else None, live=None if live.all() else live,
        dilation=(lines.dilation, columns.dilation), kind=parts[0].kind if len(
            {part.kind for part in parts}) == 1 and not parts[0].keeps else last.kind,
        padding=(lines.padding[0], columns.padding[0], lines.padding[1], columns.padding[1]))


def _order(last: Conv) -> np.ndarray:
    """Return which channel of what it reads each row of a layer copies, int64 (rows,)."""
    return np.asarray(full_weight(last)[0].any(axis=(2, 3)).argmax(axis=1))


def _sources(last: Conv, shapes: Mapping[str, Shape]) -> list[int]:
    """Return which of the tensors that it reads each row of a layer copies from."""
    ends = np.cumsum([shapes[name][0] for name in last.read])
    found: list[int] = np.searchsorted(ends, _order(last), side="right").tolist()
    return found


def _copy(name: str, source: str, channels: int) -> Conv:
    return identity(name, source, channels, NodeKind.CONV)


def _axis(parts: Sequence[Conv], number: int, size: int, out: int) -> _Axis | None:
    """Return how the kernels of some layers lie in one along an axis of a map; None where they do
    not.

    out : positions that all of them have.
    """
    dilations = {part.dilation[number] for part in parts if part.kernel[number] > 1} or {1}
    before = [part.padding[number] for part in parts]
    apart = min(dilations)
    if len(dilations) > 1 or any((max(before) - own) % apart for own in before):
        return None
    first = [(max(before) - own) // apart for own in before]
    kernel = max(at + part.kernel[number] for at, part in zip(first, parts, strict=True))
    stride = parts[0].stride[number]
    after = max(0, (out - 1) * stride + (kernel - 1) * apart + 1 - size - max(before))
    padded = size + max(before) + after
    if windows((padded, 1), (kernel, 1), (stride, 1), (apart, 1))[0] != out:
        return None
    return _Axis(first, kernel, apart, (max(before), after))
