"""Where maps lie in main memory."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from celosia.bands.layouts import strides
from celosia.bands.lives import Life, lives
from celosia.bands.packing import Need
from celosia_spec.isa.array import ENTRY_WORDS
from celosia_spec.qgraph import QGraph, QNode
from celosia_spec.steps import Ring, View


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


Owners = Mapping[str, str]
"""By the name of each stored tensor, the one that has had its words first."""


def own_words(graph: QGraph) -> Owners:
    """Return that every tensor has words of its own."""
    return {name: name for name in lives(graph)}


def owners(graph: QGraph) -> Owners:
    """Return whose words tensors take: a sum those of the tensor that its node adds, where nobody
    reads that one any more. What is added of a band is in the banks before its first sum comes."""
    apart, found = _apart(graph), dict(own_words(graph))
    dies = {name: life.dies for name, life in lives(graph).items()}
    for at, node in enumerate(graph.nodes):
        added = node.epilogue.add
        if added in dies and dies[added] == at and _alike(graph, node, added, apart):
            found[node.output] = found[added]
    return found


def _alike(graph: QGraph, node: QNode, added: str, apart: Mapping[str, int]) -> bool:
    """Whether a node's sums lie as the tensor does that is added to them, and nobody else has to
    find that tensor: neither the node's window, nor the host, nor another step of time."""
    tensors, out = graph.tensors, node.output
    return (tensors[added].shape == tensors[out].shape and apart[added] == apart[out]
            and added not in (graph.input, *node.inputs) and out != graph.output
            and not any(isinstance(tensors[name], Ring | View) for name in (added, out)))


def map_needs(graph: QGraph, owned: Owners) -> dict[str, Need]:
    """Return what tensors need, by the names of those that have their words first."""
    apart = _apart(graph)
    found: dict[str, Need] = {}
    for name, life in lives(graph).items():
        words = -(-graph.tensors[name].shape[0] * apart[name] // ENTRY_WORDS)
        first = found.get(owned[name])
        found[owned[name]] = Need(words=words, life=life) if first is None else replace(
            first, life=Life(min(first.life.born, life.born), max(first.life.dies, life.dies)))
    return found


def regions(graph: QGraph, words: Mapping[str, int]) -> dict[str, Region]:
    """Return the regions of tensors that begin in these words."""
    apart, needs = _apart(graph), map_needs(graph, own_words(graph))
    return {name: Region(word=words[name], words=need.words, wide=name == graph.output,
                         life=need.life, stride=apart[name]) for name, need in needs.items()}


def _apart(graph: QGraph) -> dict[str, int]:
    """Return the elements from a channel of a tensor to the next; sums have two each."""
    return {name: stride << (name == graph.output) for name, stride in strides(graph).items()}
