"""What a program keeps in main memory and in exponent slots, node by node, counted from its graph
and its stream's words alone: nothing that is still needed may lie where something else does."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from unittest import mock

import numpy as np

from celosia.bands.disassembly import layer_words
from celosia.bands.occupancy import Kind
from celosia.bands.report import main_memory
from celosia.explain import pieces_told
from celosia_sim.stream_memories import Flash, Reader
from celosia_spec.isa.image import UNIT_WORDS
from celosia_spec.steps import Ring, stored_name


def needed(graph) -> Iterator[tuple[object, set[str]]]:
    """Yield each node, and None for the host behind the last one, with the tensors that must be
    there while it runs; rings always."""
    made = {graph.input}
    kept = {name for name, tensor in graph.tensors.items() if isinstance(tensor, Ring)}
    for at, node in enumerate(graph.nodes):
        made.add(node.output)
        read = {stored_name(graph.tensors, name) for later in graph.nodes[at:]
                for name in (*later.inputs, later.epilogue.add) if name is not None}
        yield node, kept | made & read | {node.output} | made & {graph.output}
    yield None, kept | {graph.output}


def in_place(program, node) -> bool:
    """Whether a node's sums take the words of what is added, which nobody needs any more: they lie
    as it does, its window does not look at it, and all of it is filled once."""
    added, out = (program.places[name] for name in (node.epilogue.add, node.output))
    if added.word != out.word:
        return False
    tensors = program.graph.tensors
    at = program.graph.nodes.index(node)
    later = {name for other in program.graph.nodes[at + 1:]
             for name in (*other.inputs, other.epilogue.add)}
    assert node.epilogue.add not in later | {*node.inputs, program.graph.input}
    assert (added.words, added.stride, added.wide) == (out.words, out.stride, out.wide)
    assert tensors[node.epilogue.add].shape == tensors[node.output].shape
    filled = [(band.stretch.line + line, band.stretch.added + channel)
              for band in program.layers[at].bands for line in range(band.begin, band.end)
              for channel in range(band.stretch.addends)]
    assert len(set(filled)) == len(filled)
    return True


def check_memory(program) -> None:
    """No word of main memory belongs to two maps, or to a map and the stream, or what is copied; in
    any step of a period, as each cluster fetches it."""
    copied = [_copied(replace(program, orders=(replace(order, clusters=(own,)),)))
              for order in program.orders for own in order.clusters]
    for at, (node, tensors) in enumerate(needed(program.graph)):
        owners = np.zeros(program.array.main_words, int)
        owners[:len(program.entries)] += 1
        for name in tensors:
            region, tensor = program.places[name], program.graph.tensors[name]
            lines = tensor.lines if isinstance(tensor, Ring) else tensor.shape[1]
            size = lines * tensor.shape[2] << region.wide
            elements = np.arange(tensor.shape[0])[:, None] * region.stride + np.arange(size)
            words = np.unique(elements // 4) + region.word
            assert words.max() < program.array.main_words, name
            if node is not None and name == node.epilogue.add and in_place(program, node):
                continue
            owners[words] += 1
        assert owners.max() == 1, node and node.name
        for sections in copied:
            there = [section for section in sections if section.born <= at <= section.dies]
            assert not any(owners[section.words.start:section.words.stop].any()
                           for section in there), node and node.name


def held_words(program) -> int:
    """Return the words of main memory that a program takes: in so many, all that it holds fits."""
    return max(len(program.entries),
               *(place.word + place.words for place in program.places.values()))


@dataclass
class _Section:
    """A section of flash: its words of main memory, and the layers from which to which it has
    them."""

    words: slice
    born: int
    dies: int = -1


def _copied(program) -> list[_Section]:
    """Return the sections that a run copies, in their order, as the words of its stream tell.

    All that is fetched is resident, or of a section that is there; from the command that copies a
    section on, nobody fetches what lay there before, and no other section goes there.
    """
    found: list[_Section] = []
    fetched: list[int] = []         # of which section each piece is, or resident
    resident, nothing = -1, -2
    owners = np.full(program.array.main_words, nothing)
    owners[:len(program.entries)] = resident
    copy, wait, read = Flash.copy, Flash.wait, Reader._read
    waited = iter(range(len(program.sections)))

    def copies(self, unit):
        before = len(self._asked)
        copy(self, unit)
        for section in self._asked[before:]:
            first = section.first * UNIT_WORDS
            words = slice(first, first + len(section.words))
            owners[words] = nothing - 1 - len(found)
            found.append(_Section(words, len(fetched) - 1))

    def waits(self, wanted):
        wait(self, wanted)
        number = next(waited)
        assert (owners[found[number].words] == nothing - 1 - number).all(), number
        owners[found[number].words] = number

    def reads(self, first, end):
        own = set(owners[first:end].tolist())
        assert len(own) == 1 and min(own) > nothing, (first, end, own)
        fetched.extend(own)
        return read(self, first, end)

    with (mock.patch.object(Flash, "copy", copies), mock.patch.object(Flash, "wait", waits),
          mock.patch.object(Reader, "_read", reads)):
        ends = np.cumsum([len(own.taken) for own in layer_words(program)])
    layers = np.searchsorted(ends, np.arange(len(fetched)), side="right").tolist()
    for number, section in enumerate(found):
        section.born = layers[section.born]
        section.dies = max(layer for layer, own in zip(layers, fetched, strict=True)
                           if own == number)
    return found


def check_slots(program) -> None:
    """No slot has two exponents that somebody still has to read."""
    graph = program.graph
    last = graph.nodes[-1]
    for node, tensors in needed(graph):
        if node is None:        # the host needs the unit of the output's sums
            tensors = tensors | (set() if last.rounds else {stored_name(graph.tensors, last.input)})
        taken = [program.slots[name] for name in tensors]
        if (node or last).rounds:
            taken.append(program.reads[(node or last).name])
        else:
            assert program.reads[(node or last).name] == program.slots[(node or last).input]
        assert len(set(taken)) == len(taken), node and node.name
        assert min(taken) >= 0 and max(taken) < 32


def check_words(program) -> None:
    """The words of the stream tell what lies where in main memory, and which weights there are, as
    the compiler has planned it."""
    words = layer_words(program)
    told, planned = ({(piece.kind, piece.name): piece for piece in found}
                     for found in (pieces_told(program, words), main_memory(program).pieces))
    output = Kind.MAP, program.graph.output     # its last word may be a gap that nobody writes
    assert planned[output].words - told[output].words in (0, 1)
    assert told == planned | {output: replace(planned[output], words=told[output].words)}
    for layer, own in zip(program.layers, words, strict=True):
        kept = own.kept
        assert own.groups == layer.groups
        assert sum(batch.weights for batch in kept) == np.count_nonzero(layer.node.matrix.data)
        assert sum(head["real"] for batch in kept for head in batch.heads) == (
            layer.node.matrix.shape[0])
