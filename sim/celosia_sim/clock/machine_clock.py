"""A run of the machine from cycle to cycle: what one cluster and several have in common."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from celosia_sim.clock.cluster import Cluster, Shared
from celosia_sim.clock.events import Command
from celosia_sim.clock.fills import FillEngine
from celosia_sim.clock.flash import FlashReader
from celosia_spec.errors import SimulationError
from celosia_spec.isa.array import Array
from celosia_spec.isa.controls import Op
from celosia_spec.isa.fills import QUEUED

_LONG = 1 << 26     # cycles without an end

SPENT = {
    "steps": "a step was issued", "weights": "its entry was not there yet",
    "rows": "the pass was shorter than its rows take to leave",
    "fill": "what a band reads was not in the banks yet",
    "drain": "results of the layer were not all written yet",
    "flash": "a section of flash was not in main memory yet",
    "control": "control words were fetched or carried out"}
"""What a cycle was spent on, or waiting for."""


@dataclass(frozen=True, kw_only=True)
class Cycles:
    """When things were done.

    cycles : from `start` until the machine is not busy any more.
    closed : when each exponent was set, of outputs and of readings of several tensors.
    spent  : how the sequencers of all clusters spent the cycles until each of these, and from the
             last one to the end, by the keys of `SPENT`.
    """

    cycles: int
    closed: tuple[int, ...]
    spent: tuple[Mapping[str, int], ...]


class MachineClock(ABC):
    """The clusters, and what they share."""

    def __init__(self, array: Array, clusters: Sequence[Cluster]) -> None:
        self.clusters, self.flash, self.fill = clusters, FlashReader(array), FillEngine(array)
        self._closed: list[int] = []
        self._spent: list[Counter[str]] = []

    def run(self) -> Cycles:
        """Return the cycles of a run. SimulationError where it does not end."""
        now = 1
        while self.busy:
            now = self.advance(now)
            if now > _LONG:
                raise SimulationError(f"the stream has not ended after {_LONG:,} cycles")
        return Cycles(cycles=now - 1, closed=tuple(self._closed),
                      spent=(*self._spent, self.taken(now)))

    @property
    @abstractmethod
    def busy(self) -> bool:
        """Whether a cluster has something to do."""

    @abstractmethod
    def advance(self, now: int) -> int:
        """Let the cycle pass, or some from it on; return the first one that is left."""

    @abstractmethod
    def taken(self, now: int) -> Counter[str]:
        """Return on what the cycles before one have been spent since the last time."""

    def close(self, now: int) -> None:
        """An exponent is set."""
        self._closed.append(now)
        self._spent.append(self.taken(now + 1))

    def step_engines(self, now: int, *, filled: bool, read: bool, loaded: Command | None) -> None:
        """Let a cycle of the fill engine and the flash reader pass.

        filled, read : they have the port.   loaded : a fill, or a copy, whose last word came.
        """
        asked = loaded.sections if loaded and loaded.op == Op.COPY else None
        self.fill.step(now, filled, loaded if asked is None else None)
        self.flash.step(now, read, asked)

    def seen(self, now: int, *, together: bool = True) -> Shared:
        """Return what clusters see in a cycle; together : of each other."""
        fill, flash = self.fill, self.flash
        return Shared(fill.queued != QUEUED, not fill.idle, flash.busy(now), flash.copied(now),
                      together)
