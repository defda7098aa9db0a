"""Faults between a host and a board, on demand: which byte is hit is fixed by a seed.

Every kind draws the bytes that it hits, counted in each direction from the first, from a random
stream of its own: how the bytes are cut into pieces, and which other kinds there are, changes
nothing.
"""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, fields

__all__ = ["CUT_MAX", "STALL_SECONDS", "Damage", "Faults"]

CUT_MAX = 64
"""Longest run of bytes that a cut takes away."""

STALL_SECONDS = 0.02, 0.2
"""Shortest and longest time for which a stall holds the board's side up."""

TO_BOARD, TO_HOST = "to board", "to host"


@dataclass(frozen=True, kw_only=True)
class Faults:
    """Rates, each a part of all bytes from 0 to 1, in both directions.

    seed      : of everything random.
    drop      : a byte is lost.
    flip      : one bit of a byte is wrong.
    duplicate : a byte comes twice.
    cut       : a run of 1 to `CUT_MAX` bytes begins that are all lost, as by an overrun.
    noise     : a random byte comes before a byte.
    stall     : of the bytes to the board: its side stops for `STALL_SECONDS`.
    reset_after : the board is configured anew after so many bytes to it, and again after as many
                  more; 0 is never.

    ValueError where one is out of its range.
    """

    seed: int = 0
    drop: float = 0.0
    flip: float = 0.0
    duplicate: float = 0.0
    cut: float = 0.0
    noise: float = 0.0
    stall: float = 0.0
    reset_after: int = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type is float and not 0 <= value <= 1:
                raise ValueError(f"{field.name} must be a rate from 0 to 1, not {value!r}; "
                                 f"0.01 is one byte of a hundred")
        if self.reset_after < 0:
            raise ValueError(f"reset_after must not be negative, not {self.reset_after!r}")

    def __bool__(self) -> bool:
        return any(getattr(self, field.name) for field in fields(self) if field.name != "seed")


class _Hits:
    """The bytes that one kind hits in one direction: their numbers, ascending."""

    def __init__(self, rate: float, *name: object) -> None:
        self.random = random.Random(repr(name))
        self._step = math.log1p(-rate) if rate < 1 else -math.inf
        self._rate, self._next = rate, 0
        if rate:
            self._next = self._gap()

    def _gap(self) -> int:
        """Bytes that are spared before the next one that is hit."""
        return int(math.log1p(-self.random.random()) / self._step)

    def below(self, end: int) -> Iterator[int]:
        while self._rate and self._next < end:
            yield self._next
            self._next += 1 + self._gap()


class Damage:
    """What `Faults` do to the two streams of bytes. ``done`` counts them by kind."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self.done = dict.fromkeys(("drop", "flip", "duplicate", "cut", "noise", "stall"), 0)
        self._streams = {direction: _Stream(faults, direction, self.done)
                         for direction in (TO_BOARD, TO_HOST)}
        self._stalls, self._seen = _Hits(faults.stall, faults.seed, "stall"), 0

    def damage(self, data: bytes, direction: str) -> bytes:
        """Return what arrives of ``data``. direction : `TO_BOARD` or `TO_HOST`."""
        return self._streams[direction].damage(data)

    def stalled(self, count: int) -> float:
        """Return for how many seconds the board's side stops at the next ``count`` bytes."""
        self._seen += count
        times = [self._stalls.random.uniform(*STALL_SECONDS)
                 for _ in self._stalls.below(self._seen)]
        self.done["stall"] += len(times)
        return sum(times)


class _Stream:
    """One direction."""

    def __init__(self, faults: Faults, direction: str, done: dict[str, int]) -> None:
        self._hits = {kind: _Hits(getattr(faults, kind), faults.seed, direction, kind)
                      for kind in ("cut", "drop", "flip", "duplicate", "noise")}
        self._done, self._at, self._lost_until = done, 0, 0

    def damage(self, data: bytes) -> bytes:
        begin, self._at = self._at, self._at + len(data)
        drawn = {kind: {at: self._detail(kind, hits.random) for at in hits.below(self._at)}
                 for kind, hits in self._hits.items()}
        if self._lost_until <= begin and not any(drawn.values()):
            return data
        arrived = bytearray()
        for at, byte in enumerate(data, begin):
            hit = {kind: found[at] for kind, found in drawn.items() if at in found}
            for kind in hit:
                self._done[kind] += 1
            if "cut" in hit:
                self._lost_until = max(self._lost_until, at + hit["cut"])
            if "noise" in hit:
                arrived.append(hit["noise"])
            if at < self._lost_until or "drop" in hit:
                continue
            byte ^= hit.get("flip", 0)
            arrived += bytes([byte]) * (1 + ("duplicate" in hit))
        return bytes(arrived)

    @staticmethod
    def _detail(kind: str, source: random.Random) -> int:
        """What a hit needs to know: a cut its length, a flip its bit, noise its byte."""
        return {"cut": lambda: source.randint(1, CUT_MAX), "flip": lambda: 1 << source.randrange(8),
                "noise": lambda: source.randrange(256)}.get(kind, lambda: 1)()
