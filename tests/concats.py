"""Random networks in which a node reads several tensors together."""

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np
from hypothesis import strategies as st
from scipy.sparse import csr_array

from celosia.operand_room import with_room
from celosia.static_exponents import fixed
from celosia_sim import golden
from celosia_spec.epilogue import PLAIN, Clamp, Dynamic, Epilogue, Kept, Pool, Relu
from celosia_spec.faint_rows import exponent_minima, input_minima
from celosia_spec.isa.numbers import EXPONENT_MIN
from celosia_spec.qgraph import Geometry, NodeKind, QGraph, QNode, QTensor

SIZE = (3, 4)


def linear(name: str, inputs: tuple[str, ...], weights: np.ndarray, sw: np.ndarray | int,
           bias: np.ndarray | int = 0, kernel: tuple[int, int] = (1, 1), **fields) -> QNode:
    """Return a node with weights (rows, columns); a bias has the unit of a weight times 2^-4."""
    rows = np.zeros(len(weights), np.int64)
    return QNode(name=name, kind=fields.pop("kind", NodeKind.CONV), inputs=inputs, output=name,
                 matrix=csr_array(weights.astype(np.int16)), weights=weights.size,
                 geometry=Geometry(kernel=kernel), sw=rows + sw, bias=rows + bias,
                 sb=rows + sw - 4 * (np.asarray(bias) != 0), **fields)


def normal(node: QNode) -> QNode:
    """Return a node with the same biases, of 16 bits: as the compiler makes them, and the gateware
    wants them."""
    up = np.where(node.bias == 0, 0, 15 - np.frexp(np.abs(node.bias))[1])
    return replace(node, bias=node.bias << up, sb=node.sb - up)


def graph_of(nodes: list[QNode], shapes: dict[str, tuple[int, int, int]],
             unsigned: Collection[str] = (), width: int = 24) -> QGraph:
    """Return the graph of nodes, the last of which makes the output; ``unsigned`` have mantissas
    without a sign, what is chosen keeps exponents."""
    kept = {node.output: node.input for node in nodes
            if node.kind == NodeKind.SELECT}
    output = nodes[-1].output
    tensors = {name: QTensor(
        name=name, shape=shape, user_shape=shape, bits=16 if name == output else 8,
        exponent=Dynamic(least=EXPONENT_MIN), signed=name not in unsigned)
               for name, shape in shapes.items()}
    needed = {node.name: int(input_minima(node, node.sw, width,
                                          tensors[node.input].format).max()) for node in nodes}
    minima, read = exponent_minima(list(tensors), nodes, needed, kept)
    nodes = [replace(node, least=read[node.name]) if node.joins else node for node in nodes]
    tensors = {name: replace(t, exponent=Kept(of=kept[name], least=minima[name]) if name in kept
                             else Dynamic(least=minima[name])) for name, t in tensors.items()}
    return with_room(QGraph(tensors=tensors, nodes=tuple(nodes), input="x", output=output,
                            weight_bits=8, activation_bits=8, acc_bits=width))


@st.composite
def joined(draw: st.DrawFn, widths: Sequence[int] = (24, 32)) -> tuple[QGraph, np.ndarray]:
    """Draw two or three branches, which read the input or those before them; d reads all of them
    together, in some order, e some of them. Of a are also made a pool, p, and what d adds. Sums
    have one of some widths."""
    rng = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    unsigned = draw(st.booleans())
    names = ["a", "b", "c"][:draw(st.integers(2, 3))]
    nodes, shapes = [], {"x": (2, *SIZE)}
    for name in names:
        before = draw(st.permutations(names[:names.index(name)]))
        source = tuple(before[:draw(st.integers(0, len(before)))]) or ("x",)
        columns = sum(shapes[other][0] for other in source)
        rows = 2 if name == "a" else draw(st.integers(1, 3))
        bounds = [Relu(), Clamp(low=0, high=draw(st.sampled_from([0.25, 6.0])))]
        activation = draw(st.sampled_from(bounds if unsigned else [
            *bounds, PLAIN.activation, Clamp(low=-1.5, high=1.5)]))
        nodes.append(linear(name, source, rng.integers(-127, 128, (rows, columns)),
                            draw(st.integers(-14, -2)) + rng.integers(-2, 1, rows),
                            rng.integers(-200, 200, rows),
                            epilogue=Epilogue(activation=activation)))
        shapes[name] = (rows, *SIZE)
    nodes.insert(draw(st.integers(1, len(nodes))), linear(
        "p", ("a",), 64 * np.eye(2), -6, kind=NodeKind.SELECT,
        epilogue=Epilogue(pool=Pool(window=(2, 2), stride=(1, 1)))))
    order = tuple(draw(st.permutations(names)))
    channels = sum(shapes[name][0] for name in names)
    nodes.append(linear("d", order, rng.integers(-127, 128, (2, channels)), -7,
                        epilogue=Epilogue(add="a", activation=Relu())))
    some = order[:draw(st.integers(1, len(order)))]
    nodes.append(linear("e", some, rng.integers(
        -127, 128, (2, 4 * sum(shapes[name][0] for name in some))), -8, kernel=(2, 2),
        epilogue=Epilogue(add="p")))
    nodes.append(linear("y", ("d",), rng.integers(-127, 128, (1, 2)), -6))
    # Everything that is made is read: e goes into the output's sums.
    nodes[-1] = replace(nodes[-1], geometry=Geometry(kernel=(2, 2)), epilogue=Epilogue(add="e"),
                        matrix=csr_array(rng.integers(-127, 128, (2, 8)).astype(np.int16)),
                        weights=16, **{f: np.repeat(getattr(nodes[-1], f), 2)
                                       for f in ("sw", "bias", "sb")})
    shapes |= {"p": (2, 2, 3), "d": (2, *SIZE), "e": (2, 2, 3), "y": (2, 2, 3)}
    graph = graph_of([normal(node) for node in nodes], shapes, {*names, "p"} if unsigned else (),
                     draw(st.sampled_from(widths)))
    x = (rng.normal(size=(2, *shapes["x"])) * 2.0 ** draw(st.integers(-6, 4))).astype(np.float32)
    if draw(st.booleans()):
        found = golden.run(graph, x[:1], keep_tensors=False).exponents
        graph = fixed(graph, {name: int(exponents[0]) for name, exponents in found.items()})
    return graph, x
