"""Where maps lie in main memory."""

from dataclasses import dataclass

from celosia.bands.layouts import strides
from celosia_spec.errors import FitError
from celosia_spec.qgraph import QGraph
from celosia_spec.stream.array import ENTRY_WORDS


@dataclass(frozen=True, kw_only=True)
class Region:
    """A stored map.

    word   : where it begins.   words : its size.
    stride : elements from a channel to the next.   wide : sums of two elements each.
    born, dies : the first and the last node, by number, at which it must be there; -1 the input.
    """

    word: int
    words: int
    stride: int
    wide: bool
    born: int
    dies: int

    def element(self, channel: int) -> int:
        """Return the element at which a channel begins."""
        return self.word * ENTRY_WORDS + channel * self.stride


def regions(graph: QGraph, first: int, words: int) -> dict[str, Region]:
    """Return a region of main memory for each tensor, from word ``first`` on.

    Maps that are alive at the same time do not share words; the largest are placed first, each as
    low as it can be. FitError names the node at which ``words`` are not enough.
    """
    lives = {graph.input: [-1, -1]}
    for at, node in enumerate(graph.nodes):
        lives[node.output] = [at, at]
        for name in (*node.inputs, node.epilogue.add):
            if name is not None:
                lives[name][1] = at
    lives[graph.output][1] = len(graph.nodes)
    placed: dict[str, Region] = {}
    apart = {name: stride << (name == graph.output) for name, stride in strides(graph).items()}
    sizes = {name: -(-graph.tensors[name].shape[0] * apart[name] // ENTRY_WORDS) for name in lives}
    for name in sorted(lives, key=lambda name: (-sizes[name], lives[name])):
        born, dies = lives[name]
        others = sorted((other for other in placed.values()
                         if other.born <= dies and born <= other.dies),
                        key=lambda other: other.word)
        at = first
        for other in others:
            if at + sizes[name] < other.word:
                break
            at = max(at, other.word + other.words)
        wide = name == graph.output
        at += wide and at % 2           # half of where sums lie is a word, too
        placed[name] = Region(word=at, words=sizes[name], wide=wide, born=born, dies=dies,
                              stride=apart[name])
        if at + sizes[name] > first + words:
            node = graph.nodes[max(born, 0)]
            raise FitError(node.name, str(node.kind), f"the maps that are alive there and the "
                           f"stream need {at + sizes[name]} words of main memory, the array has "
                           f"{first + words}", "prune more, or give it smaller maps")
    return placed

