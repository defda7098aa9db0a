"""From a quantised graph to a program."""

from collections.abc import Iterator
from dataclasses import dataclass

from celosia.emit.layer_report import layer_of
from celosia.emit.tables import Images, describe
from celosia.program import Program
from celosia.schedule.candidates import Candidate
from celosia.schedule.memory_map import Layouts, readers, tensor_places
from celosia_spec.errors import FitError, Need
from celosia_spec.isa import DESCRIPTOR_WORDS, ArrayConfig, Memory, Word
from celosia_spec.isa.cycles import Work
from celosia_spec.qgraph import QGraph

DESCRIPTORS_MAX = 256
"""Descriptors that a start command can name."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Lowered:
    """A program, and by node name how it runs: the fill as it stands in memory, and the work."""

    program: Program
    fills: dict[str, Candidate]
    works: dict[str, Work]


def emit(graph: QGraph, fills: dict[str, Candidate], layouts: Layouts, array: ArrayConfig,
         target: str, exponents: str) -> Lowered:
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


def exceeded(program: Program) -> Iterator[FitError]:
    """A refusal for each memory that the program overfills."""
    for memory, used, available in program.memory_use:
        if used > available:
            yield FitError(
                program.target, "memory", f"the program needs {used} words of {memory.name} "
                f"memory, the array has {available}", memory.way_out,
                need=memory_need(memory, used, program.array))


def memory_need(memory: Memory, words: int, array: ArrayConfig) -> Need:
    """Return what so many words of a memory are, as users know them."""
    one = memory.one(array)
    return Need(memory.need, words * one, memory.depth(array) * one, memory.unit)
