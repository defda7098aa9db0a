"""Where lies what needs words of main memory for some layers."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from heapq import heapify, heappop, heappush
from operator import itemgetter
from typing import Generic, TypeAlias, TypeVar

from celosia.bands.lives import Life

Name = TypeVar("Name")

_ORDERS = 12
"""Orders in which needs are placed, at most."""

_Rank: TypeAlias = int
"""Where a need stands in an order: the least is placed first."""

_FIRST: _Rank = -1 << 100
"""Before all that `_rank` returns."""

_Span: TypeAlias = tuple[int, int]
"""From which word until which one something lies."""


@dataclass(frozen=True, kw_only=True)
class Need:
    """What needs words of main memory.

    words : how many.   life : when.   multiple : of what its first word is one.
    """

    words: int
    life: Life
    multiple: int = 1


class Packing(Generic[Name]):
    """Needs, each placed as low as it can be beside those before it, the largest first; what is
    needed at the same time does not share words.

    first : word from which on they lie.

    Where a life changes, or the order, only those are placed again beside which something moved.
    """

    def __init__(self, needs: Mapping[Name, Need], first: int) -> None:
        self._needs, self._first = dict(needs), first
        self._alive: dict[int, set[Name]] = {}      # at each node
        self._words: dict[int, int] = {}            # that these have
        for name, need in self._needs.items():
            self._enter(name, need)
        self._near = {name: self._beside(name) for name in self._needs}
        self._numbers = {name: number for number, name in enumerate(needs)}
        self._ranks = {name: _rank(need, self._numbers[name]) for name, need in needs.items()}
        self._spans: dict[Name, _Span] = {}
        self._settle(self._spans, self._ranks, self._needs)

    def move(self, name: Name, life: Life) -> None:
        """Change when something is needed."""
        old, need = self._near[name], self._needs[name]
        for at in range(need.life.born, need.life.dies + 1):
            self._alive[at].remove(name)
            self._words[at] -= need.words
        self._needs[name] = need = replace(need, life=life)
        self._enter(name, need)
        self._near[name] = new = self._beside(name)
        for other in old - new:
            self._near[other].remove(name)
        for other in new - old:
            self._near[other].add(name)
        self._ranks[name] = _rank(need, self._numbers[name])
        self._settle(self._spans, self._ranks, {name} | old | new)

    @property
    def least(self) -> int:
        """The word before which they cannot end, in whatever order."""
        return self._first + max(self._words.values())

    def within(self, end: int) -> dict[Name, int] | None:
        """Return what `before` does, if all end there."""
        if self.least > end:
            return None
        spans = self._before(end)
        return _begins(spans) if _top(spans) <= end else None

    def before(self, end: int) -> dict[Name, int]:
        """Return the first word of each need, so that all end before a word if that is found; else
        as low as was found."""
        return _begins(self._before(end))

    def _before(self, end: int) -> dict[Name, _Span]:
        """Return where needs lie. Where they do not end before a word, what ends highest goes
        before all others, a few times, unless no order can do."""
        spans, ranks, least = self._spans.copy(), self._ranks.copy(), self.least
        front = min(ranks, key=ranks.__getitem__)
        best, lowest = spans.copy(), _top(spans)
        for turn in range(_ORDERS):
            top = _top(spans)
            if top < lowest:
                best, lowest = spans.copy(), top
            _, last = max((ranks[name], name) for name, span in spans.items() if span[1] == top)
            if top <= max(end, least) or least > end or last == front or turn == _ORDERS - 1:
                break
            ranks[last], front = _FIRST - turn, last
            self._settle(spans, ranks, [last])
        return best

    def _enter(self, name: Name, need: Need) -> None:
        for at in range(need.life.born, need.life.dies + 1):
            self._alive.setdefault(at, set()).add(name)
            self._words[at] = self._words.get(at, 0) + need.words

    def _beside(self, name: Name) -> set[Name]:
        """Return what is needed at the same time as something."""
        life = self._needs[name].life
        return set().union(*(self._alive[at] for at in range(life.born, life.dies + 1))) - {name}

    def _settle(self, spans: dict[Name, _Span], ranks: Mapping[Name, _Rank],
                moved: Iterable[Name]) -> None:
        """Put right where needs lie: those that moved in the order, and those behind them that
        these are in the way of, or no longer are."""
        queued = set(moved)
        waiting = [(ranks[name], name) for name in queued]
        heapify(waiting)
        while waiting:
            rank, name = heappop(waiting)
            queued.remove(name)
            near = self._near[name]
            old = spans.get(name)
            span = self._lowest(self._needs[name], sorted(
                [spans[other] for other in near if ranks[other] < rank]))
            if span == old:
                continue
            spans[name] = begin, end = span
            freed = end if old is None else old[0]      # words from there on may be free now
            for other in near - queued:
                first, last = spans[other]
                if ranks[other] > rank and (last > freed or (first < end and begin < last)):
                    heappush(waiting, (ranks[other], other))
                    queued.add(other)

    def _lowest(self, need: Need, taken: Iterable[_Span]) -> _Span:
        """Return the lowest words for a need beside those that are taken, in their order."""
        words, multiple = need.words, need.multiple
        at = -(-self._first // multiple) * multiple
        for begin, end in taken:
            if at + words <= begin:
                break
            if end > at:
                at = -(-end // multiple) * multiple
        return at, at + words


def _rank(need: Need, number: int) -> _Rank:
    """Return the rank of a need by its words, its life and its number: the largest is first."""
    rank = -need.words
    for value in (need.life.born + 1, need.life.dies + 1, number):
        rank = (rank << 20) + value
    return rank


def _begins(spans: Mapping[Name, _Span]) -> dict[Name, int]:
    return {name: begin for name, (begin, _) in spans.items()}


def _top(spans: Mapping[Name, _Span]) -> int:
    return max(map(itemgetter(1), spans.values()))
