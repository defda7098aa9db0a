"""The exact cycles of a stream."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from celosia_sim.clock.cluster import Cluster, Shared
from celosia_sim.clock.events import events
from celosia_sim.clock.fills import FillEngine
from celosia_sim.clock.flash import FlashReader
from celosia_spec.errors import SimulationError
from celosia_spec.isa.array import Array
from celosia_spec.isa.controls import Op
from celosia_spec.isa.image import Section

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


def cycles(array: Array, entries: Sequence[int], chunks: Sequence[tuple[int, int]],
           copied: Collection[int] = (), image: Sequence[Section] = (),
           beside: Sequence[tuple[Sequence[tuple[int, int]], Collection[int]]] = ()) -> Cycles:
    """Return the cycles that a stream takes, those of the gateware exactly.

    entries, chunks : as `celosia_sim.stream_machine.run` takes them.   copied : numbers of the
    chunks that wait for a section of flash.   image : all sections.   beside : chunks, and those
    that wait, of each cluster but the first. SimulationError where the stream does not end.
    """
    return _Clock(array, [
        Cluster(array, *events(array, entries, own, waiting, image), len(own), waiting)
        for own, waiting in ((chunks, copied), *beside)]).run()


class _Clock:
    """The clusters, and what they share."""

    def __init__(self, array: Array, clusters: Sequence[Cluster]) -> None:
        self.clusters, self.flash, self.fill = clusters, FlashReader(array), FillEngine()
        self.closed: list[int] = []
        self.spent: list[Counter[str]] = []
        self._several, self._together = len(clusters) > 1, True
        self._served: Cluster | None = None     # of several: whose fetcher sees its grant next

    def run(self) -> Cycles:
        now = 1
        while self._busy:
            seen = self._seen(now)
            until = self._until(now, seen)
            if until > now:
                now = self._go_on(now, until, seen)
            else:
                self._cycle(now, seen)
                now += 1
            if now > _LONG:
                raise SimulationError(f"the stream has not ended after {_LONG:,} cycles")
        return Cycles(cycles=now - 1, closed=tuple(self.closed),
                      spent=(*self.spent, self._taken()))

    @property
    def _busy(self) -> bool:
        """Whether a cluster has something to do."""
        return any(cluster.busy for cluster in self.clusters) if self._several else (
            self.clusters[0].busy)

    def _taken(self) -> Counter[str]:
        """Return what has been spent since the last time."""
        found: Counter[str] = Counter()
        for cluster in self.clusters:
            found.update(cluster.spent)
            cluster.spent = Counter()
        return found

    def _cycle(self, now: int, seen: Shared) -> None:
        clusters, fill, flash = self.clusters, self.fill, self.flash
        # What everybody sees of the others in this cycle.
        for cluster in clusters:
            cluster.look(now)
        port = False
        for cluster in clusters:
            port |= cluster.writes(now)
        writer = self._wanting if self._several else None
        read = flash.wants(now) and not port
        fetchers = [cluster for cluster in clusters if (
            cluster.fetcher.request and cluster is not self._served)]
        fetching = fetchers[0] if fetchers and not (port or read) else None
        granted = self._served if self._several else fetching
        filled = fill.wants(now) and (fill.zero or self._several
                                      or not (port or read or fetching))
        if self._several:
            self._together = all(cluster.comes for cluster in clusters)
            self._served = fetching
        # Registers.
        for cluster in clusters:
            cluster.spend(now, seen)
        if clusters[0].executor.closed:
            self.closed.append(now)
            self.spent.append(self._taken())
        loaded, *_ = [cluster.step(now, seen, granted=cluster is granted,
                                   written=cluster is writer) for cluster in clusters]
        asked = loaded.sections if loaded and loaded.op == Op.COPY else None
        fill.step(now, filled, loaded if asked is None else None)
        flash.step(now, read, asked)

    def _seen(self, now: int) -> Shared:
        """Return what clusters see in a cycle."""
        fill, flash = self.fill, self.flash
        return Shared(fill.queued != 3, not fill.idle, flash.busy(now), flash.copied(now),
                      self._together)

    def _until(self, now: int, seen: Shared) -> int:
        """Return a cycle, this one or a later one: until it each block goes on as it does, or waits
        for another; of one cluster all but the fetcher, the fill engine and the flash reader."""
        if self._several and self._together != all(
                cluster.waits_for_others for cluster in self.clusters):
            return now
        until = self.flash.next
        for cluster in self.clusters:
            until = min(until, cluster.until(now, seen))
            if until <= now:
                return now
        return self._even(now, until) if self._several else until

    def _even(self, now: int, until: int) -> int:
        """Return until when all others go on as they do, too, this cycle or a later one."""
        first = self.clusters[0]
        for cluster in self.clusters:
            until = min(until, cluster.even(now))
            if until <= now:
                return now
        until = min(until, self.fill.next(now, starved=self._starved))
        if self.flash.reads and not self._several:
            until = min(until, self.flash.clash(first.output.writes, until))
        return max(now, until)

    def _go_on(self, now: int, until: int, seen: Shared) -> int:
        """Let the cycles from one on pass, or some of them, of which `_until` said so; return the
        first one that is left."""
        if self._several:
            self._share(now, until, seen)
            return until
        even = self._even(now, until)
        if even > now:
            self._pass_over(now, even, seen)
            return even
        return self._bring(now, until, seen)

    def _bring(self, now: int, until: int, seen: Shared) -> int:
        """Let cycles pass in which only the fetcher, the fill engine and the flash reader change,
        one at least; return the first one that is left."""
        (first,), fill, flash = self.clusters, self.fill, self.flash
        fetcher, records, even = first.fetcher, fill.queued, False
        while now < until and fill.queued == records and not even:
            port = first.output.port(now)
            read = flash.wants(now) and not port
            free = not (port or read)
            filled = fill.wants(now) and (fill.zero or (free and not fetcher.request))
            until = min(until, first.bring(now, seen, granted=fetcher.request and free))
            fill.step(now, filled, None)
            flash.step(now, read, None)
            now += 1
            even = first.brings_evenly(now)
        first.pass_over(now)
        return now

    def _pass_over(self, start: int, until: int, seen: Shared) -> None:
        """Let the cycles from one until another pass, of which `_until` said so."""
        (first,) = self.clusters
        first.wait(seen, until - start)
        taken = first.pass_over(until)
        taken += self.flash.pass_over(until, taken)
        self.fill.pass_over(start, until, sorted(taken), starved=self._starved)
        if first.fetcher.request:
            first.fetcher.pass_over(start, until, taken, first.sequencer.entries)

    def _share(self, start: int, until: int, seen: Shared) -> None:
        """Let the cycles from one until another pass, of which `_until` said so, in which several
        clusters have the port by turns: they write, and bring entries of weights."""
        for cluster in self.clusters:
            cluster.wait(seen, until - start)
        self.fill.pass_over(start, until, (), starved=False)
        fetching = [cluster for cluster in self.clusters if cluster.fetcher.request]
        now = start
        while now < until:
            if not fetching and self._served is None and not self._wanting:
                free = min([until, *(cluster.output.writes[0] for cluster in self.clusters
                                     if cluster.output.writes)])
                if free > now:
                    self.flash.pass_over(free, ())
                    for cluster in self.clusters:
                        cluster.rest(free - now)
                    now = free
                    continue
            self._turn(now, fetching)
            now += 1
        for cluster in self.clusters:
            cluster.pass_over(until)

    def _turn(self, now: int, fetching: Sequence[Cluster]) -> None:
        """Let one of several clusters have the port, or none, and no block but it see that.

        fetching : those that bring entries of weights.
        """
        writer, read = self._wanting, False
        if self.flash.reads:
            read = self.flash.wants(now) and writer is None
            self.flash.step(now, read, None)
        if self._served is not None:
            self._served.bring_weights(now)
        self._served = None if writer is not None or read else next(
            (cluster for cluster in fetching if cluster is not self._served), None)
        for cluster in self.clusters:
            cluster.share(now, granted=cluster is writer)

    @property
    def _wanting(self) -> Cluster | None:
        """Of several clusters the one whose write is next."""
        return next((cluster for cluster in self.clusters if cluster.wants_write), None)

    @property
    def _starved(self) -> bool:
        """Whether the fill engine waits as a fetcher always wants the port."""
        return not self._several and self.clusters[0].fetcher.request
