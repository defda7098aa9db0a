"""A run of a machine of one cluster."""

from collections import Counter
from collections.abc import Sequence

from celosia_sim.clock.cluster import Cluster, Shared
from celosia_sim.clock.machine_clock import MachineClock
from celosia_spec.isa.array import Array


class OneCluster(MachineClock):
    """The cluster, the flash reader and the fill engine have one port, in the order of requests;
    or fills have one of their own."""

    def __init__(self, array: Array, clusters: Sequence[Cluster]) -> None:
        super().__init__(array, clusters)
        self._apart = array.two_ports

    @property
    def busy(self) -> bool:
        return self.clusters[0].busy

    def taken(self, now: int) -> Counter[str]:
        (first,) = self.clusters
        found, first.spent = first.spent, Counter()
        return found

    def advance(self, now: int) -> int:
        seen = self.seen(now)
        until = self._until(now, seen)
        if until <= now:
            self._cycle(now, seen)
            return now + 1
        even = self._even(now, until)
        if even <= now:
            return self._bring(now, until, seen)
        self._pass_over(now, even, seen)
        return even

    @property
    def _starved(self) -> bool:
        """Whether fills do not get the port while all goes on as it does."""
        return self.clusters[0].fetcher.request and not self._apart

    def _cycle(self, now: int, seen: Shared) -> None:
        """Let a cycle pass."""
        (first,), fill, flash = self.clusters, self.fill, self.flash
        first.look(now)
        port = first.writes(now)
        read = flash.wants(now) and not port
        fetching = first.fetcher.request and not (port or read)
        filled = fill.wants(now) and (fill.zero or self._apart or not (port or read or fetching))
        first.spend(now, seen)
        if first.executor.closed:
            self.close(now)
        loaded = first.step(now, seen, granted=fetching, written=False)
        self.step_engines(now, filled=filled, read=read, loaded=loaded)

    def _until(self, now: int, seen: Shared) -> int:
        """Return a cycle, this one or a later one: until it all but the fetcher, the fill engine
        and the flash reader go on as they do, or wait for another."""
        return min(self.flash.next, self.clusters[0].until(now, seen))

    def _even(self, now: int, until: int) -> int:
        """Return until when all others go on as they do, too, this cycle or a later one."""
        (first,) = self.clusters
        until = min(until, first.even(now))
        if until <= now:
            return now
        until = min(until, self.fill.next(now, starved=self._starved))
        if self.flash.reads:
            until = min(until, self.flash.clash(first.output.writes, until))
        return max(now, until)

    def _bring(self, now: int, until: int, seen: Shared) -> int:
        """Let cycles pass in which only the fetcher, the fill engine and the flash reader change,
        one at least; return the first one that is left."""
        (first,), fill, flash = self.clusters, self.fill, self.flash
        fetcher, records, even = first.fetcher, fill.queued, False
        while now < until and fill.queued == records and not even:
            port = first.output.port(now)
            read = flash.wants(now) and not port
            free = not (port or read)
            filled = fill.wants(now) and (fill.zero or self._apart or (
                free and not fetcher.request))
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
        self.fill.pass_over(start, until, () if self._apart else sorted(taken),
                            starved=self._starved)
        if first.fetcher.request:
            first.fetcher.pass_over(start, until, taken, first.sequencer.entries)
