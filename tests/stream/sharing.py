"""What a program keeps in main memory and in exponent slots, node by node, counted from its graph
alone: nothing that is still needed may lie where something else does."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from celosia.bands.disassembly import layer_words
from celosia.bands.explain import pieces_told
from celosia.bands.occupancy import Kind, pieces
from celosia_spec.stream.image import UNIT_WORDS


def needed(graph) -> Iterator[tuple[object, set[str]]]:
    """Yield each node, and None for the host behind the last one, with the tensors that must be
    there while it runs."""
    made = {graph.input}
    for at, node in enumerate(graph.nodes):
        made.add(node.output)
        read = {name for later in graph.nodes[at:] for name in (*later.inputs, later.epilogue.add)}
        yield node, made & read | {node.output} | made & {graph.output}
    yield None, {graph.output}


def check_memory(program) -> None:
    """No word of main memory belongs to two maps, or to a map and the stream, or what is copied."""
    for at, (node, tensors) in enumerate(needed(program.graph)):
        owners = np.zeros(program.array.main_words, int)
        owners[:len(program.entries)] += 1
        for layer, sections in program.copied_layers.items():
            if program.flash.lives[layer].born <= at <= layer:
                words = [np.arange(len(section.words)) + section.first * UNIT_WORDS
                         for section in sections]
                owners[np.unique(np.concatenate(words))] += 1
        for name in tensors:
            region, tensor = program.places[name], program.graph.tensors[name]
            size = tensor.shape[1] * tensor.shape[2] << region.wide
            elements = np.arange(tensor.shape[0])[:, None] * region.stride + np.arange(size)
            words = np.unique(elements // 4) + region.word
            assert words.max() < program.array.main_words, name
            owners[words] += 1
        assert owners.max() == 1, node and node.name


def check_slots(program) -> None:
    """No slot has two exponents that somebody still has to read."""
    graph = program.graph
    last = graph.nodes[-1]
    for node, tensors in needed(graph):
        if node is None:        # the host needs the unit of the output's sums
            tensors = tensors | (set() if last.joins else {last.input})
        taken = [program.slots[name] for name in tensors]
        if (node or last).joins:
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
                     for found in (pieces_told(program, words), pieces(program)))
    output = Kind.MAP, program.graph.output     # its last word may be a gap that nobody writes
    assert planned[output].words - told[output].words in (0, 1)
    assert told == planned | {output: replace(planned[output], words=told[output].words)}
    for layer, own in zip(program.layers, words, strict=True):
        kept = own.kept
        assert own.groups == layer.groups
        assert sum(batch.weights for batch in kept) == np.count_nonzero(layer.node.matrix.data)
        assert sum(head["real"] for batch in kept for head in batch.heads) == (
            layer.node.matrix.shape[0])
