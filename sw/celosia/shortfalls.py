"""What a width of accumulators costs a quantised network, in words (numerics, section 5)."""

from collections.abc import Callable, Mapping

import numpy as np

from celosia_spec.faint_rows import bias_minima, unit_minima
from celosia_spec.isa.numbers import EXPONENT_MAX, EXPONENT_MIN
from celosia_spec.qgraph import QGraph, low_sums, static_exponent

SPARE_BITS = 1
"""Bits that must be left between what is expected and what would be lost."""

_LOUDER = 8
"""Bits by which inputs may be larger than usual: pictures of 0 to 255."""

_TOLD = 3
"""Layers that are told one by one."""

_Loss = tuple[int, str]
"""Bits that are lost, and where."""

Seen = Callable[[], Mapping[str, int]]
"""Returns the exponents of the largest numbers that inputs give, of tensors that are not 0 for all
of them."""


def shortfalls(graph: QGraph, expected: Mapping[str, int] | None,
               seen: Seen | None = None) -> tuple[str, ...]:
    """Return what the accumulators of a graph cost: two lines at most, mostly none.

    expected : the exponents that tensors are likely to have, by name; None where the graph's
               exponents are static, which are known.
    seen     : of calibration inputs, if there are any.

    A tensor loses bits where its smallest exponent lies above those that occur. One that is read at
    a larger one, so that a residual operand has room in the sums, loses none that count (numerics,
    section 5); but no exponent is above `EXPONENT_MAX`, and operands that want one are cut.
    """
    if expected is not None:
        return _told(graph, expected, SPARE_BITS, "expected")
    likely = {name: static_exponent(graph.tensors, name) or 0 for name in graph.tensors}
    told = _told(graph, likely, 0, "calibrated")
    if not told or seen is None:
        return told
    alive = {*seen(), *low_sums(graph)}
    return _told(graph, {name: exponent for name, exponent in likely.items() if name in alive}, 0,
                 "calibrated")


def unforeseen(graph: QGraph, seen: Seen) -> tuple[str, ...]:
    """Return what the accumulators of a graph with dynamic exponents cost calibration inputs, where
    nothing is expected to be lost: as `shortfalls` has it."""
    return _told(graph, seen(), 0, "calibrated")


def _told(graph: QGraph, likely: Mapping[str, int], spare: int, source: str) -> tuple[str, ...]:
    losses = (_held(graph, likely, spare, source), _cut(graph, likely, spare, source))
    return tuple(_worst(found) for found in losses if found)


def narrowed(bits: Mapping[str, np.ndarray], weight_bits: int, width: int) -> tuple[str, ...]:
    """Return which weights have fewer bits, so that sums fit the accumulators: one line, or none.

    bits        : by layer, bits that are missing in each row's mantissas, int64 (rows,).
    weight_bits : of all others.   width : of the accumulators.
    """
    found = []
    for name, missing in bits.items():
        if missing.any():
            few, many = weight_bits - missing.max(), weight_bits - missing[missing > 0].min()
            found.append(f"{many if few == many else f'{few} to {many}'} bits in "
                         f"{np.count_nonzero(missing)} of {len(missing)} rows of {name}")
    if not found:
        return ()
    more = f", fewer in {len(found) - _TOLD} more layers" if len(found) > _TOLD else ""
    return (f"weights have {', '.join(found[:_TOLD])}{more}, so that sums fit {width}-bit "
            f"accumulators",)


def _held(graph: QGraph, likely: Mapping[str, int], spare: int, source: str) -> list[_Loss]:
    """Return the tensors that a row keeps at exponents above the likely ones."""
    found: dict[str, _Loss] = {}
    for node in graph.nodes:
        tensor = graph.tensors[node.input]
        biases, units = (of(node, node.sw, graph.acc_bits, tensor.format)
                         for of in (bias_minima, unit_minima))
        what, needed = (("bias", biases) if biases.max() >= units.max() else
                        ("small unit", units))
        row, least = int(needed.argmax()), int(needed.max())
        alive = [likely[name] for name in node.inputs if name in likely]
        if not alive:
            continue
        read, usual = " and ".join(node.inputs), max(alive)
        # A static exponent cannot be below the smallest: on it, it may have been held.
        lost = (least - usual + spare
                + (not node.joins and static_exponent(graph.tensors, node.input) is not None))
        if least > EXPONENT_MIN and lost > found.get(read, (0, ""))[0]:
            found[read] = (lost, f"the {what} of row {row} of {node.name} holds {read} at "
                                 f"exponents of {least} and more, where about {usual} is {source}")
    return list(found.values())


def _cut(graph: QGraph, likely: Mapping[str, int], spare: int, source: str) -> list[_Loss]:
    """Return the residual operands that want a larger exponent of what a node reads than there is,
    if they are so much larger than usual as inputs may be."""
    found = []
    for node in graph.nodes:
        add, most = node.epilogue.add or "", EXPONENT_MAX + (node.room or 0)
        if node.room is None or add not in likely:
            continue
        if (lost := likely[add] + spare * _LOUDER - most) > 0:
            found.append((lost, f"row {int(node.sw.argmin())} of {node.name}, whose weights are "
                                f"small, cuts {add}, which is added to it, from 2^{most + 1} on, "
                                f"and numbers up to about 2^{likely[add] + 1} are {source}"))
    return found


def _worst(found: list[_Loss]) -> str:
    words = max(found)[1]
    return words if len(found) == 1 else f"{words}; {len(found) - 1} more tensors likewise"
