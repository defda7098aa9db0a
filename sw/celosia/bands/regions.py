"""Where maps lie in main memory."""

from dataclasses import dataclass

from celosia.bands.layouts import strides
from celosia.bands.lives import Life, lives
from celosia_spec.errors import FitError
from celosia_spec.qgraph import QGraph
from celosia_spec.stream.array import ENTRY_WORDS


@dataclass(frozen=True, kw_only=True)
class Region:
    """A stored map.

    word   : where it begins.   words : its size.
    stride : elements from a channel to the next.   wide : sums of two elements each.
    life   : when it must be there.
    """

    word: int
    words: int
    stride: int
    wide: bool
    life: Life

    def element(self, channel: int) -> int:
        """Return the element at which a channel begins."""
        return self.word * ENTRY_WORDS + channel * self.stride


def regions(graph: QGraph, first: int, words: int) -> dict[str, Region]:
    """Return a region of main memory for each tensor, from word ``first`` on.

    Maps that are alive at the same time do not share words; the largest are placed first, each as
    low as it can be. FitError names the node at which ``words`` are not enough.
    """
    alive = lives(graph)
    placed: dict[str, Region] = {}
    apart = {name: stride << (name == graph.output) for name, stride in strides(graph).items()}
    sizes = {name: -(-graph.tensors[name].shape[0] * apart[name] // ENTRY_WORDS) for name in alive}
    for name in sorted(alive, key=lambda name: (-sizes[name], alive[name])):
        others = sorted((other for other in placed.values() if other.life.meets(alive[name])),
                        key=lambda other: other.word)
        at = first
        for other in others:
            if at + sizes[name] < other.word:
                break
            at = max(at, other.word + other.words)
        wide = name == graph.output
        at += wide and at % 2           # half of where sums lie is a word, too
        placed[name] = Region(word=at, words=sizes[name], wide=wide, life=alive[name],
                              stride=apart[name])
        if at + sizes[name] > first + words:
            node = graph.nodes[max(alive[name].born, 0)]
            raise FitError(node.name, str(node.kind), f"the maps that are alive there and the "
                           f"stream need {at + sizes[name]} words of main memory, the array has "
                           f"{first + words}", "prune more, or give it smaller maps")
    return placed

