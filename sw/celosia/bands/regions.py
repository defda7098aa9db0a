"""Where maps, and sections of flash, lie in main memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from celosia.bands.layouts import strides
from celosia.bands.lives import Life, lives
from celosia_spec.isa.array import ENTRY_WORDS
from celosia_spec.qgraph import QGraph

Name = TypeVar("Name")

_ORDERS = 12
"""Orders in which needs are placed, at most."""


@dataclass(frozen=True, kw_only=True)
class Need:
    """What needs words of main memory.

    words : how many.   life : when.   multiple : of what its first word is one.
    """

    words: int
    life: Life
    multiple: int = 1


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


def place(needs: Mapping[Name, Need], first: int, end: int) -> dict[Name, int]:
    """Return the first word of each need, from word ``first`` on, and before ``end`` if that is
    found; else as low as was found.

    What is needed at the same time does not share words; the largest are placed first, each as low
    as it can be. Where that is beyond ``end``, what ends highest goes before all others, a few
    times, unless no order can do.
    """
    order = sorted(needs, key=lambda name: (-needs[name].words, needs[name].life))
    least = first + max(sum(need.words for need in needs.values()
                            if need.life.born <= at <= need.life.dies)
                        for at in {need.life.born for need in needs.values()})
    best, lowest = {}, None
    for _ in range(_ORDERS):
        found = _place(needs, order, first)
        top, last = max((found[name] + needs[name].words, at) for at, name in enumerate(order))
        if lowest is None or top < lowest:
            best, lowest = found, top
        if top <= max(end, least) or least > end or last == 0:
            break
        order.insert(0, order.pop(last))
    return best


def _place(needs: Mapping[Name, Need], order: Sequence[Name], first: int) -> dict[Name, int]:
    """Return the first words, each as low as can be when those before it lie."""
    found: dict[Name, int] = {}
    for name in order:
        need = needs[name]
        at = -(-first // need.multiple) * need.multiple
        for other in sorted((other for other in found if needs[other].life.meets(need.life)),
                            key=lambda other: found[other]):
            if at + need.words <= found[other]:
                break
            at = max(at, found[other] + needs[other].words)
            at = -(-at // need.multiple) * need.multiple
        found[name] = at
    return found


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
