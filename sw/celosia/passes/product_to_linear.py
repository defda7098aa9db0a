"""Products of two tensors are quarter squares, and squares are clamped linear nodes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from celosia.graph import Activate, Conv, Graph, Move, Multiply, Node, Shape
from celosia.passes.phases import LANES, Phases, phases
from celosia.passes.phases import rows as line_rows
from celosia.passes.rewriting import fresh
from celosia.spread import spread
from celosia_spec.epilogue import within
from celosia_spec.errors import CompileError

PIECES = 32
"""Most pieces of a product: each costs an element of main memory at every place."""

_ROWS, _MOST_ROWS, _ELEMENTS = 384, 512, 1 << 14
"""A part of a product goes through so many rows of the banks, of an enlarged map more, and if
`_FEW` parts are enough lies in so many elements of main memory."""

_FEW, _MOST = 16, 24
"""Parts: what reads the product reads all of them, and needs the exponent of each."""

_REMEDY = "let a layer of its own make what is multiplied"

Knots = tuple[int, ...]
"""Where the pieces of a square meet, in units, rising; those next to each other are a power of two
apart."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How large the two tensors of a product are.

    right : bits by which the right tensor is made larger, so that it is about as large as the left.
    unit  : exponent of the width of the narrowest pieces.
    sums, differences : knots of the pieces for ``left + right`` and ``left - right``.
    """

    right: int
    unit: int
    sums: Knots
    differences: Knots

    @property
    def pieces(self) -> int:
        """So many rows make one element."""
        return len(self.sums) + len(self.differences) - 2

    @property
    def factor(self) -> float:
        """What the difference of both squares, in units, is multiplied by."""
        return 2.0**(2 * self.unit - self.right - 2)

    def __call__(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Return the product of float64 tensors as the pieces make it."""
        right = np.ldexp(right, self.right)
        squares = [np.interp(np.ldexp(x, -self.unit), knots, np.square(knots)) for x, knots in (
            (left + right, self.sums), (left - right, self.differences))]
        return np.asarray(self.factor * (squares[0] - squares[1]))


Scales = Mapping[str, Scale]
"""Of products, by their names."""

NONE: Scales = {}


def product_to_linear(graph: Graph, scales: Scales = NONE) -> Graph:
    """Turn ``a * b`` into ``((a + b)^2 - (a - b)^2) / 4``, and the squares into straight pieces
    between knots at whole numbers of units, whose squares differ by whole numbers that weights have
    exactly. Where one tensor is 0, both squares err alike, and the product is 0.

    scales : of all products.

    After: no Multiply is left; the last of its layers has its name.
    """
    if not any(isinstance(node, Multiply) for node in graph.nodes):
        return graph
    shapes, kept = graph.shapes, phases(graph)
    taken = {graph.input} | {node.name for node in graph.nodes}
    nodes: list[Node] = []
    sources = dict(graph.sources)
    for node in graph.nodes:
        if not isinstance(node, Multiply):
            nodes.append(node)
            continue
        parts = _parts(node, scales[node.name], shapes, kept[node.name],
                       iter(partial(fresh, node.name, taken), None))
        if node.name in sources:
            sources |= {part.name: sources[node.name] for part in parts}
        nodes += parts
    return replace(graph, nodes=tuple(nodes), sources=sources)


def _parts(node: Multiply, scale: Scale, shapes: Mapping[str, Shape], kept: Phases,
           names: Iterator[str]) -> list[Node]:
    """Return the nodes of a product that is kept in some phases."""
    shape = shapes[node.name]
    left, right = (spread(name, shapes[name], shape, 2.0**bits, names, "mul", _REMEDY)
                   for name, bits in ((node.left, 0), (node.right, scale.right)))
    read = tuple(made[-1].name if made else name
                 for made, name in ((left, node.left), (right, node.right)))
    place = np.arange(shape[0] * shape[1] * shape[2]).reshape(shape)
    ends = _cut(node, shape, scale.pieces, kept)
    if len(ends) == 1:
        return [*left, *right, *_product(node.name, read, place, place.size, scale, names)]
    made = [_product(next(names), read, place[first:end], place.size, scale, names)
            for first, end in ends]
    whole = Move(name=node.name, inputs=tuple(part[-1].name for part in made), index=place,
                 operator="mul", remedy=_REMEDY)
    return [*left, *right, *(one for part in made for one in part), whole]


def _cut(node: Multiply, shape: Shape, pieces: int, kept: Phases) -> list[tuple[int, int]]:
    """Return the channels, first and end, of each part of a product: their pieces have to fit
    banks and main memory. CompileError where there are too many parts."""
    channels, height, width = shape
    rows = (_ROWS * LANES if (height, width) == (1, 1) else
            (_ROWS if kept == (1, 1) else _MOST_ROWS) // line_rows((height, width), kept))
    count = -(-channels // max(rows // pieces, 1))
    if count > _MOST:
        raise CompileError(node.name, "mul", f"a product of {channels} x {height} x {width} "
                           f"elements has to be made in {count} parts, and the machine reads "
                           f"{_MOST} at most", "multiply "
                           f"{_MOST * max(rows // PIECES, 1)} channels at most")
    small = -(-channels // max(_ELEMENTS // (pieces * height * width), 1))
    count = max(count, min(small, _FEW))
    return [(channels * part // count, channels * (part + 1) // count) for part in range(count)]


def _product(name: str, read: tuple[str, ...], place: np.ndarray, size: int, scale: Scale,
             names: Iterator[str]) -> list[Node]:
    """Return the nodes that make some channels of a product of two tensors of one shape.

    place : int64 (channels, H, W), the numbers of their elements in either tensor, of ``size``.
    """
    both, inner, outer = next(names), next(names), next(names)
    channels = len(place)
    signs = np.repeat([1.0, -1.0], [len(scale.sums) - 1, len(scale.differences) - 1])
    knots = np.array(scale.sums[:-1] + scale.differences[:-1], float)
    widths = np.append(np.diff(scale.sums), np.diff(scale.differences))
    rises = signs * widths * (2 * knots + widths)
    unit, factor = 2.0**-scale.unit, scale.factor
    return [
        Move(name=both, inputs=read, operator="mul", remedy=_REMEDY,
             index=np.stack([place, place + size], axis=1).reshape(-1, *place.shape[1:])),
        Conv(name=inner, input=both, groups=channels, bias=np.tile(-knots / widths, channels),
             weight=np.tile(unit / widths[:, None] * np.stack([np.ones(len(signs)), signs], axis=1),
                            (channels, 1))[:, :, None, None], fixed=True),
        Activate(name=outer, input=inner, activation=within(0, 1)),
        Conv(name=name, input=outer, groups=channels, fixed=True,
             weight=np.tile(factor * rises, (channels, 1))[:, :, None, None],
             bias=np.full(channels, factor * (float(scale.sums[0])**2
                                              - float(scale.differences[0])**2)))]
