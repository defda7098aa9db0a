"""What a quantised graph must keep so that the golden model and the machine agree on every bit.

The compiler keeps these rules by construction; a program file may hold anything. All rules are
checked in an order in which nothing is computed from a number before its range is known, so that
the work of checking and of compiling is bounded.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from celosia_spec.block import Format
from celosia_spec.epilogue import highest, rounded
from celosia_spec.faint_rows import bias_minima, unit_minima
from celosia_spec.host_layers import AXES_MAX
from celosia_spec.isa.array import Array
from celosia_spec.isa.controls import PHASES_MAX
from celosia_spec.isa.numbers import (
    BIAS_UNITS,
    EXPONENT_MAX,
    EXPONENT_MIN,
    OUTPUT_BITS,
    WEIGHT_UNITS,
)
from celosia_spec.qgraph import (
    NodeRecord,
    QGraph,
    QNode,
    QTensor,
    farthest_sums,
    least_read,
    windows,
)

NAME_LENGTH = 1000
"""Most characters of a layer's or a tensor's name."""

_BIAS_MAX = (1 << OUTPUT_BITS - 1) - 1
_REMARKS_MAX, _REMARK_LENGTH = 32, 4 * NAME_LENGTH
_SIZE_MAX = 1 << 16
"""Above every size, stride and dilation that an array can walk, and above all kernel positions."""

_ELEMENTS_MAX, _ROWS_MAX, _WEIGHTS_MAX = 1 << 18, 1 << 16, 1 << 23
"""Above the elements of every map, and all rows and weights, that main memory and flash hold."""

SEPARATORS = "/\\"
"""What names of inputs and outputs do not hold: they become names of arrays in files."""


def check_name(what: str, name: str) -> None:
    """ValueError unless a layer's or tensor's name can stand in a message and in a table."""
    if not 0 < len(name) <= NAME_LENGTH or not name.isprintable():
        raise ValueError(f"{what} {name[:40]!a} must have 1 to {NAME_LENGTH} printable "
                         f"characters")


def check_part_name(what: str, name: str) -> None:
    """ValueError unless an input's or output's name can also be that of an array in a file."""
    check_name(what, name)
    if set(name) & set(SEPARATORS):
        raise ValueError(f"{what} {name[:40]!a} must have none of {' '.join(SEPARATORS)}")


def check_tensors(tensors: Iterable[QTensor], *, input: str, output: str, bits: int,
                  static: bool) -> dict[str, QTensor]:
    """Return the tensors by name; ValueError where one cannot be stored.

    input, output : names of the network's.   bits : mantissa width of all but the output.
    static : whether all exponents are fixed.
    """
    found: dict[str, QTensor] = {}
    for tensor in tensors:
        name = tensor.name
        check_name("tensor", name)
        if name in found:
            raise ValueError(f"tensor {name!r} stands twice")
        found[name] = tensor
        _within(name, "shape", tensor.shape, 1, _SIZE_MAX)
        _within(name, "shape", [math.prod(tensor.shape)], 1, _ELEMENTS_MAX)
        _within(name, "bits of low parts", [tensor.low], 0, bits - 1 if name == input else 0)
        if tensor.low and tensor.shape[0] % 2:
            raise ValueError(f"{name!r}: {tensor.shape[0]} channels are no high and low parts")
        _within(name, "user_shape", tensor.user_shape, 1, _ELEMENTS_MAX)
        if (len(tensor.user_shape) > AXES_MAX
                or math.prod(tensor.user_shape) != math.prod(tensor.numbers)):
            raise ValueError(f"{name!r}: user_shape {tensor.user_shape} is not a shape of "
                             f"{tensor.numbers}")
        _within(name, "bits of raised channels", tensor.raised, 0, EXPONENT_MAX - EXPONENT_MIN)
        if tensor.raised and len(tensor.raised) != tensor.shape[0]:
            raise ValueError(f"{name!r}: {len(tensor.raised)} channels raised, there are "
                             f"{tensor.shape[0]}")
        if tensor.bits != (OUTPUT_BITS if name == output else bits):
            raise ValueError(f"{name!r}: mantissas of {tensor.bits} bits")
        if name == output and not tensor.signed:
            raise ValueError(f"{name!r}: the output's mantissas have a sign")
        rule = tensor.exponent
        _within(name, "least exponent", [rule.least], EXPONENT_MIN, EXPONENT_MAX)
        if rule.found if static else rule.fixed is not None:
            raise ValueError(f"{name!r}: a static exponent where all are dynamic, or none where "
                             f"all are static")
        if rule.fixed is not None:
            _within(name, "static exponent", [rule.fixed], rule.least, EXPONENT_MAX)
    return found


def check_nodes(tensors: Mapping[str, QTensor], nodes: Iterable[NodeRecord], array: Array, *,
                input: str, output: str) -> None:
    """ValueError unless the nodes, in their order, make every tensor once from those before it."""
    made, names = {input}, set()
    read: set[str] = set()
    if input not in tensors:
        raise ValueError(f"the input {input[:40]!r} is no tensor")
    if tensors[input].exponent.keeps is not None:
        raise ValueError(f"the input {input!r} keeps an exponent, and there is no tensor before it")
    for node in nodes:
        check_name("node", node.name)
        if node.name in names:
            raise ValueError(f"node {node.name!r} stands twice")
        names.add(node.name)
        if not node.inputs:
            raise ValueError(f"{node.name!r} reads nothing")
        operands = [operand for operand in (*node.inputs, node.epilogue.add)
                    if operand is not None]
        for operand in operands:
            if operand not in made:
                raise ValueError(f"{node.name!r} reads {operand[:40]!r}, which no node before it "
                                 f"makes")
        _check_joined(tensors, node, input)
        read.update(operands)
        if node.output not in tensors or node.output in made:
            raise ValueError(f"{node.name!r} makes {node.output[:40]!r}, which is no tensor or "
                             f"made already")
        made.add(node.output)
        _check_shapes(tensors, node, array)
    if made != set(tensors):
        raise ValueError(f"no node makes {min(set(tensors) - made)!r}")
    if output == input or made - read != {output}:
        raise ValueError("the output must be made and not read, and every other tensor be read")


def _check_joined(tensors: Mapping[str, QTensor], node: NodeRecord, input: str) -> None:
    """ValueError unless each of a node's tensors can be rounded for it, and its smallest exponent
    is of such a reading."""
    name, first = node.name, tensors[node.input]
    _within(name, "least exponent", [node.least], EXPONENT_MIN,
            EXPONENT_MAX if node.joins else EXPONENT_MIN)
    if node.joins and input in node.inputs:
        raise ValueError(f"{name!r} reads other tensors together with the input {input!r}, which "
                         f"the host has rounded already")
    for other in (tensors[other] for other in node.inputs):
        if other.signed != first.signed:
            raise ValueError(f"{name!r} reads {first.name!r} and {other.name!r} together, and only "
                             f"one of them has a sign")
    if node.joins and tensors[node.output].exponent.keeps is not None:
        raise ValueError(f"{name!r} keeps exponents, and reads several tensors, each with its own")


def _check_shapes(tensors: Mapping[str, QTensor], node: NodeRecord, array: Array) -> None:
    """ValueError unless a node's geometry leads from its input's shape to its output's."""
    name, geometry, add, pool = node.name, node.geometry, node.epilogue.add, node.epilogue.pool
    source, result = tensors[node.input], tensors[node.output]
    keeps = result.exponent.keeps
    _within(name, "kernel, stride and dilation",
            (*geometry.kernel, *geometry.stride, *geometry.dilation), 1, _SIZE_MAX)
    _within(name, "padding", geometry.padding, 0, _SIZE_MAX)
    _check_border(tensors, node)
    size = geometry.padded(source.shape[1:])
    if any(tensors[other].shape[1:] != source.shape[1:] for other in node.inputs):
        raise ValueError(f"{name!r} reads maps of several sizes together")
    channels = sum(tensors[other].shape[0] for other in node.inputs)
    _within(name, "padded input", [channels * math.prod(size)], 1, _ELEMENTS_MAX)
    shape = geometry.positions(source.shape[1:])
    phases = 1
    if pool is not None:
        _within(name, "pool", (*pool.window, *pool.stride), 1, _SIZE_MAX)
        shape, phases = windows(shape, pool.window, pool.stride), math.prod(pool.window)
    elements = pool is None and makes_elements(shape, result.shape)
    if min(shape) < 1 or (result.shape[1:] != shape and not elements):
        raise ValueError(f"{name!r}: its geometry does not lead from {source.shape} to "
                         f"{result.shape}")
    _within(name, "pool window", [phases], 1, PHASES_MAX)
    _within(name, "kernel", [phases * math.prod(geometry.kernel)], 1, _SIZE_MAX)
    if add is not None and (keeps is not None or pool is not None or elements
                            or tensors[add].shape != result.shape):
        raise ValueError(f"{name!r}: its residual operand {add!r} has not the shape of its sums, "
                         f"or it keeps exponents or pools")
    if keeps is not None and (
            keeps != node.input or least_read(tensors, node) < result.exponent.least):
        raise ValueError(f"{name!r} keeps exponents, but those of {node.input!r} and "
                         f"{node.output!r} differ")
    _check_sign(node, source, result)
    _check_activation(node, result, array)


def makes_elements(positions: tuple[int, int], result: tuple[int, int, int]) -> bool:
    """Whether rows of a node with such positions make elements of a map of such a shape, and not
    its channels (`QNode.output`)."""
    return positions == (1, 1) != result[1:]


def _check_border(tensors: Mapping[str, QTensor], node: NodeRecord) -> None:
    """ValueError unless what stands around a node's input are lines, columns and channels of it."""
    channels = sum(tensors[name].shape[0] for name in node.inputs)
    for edges, size in zip(node.geometry.border, 2 * tensors[node.input].shape[1:], strict=True):
        _within(node.name, "line or column of the border", [edge.at for edge in edges], 0, size - 1)
        for edge in edges:
            if len(edge.channels) not in (0, channels):
                raise ValueError(f"{node.name!r}: a border of {len(edge.channels)} channels, it "
                                 f"reads {channels}")
            _within(node.name, "channel of the border", edge.channels, 0, channels - 1)


def _check_sign(node: NodeRecord, source: QTensor, result: QTensor) -> None:
    """ValueError where a tensor without a sign may have elements below 0, or where choosing
    elements would round them."""
    chosen = result.exponent.keeps is not None
    if not result.signed and node.epilogue.activation.bounds[0] < 0 and (
            source.signed or not chosen):
        raise ValueError(f"{node.name!r} may give numbers below 0, and the mantissas of "
                         f"{result.name!r} have no sign")
    if chosen and result.format.fraction < source.format.fraction:
        raise ValueError(f"{node.name!r} keeps exponents, but {result.name!r} has a sign and "
                         f"{source.name!r} has none")


def _check_activation(node: NodeRecord, result: QTensor, array: Array) -> None:
    """ValueError unless a clamp's bound is a mantissa, and its tensor's exponent reaches it."""
    activation, rule = node.epilogue.activation, result.exponent
    if rounded(activation, Format(bits=array.activation_bits, signed=result.signed)) != activation:
        raise ValueError(f"{node.name!r} clamps to {activation.bounds[1]:g}, which is no mantissa "
                         f"of {array.activation_bits} bits")
    if rule.keeps is not None and activation.clamps:
        raise ValueError(f"{node.name!r} keeps exponents and clamps")
    if rule.fixed is not None:
        _within(result.name, "static exponent", [rule.fixed], rule.least,
                highest(activation, rule.least))


def check_remarks(remarks: Sequence[str]) -> None:
    """ValueError unless the remarks can stand in a report."""
    if len(remarks) > _REMARKS_MAX:
        raise ValueError(f"{len(remarks)} remarks, at most {_REMARKS_MAX} are made")
    for remark in remarks:
        if not 0 < len(remark) <= _REMARK_LENGTH or not remark.isprintable():
            raise ValueError(f"remark {remark[:40]!a} must have 1 to {_REMARK_LENGTH} printable "
                             f"characters")


def check_weights(graph: QGraph) -> None:
    """ValueError unless all weights and biases fit their words, and no sum can overflow.

    The nodes' matrices must be in canonical form, and all shapes as :func:`check_nodes` wants them.
    """
    for what, count, most in (
            ("weights", sum(node.matrix.nnz for node in graph.nodes), _WEIGHTS_MAX),
            ("rows", sum(node.matrix.shape[0] for node in graph.nodes), _ROWS_MAX)):
        if count > most:
            raise ValueError(f"{count} {what}, at most {most} can be stored")
    for node in graph.nodes:
        limit = (1 << graph.weight_bits - 1) - 1
        _within(node.name, "weights", node.matrix.data, -limit, limit)
        _within(node.name, "number of weights", [node.weights], max(node.matrix.nnz, 1),
                math.prod(node.matrix.shape))
        _within(node.name, "sw", node.sw, WEIGHT_UNITS[0], WEIGHT_UNITS[-1])
        _within(node.name, "bias", node.bias, -_BIAS_MAX, _BIAS_MAX)
        _within(node.name, "sb", node.sb, BIAS_UNITS[0], BIAS_UNITS[-1])
        _check_sums(graph, node)
        _check_raised(node)
        if graph.tensors[node.output].exponent.keeps is not None:
            _check_chosen(node)


def _check_sums(graph: QGraph, node: QNode) -> None:
    """ValueError where a row's products, or its bias, may leave the accumulator."""
    source, width = graph.tensors[node.input], graph.acc_bits
    least = least_read(graph.tensors, node)
    totals = farthest_sums(node.matrix, source.format)
    if totals.max(initial=0) > (1 << width - 2) - 1:
        raise ValueError(f"{node.name!r}: the sums of row {int(totals.argmax())} may leave a "
                         f"{width}-bit accumulator")
    for minima, what in ((bias_minima, "bias of row {} may leave the accumulator"),
                         (unit_minima, "unit of row {}'s sums may be too small")):
        needed = minima(node, node.sw, width, source.format)
        if needed.max() > least:
            raise ValueError(f"{node.name!r}: the {what.format(int(needed.argmax()))}, "
                             f"{node.input!r} may have exponents of {least}")


def _check_raised(node: QNode) -> None:
    """ValueError unless the rows told to be raised are rows, in order, and may have been."""
    rows = [row for row, _ in node.raised]
    if rows != sorted(set(rows)):
        raise ValueError(f"{node.name!r}: raised rows must rise")
    _within(node.name, "raised rows", rows, 0, node.matrix.shape[0] - 1)
    _within(node.name, "bits of raised rows", [bits for _, bits in node.raised], 1,
            EXPONENT_MAX - EXPONENT_MIN)


def _check_chosen(node: QNode) -> None:
    """ValueError unless every row of a node that keeps exponents is one mantissa, unchanged."""
    matrix = node.matrix.astype(np.int64)
    ones = (matrix.sum(axis=1), abs(matrix).sum(axis=1), matrix.max(axis=1).toarray().ravel())
    if (any((np.ldexp(total.astype(np.float64), node.sw) != 1).any() for total in ones)
            or node.bias.any()):
        raise ValueError(f"{node.name!r} keeps exponents, but a row of it is not one element")


def _within(name: str, what: str, values: Iterable[int], low: int, high: int) -> None:
    """ValueError unless low <= value <= high for all ``values``."""
    ends = ((int(values.min()), int(values.max())) if isinstance(values, np.ndarray) and values.size
            else (min(values, default=low), max(values, default=low)))
    if not (low <= ends[0] and ends[1] <= high):
        worst = ends[0] if ends[0] < low else ends[1]
        raise ValueError(f"{name!r}: {what} must be {low} to {high}, not {worst}")
