"""The float graph: what the frontend makes and the passes rewrite.

Weights are float64, nothing here knows PyTorch. Every node makes one tensor, which carries the
node's name. A tensor of one image has the shape (C, H, W); a vector of F features is (F, 1, 1).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import assert_never

import numpy as np

from celosia.grids import Grid
from celosia.pieces import Pieces
from celosia_spec.epilogue import PLAIN, Activation, Epilogue, Pool
from celosia_spec.host_layers import HostLayer, compute
from celosia_spec.network_inputs import Input
from celosia_spec.outputs import Output, outputs_of
from celosia_spec.qgraph import BARE, Border, Geometry, NodeKind

Shape = tuple[int, int, int]
Range = tuple[float, float]


@dataclass(frozen=True, eq=False, kw_only=True)
class Conv:
    """A linear node: ``weight * x + bias``, and what follows these sums.

    A fully connected layer is a 1 x 1 convolution of a vector, or a kernel of the whole map.

    weight   : float64 (rows, C / groups, kh, kw).   bias : float64 (rows,), or None.
    stride, dilation : (y, x).   padding : (top, left, bottom, right), zeros; below 0, what is cut
               off, as transposed convolutions do.
    kind     : what it is to the user.
    others   : tensors that it reads behind its input, one behind another along the channels.
    up       : (y, x); so far apart its input's elements are taken to lie, with zeros between them,
               before it is padded: a transposed convolution of that stride.
    border   : what stands around the map of what it reads, within the padding.
    live     : bool as ``weight``, which elements are weights of the network; None: all.
    fixed    : whether its weights are no parameters of the network, but made by a pass.
    normed   : whether a BatchNorm of parameters is in its rows.
    map      : shape of the map whose elements its rows make, one channel behind another, at their
               one position; None: each makes a channel.
    """

    name: str
    input: str
    weight: np.ndarray
    bias: np.ndarray | None
    groups: int = 1
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    kind: NodeKind = NodeKind.CONV
    epilogue: Epilogue = PLAIN
    others: tuple[str, ...] = ()
    up: tuple[int, int] = (1, 1)
    border: Border = BARE
    live: np.ndarray | None = None
    fixed: bool = False
    normed: bool = False
    map: Shape | None = None

    @property
    def read(self) -> tuple[str, ...]:
        """What its weights are multiplied with."""
        return (self.input, *self.others)

    @property
    def inputs(self) -> tuple[str, ...]:
        add = self.epilogue.add
        return self.read if add is None else (*self.read, add)

    @property
    def kernel(self) -> tuple[int, int]:
        return self.weight.shape[2], self.weight.shape[3]

    @property
    def geometry(self) -> Geometry:
        """Where an output position looks, of a node without ``up`` that cuts nothing off."""
        return Geometry(kernel=self.kernel, stride=self.stride, padding=self.padding,
                        dilation=self.dilation, border=self.border)

    @property
    def keeps(self) -> bool:
        """Whether its output has its input's block exponent: it chooses elements, no more."""
        return self.kind == NodeKind.SELECT


@dataclass(frozen=True, eq=False, kw_only=True)
class BatchNorm:
    """``y[c] = x[c] * scale[c] + shift[c]``; float64 (C,) each.

    trained : whether these are parameters of the network.
    """

    name: str
    input: str
    scale: np.ndarray
    shift: np.ndarray
    trained: bool = False

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.input,)


@dataclass(frozen=True, kw_only=True)
class Activate:
    """An activation function of every element."""

    name: str
    input: str
    activation: Activation

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.input,)


@dataclass(frozen=True, eq=False, kw_only=True)
class Leaky:
    """``y[c] = x[c]`` on one side of a number, on the other a line of another slope.

    slope : float64 (C,).   knee : the number.   above : whether the line is above it, not below.
    fixed : whether the slopes are no parameters of the network.
    """

    name: str
    input: str
    slope: np.ndarray
    knee: float = 0.0
    above: bool = False
    fixed: bool = True

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return what it makes of a map (C, H, W)."""
        beyond = x - self.knee
        turned = np.maximum(beyond, 0) if self.above else np.minimum(beyond, 0)
        result: np.ndarray = x - (1 - self.slope[:, None, None]) * turned
        return result

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.input,)


@dataclass(frozen=True, eq=False, kw_only=True)
class Curve:
    """``y = pieces(x)`` of every element: a function that is no straight line, as straight pieces.

    operator : in the words of PyTorch.   off : as `celosia.pieces.fit` returns it.
    function : what the pieces are of, float64 (n,) to (n,); None where nobody asks for it.
    """

    name: str
    input: str
    pieces: Pieces
    operator: str
    off: float
    function: Callable[[np.ndarray], np.ndarray] | None = None

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.input,)


@dataclass(frozen=True, kw_only=True)
class MaxPool:
    """Maximum over windows; partial windows are dropped.

    padding : (top, left, bottom, right), places where there is nothing to be compared.
    """

    name: str
    input: str
    pool: Pool
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.input,)


@dataclass(frozen=True, kw_only=True)
class AvgPool:
    """Sum over windows divided by ``divisor``.

    window, stride : (y, x).   padding : (top, left, bottom, right), zeros that count.
    """

    name: str
    input: str
    window: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    divisor: int

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.input,)


@dataclass(frozen=True, kw_only=True)
class Add:
    """Sum of two tensors of equal shape."""

    name: str
    left: str
    right: str

    @property
    def inputs(self) -> tuple[str, ...]:
        return self.left, self.right


@dataclass(frozen=True, kw_only=True)
class Multiply:
    """Product of two tensors. Along an axis where one has one element, that stands for all."""

    name: str
    left: str
    right: str

    @property
    def inputs(self) -> tuple[str, ...]:
        return self.left, self.right


@dataclass(frozen=True, kw_only=True)
class Pad:
    """Zero padding: (top, left, bottom, right)."""

    name: str
    input: str
    padding: tuple[int, int, int, int]

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.input,)


@dataclass(frozen=True, kw_only=True)
class Reshape:
    """The same elements, in the order c, y, x, as a map of another shape (C, H, W)."""

    name: str
    input: str
    shape: Shape

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.input,)


@dataclass(frozen=True, eq=False, kw_only=True)
class Move:
    """Elements of other tensors in another order.

    index    : int64 (C, H, W), which element of all inputs each one is, these being counted one
               input behind the other, c, y, x; -1 for a zero.
    operator : in the words of PyTorch.   remedy : what the user can do where the machine cannot.
    apart    : whether elements that are channels of what it reads are better moved one by one than
               taken for phases of an enlarged map.
    """

    name: str
    inputs: tuple[str, ...]
    index: np.ndarray
    operator: str
    remedy: str
    apart: bool = False


@dataclass(frozen=True, eq=False, kw_only=True)
class Quantise:
    """The nearest numbers of a grid: what a quantised network makes of a tensor on its way."""

    name: str
    input: str
    grid: Grid

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.input,)


Node = (Conv | BatchNorm | Activate | Leaky | Curve | MaxPool | AvgPool | Add | Multiply | Pad
        | Reshape | Move | Quantise)

@dataclass(frozen=True, eq=False, kw_only=True)
class Graph:
    """Nodes in execution order.

    input, output : names of the network's input and output tensors.
    input_map     : (C, H, W) of the input.
    input_shape, output_shape : as the user sees them, without the batch axis.
    takes         : the tensors that the network takes, joined into the input; empty where it takes
                    one, which is all of it.
    sources       : the user's source line of a node, by its name, where it is known.
    host          : what the host computes from the output.
    returns       : the parts of what it then has that the network returns; empty where it returns
                    one tensor, which is all of it.
    remarks       : what was done with the model and its example, one line each.
    raised        : bits by which each channel of a tensor is larger than in the network, by its
                    name, where one is.
    ranges        : the least and the largest value that a quantised network lets through of a
                    tensor, by its name, where it quantises it.
    """

    nodes: tuple[Node, ...]
    input: str
    input_map: Shape
    input_shape: tuple[int, ...]
    output: str
    output_shape: tuple[int, ...]
    sources: Mapping[str, str] = field(default_factory=dict)
    host: tuple[HostLayer, ...] = ()
    returns: tuple[Output, ...] = ()
    takes: tuple[Input, ...] = ()
    remarks: tuple[str, ...] = ()
    raised: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    ranges: Mapping[str, Range] = field(default_factory=dict)

    @property
    def shapes(self) -> dict[str, Shape]:
        """(C, H, W) of every tensor."""
        shapes = {self.input: self.input_map}
        for node in self.nodes:
            shapes[node.name] = node_shape(node, shapes)
        return shapes

    @property
    def outputs(self) -> tuple[Output, ...]:
        """The tensors that the network returns, in their order."""
        return outputs_of(self.returns, self.host, self.output_shape)

    def returned(self, values: np.ndarray) -> np.ndarray:
        """Return what `outputs` are parts of: values, float64 (N, C, H, W), of the output, or what
        the host makes of all of them."""
        return compute(self.host, values) if self.returns else values

    @property
    def uses(self) -> dict[str, int]:
        """How often each tensor is read; leaving the network counts as one."""
        counts = {self.input: 0} | {node.name: 0 for node in self.nodes}
        for name in (name for node in self.nodes for name in node.inputs):
            counts[name] += 1
        counts[self.output] += 1
        return counts


def _windows(size: int, window: int, stride: int, dilation: int = 1) -> int:
    return (size - (window - 1) * dilation - 1) // stride + 1


def pool_shape(shape: Shape, pool: Pool | None) -> Shape:
    """Return a map's shape after max-pooling."""
    if pool is None:
        return shape
    return (shape[0], _windows(shape[1], pool.window[0], pool.stride[0]),
            _windows(shape[2], pool.window[1], pool.stride[1]))


def node_shape(node: Node, shapes: dict[str, Shape]) -> Shape:
    """Return the (C, H, W) of the node's output, from its operands' shapes."""
    channels, height, width = shapes[node.inputs[0]]
    match node:
        case Reshape():
            return node.shape
        case Move():
            return node.index.shape[0], node.index.shape[1], node.index.shape[2]
        case Multiply():
            other = shapes[node.right]
            return max(channels, other[0]), max(height, other[1]), max(width, other[2])
        case MaxPool():
            top, left, bottom, right = node.padding
            return pool_shape((channels, height + top + bottom, width + left + right), node.pool)
        case Pad():
            top, left, bottom, right = node.padding
            return channels, height + top + bottom, width + left + right
        case Conv():
            rows, window, dilation = node.weight.shape[0], node.kernel, node.dilation
            height, width = node.geometry.bordered((height, width))
            height, width = (height - 1) * node.up[0] + 1, (width - 1) * node.up[1] + 1
        case AvgPool():
            rows, window, dilation = channels, node.window, (1, 1)
        case BatchNorm() | Activate() | Leaky() | Curve() | Add() | Quantise():
            return channels, height, width
        case _:
            assert_never(node)
    top, left, bottom, right = node.padding
    shape = (rows, _windows(height + top + bottom, window[0], node.stride[0], dilation[0]),
             _windows(width + left + right, window[1], node.stride[1], dilation[1]))
    if not isinstance(node, Conv):
        return shape
    return node.map or pool_shape(shape, node.epilogue.pool)
