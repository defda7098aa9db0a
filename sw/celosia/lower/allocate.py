"""Bank rows and residual beats for the stored tensors of a program."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Span:
    """A tensor's need: ``size`` units from step ``first`` to step ``last``, both inclusive."""

    name: str
    size: int
    first: int
    last: int


@dataclass(frozen=True)
class Layout:
    """Where everything lies, and which tensors share their place with another."""

    base: dict[str, int]
    shared: frozenset[str]


def allocate(spans: list[Span], depth: int) -> Layout | None:
    """Place every span in ``depth`` units, or return None.

    Without overlap at all if that fits, since shared places have to be cleared before every use;
    else by first fit, largest first, where life times do not meet.
    """
    if sum(span.size for span in spans) <= depth:
        base, at = {}, 0
        for span in spans:
            base[span.name] = at
            at += span.size
        return Layout(base, frozenset())
    placed: list[tuple[int, Span]] = []
    for span in sorted(spans, key=lambda s: (-s.size, s.first)):
        busy = sorted((at, at + other.size) for at, other in placed
                      if other.first <= span.last and span.first <= other.last)
        at = 0
        for low, high in busy:
            if at + span.size <= low:
                break
            at = max(at, high)
        if at + span.size > depth:
            return None
        placed.append((at, span))
    shared = {a.name for at, a in placed for bt, b in placed
              if a is not b and at < bt + b.size and bt < at + a.size}
    return Layout({span.name: at for at, span in placed}, frozenset(shared))
