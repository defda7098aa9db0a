"""How large the two tensors of each product are, which its pieces are made for."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np

from celosia.beside_float import decibels
from celosia.calibration import spread
from celosia.graph import Graph, Multiply
from celosia.original import values
from celosia.passes.product_to_linear import PIECES, Knots, Scale
from celosia_spec.block import floor_log2
from celosia_spec.errors import CompileError
from celosia_spec.isa.numbers import EXPONENT_MAX, EXPONENT_MIN
from celosia_spec.qgraph import QGraph, QNode

ENOUGH = 36.0
"""dB that pieces have to leave of a product: more of them make no better network of 8 bits."""

MOST_INPUTS = 64
_ELEMENTS = 1 << 14
"""Of a product, evenly spread, that tell what pieces leave."""

_MARGIN, _WIDE_MARGIN = 1.75, 2.5
"""By so much larger numbers than those of calibration inputs, or of such as are made up, have
pieces. The outer ones are wide."""

_FINE = (2, 3, 4, 6, 8, 12, 16)
"""So many units on either side of 0 may have pieces of a unit; from twice as far on they are twice
as wide."""
_STEEPEST = 127
"""Most that a piece of a square rises: weights of 8 bits have all smaller whole numbers beside it.
"""

_LARGEST = 2.0**(EXPONENT_MAX + 1)
_TOLD = 5


@dataclass(frozen=True, kw_only=True)
class Product:
    """scale : what its pieces are.   ratio : signal to noise that they leave of it, dB.

    most : the largest absolute values of its two tensors for which they are made.
    """

    scale: Scale
    ratio: float
    most: tuple[float, float]


def products(graph: Graph, samples: np.ndarray | None) -> dict[str, Product]:
    """Return the products of an imported graph, by their names.

    samples : calibration inputs (N, *input_shape); None makes normal ones up.

    CompileError where one is too large for the machine.
    """
    found = [node for node in graph.nodes if isinstance(node, Multiply)]
    if not found:
        return {}
    margin = _WIDE_MARGIN if samples is None else _MARGIN
    if samples is None:
        samples = np.random.default_rng(0).standard_normal((MOST_INPUTS, *graph.input_shape))
    read = {name for node in found for name in node.inputs}
    stored = [{name: tensors[name] for name in read}
              for tensors in values(graph, spread(samples, MOST_INPUTS))]
    return {node.name: _product(node, np.stack([tensors[node.left] for tensors in stored]),
                                np.stack([tensors[node.right] for tensors in stored]), margin)
            for node in found}


def _product(node: Multiply, left: np.ndarray, right: np.ndarray, margin: float) -> Product:
    """Return the product of two tensors like these, float64 (N, C, H, W): with the fewest pieces
    that are enough, or the best there are. CompileError where it is too large for the machine."""
    for room in (margin, (1 + margin) / 2, 1.0):
        if found := list(_candidates(left, right, room)):
            enough = [one for one in found if one.ratio >= ENOUGH]
            return (min(enough, key=lambda one: (one.scale.pieces, -one.ratio)) if enough else
                    max(found, key=lambda one: one.ratio))
    raise CompileError(node.name, "mul", f"a product of numbers of up to {np.abs(left).max():.3g} "
                       f"and {np.abs(right).max():.3g} is beyond {_LARGEST:g}, the largest number "
                       "of the machine", "scale one of them down before")


def _candidates(left: np.ndarray, right: np.ndarray, margin: float) -> Iterator[Product]:
    """Yield the ways to make a product, numbers up to ``margin`` times larger included."""
    most = [float(np.abs(part).max()) or 1.0 for part in (left, right)]
    bits = int(np.clip(round(np.log2(most[0] / most[1])), -12, 12))
    left, right = np.broadcast_arrays(left, right)
    step = -(-left.size // _ELEMENTS)
    larger = np.ldexp(right, bits)
    ends = [(margin * min(float(x.min()), 0.0), margin * max(float(x.max()), 0.0))
            for x in (left + larger, left - larger)]
    left, right = left.ravel()[::step], right.ravel()[::step]
    wanted, first = left * right, int(floor_log2(np.array(most[0])))
    for unit, fine in product(range(max(first - 6, EXPONENT_MIN + 1), first + 4), _FINE):
        scale = Scale(right=bits, unit=unit, sums=_knots(ends[0], unit, fine),
                      differences=_knots(ends[1], unit, fine))
        bias = abs(scale.sums[0]**2 - scale.differences[0]**2)
        if scale.pieces <= PIECES and scale.factor * max(bias, _STEEPEST) < _LARGEST:
            noise = scale(left, right) - wanted
            yield Product(scale=scale, most=(margin * most[0], margin * most[1]), ratio=decibels(
                float(np.square(wanted).sum()), float(np.square(noise).sum())))


def _knots(ends: tuple[float, float], unit: int, fine: int) -> Knots:
    """Return knots between two ends, around 0, which lie the same on both sides of it."""
    below, above = ([0], [0])
    for knots, end in ((below, -ends[0]), (above, ends[1])):
        while knots[-1] < np.ldexp(end, -unit) and len(knots) <= PIECES + 1:
            last = knots[-1]
            width = 1 << max(last // fine, 1).bit_length() - 1
            while width > 1 and width * (2 * last + width) > _STEEPEST:
                width //= 2
            knots.append(last + width)
    return (*(-knot for knot in below[:0:-1]), *above)


def remarks(found: Mapping[str, Product], *, calibrated: bool) -> tuple[str, ...]:
    """Return what is told of a graph's products."""
    told = [f"{name}: a product of two tensors, {one.scale.pieces} straight pieces an element, "
            f"which leave {one.ratio:.1f} dB; made for numbers of up to {one.most[0]:.3g} and "
            f"{one.most[1]:.3g}, coarse where all are much smaller and wrong where they are larger"
            for name, one in list(found.items())[:_TOLD]]
    if len(found) > _TOLD:
        told.append(f"{len(found) - _TOLD} more products of two tensors, in "
                    f"{max(one.scale.pieces for one in found.values())} pieces at most")
    if found and not calibrated:
        told.append("how large the tensors of products are was estimated, with normal inputs of "
                    "deviation 1: give calibration inputs")
    return tuple(told)


def scales_in(graph: Graph, made: QGraph) -> dict[str, Scale]:
    """Return what the pieces of an imported graph's products are in a quantised graph that was
    made of it."""
    return {node.name: _scale_in(node, made) for node in graph.nodes if isinstance(node, Multiply)}


def _scale_in(node: Multiply, made: QGraph) -> Scale:
    inner = next(one for one in made.nodes if one.name.startswith(f"{node.name}.")
                 and one.epilogue.activation.bounds == (0, 1))
    total = next(one for one in made.nodes if inner.output in one.inputs)
    weights = _weights(inner)
    rows = _pieces(weights, np.ldexp(inner.bias.astype(float), inner.sb))
    sizes = np.abs(weights[rows]).sum(axis=1)
    widths = np.rint(sizes.max() / sizes).astype(int)
    knots = -np.rint(widths * np.ldexp(inner.bias[rows].astype(float), inner.sb[rows]))
    differ = weights[rows].min(axis=1) < 0
    unit = 1 - round(float(np.log2(sizes.max())))
    before = total.inputs[:total.inputs.index(inner.output)]
    column = sum(made.tensors[name].shape[0] for name in before)
    own = _weights(total)[:, column + rows]
    row = int(np.abs(own).sum(axis=1).argmax())
    steep = int(np.abs(own[row]).argmax())
    rise = widths[steep] * (2 * knots[steep] + widths[steep])
    raised = made.tensors[total.output].larger.ravel()
    factor = round(float(np.log2(abs(own[row, steep] / rise)))) - int(raised[row % len(raised)])
    return Scale(unit=unit, right=2 * unit - 2 - factor,
                 sums=_ends(knots[~differ], widths[~differ]),
                 differences=_ends(knots[differ], widths[differ]))


def _pieces(weights: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Return the rows of the pieces of one element, int64: those that read what the first one
    reads. Of an enlarged map they are apart, and phases and channels that read the same repeat
    them."""
    same = np.flatnonzero(((weights != 0) == (weights[0] != 0)).all(axis=1))
    _, first = np.unique(np.column_stack([bias, weights])[same], axis=0, return_index=True)
    return same[np.sort(first)]


def _weights(node: QNode) -> np.ndarray:
    """Return a node's weights, float64 (rows, columns)."""
    return np.asarray(np.ldexp(node.matrix.toarray().astype(float), node.sw[:, None]))


def _ends(knots: np.ndarray, widths: np.ndarray) -> Knots:
    """Return the knots of pieces that begin at some, and are so wide."""
    if not knots.size:
        return (0,)
    return (*map(int, knots), int(knots[-1] + widths[-1]))
