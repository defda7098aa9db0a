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
        self._numbers = {name: number for number, name in enumerate(needs)}
        self._order: _Order[Name] = _Order(
            {name: _rank(need, self._numbers[name]) for name, need in needs.items()},
            {name: set() for name in needs}, {name: set() for name in needs})
        for name in self._needs:
            self._order.put(name, self._beside(name))
        self._spans: dict[Name, _Span] = {}
        for name in sorted(self._needs, key=self._order.ranks.__getitem__):
            self._spans[name] = self._lowest(name, self._spans, self._order)

    def move(self, name: Name, life: Life) -> None:
        """Change when something is needed."""
        old, need = self._order.near(name), self._needs[name]
        for at in range(need.life.born, need.life.dies + 1):
            self._alive[at].remove(name)
            self._words[at] -= need.words
        self._needs[name] = need = replace(need, life=life)
        self._enter(name, need)
        new = self._beside(name)
        self._order.take(name)
        self._order.ranks[name] = _rank(need, self._numbers[name])
        self._order.put(name, new)
        self._settle(self._spans, self._order, {name} | old | new)

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
        spans, order, least = self._spans.copy(), self._order, self.least
        front = min(order.ranks, key=order.ranks.__getitem__)
        best, lowest = spans.copy(), _top(spans)
        for turn in range(_ORDERS):
            top = _top(spans)
            if top < lowest:
                best, lowest = spans.copy(), top
            _, last = max((order.ranks[name], name) for name, span in spans.items()
                          if span[1] == top)
            if top <= max(end, least) or least > end or last == front or turn == _ORDERS - 1:
                break
            order, front = order.with_first(last, _FIRST - turn), last
            self._settle(spans, order, [last])
        return best

    def _enter(self, name: Name, need: Need) -> None:
        for at in range(need.life.born, need.life.dies + 1):
            self._alive.setdefault(at, set()).add(name)
            self._words[at] = self._words.get(at, 0) + need.words

    def _beside(self, name: Name) -> set[Name]:
        """Return what is needed at the same time as something."""
        life = self._needs[name].life
        return set().union(*(self._alive[at] for at in range(life.born, life.dies + 1))) - {name}

    def _settle(self, spans: dict[Name, _Span], order: "_Order[Name]",
                moved: Iterable[Name]) -> None:
        """Put right where needs lie: those that moved in the order, and those behind them that
        these are in the way of, or no longer are."""
        ranks, queued = order.ranks, set(moved)
        waiting = [(ranks[name], name) for name in queued]
        heapify(waiting)
        while waiting:
            _, name = heappop(waiting)
            queued.remove(name)
            freed, _ = old = spans[name]        # words from there on may be free now
            span = self._lowest(name, spans, order)
            if span == old:
                continue
            spans[name] = begin, end = span
            for other in order.behind[name] - queued:
                first, last = spans[other]
                if last > freed or (first < end and begin < last):
                    heappush(waiting, (ranks[other], other))
                    queued.add(other)

    def _lowest(self, name: Name, spans: Mapping[Name, _Span], order: "_Order[Name]") -> _Span:
        """Return the lowest words for a need beside those before it."""
        need = self._needs[name]
        words, multiple = need.words, need.multiple
        at = -(-self._first // multiple) * multiple
        for begin, end in sorted(map(spans.__getitem__, order.before[name])):
            if at + words <= begin:
                break
            if end > at:
                at = -(-end // multiple) * multiple
        return at, at + words


@dataclass(frozen=True, slots=True)
class _Order(Generic[Name]):
    """In which order needs are placed.

    ranks : of each, the least first.   before, behind : of what is needed at the same time as each,
    what is placed before it, and behind it.
    """

    ranks: dict[Name, _Rank]
    before: dict[Name, set[Name]]
    behind: dict[Name, set[Name]]

    def near(self, name: Name) -> set[Name]:
        """Return what is needed at the same time."""
        return self.before[name] | self.behind[name]

    def put(self, name: Name, near: set[Name]) -> None:
        """Say what is needed at the same time as something."""
        rank = self.ranks[name]
        for other in near:
            first, last = (name, other) if rank < self.ranks[other] else (other, name)
            self.behind[first].add(last)
            self.before[last].add(first)

    def take(self, name: Name) -> None:
        """Let nothing be needed at the same time as something."""
        for other in self.before[name]:
            self.behind[other].remove(name)
        for other in self.behind[name]:
            self.before[other].remove(name)
        self.before[name], self.behind[name] = set(), set()

    def with_first(self, name: Name, rank: _Rank) -> "_Order[Name]":
        """Return the order in which one need has the least rank."""
        before, behind = self.before[name], self.behind[name]
        return _Order(
            self.ranks | {name: rank},
            self.before | {other: self.before[other] | {name} for other in before} | {name: set()},
            self.behind | {other: self.behind[other] - {name} for other in before}
            | {name: before | behind})


def _rank(need: Need, number: int) -> _Rank:
    """Return the rank of a need by its words, its life and its number: the largest is first."""
    rank = -need.words
    for value in (need.life.born + 1, need.life.dies + 1, number):
        rank = (rank << 20) + value
    return rank


def _begins(spans: Mapping[Name, _Span]) -> dict[Name, int]:
    return {name: begin for name, (begin, _) in spans.items()}


def _top(spans: Mapping[Name, _Span]) -> int:
    top: int = max(map(itemgetter(1), spans.values()))
    return top
