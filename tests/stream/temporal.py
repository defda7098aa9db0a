"""Random networks of temporal convolutions, and their inputs as streams of lines."""

from dataclasses import replace

import numpy as np
from hypothesis import reject
from hypothesis import strategies as st

from celosia.bands.steps import steps
from celosia.graph import Conv, Graph
from celosia.quantise import quantise
from celosia.static_exponents import fixed
from celosia_spec.epilogue import Epilogue, Identity, Pool, Relu
from celosia_spec.errors import FitError
from celosia_spec.qgraph import Geometry, NodeKind, QGraph
from celosia_spec.steps import Steps
from concats import graph_of, linear
from stream.networks import Case, lowered


def lines(geometry, pool, height):
    """Return the lines that a layer makes of some."""
    kernel, apart, step = geometry
    found = (height - (kernel - 1) * apart - 1) // step + 1
    return found if pool is None else (found - pool.window[0]) // pool.stride[0] + 1


@st.composite
def temporal(draw: st.DrawFn) -> QGraph:
    """A quantised network of one to five layers over 6 to 20 lines, the last one perhaps dense."""
    rng = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    width = draw(st.sampled_from([1, 1, 3]))
    shape = (draw(st.sampled_from([1, 3, 8])), draw(st.integers(6, 20)), width)
    nodes: list[Conv] = []
    shapes = {"x": shape}
    made = {}           # what layers of the same lines may be added to: by source and geometry
    name = "x"
    for index in range(draw(st.integers(1, 5))):
        source = draw(st.sampled_from([name, name, name, *(n.name for n in nodes)]))
        channels, height, width = shapes[source]
        geometry = (draw(st.integers(1, min(5, height))), draw(st.sampled_from([1, 1, 2])),
                    draw(st.sampled_from([1, 1, 2])))
        if lines(geometry, None, height) < 1:
            geometry = (1, 1, 1)
        kind = draw(st.sampled_from(["conv", "conv", "depthwise"]))
        rows = channels if kind == "depthwise" else draw(st.integers(1, 12))
        pools = [Pool(window=(2, 1), stride=(step, 1)) for step in (1, 2)]
        pool = draw(st.sampled_from([None, None, *pools]))
        if lines(geometry, pool, height) < 1:
            pool = None
        count = lines(geometry, pool, height)
        key = source, geometry, rows
        add = draw(st.sampled_from([None, made.get(key)])) if pool is None else None
        wide = draw(st.sampled_from([1, width]))
        if (kernel := (geometry[0], wide))[1] < width and add:
            add = None
        weight = rng.standard_normal((rows, 1 if kind == "depthwise" else channels, *kernel))
        weight *= rng.random(weight.shape) < draw(st.sampled_from([0.3, 1.0]))
        name = f"n{index}"
        nodes.append(Conv(
            name=name, input=source, weight=weight, kind=NodeKind.CONV,
            bias=rng.standard_normal(rows) if draw(st.booleans()) else None,
            groups=channels if kind == "depthwise" else 1, dilation=(geometry[1], 1),
            stride=(geometry[2], 1), epilogue=Epilogue(
                add=add, pool=pool, activation=draw(st.sampled_from([Relu(), Identity()])))))
        shapes[name] = (rows, count, width - wide + 1)
        if pool is None and wide == width:
            made[key] = name
    if draw(st.booleans()):
        channels, *size = shapes[name]
        nodes.append(Conv(name="head", input=name, bias=None, kind=NodeKind.LINEAR,
                          weight=rng.standard_normal((4, channels, *size))))
        shapes["head"], name = (4, 1, 1), "head"
    used = {name} | {other for node in nodes for other in node.inputs}
    while {node.name for node in nodes} - used:
        nodes = [node for node in nodes if node.name in used]
        used = {name} | {other for node in nodes for other in node.inputs}
    graph = Graph(nodes=tuple(nodes), input="x", output=name, input_map=shape, input_shape=shape,
                  output_shape=shapes[name])
    try:
        made = quantise(graph, acc_bits=24, unsigned=draw(st.booleans()), exponents="static",
                        unsigned_input=draw(st.booleans()), calibration=rng.random((3, *shape)))
        return lowered(made, draw(st.sampled_from((0, 0, 1, 2))))
    except FitError:            # sums that 24 bits do not hold
        reject()


def read_together() -> QGraph:
    """Two branches that are read together over time, at an exponent that is not theirs."""
    rng = np.random.default_rng(4)

    def node(name, inputs, rows, columns, kernel, **fields):
        made = linear(name, inputs, rng.integers(-127, 128, (rows, columns * kernel)), -8,
                      rng.integers(-100, 100, rows), **fields)
        return replace(made, geometry=Geometry(kernel=(kernel, 1)))

    nodes = [node("a", ("x",), 3, 2, 3, epilogue=Epilogue(activation=Relu())),
             node("b", ("x",), 4, 2, 3), node("c", ("b", "a"), 4, 7, 4),
             node("d", ("c",), 3, 4, 4)]
    shapes = {"x": (2, 9, 1), "a": (3, 7, 1), "b": (4, 7, 1), "c": (4, 4, 1), "d": (3, 1, 1)}
    graph = graph_of(nodes, shapes)
    return fixed(graph, {name: 1 if name == "b" else 2 for name in graph.tensors})


def stream_for(graph, steps_taken, hop, seed=1):
    """Return the lines of so many steps of an input, float32 (C, lines, W)."""
    tensor = graph.tensors[graph.input]
    rng = np.random.default_rng(seed)
    shape = (tensor.shape[0], steps_taken * hop, tensor.shape[2])
    return (rng.random(shape) - (0.3 if tensor.signed else 0)).astype(np.float32)


class Stream(Case):
    """A network, its steps, and a stream for it, float32 (C, lines, W)."""

    def __init__(self, graph: QGraph, steps: Steps, x: np.ndarray) -> None:
        super().__init__(graph, x)
        self.steps = steps

    def __repr__(self) -> str:
        return f"steps of {self.steps.hop} lines{super().__repr__()}"


@st.composite
def streams(draw: st.DrawFn) -> Stream:
    """A network in steps of some lines, and so many steps that all of a period have a result."""
    graph = draw(temporal())
    least = steps(graph).hop
    found = steps(graph, least * draw(st.integers(1, graph.tensors["x"].shape[1] // least)))
    return Stream(graph, found, stream_for(graph, found.first + found.period, found.hop,
                                           draw(st.integers(0, 1 << 32))))
