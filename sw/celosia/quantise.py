"""Float graph to quantised graph: block exponents, mantissas and the accumulator proof."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from celosia.beside_float import decibels, energies
from celosia.calibration import MOST_INPUTS, spread
from celosia.closest_exponents import closest_exponents
from celosia.expected import USUAL_DEVIATION, expected_exponents
from celosia.float_values import largest
from celosia.graph import Conv, Graph
from celosia.graph_text import operator
from celosia.input_scales import with_larger_input
from celosia.operand_room import with_room
from celosia.passes.wide_input import with_low_parts
from celosia.range_exponents import check_static
from celosia.shortfalls import narrowed, shortfalls, unforeseen
from celosia.static_exponents import fixed, static_exponents
from celosia.weight_matrix import row_exponents, weight_matrix
from celosia_spec.block import Format, floor_log2
from celosia_spec.epilogue import DYNAMIC, Dynamic, Kept, check_exponents, rounded
from celosia_spec.errors import ArgumentError, CompileError, FitError, Need, Scarce
from celosia_spec.faint_rows import exponent_minima, input_minima, raised_lsbs
from celosia_spec.isa.array import Array
from celosia_spec.isa.numbers import (
    ACCUMULATORS,
    EXPONENT_MAX,
    EXPONENT_MIN,
    MANTISSA_BITS,
    OUTPUT_BITS,
)
from celosia_spec.qgraph import (
    NodeKind,
    QGraph,
    QNode,
    QTensor,
    farthest_sums,
    row_magnitudes,
)

_ENOUGH = 40.0
"""dB of signal to noise for which no wider accumulators are taken."""


def quantise(graph: Graph, *, calibration: np.ndarray | None = None, exponents: str = DYNAMIC,
             weight_bits: int = Array.weight_bits,
             activation_bits: int = Array.activation_bits, low_bits: int = 0,
             acc_bits: int | None = None,
             widest: int = ACCUMULATORS[-1], sparse: bool = True,
             begun: "Begun | None" = None, unsigned: bool = True,
             unsigned_input: bool = False, clipped: bool = False,
             larger_input: tuple[int, ...] = ()) -> QGraph:
    """Return the quantised graph of an optimised float graph (``celosia.passes.optimise``).

    calibration : (N, *input_shape), taken as float32; needed by static exponents only, of tensors
                  that have no range (`celosia.range_exponents`). Also tells whether accumulators
                  are wide enough for dynamic ones.
    exponents   : "dynamic" (found for each image) or "static" (fixed by ranges and calibration).
    weight_bits, activation_bits : mantissa widths L, 4 to 9.
    larger_input : bits by which each channel of the input is made larger (`input_scales`), or ().
    low_bits    : of a wide input (``celosia.passes.wide_input.apart``), below ``activation_bits``.
    acc_bits    : accumulator width W; None takes the narrowest that is proved sufficient and in
                  which no tensor is expected to lose anything, and none loses what calibration
                  inputs show to count (numerics, section 5).
    widest      : the widest W that None may take. Rows whose sums do not fit it, or a W that is
                  given, are narrowed (numerics, section 3).
    sparse      : False stores the zeros of the weights too (the dense baseline).
    begun       : what `begin` returns of this graph with these weights; None begins here.
    unsigned    : give tensors behind a ReLU, or behind a clamp from 0 on, mantissas without a sign.
    unsigned_input : likewise for the network's input, which is never below 0 then.
    clipped     : let static exponents clip where that makes less noise (`closest_exponents`).

    CompileError names the layer (and row) whose weights, bias or sums do not fit; it is a FitError
    where fewer bits may.
    """
    _check(exponents, weight_bits, activation_bits, acc_bits)
    check_static(graph, exponents, calibrated=calibration is not None)
    begun = begun or begin(graph, weight_bits=weight_bits, sparse=sparse, low_bits=low_bits,
                           larger_input=larger_input)
    usual = begun.usual if exponents == DYNAMIC else None
    parted = begun.graph
    formats = _formats(parted, begun.layers, activation_bits, unsigned, unsigned_input)

    # Mantissas with a sign are multiplied as codes without (decision 16).
    multiplied = {name: replace(of, signed=False) for name, of in formats.items()}
    widths = tuple(width for width in ACCUMULATORS
                   if width == acc_bits or (acc_bits is None and width <= widest))

    @cache
    def seen() -> dict[str, int]:
        return {} if calibration is None else _seen(graph, larger_input, calibration)

    def at(width: int, narrow: bool) -> QGraph:
        found = _at_width(parted, begun, width, formats, multiplied, narrow)
        if exponents == DYNAMIC:
            return found
        values = static_exponents(parted, found, calibration)
        return fixed(found, closest_exponents(graph, found, values, calibration)
                     if clipped and calibration is not None else values)

    def lost(found: QGraph) -> tuple[str, ...]:
        told = shortfalls(found, usual, None if calibration is None else seen)
        widest = ACCUMULATORS[-1]
        if told or usual is None or calibration is None or found.acc_bits == widest:
            return told
        told = unforeseen(found, seen)
        if not told or not _helps(graph, found, at(widest, True), calibration):
            return ()
        return told if widest in widths else tuple(
            f"{line}; a target with {widest}-bit accumulators leaves half of the outputs' noise, "
            f"or less" for line in told)

    try:
        return _narrowest(at, widths, lost)
    except FitError as refusal:
        if acc_bits not in ACCUMULATORS[:-1]:
            raise
        at(ACCUMULATORS[-1], True)      # raises what is wrong at any width
        raise FitError(refusal.node, refusal.operator, refusal.problem,
                       f"use acc_bits={ACCUMULATORS[-1]}") from None


@dataclass(frozen=True, eq=False, kw_only=True)
class Begun:
    """What of a quantised graph does not depend on its accumulators.

    graph  : the float graph, with the low parts of a wide input, of so many bits, and for an input
             whose channels are larger by some bits, if any.
    layers : of it.   nodes : with each row's own exponents, none raised.
    expected, usual : exponents that tensors are likely to have, for all inputs and for usual ones.
    weight_bits, sparse : as `quantise` has them.
    """

    graph: Graph
    low_bits: int
    larger_input: tuple[int, ...]
    layers: list[Conv]
    nodes: list[QNode]
    expected: dict[str, int]
    usual: dict[str, int]
    weight_bits: int
    sparse: bool


def begin(graph: Graph, *, weight_bits: int, sparse: bool, low_bits: int = 0,
          larger_input: tuple[int, ...] = ()) -> Begun:
    """Begin to quantise a graph; CompileError names a layer whose weights or bias do not fit."""
    graph = with_larger_input(graph, larger_input)
    layers = _layers(graph)
    if low_bits:
        graph = with_low_parts(graph, low_bits)
        layers = _layers(graph)
    return Begun(graph=graph, low_bits=low_bits, larger_input=larger_input, layers=layers,
                 nodes=[_node(layer, weight_bits, sparse) for layer in layers],
                 expected=expected_exponents(graph),
                 usual=expected_exponents(graph, USUAL_DEVIATION), weight_bits=weight_bits,
                 sparse=sparse)


def _check(exponents: str, weight_bits: int, activation_bits: int, acc_bits: int | None) -> None:
    check_exponents(exponents)
    for name, bits in (("weight_bits", weight_bits), ("activation_bits", activation_bits)):
        if bits not in MANTISSA_BITS:
            raise ArgumentError(f"{name} must be {MANTISSA_BITS[0]} to {MANTISSA_BITS[-1]}, "
                                f"not {bits!r}")
    if acc_bits is not None and acc_bits not in ACCUMULATORS:
        raise ArgumentError(f"acc_bits must be None, {' or '.join(map(str, ACCUMULATORS))}, "
                            f"not {acc_bits!r}")


def _helps(graph: Graph, narrow: QGraph, wide: QGraph, calibration: np.ndarray) -> bool:
    """Whether outputs of some calibration inputs have less than `_ENOUGH`, and half of their noise,
    or less, with wider accumulators."""
    samples = spread(calibration, MOST_INPUTS)
    signal, before = energies(graph, narrow, samples)[graph.output]
    if decibels(signal, before) >= _ENOUGH:
        return False
    return bool(before >= 2 * energies(graph, wide, samples)[graph.output][1])


def _seen(graph: Graph, larger_input: tuple[int, ...], calibration: np.ndarray) -> dict[str, int]:
    """Return the exponent of the largest number of each tensor that is not 0 for all of some
    calibration inputs."""
    graph = with_larger_input(graph, larger_input)
    samples = spread(calibration, MOST_INPUTS)
    if larger_input:
        samples = np.ldexp(samples.reshape(len(samples), *graph.input_map),
                           np.reshape(larger_input, (-1, 1, 1)))
    return {name: int(floor_log2(np.array(most))) for name, most in largest(graph, samples).items()
            if most}


def _layers(graph: Graph) -> list[Conv]:
    layers = []
    for node in graph.nodes:
        if not isinstance(node, Conv):
            raise CompileError(node.name, operator(node), "is not a linear node",
                               "run celosia.passes.optimise on the graph first")
        layers.append(node)
    return layers


def _formats(graph: Graph, layers: list[Conv], bits: int, unsigned: bool,
             unsigned_input: bool) -> dict[str, Format]:
    """Return what the mantissas of every tensor are, by its name. Of those that are read together
    all have a sign, or none."""
    signed: set[str] = set()
    while True:
        formats = {graph.input: Format(bits=bits, signed=not unsigned_input)}
        for layer in layers:
            behind = unsigned and layer.epilogue.activation.bounds[0] == 0
            chosen = layer.keeps and not formats[layer.input].signed
            formats[layer.name] = Format(bits=bits, signed=layer.name in signed
                                         or not (behind or chosen))
        more = {name for layer in layers if len({formats[name].signed for name in layer.read}) > 1
                for name in layer.read if not formats[name].signed}
        if not more:
            return formats | {graph.output: Format(bits=OUTPUT_BITS)}
        signed |= more


def _node(node: Conv, weight_bits: int, sparse: bool) -> QNode:
    rows = len(node.weight)
    exponents = row_exponents(node, "weight", node.weight.reshape(rows, -1))
    matrix = weight_matrix(node, exponents, weight_bits, sparse=sparse)
    # A row without weights takes the layer's largest exponent, or 0 where no row has any.
    live = row_magnitudes(matrix) > 0
    exponents = np.where(live, exponents, exponents[live].max(initial=EXPONENT_MIN)
                         if live.any() else 0)
    sw = Format(bits=weight_bits).lsb(exponents)
    bias = np.zeros((rows, 1)) if node.bias is None else node.bias.reshape(rows, 1)
    exponents = row_exponents(node, "bias", bias)
    of_bias = Format(bits=OUTPUT_BITS)
    bias = of_bias.mantissas(bias, exponents)[0][:, 0].astype(np.int64)
    weights = node.weight.size if node.live is None else np.count_nonzero(node.live)
    return QNode(name=node.name, kind=node.kind, inputs=node.read, output=node.name,
                 matrix=matrix, weights=int(weights), sw=sw, bias=bias,
                 sb=np.where(bias == 0, sw, of_bias.lsb(exponents)),
                 geometry=node.geometry, epilogue=node.epilogue)


def _narrowest(at: Callable[[int, bool], QGraph], widths: tuple[int, ...],
               lost: Callable[[QGraph], tuple[str, ...]]) -> QGraph:
    """Return the graph at the first of the widths that is enough, or at the last.

    at   : the graph at a width, rows narrowed or not; FitError where it is not proved.
    lost : what a graph's width costs.
    """
    wide: tuple[str, ...] = ()
    for width in widths[:-1]:
        try:
            graph = at(width, False)
        except FitError:
            continue
        if not (reasons := lost(graph)):
            return graph
        wide = tuple(f"{widths[-1]}-bit accumulators, because {reason}" for reason in reasons)
    graph = at(widths[-1], True)
    return replace(graph, remarks=(*graph.remarks, *wide, *lost(graph)))


def _at_width(graph: Graph, begun: Begun, width: int, formats: Mapping[str, Format],
              multiplied: Mapping[str, Format], narrow: bool) -> QGraph:
    """Return the graph with its faint rows raised for ``width``-bit accumulators, and proved.

    multiplied : what is multiplied of the mantissas of every tensor.
    narrow     : narrow the rows whose sums do not fit.
    """
    kept = {layer.name: layer.input for layer in begun.layers if layer.keeps
            and formats[layer.name].fraction >= formats[layer.input].fraction}
    lsbs = raised_lsbs(begun.nodes, begun.expected, width, formats, kept)
    nodes = [_raised(layer, node, lsbs[node.name], begun)
             for layer, node in zip(begun.layers, begun.nodes, strict=True)]
    lost: dict[str, np.ndarray] = {}
    for at, layer in enumerate(begun.layers if narrow else ()):
        nodes[at], lost[layer.name] = _narrowed(layer, nodes[at], width, multiplied, begun)
    _prove_sums(nodes, width, multiplied, MANTISSA_BITS[0] if narrow else begun.weight_bits)
    needed = {node.name: int(input_minima(node, node.sw, width, formats[node.input]).max())
              for node in nodes}
    minima, read = exponent_minima(list(begun.expected), nodes, needed, kept)
    for node in reversed(nodes):
        if read[node.name] > EXPONENT_MAX:
            raise FitError(node.name, node.kind, f"the bias is too large for the weights: "
                           f"{node.input} would need exponents of {read[node.name]} and more, "
                           f"above {EXPONENT_MAX}", "rescale the layer")
    rules = {name: Kept(of=kept[name], least=least) if name in kept else Dynamic(least=least)
             for name, least in minima.items()}
    activation_bits = formats[graph.input].bits
    nodes = [replace(node, least=read[node.name] if node.joins else EXPONENT_MIN,
                     epilogue=replace(node.epilogue, activation=rounded(
                         node.epilogue.activation,
                         replace(formats[node.output], bits=activation_bits))))
             for node in nodes]
    return with_room(QGraph(
        tensors=_tensors(graph, formats, rules, begun), nodes=tuple(nodes), input=graph.input,
        output=graph.output, weight_bits=begun.weight_bits, activation_bits=activation_bits,
        acc_bits=width, remarks=graph.remarks + narrowed(lost, begun.weight_bits, width)))


def _raised(layer: Conv, node: QNode, sw: np.ndarray, begun: Begun) -> QNode:
    """Return the node with weights of the exponents ``sw``, none below its own."""
    rows = np.flatnonzero(sw > node.sw)
    if not rows.size:
        return node
    return replace(_with_lsbs(layer, node, sw, begun),
                   raised=tuple((int(row), int(sw[row] - node.sw[row])) for row in rows))


def _narrowed(layer: Conv, node: QNode, width: int, multiplied: Mapping[str, Format],
              begun: Begun) -> tuple[QNode, np.ndarray]:
    """Return the node with as many bits fewer in each row's mantissas as its sums need to fit a
    ``width``-bit accumulator, and how many, int64 (rows,): down to the fewest that weights have."""
    bits = np.zeros(len(node.sw), np.int64)
    found = node
    for fewer in range(1, begun.weight_bits - MANTISSA_BITS[0] + 1):
        over = farthest_sums(found.matrix, multiplied[node.input]) > _largest_sum(width)
        if not over.any():
            break
        bits[over] = fewer
        found = _with_lsbs(layer, node, node.sw + bits, begun)
    return found, bits


def _with_lsbs(layer: Conv, node: QNode, sw: np.ndarray, begun: Begun) -> QNode:
    """Return the node with its weights rounded to the exponents ``sw``."""
    exponents = sw + Format(bits=begun.weight_bits).fraction
    return replace(node, sw=sw, sb=np.where(node.bias == 0, sw, node.sb), matrix=weight_matrix(
        layer, exponents, begun.weight_bits, sparse=begun.sparse))


def _largest_sum(width: int) -> int:
    """Return how far from 0 a row's products may sum up to in a ``width``-bit accumulator."""
    return (1 << width - 2) - 1


def _prove_sums(nodes: list[QNode], width: int, multiplied: Mapping[str, Format],
                bits: int) -> None:
    """FitError unless no sum of products can overflow a ``width``-bit accumulator.

    bits : of the weights of a row that may.
    """
    for node in nodes:
        totals = farthest_sums(node.matrix, multiplied[node.input])
        row = int(totals.argmax())
        if totals[row] > _largest_sum(width):
            raise FitError(node.name, node.kind, f"the sums of row {row} may reach {totals[row]} "
                           f"with weights of {bits} bits, above {_largest_sum(width)}, the limit "
                           f"of a {width}-bit accumulator", "prune the row", need=Need(
                               Scarce.SUM_BITS, int(totals[row]).bit_length() + 2, width, "bits"))


def _tensors(graph: Graph, formats: Mapping[str, Format], rules: dict[str, Kept | Dynamic],
             begun: Begun) -> dict[str, QTensor]:
    vectors = {node.name for node in graph.nodes
               if isinstance(node, Conv) and node.kind == NodeKind.LINEAR}
    bits = np.repeat(begun.larger_input, 2 if begun.low_bits else 1)
    raised = dict(graph.raised) | ({graph.input: tuple(bits.tolist())} if bits.size else {})
    tensors = {}
    for name, shape in graph.shapes.items():
        vector = name in vectors and shape[1:] == (1, 1)
        user: tuple[int, ...] = shape[:1] if vector else shape
        user = graph.input_shape if name == graph.input else user
        user = graph.output_shape if name == graph.output else user
        tensors[name] = QTensor(
            name=name, shape=shape, user_shape=tuple(user), exponent=rules[name],
            bits=formats[name].bits, signed=formats[name].signed,
            low=begun.low_bits if name == graph.input else 0,
            raised=raised.get(name, ()))
    return tensors
