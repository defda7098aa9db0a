"""From a quantised graph to a program."""

from collections.abc import Iterator
from dataclasses import dataclass

from celosia.lower.choose import choose
from celosia.lower.descriptor import describe
from celosia.lower.expand import expand_copies
from celosia.lower.fill import Fill
from celosia.lower.images import Images
from celosia.lower.places import Layouts, readers, tensor_places
from celosia.lower.report import layer_of
from celosia.program import Program
from celosia_spec import memory
from celosia_spec.errors import CompileError, FitError, Need
from celosia_spec.isa import DESCRIPTOR_WORDS, EXPONENT_SLOTS, ArrayConfig, Space, Word
from celosia_spec.isa.cycles import Work
from celosia_spec.qgraph import QGraph

DESCRIPTORS_MAX = 256
"""Descriptors that a start command can name."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Lowered:
    """A program, and by node name how it runs: the fill as it stands in memory, and the work."""

    program: Program
    fills: dict[str, Fill]
    works: dict[str, Work]


def lower(graph: QGraph, array: ArrayConfig, *, target: str, exponents: str) -> Program:
    """Lower ``graph`` for ``array``; FitError names the layer that does not fit, or the memory.

    Every layer is filled into the array the fastest way; where the banks cannot hold the copies of
    its input that this needs, or the memories the weights and tables, the way that gives the least
    time away. ``Program.graph`` is the graph with the copies that the array needs
    (:func:`expand_copies`), one descriptor a node.
    """
    program = plan(graph, array, target=target, exponents=exponents).program
    check_depths(program)
    return program


def plan(graph: QGraph, array: ArrayConfig, *, target: str, exponents: str) -> Lowered:
    """Lower as :func:`lower`; where weights or tables fit in no way, as if their memories had no
    end."""
    _check_graph(graph, array)
    expanded = expand_copies(graph)
    if len(expanded.tensors) > EXPONENT_SLOTS:
        raise FitError(
            "network", "tensors", f"{len(expanded.tensors)} stored tensors, copies included, the "
            f"machine holds {EXPONENT_SLOTS} exponents", "use fewer layers",
            need=Need("tensors", len(expanded.tensors), EXPONENT_SLOTS, "tensors"))
    fastest = _emit(expanded, *choose(expanded, array), array, target, exponents)
    if _holds(fastest.program):
        return fastest
    try:
        compact = _emit(expanded, *choose(expanded, array, compact=True), array, target, exponents)
    except FitError:
        return fastest
    return compact if _holds(compact.program) else fastest


def _check_graph(graph: QGraph, array: ArrayConfig) -> None:
    """CompileError where the arithmetic of the graph is not the array's."""
    residual = next((node for node in graph.nodes if node.residual), None)
    if graph.acc_bits > array.acc_bits:
        raise CompileError("network", "accumulator",
                           f"needs {graph.acc_bits}-bit accumulators, the array has "
                           f"{array.acc_bits}", f"give the array acc_bits={graph.acc_bits}")
    if residual and graph.acc_bits < array.acc_bits:
        raise CompileError(residual.name, "add", "its residual operand saturates with the "
                           f"accumulator, quantised for {graph.acc_bits} bits, the array has "
                           f"{array.acc_bits}", f"quantise with acc_bits={array.acc_bits}")
    if graph.weight_bits > array.weight_bits:
        raise CompileError("network", "weights", f"{graph.weight_bits}-bit mantissas, the array "
                           f"multiplies {array.weight_bits} bits",
                           f"compile with weight_bits={array.weight_bits} or less")
    if graph.activation_bits != array.activation_bits:
        raise CompileError("network", "activations", f"{graph.activation_bits}-bit mantissas, the "
                           f"array rounds to {array.activation_bits} bits",
                           f"compile with activation_bits={array.activation_bits}, or give the "
                           f"array activation_bits={graph.activation_bits}")
    for node in graph.nodes:
        if graph.output in (node.input, node.residual):
            raise CompileError(node.name, node.kind, "it reads the network's output, which leaves "
                               "with 16-bit mantissas", "end the network behind its last layer")


def _emit(graph: QGraph, fills: dict[str, Fill], layouts: Layouts, array: ArrayConfig, target: str,
          exponents: str) -> Lowered:
    images = Images()
    slots = {name: k for k, name in enumerate(graph.tensors)}
    works: list[Work] = []
    descriptors: list[list[int]] = []
    by_input = readers(graph)
    for node in graph.nodes:
        reader = by_input.get(node.output)
        words, work, fills[node.name] = describe(
            graph, node, fills[node.name], fills[reader.name].source if reader else None,
            layouts=layouts, slots=slots, images=images, array=array,
            walk_before=works[-1].walk_cycles if works else 0)
        descriptors.append(words)
        works.append(work)
    if len(works) > DESCRIPTORS_MAX:
        raise FitError("network", "layers", f"{len(works)} of them, the machine starts "
                       f"{DESCRIPTORS_MAX} descriptors", "use fewer layers",
                       need=Need("layers", len(works), DESCRIPTORS_MAX, "layers"))
    images.program = _program_words(descriptors, images.lengths)
    layers = tuple(layer_of(node, fills[node.name], work, array, last=k == len(works) - 1)
                   for k, (node, work) in enumerate(zip(graph.nodes, works, strict=True)))
    program = Program(
        target=target, array=array, exponents=exponents, graph=graph, images=images.arrays(),
        descriptors=len(works), slots=slots, places=tensor_places(graph, fills, layouts, array),
        layers=layers)
    names = [node.name for node in graph.nodes]
    return Lowered(program=program, fills=fills, works=dict(zip(names, works, strict=True)))


def _program_words(descriptors: list[list[int]], lengths: list[int]) -> list[int]:
    """Descriptors, then the batch lengths, whose addresses become absolute."""
    start = len(descriptors) * DESCRIPTOR_WORDS
    words: list[int] = []
    for descriptor in descriptors:
        descriptor[Word.LENGTH_BASE] += start
        words += descriptor
    return words + lengths


def check_depths(program: Program) -> None:
    """FitError where weights or tables need more memory than the array has."""
    for refusal in exceeded(program):
        raise refusal


def exceeded(program: Program) -> Iterator[FitError]:
    """A refusal for each memory of weights or tables that the program overfills."""
    array = program.array
    depths = memory.capacity(array)
    for space, image in program.images.items():
        if image.size > depths[space]:
            yield FitError(
                program.target, "memory", f"the program needs {image.size} words of "
                f"{space.name.lower()} memory, the array has {depths[space]}", WAY_OUT[space],
                need=memory_need(space, image.size, array))


def _holds(program: Program) -> bool:
    """Whether weights and tables fit their memories."""
    return next(exceeded(program), None) is None


def memory_need(space: Space, words: int, array: ArrayConfig) -> Need:
    """Return what so many words of a memory are, as users know them."""
    what, unit = _UNITS[space]
    one = array.weight_bits / (8 * 1024) if space == Space.WEIGHTS else 1
    return Need(what, words * one, memory.capacity(array)[space] * one, unit)


_UNITS = {
    Space.PROGRAM: ("layers and their row batches", "words"), Space.WEIGHTS: ("weights", "KiB"),
    Space.ROWS: ("rows of all layers", "rows"), Space.TAPS: ("kernel positions", "table entries"),
    Space.WRITES: ("positions of maps", "table entries"),
}


WAY_OUT = {
    Space.PROGRAM: "use fewer or narrower layers", Space.WEIGHTS: "prune it further",
    Space.ROWS: "use fewer output channels", Space.TAPS: "use smaller kernels or fewer channels",
    Space.WRITES: "use smaller maps",
}
