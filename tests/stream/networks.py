"""Random small networks: layers, shapes, strides, paddings, pools, residual additions."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch
from hypothesis import reject
from hypothesis import strategies as st

from celosia.graph import Conv, Graph
from celosia.quantise import quantise
from celosia_spec.epilogue import Clamp, Epilogue, Identity, Pool, Relu, Static
from celosia_spec.errors import FitError
from celosia_spec.qgraph import BARE, Border, Edge, NodeKind, QGraph

ACTIVATIONS = (Relu(), Relu(), Identity(), Clamp(low=0.0, high=1.5), Clamp(low=-1.0, high=1.0))


class Case:
    """A network and an input, float32 (*user_shape)."""

    def __init__(self, graph: QGraph, x: np.ndarray) -> None:
        self.graph, self.x = graph, x

    def __repr__(self) -> str:
        return f"\n{told(self.graph)}\n{np.array2string(self.x, threshold=20)}"


def told(graph: QGraph) -> str:
    """Return a network in words, a line for each tensor."""
    made = {node.output: node for node in graph.nodes}
    lines = [f"{graph.activation_bits}-bit activations, {graph.weight_bits}-bit weights, "
             f"{graph.acc_bits}-bit sums"]
    for name, tensor in graph.tensors.items():
        signs = "signed" if tensor.signed else "unsigned"
        line = f"{name} {tensor.shape}, {signs}, {tensor.exponent}"
        if (node := made.get(name)) is not None:
            line += (f" = {node.kind} of {', '.join(node.inputs)}, {node.geometry}, "
                     f"{node.epilogue}, {node.matrix.nnz} of {node.weights} weights")
        lines.append(line)
    return "\n".join(lines)


@st.composite
def cases(draw: st.DrawFn, bits: int) -> Case:
    """A network of activations of some bits, and an input of it, which may be larger than those of
    its calibration; static exponents may be too small for what comes."""
    graph = draw(graphs((bits,)))
    tensor = graph.tensors[graph.input]
    scale = draw(st.sampled_from((1.0, 1.0, 4.0)))
    rng = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    x = (rng.random(tensor.user_shape) - 0.5 * tensor.signed) * scale
    return Case(lowered(graph, draw(st.sampled_from((0, 0, 1, 3)))), x.astype(np.float32))


def lowered(graph: QGraph, by: int) -> QGraph:
    """Return a graph with smaller static exponents, where they may be, so that values are
    clipped."""
    return replace(graph, tensors=graph.tensors | {
        name: replace(tensor, exponent=replace(tensor.exponent, value=max(
            tensor.exponent.value - by, tensor.exponent.least)))
        for name, tensor in graph.tensors.items()
        if isinstance(tensor.exponent, Static) and name != graph.input})


@st.composite
def graphs(draw: st.DrawFn, widths: tuple[int, ...] = (4, 6, 8, 8, 8)) -> QGraph:
    """A quantised network of one to four layers, with weights of some density.

    widths : of its activations, one of them.
    """
    rng = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    shape = (draw(st.integers(1, 20)), draw(st.integers(1, 14)), draw(st.integers(1, 14)))
    nodes: list[Conv] = []
    shapes = {"x": shape}
    name = "x"
    for index in range(draw(st.integers(1, 4))):
        last = shapes[name]
        node = _layer(draw, rng, f"n{index}", name, last, [
            other for other in shapes if other != "x" or draw(st.booleans())], shapes)
        nodes.append(node)
        name = node.name
        shapes[name] = _shape(node, last)
    graph = Graph(nodes=tuple(nodes), input="x", output=name, input_map=shape, input_shape=shape,
                  output_shape=shapes[name])
    bits = draw(st.sampled_from(widths))
    static = draw(st.booleans())
    positive = draw(st.booleans())
    images = rng.random((3, *shape)) * draw(st.sampled_from((0.01, 1.0, 100.0)))
    try:
        return quantise(graph, activation_bits=bits, weight_bits=draw(st.sampled_from((8, 4, 6))),
                        acc_bits=24, unsigned=draw(st.booleans()), unsigned_input=positive,
                        exponents="static" if static else "dynamic",
                        calibration=images if static else None)
    except FitError:            # a bias that 24 bits do not hold
        reject()


def _shape(node: Conv, source: tuple[int, int, int]) -> tuple[int, int, int]:
    top, left, bottom, right = node.padding
    size = [extent + before + behind for extent, before, behind in
            zip(node.geometry.bordered(source[1:]), (top, left), (bottom, right), strict=True)]
    found = [(extent - (kernel - 1) * apart - 1) // stride + 1 for extent, kernel, apart, stride in
             zip(size, node.kernel, node.dilation, node.stride, strict=True)]
    if (pool := node.epilogue.pool) is not None:
        found = [(extent - window) // stride + 1 for extent, window, stride in
                 zip(found, pool.window, pool.stride, strict=True)]
    return (len(node.weight), found[0], found[1])


def _layer(draw: st.DrawFn, rng: np.random.Generator, name: str, source: str,
           shape: tuple[int, int, int], others: list[str],
           shapes: dict[str, tuple[int, int, int]]) -> Conv:
    channels, *size = shape
    # The one with the fewest draws comes first: so it is what others shrink to.
    kind = draw(st.sampled_from(("full", "conv", "conv", "groups", "depthwise")))
    if kind == "full":
        geometry = {"stride": (1, 1), "padding": (0, 0, 0, 0), "dilation": (1, 1), "border": BARE}
        kernel = tuple(size)
    else:
        apart = tuple(draw(st.sampled_from((1, 1, 2, 3))) for _ in size)
        kernel = tuple(draw(st.integers(1, 5)) for _ in size)
        reach = [(k - 1) * d for k, d in zip(kernel, apart, strict=True)]
        before = [draw(st.integers(0, most)) for most in reach]
        behind = [draw(st.integers(min(most, max(0, most + 1 - extent - first)), most))
                  for most, extent, first in zip(reach, size, before, strict=True)]
        geometry = {"stride": tuple(draw(st.integers(1, 3)) for _ in size), "dilation": apart,
                    "padding": (before[0], before[1], behind[0], behind[1]),
                    "border": _border(draw, rng, shape)}
    groups, rows = 1, draw(st.integers(1, 20))
    if kind in ("groups", "depthwise"):
        groups = draw(st.sampled_from([count for count in range(1, channels + 1)
                                       if channels % count == 0])) if kind == "groups" else channels
        rows = groups * (draw(st.integers(1, 3)) if kind == "groups" else 1)
    weight = rng.standard_normal((rows, channels // groups, *kernel))
    weight *= rng.random(weight.shape) < draw(st.sampled_from((0.05, 0.3, 1.0)))
    bias = rng.standard_normal(rows) if draw(st.booleans()) else None
    node = Conv(name=name, input=source, weight=weight, bias=bias,
                groups=groups, kind=NodeKind.CONV, **geometry)
    activation = draw(st.sampled_from(ACTIVATIONS))
    plain = _shape(node, shape)
    fitting = [other for other in others if shapes[other] == plain]
    pools = [window for window in ((2, 2), (1, 2), (3, 3), (2, 1))
             if window[0] <= plain[1] and window[1] <= plain[2]]
    choice = draw(st.sampled_from(("plain", "add", "pool")))
    epilogue = Epilogue(activation=activation)
    if choice == "add" and fitting:
        epilogue = Epilogue(activation=activation, add=draw(st.sampled_from(fitting)))
    elif choice == "pool" and pools:
        window = draw(st.sampled_from(pools))
        stride = draw(st.sampled_from((window, (1, 1), (2, 2))))
        epilogue = Epilogue(activation=activation, pool=Pool(window=window, stride=stride))
    return Conv(name=name, input=source, weight=node.weight, bias=bias, groups=node.groups,
                kind=NodeKind.CONV, epilogue=epilogue, **geometry)


def _border(draw: st.DrawFn, rng: np.random.Generator, shape: tuple[int, int, int]) -> Border:
    """Up to two lines or columns on each side of a map, of any channels."""
    if not draw(st.sampled_from((False, False, True))):
        return BARE
    channels = draw(st.sampled_from(((), (), tuple(rng.permutation(shape[0]).tolist()),
                                     tuple(rng.integers(shape[0], size=shape[0]).tolist()))))
    top, left, bottom, right = (
        tuple(Edge(int(rng.integers(size)), channels) for _ in range(draw(st.integers(0, 2))))
        for size in 2 * shape[1:])
    return top, left, bottom, right


def residual_network(extent: int = 12) -> QGraph:
    """A network of four layers: bands, a pooling window, a tensor that is added, signs.

    extent : lines and columns of its input, from 6 on.
    """
    rng = np.random.default_rng(5)

    def weight(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape) * (rng.random(shape) < 0.5)

    nodes = (
        Conv(name="a", input="x", weight=weight(6, 3, 3, 3), bias=rng.standard_normal(6),
             padding=(1, 1, 1, 1), epilogue=Epilogue(activation=Relu())),
        Conv(name="b", input="a", weight=weight(6, 6, 3, 3), bias=None, padding=(1, 1, 1, 1),
             epilogue=Epilogue(activation=Identity(), add="a")),
        Conv(name="c", input="b", weight=weight(4, 6, 3, 3), bias=rng.standard_normal(4),
             stride=(2, 1), epilogue=Epilogue(activation=Relu(),
                                              pool=Pool(window=(2, 2), stride=(2, 2)))),
        Conv(name="d", input="c", weight=weight(5, 4, (extent - 1) // 4, extent // 2 - 1),
             bias=None))
    shape = (3, extent, extent)
    return quantise(Graph(nodes=nodes, input="x", output="d", input_map=shape, input_shape=shape,
                          output_shape=(5, 1, 1)), acc_bits=24)


def shrinking_network(sizes: tuple[int, ...] = (3, 8, 12, 12, 12),
                      strides: tuple[int, ...] = (1, 2, 2, 1), extent: int = 8) -> QGraph:
    """Layers on shrinking maps."""
    rng = np.random.default_rng(2)
    last = extent
    for stride in strides:
        last = -(-last // stride)
    nodes = tuple(Conv(name=f"n{k}", input=f"n{k - 1}" if k else "x", bias=rng.normal(size=after),
                       weight=rng.normal(size=(after, before, 3, 3)), padding=(1, 1, 1, 1),
                       stride=(strides[k], strides[k]),
                       epilogue=Epilogue(activation=Relu()))
                  for k, (before, after) in enumerate(pairwise(sizes)))
    shape = (sizes[0], extent, extent)
    graph = Graph(nodes=nodes, input="x", output=nodes[-1].name, input_map=shape, input_shape=shape,
                  output_shape=(sizes[-1], last, last))
    return quantise(graph, acc_bits=24)


class Quiet(torch.nn.Module):
    """Maps that a nearly silent branch is added to, one that is silent, and one that is loud; the
    picture itself is read beside a loud operand."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = torch.nn.ModuleList(
            torch.nn.Conv2d(4, 4, 3, padding=1) for _ in range(5))

    def forward(self, x):
        first, a, b, c, last = self.layers
        y = first(x) + 40 * a(torch.relu(b(x) - 50) + x)
        y = y + torch.relu(2.0 ** -11 * b(y))
        y = y + torch.relu(c(y) - 2000)
        return last(y) + 2.0 ** -9 * y
