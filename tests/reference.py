"""The golden model's rules once more, slowly: in Python's integers and fractions, element by
element, written after docs/numerics.md alone. Every file of tests may import it."""

from fractions import Fraction
from itertools import product

import numpy as np

from celosia_sim import golden
from celosia_spec.epilogue import Kept, Pool, Static
from celosia_spec.qgraph import QGraph, QNode, QTensor


def exponent_of(values: list[Fraction], smallest: int) -> int:
    """Return the largest floor(log2 abs v), at least ``smallest``."""
    result = smallest
    for value in values:
        while abs(value) >= Fraction(2) ** (result + 1):
            result += 1
    return result


def unit(tensor: QTensor, exponent: int) -> Fraction:
    """Return the value of a tensor's mantissa 1."""
    return Fraction(2) ** (exponent - (tensor.bits - 2 if tensor.signed else tensor.bits - 1))


def limits(tensor: QTensor) -> tuple[int, int]:
    """Return the least and the largest mantissa of a tensor."""
    if tensor.signed:
        return 1 - 2 ** (tensor.bits - 1), 2 ** (tensor.bits - 1) - 1
    return 0, 2**tensor.bits - 1


def reference_mantissas(tensor: QTensor, values: dict, exponent: int) -> tuple[dict, bool]:
    """Return the mantissas of values at an exponent, and whether any was clipped."""
    least, largest = limits(tensor)
    rounded = {at: round(v / unit(tensor, exponent)) for at, v in values.items()}
    clipped = {at: max(least, min(largest, m)) for at, m in rounded.items()}
    return clipped, clipped != rounded


def reference_input(tensor: QTensor, image: np.ndarray) -> tuple[dict, int, bool]:
    values = {at: Fraction(float(np.float32(v)))
              for at, v in np.ndenumerate(image.reshape(tensor.shape))}
    static = isinstance(tensor.exponent, Static)
    exponent = tensor.exponent.value if static else exponent_of(list(values.values()),
                                                                tensor.exponent.least)
    m, clipped = reference_mantissas(tensor, values, exponent)
    return m, exponent, static and clipped


def apart(node: QNode) -> bool:
    """Return whether a node's reading has an exponent of its own."""
    return len(node.inputs) > 1 or node.room is not None


def reference_reading(graph: QGraph, node: QNode, stored: dict, exact: dict,
                      ) -> tuple[dict, int, bool]:
    """Return the mantissas that a node reads, their exponent, and whether this reading clipped."""
    if not apart(node):
        return *stored[node.inputs[0]], False
    exponent = max(node.least, *(stored[name][1] for name in node.inputs))
    if node.room is not None:
        exponent = min(max(exponent, stored[node.epilogue.add][1] - node.room), 15)
    x: dict = {}
    channels, clipped = 0, False
    for name in node.inputs:
        m, some = reference_mantissas(graph.tensors[name], exact[name], exponent)
        x |= {(c + channels, row, column): v for (c, row, column), v in m.items()}
        channels += graph.tensors[name].shape[0]
        clipped |= some
    return x, exponent, clipped


def reference_sums(graph: QGraph, node: QNode, x: dict, e_x: int, stored: dict,
                   ) -> tuple[dict, list[Fraction]]:
    """Return A + B + R by (row, y, x), and the value 2^S_k of their units, by row.

    x, e_x : what the node reads, and its exponent.
    """
    source, geometry = graph.tensors[node.inputs[0]], node.geometry
    (kh, kw), (sy, sx), (dy, dx) = geometry.kernel, geometry.stride, geometry.dilation
    top, left, bottom, right = geometry.padding
    height = (source.shape[1] + top + bottom - (kh - 1) * dy - 1) // sy + 1
    width = (source.shape[2] + left + right - (kw - 1) * dx - 1) // sx + 1
    matrix = node.matrix.toarray()
    scales = [Fraction(2) ** int(sw) * unit(source, e_x) for sw in node.sw]
    sums = {}
    for k, py, px in product(range(len(matrix)), range(height), range(width)):
        total = 0
        for column in np.flatnonzero(matrix[k]):
            c, ky, kx = column // (kh * kw), column // kw % kh, column % kw
            at = (int(c), py * sy + int(ky) * dy - top, px * sx + int(kx) * dx - left)
            total += int(matrix[k, column]) * x.get(at, 0)
        assert abs(total) <= 2 ** (graph.acc_bits - 2) - 1
        total += round(int(node.bias[k]) * Fraction(2) ** int(node.sb[k]) / scales[k])
        if (add := node.epilogue.add) is not None:
            m_r, e_r = stored[add]
            limit = 2 ** (graph.acc_bits - 3) - 1
            r = round(m_r[k, py, px] * unit(graph.tensors[add], e_r) / scales[k])
            total += max(-limit, min(limit, r))
        assert abs(total) < 2 ** (graph.acc_bits - 1)
        sums[k, py, px] = total
    return sums, scales


def reference_pool(sums: dict, pool: Pool | None) -> dict:
    if pool is None:
        return sums
    (kh, kw), (sy, sx) = pool.window, pool.stride
    pooled = {}
    for k, y, x in sums:
        window = [(k, y * sy + i, x * sx + j) for i in range(kh) for j in range(kw)]
        if all(at in sums for at in window):
            pooled[k, y, x] = max(sums[at] for at in window)
    return pooled


def reference_before_rounding(graph: QGraph, node: QNode, x: dict, e_x: int, stored: dict,
                              ) -> tuple[dict, list[Fraction]]:
    """Return A' by (row, y, x) behind ReLU and pooling, and the value of their units by row."""
    sums, scales = reference_sums(graph, node, x, e_x, stored)
    if node.epilogue.activation.bounds[0] == 0:
        sums = {at: max(v, 0) for at, v in sums.items()}
    return reference_pool(sums, node.epilogue.pool), scales


def reference(graph: QGraph, image: np.ndarray) -> tuple[dict, dict, bool]:
    """Return (mantissas by index, exponent) of every stored tensor, likewise of what each node
    reads, and the saturated flag."""
    m, exponent, saturated = reference_input(graph.tensors[graph.input], image)
    stored = {graph.input: (m, exponent)}
    source = graph.tensors[graph.input]
    exact: dict = {graph.input: {at: v * unit(source, exponent) for at, v in m.items()}}
    read: dict = {}
    by_itself = {graph.output}
    for node in graph.nodes:
        by_itself |= {node.epilogue.add, *(() if apart(node) else node.inputs)}
    for node in graph.nodes:
        x, e_x, clipped = reference_reading(graph, node, stored, exact)
        read[node.name] = x, e_x
        saturated |= clipped
        sums, scales = reference_before_rounding(graph, node, x, e_x, stored)
        low, high = node.epilogue.activation.bounds
        values = {at: v * scales[at[0]] for at, v in sums.items()}
        target = graph.tensors[node.output]
        if isinstance(target.exponent, Kept):
            exponent = stored[node.inputs[0]][1]
        elif isinstance(target.exponent, Static):
            exponent = target.exponent.value
        else:
            values = {at: min(max(v, low), high) for at, v in values.items()}
            exponent = min(exponent_of(list(values.values()), target.exponent.least), 15)
        values = {at: Fraction(min(max(v, low), high)) for at, v in values.items()}
        if len(node.sw) != target.shape[0]:     # rows are elements of a map
            values = {np.unravel_index(at[0], target.shape): v for at, v in values.items()}
        exact[node.output] = values
        m, clipped = reference_mantissas(target, values, exponent)
        stored[node.output] = m, exponent
        saturated |= clipped and node.output in by_itself
    return stored, read, saturated


def compare(graph: QGraph, x: np.ndarray) -> golden.GoldenResult:
    """Assert that golden model and reference agree on every bit; return the golden result."""
    got = golden.run(graph, x)
    for i, image in enumerate(x):
        stored, read, saturated = reference(graph, image)
        assert set(got.mantissas) == set(got.exponents) == set(stored) == set(graph.tensors)
        for name, (m, exponent) in stored.items():
            assert got.exponents[name][i] == exponent, name
            assert got.mantissas[name].shape[1:] == graph.tensors[name].shape
            assert dict(np.ndenumerate(got.mantissas[name][i])) == m, name
        assert set(got.readings) == {n.name for n in graph.nodes if apart(n)}
        for name, reading in got.readings.items():
            assert dict(np.ndenumerate(reading.mantissas[i])) == read[name][0], name
            assert reading.exponents[i] == read[name][1], name
        assert got.saturated[i] == saturated
    return got
