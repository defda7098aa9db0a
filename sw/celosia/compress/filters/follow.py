"""Where the map of each filter goes, and what is left of it there when the filter is zero.

Followed are operators that are known to keep channels apart (`celosia.compress.operators`).
A filter whose map meets anything else stays, and so does one whose map, zeroed, would no longer be
one number where a reader needs that.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from torch import nn

from celosia.compress import operators
from celosia.compress.filters import moves, readers
from celosia.compress.filters.couples import Couples
from celosia.compress.filters.owners import READERS
from celosia.compress.filters.record import Record, Step
from celosia.compress.filters.tracks import Cut, Found, Map, Tracks, Unfollowed

__all__ = ["Flow", "follow"]

_Rule = Callable[[Tracks, Step], Found]
_RULES: Mapping[str, _Rule] = (
    dict.fromkeys(operators.UNCHANGED, moves.unchanged)
    | dict.fromkeys(operators.ELEMENTWISE, moves.elementwise)
    | dict.fromkeys(operators.REORDERS | operators.SELECTS, moves.layout)
    | dict.fromkeys(operators.REDUCTIONS, moves.reduction)
    | dict.fromkeys(operators.RESIZES | operators.POOLS, moves.spatial)
    | dict.fromkeys(("cat", "concat", "concatenate"), moves.concatenate)
    | {"stack": moves.stack, "pad": moves.pad, "batch_norm": readers.batch_norm,
       "prelu": readers.prelu}
)


@dataclass(frozen=True, kw_only=True)
class Flow:
    """What `follow` found.

    couples : all filters under their labels, which go together, and which stay.
    cuts    : of all layers that filters go through.
    norms   : {convolution or linear layer: the batch normalisation that alone reads it, or
              None}.
    """

    couples: Couples
    cuts: tuple[Cut, ...]
    norms: Mapping[str, str | None]


def follow(
    model: nn.Module, record: Record, left_alone: Collection[str], *, drop: bool = False
) -> Flow:
    """Follow every filter through a recorded run.

    left_alone : names of convolutions that keep their filters.
    drop       : let filters go whose map, zeroed, is no number that a reader can hold.
    """
    tracks = Tracks(model, record, drop=drop)
    for name, labels in tracks.couples.labels.items():
        reason = "named in `ignore`" if name in left_alone else tracks.owners.stays(name)
        if reason is not None:
            tracks.block(labels, reason)
    for step in record.steps:
        for number, result in zip(step.gives, _results(tracks, step), strict=False):
            if result is not None and result.labels.any():
                tracks.maps[number] = result
    for number in record.outputs:
        if number in tracks.maps:
            tracks.block(tracks.maps[number].labels, "gives the network's output")
    return Flow(couples=tracks.couples, cuts=tuple(tracks.cuts), norms=tracks.norms)


def _results(tracks: Tracks, step: Step) -> list[Map | None]:
    """Return the maps of a step's results; filters stay whose map cannot be followed."""
    if step.name in READERS:
        return [readers.reader(tracks, step)]
    read = [tracks.maps[number] for number in step.reads if number in tracks.maps]
    if not read:
        return []
    rule = _RULES.get(step.name)
    try:
        found = (f"meets {tracks.words(step)}, which may mix channels" if rule is None
                 else rule(tracks, step))
    except Unfollowed:
        found = f"cannot be followed through {tracks.words(step)}"
    if not isinstance(found, str):
        return found
    for given in read:
        tracks.block(given.labels, f"its map {found}")
    return []
