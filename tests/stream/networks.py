"""Random small networks: layers, shapes, strides, paddings, pools, residual additions."""

from itertools import pairwise

import numpy as np
from hypothesis import reject
from hypothesis import strategies as st

from celosia.graph import Conv, Graph
from celosia.quantise import quantise
from celosia_spec.epilogue import Clamp, Epilogue, Identity, Pool, Relu
from celosia_spec.errors import FitError
from celosia_spec.qgraph import NodeKind, QGraph

ACTIVATIONS = (Relu(), Relu(), Identity(), Clamp(low=0.0, high=1.5), Clamp(low=-1.0, high=1.0))


@st.composite
def graphs(draw: st.DrawFn) -> QGraph:
    """A quantised network of one to four layers, with weights of some density."""
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
    bits = draw(st.sampled_from((4, 6, 8, 8, 8)))
    static = draw(st.booleans())
    positive = draw(st.booleans())
    images = rng.random((3, *shape)) * draw(st.sampled_from((0.01, 1.0, 100.0)))
    try:
        return quantise(graph, activation_bits=bits, weight_bits=draw(st.sampled_from((4, 8))),
                        acc_bits=24, unsigned=draw(st.booleans()), unsigned_input=positive,
                        exponents="static" if static else "dynamic", codes=True,
                        calibration=images if static else None)
    except FitError:            # a bias that 24 bits do not hold
        reject()


def _shape(node: Conv, source: tuple[int, int, int]) -> tuple[int, int, int]:
    top, left, bottom, right = node.padding
    size = [extent + before + behind for extent, before, behind in
            zip(source[1:], (top, left), (bottom, right), strict=True)]
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
    kind = draw(st.sampled_from(("conv", "conv", "depthwise", "full")))
    if kind == "full":
        geometry = {"stride": (1, 1), "padding": (0, 0, 0, 0), "dilation": (1, 1)}
        kernel = tuple(size)
    else:
        apart = tuple(draw(st.integers(1, 2)) for _ in size)
        kernel = tuple(draw(st.integers(1, 5)) for _ in size)
        reach = [(k - 1) * d for k, d in zip(kernel, apart, strict=True)]
        before = [draw(st.integers(0, most)) for most in reach]
        behind = [draw(st.integers(min(most, max(0, most + 1 - extent - first)), most))
                  for most, extent, first in zip(reach, size, before, strict=True)]
        geometry = {"stride": tuple(draw(st.integers(1, 3)) for _ in size), "dilation": apart,
                    "padding": (before[0], before[1], behind[0], behind[1])}
    rows = channels if kind == "depthwise" else draw(st.integers(1, 20))
    weight = rng.standard_normal((rows, 1 if kind == "depthwise" else channels, *kernel))
    weight *= rng.random(weight.shape) < draw(st.sampled_from((0.05, 0.3, 1.0)))
    bias = rng.standard_normal(rows) if draw(st.booleans()) else None
    node = Conv(name=name, input=source, weight=weight, bias=bias,
                groups=channels if kind == "depthwise" else 1, kind=NodeKind.CONV, **geometry)
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


def residual_network() -> QGraph:
    """A network of three layers: bands, a pooling window, a tensor that is added, signs."""
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
        Conv(name="d", input="c", weight=weight(5, 4, 2, 5), bias=None))
    return quantise(Graph(nodes=nodes, input="x", output="d", input_map=(3, 12, 12),
                          input_shape=(3, 12, 12), output_shape=(5, 1, 1)), acc_bits=24)


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
