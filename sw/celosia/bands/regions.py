"""Where maps lie in main memory."""

from collections.abc import Mapping
from dataclasses import dataclass

from celosia.bands.layouts import strides
from celosia.bands.lives import Life, lives
from celosia.bands.packing import Need
from celosia_spec.isa.array import ENTRY_WORDS
from celosia_spec.qgraph import QGraph


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


def map_needs(graph: QGraph) -> dict[str, Need]:
    """Return what every tensor needs."""
    apart = _apart(graph)
    return {name: Need(words=-(-graph.tensors[name].shape[0] * apart[name] // ENTRY_WORDS),
                       life=life)
            for name, life in lives(graph).items()}


def regions(graph: QGraph, words: Mapping[str, int]) -> dict[str, Region]:
    """Return the regions of tensors that begin in these words."""
    apart, needs = _apart(graph), map_needs(graph)
    return {name: Region(word=words[name], words=need.words, wide=name == graph.output,
                         life=need.life, stride=apart[name]) for name, need in needs.items()}


def _apart(graph: QGraph) -> dict[str, int]:
    """Return the elements from a channel of a tensor to the next; sums have two each."""
    return {name: stride << (name == graph.output) for name, stride in strides(graph).items()}
