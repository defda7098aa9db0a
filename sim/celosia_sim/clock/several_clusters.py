"""A run of a machine of several clusters."""

from collections import Counter
from collections.abc import Sequence
from functools import cache

from celosia_sim.clock.cluster import Cluster
from celosia_sim.clock.machine_clock import MachineClock
from celosia_spec.isa.array import Array


class SeveralClusters(MachineClock):
    """The clusters write and fetch by turns, and fills have a port of their own. Words with even
    numbers and with odd ones lie apart: of either, one is written or fetched in a cycle.

    While a cluster is steady its fetcher and its writes alone are followed; while all are calm, no
    more than who has the port.
    """

    def __init__(self, array: Array, clusters: Sequence[Cluster]) -> None:
        super().__init__(array, clusters)
        self._come = False                      # all wait for each other
        self._together = True                   # registered: they do
        self._served: list[Cluster] = []        # whose fetchers see their grants next
        self._told, self._changed = self.seen(1), True      # what clusters saw; it may have changed

    @property
    def busy(self) -> bool:
        return any(cluster.busy for cluster in self.clusters)

    def taken(self, now: int) -> Counter[str]:
        found: Counter[str] = Counter()
        for cluster in self.clusters:
            cluster.catch_up(now, self._told)
            found.update(cluster.spent)
            cluster.spent = Counter()
        return found

    def advance(self, now: int) -> int:
        clusters, flash = self.clusters, self.flash.next
        if self._changed or flash <= now:
            seen, self._changed = self.seen(now, together=self._together), False
            if seen != self._told or flash <= now or self._together != self._come:
                for cluster in clusters:
                    cluster.wake(now, self._told)
                self._told = seen
                return self._cycle(now)
        for cluster in clusters:
            if cluster.calm <= now:
                cluster.settle(now, self._told)
        until = min(flash, *[cluster.steady for cluster in clusters])
        if until > now:
            until = min(until, self.fill.next(now, starved=False))
        return self._go_on(now, until) if until > now else self._cycle(now)

    def _cycle(self, now: int) -> int:
        """Let a cycle pass; return the next one."""
        lively = [cluster for cluster in self.clusters if cluster.steady <= now]
        for cluster in lively:
            cluster.look(now)
        for cluster in lively:
            cluster.writes(now)
        seen, fill, first = self._told, self.fill, self.clusters[0]
        records, filled = fill.queued, fill.wants(now)
        writers, served, read = self._turn(now, [
            cluster for cluster in self.clusters if cluster.calm <= now < cluster.steady])
        for cluster in lively:
            cluster.spend(now, seen)
        if first.executor.closed:
            self.close(now)
        loaded = None
        for cluster in lively:
            found = cluster.step(now, seen, granted=cluster in served, written=cluster in writers)
            if cluster is first:
                loaded = found
        self.step_engines(now, filled=filled, read=read, loaded=loaded)
        come = all(cluster.waits_for_others for cluster in self.clusters)
        self._changed = (seen.copied or loaded is not None or fill.queued != records
                         or not come == self._come == self._together)
        self._together, self._come = self._come, come
        return now + 1

    def _go_on(self, start: int, until: int) -> int:
        """Let the cycles from one until another pass, or some of them, in which all clusters are
        steady; return the first one that is left."""
        now, clusters = start, self.clusters
        while now < until:
            bringing = [cluster for cluster in clusters if cluster.calm <= now]
            if bringing:
                *_, read = self._turn(now, bringing)
                self.flash.step(now, read, None)
                now += 1
                for cluster in bringing:
                    until = min(until, cluster.steady)
            else:
                now = self._calm(now, min([until, *[cluster.calm for cluster in clusters]]))
            if now < until:
                for cluster in clusters:
                    if cluster.calm <= now:
                        cluster.settle(now, self._told)
        self.fill.pass_over(start, now, (), starved=False)
        return now

    def _calm(self, now: int, until: int) -> int:
        """Let the cycles from one until another pass, in which all clusters are calm."""
        fetching = [cluster for cluster in self.clusters if cluster.fetcher.request]
        while now < until:
            free = min([until, *[cluster.moves for cluster in self.clusters]])
            if fetching:
                free = min(free, self.flash.asks)
            if free > now:
                self.flash.pass_over(free, ())
                self._fetch(now, free, fetching)
                now = free
            else:
                *_, read = self._turn(now, ())
                self.flash.step(now, read, None)
                now += 1
        return now

    def _fetch(self, start: int, until: int, fetching: Sequence[Cluster]) -> None:
        """Let fetchers have the port by turns, in cycles in which nobody else wants it."""
        numbers, cycles = range(len(fetching)), range(until - start)
        turns, again = _turns(
            frozenset(number for number in numbers if fetching[number] in self._served),
            tuple(cluster.fetcher.odd for cluster in fetching))

        def served(at: int) -> frozenset[int]:
            return turns[at if at < again else again + (at - again) % (len(turns) - again)]

        for number in numbers:
            fetching[number].bring_weights([start + at for at in cycles if number in served(at)])
        self._served = [fetching[number] for number in numbers if number in served(len(cycles))]

    def _turn(self, now: int, bringing: Sequence[Cluster],
              ) -> tuple[list[Cluster], list[Cluster], bool]:
        """Let fetchers and writes of the steady clusters go on; return the clusters of which a
        write has the port, those whose fetchers see their grants, and whether the flash reader has
        it.

        bringing : of the steady clusters, those that are not calm.
        """
        clusters, served, flash = self.clusters, self._served, self.flash
        moving, writers, free = [], [], [True, True]    # words with even numbers, and odd ones
        for cluster in clusters:
            if cluster.moves <= now:
                moving.append(cluster)
                if cluster.wants_write and free[cluster.writes_odd]:
                    writers.append(cluster)
                    free[cluster.writes_odd] = False
        read = flash.wants(now) and free[flash.odd]
        if read:
            free[flash.odd] = False
        self._served = []
        for cluster in clusters:
            fetcher = cluster.fetcher
            if fetcher.request and cluster not in served and free[fetcher.odd]:
                self._served.append(cluster)
                free[fetcher.odd] = False
        for cluster in moving:
            if cluster.steady > now:
                cluster.share(now, granted=cluster in writers)
        for cluster in served:
            if cluster.calm > now:
                cluster.bring_weights([now])
        for cluster in bringing:
            cluster.bring(now, self._told, granted=cluster in served)
        return writers, served, read


@cache
def _turns(served: frozenset[int],
           odd: tuple[bool, ...]) -> tuple[tuple[frozenset[int], ...], int]:
    """Return which fetchers see their grants in each cycle, while all ask for word after word and
    nobody else does, and from which of these cycles on they come again and again.

    served : in the first one.   odd : whether the word that each asks for has an odd number.
    """
    found: dict[tuple[frozenset[int], tuple[bool, ...]], int] = {}
    while (served, odd) not in found:
        found[served, odd] = len(found)
        # Who sees its grant does not ask in that cycle.
        first = [next((number for number, half in enumerate(odd)
                       if half == wanted and number not in served), None)
                 for wanted in (False, True)]
        odd = tuple(half ^ (number in served) for number, half in enumerate(odd))
        served = frozenset(number for number in first if number is not None)
    return tuple(who for who, _ in found), found[served, odd]
