"""Passes: the sequencer, which issues their steps, and the output path, where they drain.

Each has what its registers hold in the current cycle, and is told what happens in it. What the
gateware does is written here once more, apart from it.
"""

from collections import deque
from itertools import count
from operator import sub

from celosia_sim.clock.drains import Drain, Drains
from celosia_sim.clock.events import NEVER, Batch
from celosia_spec.isa.array import Array
from celosia_spec.isa.passes import pass_cycles
from celosia_spec.isa.timing import MANTISSA

_INSIDE = MANTISSA      # a step until its mantissas are read


class Sequencer:
    """Steps of batches.

    entries : for each entry that was written, when.   batch : what runs, if something does.
    turn    : when its pass ends, once that is known.   told : of how many of the batch's passes the
    output path knows.
    more    : a part follows the last batch.
    freed   : (cycle, entries) from when on the first entries are no longer needed.
    """

    def __init__(self) -> None:
        self.entries: list[int] = []
        self.batch: Batch | None = None
        self.turn = NEVER
        self.number = self.told = 0
        self.more = False
        self.freed: deque[tuple[int, int]] = deque()
        self.taken = False          # registered: a batch was taken over in the cycle before
        self._from = self._ready = self._there = self._ahead = 0
        self._last, self._dense = -NEVER, False

    @property
    def ends(self) -> bool:
        """The pass is its batch's last."""
        return self.batch is not None and self.number == self.batch.passes - 1

    @property
    def alone(self) -> bool:
        """The pass has one step, which reads a residual operand."""
        return self.batch is not None and self.batch.layer.residual and self.number % 2 == 0

    @property
    def seen(self) -> bool:
        """When the pass ends is known, or depends on the batch's last entry."""
        return self.batch is None or self.turn != NEVER or not self.alone

    @property
    def next(self) -> int:
        """A cycle before which it changes nothing."""
        freed = self.freed[0][0] if self.freed else NEVER
        return freed if self.batch is None else min(self.turn, freed)

    @property
    def known(self) -> bool:
        """Whether it is known when each pass of the batch ends."""
        return self.batch is not None and self.turn != NEVER and not (
            self.batch.added and self.number == 0)

    @property
    def untold(self) -> bool:
        """Whether the output path does not know of all passes of the batch."""
        return self.batch is not None and self.told < self.batch.passes

    def tell(self) -> tuple[int, int] | None:
        """Return when the first pass ends of which the output path does not know, and its number;
        None where it does not go there."""
        batch = self.batch
        assert batch is not None
        if self.told <= self.number:
            self.told, self._ahead = self.number, self.turn
        number, turn = self.told, self._ahead
        alone = batch.layer.residual and number % 2 == 0
        self.told += 1
        if self.untold:
            self._ahead += self._takes(alone=batch.layer.residual and not alone)
        return (turn, number) if alone or not batch.open else None

    @property
    def seen_next(self) -> int:
        """A cycle before which nobody sees a change: passes end in it of which the output path was
        told."""
        turn = self._ahead if self.told > self.number else self.turn
        return min(turn, self.freed[0][0] if self.freed else NEVER)

    def _takes(self, *, alone: bool) -> int:
        """Return the cycles of a pass behind another one of its batch."""
        assert self.batch is not None
        return max(self.batch.layer.least, 1 if alone else self.batch.steps)

    def look(self) -> None:
        """Find when the first pass ends, and begins, as soon as its entries are there; with a
        residual operand, the second one as well."""
        batch = self.batch
        if batch is None or self.turn != NEVER:
            return
        entries = self.entries
        if self.alone:
            if len(entries) > batch.first:
                self._there = max(self._ready, entries[batch.first] + 2)
                self.turn = max(self._there, self._from + batch.layer.least)
            return
        if len(entries) < batch.first + batch.entries:
            return
        ahead = count(0, batch.entry_steps)     # steps of the entries before
        written = entries[batch.first + batch.added:batch.first + batch.entries]
        begins = max(self._ready, max(map(sub, written, ahead)) + 2)
        self._there = begins + batch.steps - 1
        self.turn = max(self._there, self._from + batch.layer.least)

    def comes(self, now: int) -> bool:
        """Return whether a pass is on its way to the output path from this cycle on."""
        batch = self.batch
        return batch is not None and (self.alone or not batch.open) and now == self.turn

    def spent(self, now: int) -> dict[str, int]:
        """Return on what the cycles of a pass were spent that ends now."""
        assert self.batch is not None
        steps = 1 if self.alone else self.batch.steps
        there = min(max(self._there, self._from + steps), now)
        return {"steps": steps, "weights": there - self._from - steps, "rows": now - there}

    def end(self, now: int) -> None:
        """A pass ends."""
        batch = self.batch
        assert batch is not None
        if self.ends:
            self._leave(now, batch)
            return
        self.number += 1
        self._from, self._ready = now, now + 1
        if batch.added and self.number == 1:
            self.turn = NEVER
        else:
            self.turn = now + self._takes(alone=self.alone)

    def take(self, now: int, batch: Batch) -> None:
        """Take a batch over; the one before may end in the same cycle."""
        if self.batch is not None:
            self._leave(now, self.batch)
        self.batch, self.number = batch, int(batch.layer.residual and batch.joins)
        self._from, self._ready = now, now + 1
        if self._dense != batch.dense and now <= self._last + _INSIDE:
            self._ready = max(self._last + _INSIDE + 2, now + 2)
        self._dense, self.more = batch.dense, batch.open
        self.turn, self.told = NEVER, self.number

    def _leave(self, now: int, batch: Batch) -> None:
        self.freed.append((now + 2, batch.first + batch.entries))
        self.batch, self.turn, self._last = None, NEVER, now


class Output:
    """Passes on their way to main memory.

    starts : (cycle, what it does) of each pass that comes.   writes : cycles in which it has the
    port, those of passes that come with them.   odd : of several clusters, whether the word of each
    of these has an odd number.
    keeps : how many registers on the way keep the place of a pass's heads, 1 or 2.
    busy : last cycle of the last pass that began.   pending : one is on its way, and has not begun.
    came : since when, if the cycles since then pass at once.
    """

    def __init__(self, array: Array, delay: int) -> None:
        self.drains, self._delay = Drains(array), delay
        self.starts: deque[tuple[int, Drain]] = deque()
        lag = self.drains.lag
        short = min(pass_cycles(array, log2_groups=log2_groups, signed_in=signed_in)
                    for log2_groups in range(array.groups_max.bit_length())
                    for signed_in in (False, True)) < lag + 4
        self.keeps = 1 + short
        self._kept: list[deque[int]] = [deque() for _ in range(self.keeps)]     # when they do
        self.writes: deque[int] = deque()
        self.odd: deque[bool] = deque()
        self._heads: deque[int] = deque()
        self.busy = self.came = 0
        self.pending = False
        self._unplaced: deque[int] = deque()

    def announce(self, now: int, batch: Batch, number: int) -> None:
        """A pass comes."""
        start, drain = now + self._delay + self.drains.lag, self.drains.of(batch, number)
        self.starts.append((start, drain))
        self._heads.extend([start + cycle for cycle in drain.heads])
        self.writes.extend([start + cycle for cycle in drain.writes])
        self.odd.extend(drain.odd)
        for keeps, cycle in zip(self._kept, (now + 1, start - 1), strict=False):
            keeps.append(cycle)

    def starting(self, now: int) -> bool:
        """Begin a pass if it is its turn."""
        if not self.starts or self.starts[0][0] != now:
            return False
        self._begin()
        return True

    def _begin(self) -> None:
        start, drain = self.starts.popleft()
        self.busy = max(self.busy, start + drain.busy)
        self._unplaced.append(start + drain.placed)

    def port(self, now: int) -> bool:
        """Return whether main memory's port is taken."""
        found = bool(self.writes) and self.writes[0] == now
        if found:
            self.writes.popleft()
        return found

    def queued(self, now: int) -> bool | None:
        """Return whether a word with an odd number is written, of several clusters; None where
        there is no write."""
        return self.odd.popleft() if self.port(now) else None

    def reads(self, now: int) -> bool:
        """Return whether a word of the controls' ring is read."""
        _drop(self._heads, now)
        return bool(self._heads) and self._heads[0] == now

    def next(self, now: int) -> int:
        """Return a cycle before which it only writes, and reads heads."""
        time = self.busy + 1 if now <= self.busy else NEVER
        if self.starts:
            time = min(time, self.starts[0][0])
        for keeps in self._kept:
            _drop(keeps, now)
            if keeps:
                time = min(time, keeps[0])
        return time

    def keeping(self, now: int) -> list[bool]:
        """Return whether each of the registers takes over the place of a pass's heads."""
        for keeps in self._kept:
            _drop(keeps, now)
        return [bool(keeps) and keeps[0] == now for keeps in self._kept]

    def pass_over(self, until: int) -> list[int]:
        """Let the cycles before one pass, in which passes may begin that nobody waits for; return
        those in which the port was taken."""
        found = []
        while self.writes and self.writes[0] < until:
            found.append(self.writes.popleft())
            if self.odd:
                self.odd.popleft()
        while self.starts and self.starts[0][0] < until:
            self.pending &= self.starts[0][0] <= self.came
            self._begin()
        return found

    def placed(self, now: int) -> bool:
        """Return whether all that began have their bands' positions."""
        _drop(self._unplaced, now)
        return not self._unplaced and not self.pending


def _drop(cycles: deque[int], now: int) -> None:
    """Drop cycles that are over."""
    while cycles and cycles[0] < now:
        cycles.popleft()
