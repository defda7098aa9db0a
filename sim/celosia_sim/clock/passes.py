"""Passes: the sequencer, which issues their steps, and the output path, where they drain.

Each has what its registers hold in the current cycle, and is told what happens in it. What the
gateware does is written here once more, apart from it.
"""

from collections import deque

from celosia_sim.clock.drains import Drains
from celosia_sim.clock.events import NEVER, Batch
from celosia_spec.isa.array import Array
from celosia_spec.isa.passes import pass_cycles
from celosia_spec.isa.timing import MANTISSA

_INSIDE = MANTISSA      # a step until its mantissas are read


class Sequencer:
    """Steps of batches.

    entries : for each entry that was written, when.   batch : what runs, if something does.
    turn    : when its pass ends, once that is known.
    more    : a part follows the last batch.
    freed   : (cycle, entries) from when on the first entries are no longer needed.
    """

    def __init__(self) -> None:
        self.entries: list[int] = []
        self.batch: Batch | None = None
        self.turn = NEVER
        self.number = 0
        self.more = False
        self.freed: deque[tuple[int, int]] = deque()
        self.taken = False          # registered: a batch was taken over in the cycle before
        self._from = self._ready = self._there = 0
        self._last, self._dense = -NEVER, False

    @property
    def ends(self) -> bool:
        """The pass is its batch's last."""
        return self.batch is not None and self.number == self.batch.passes - 1

    @property
    def alone(self) -> bool:
        """The pass has one step, which reads a residual operand."""
        return self.batch is not None and self.batch.layer.residual and self.number % 2 == 0

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
        before, entry, left = self._ready - 1, batch.first + batch.added, batch.steps - 1
        while left:
            steps = min(batch.entry_steps, left)
            before = max(before + 1, entries[entry] + 2) + steps - 1
            left -= steps
            entry += steps == batch.entry_steps
        there = self._there = max(before + 1, entries[entry] + 2)
        self.turn = max(there, self._from + batch.layer.least)

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
            self.turn = now + max(batch.layer.least, 1 if self.alone else batch.steps)

    def take(self, now: int, batch: Batch) -> None:
        """Take a batch over; the one before may end in the same cycle."""
        if self.batch is not None:
            self._leave(now, self.batch)
        self.batch, self.number = batch, int(batch.layer.residual and batch.joins)
        self._from, self._ready = now, now + 1
        if self._dense != batch.dense and now <= self._last + _INSIDE:
            self._ready = max(self._last + _INSIDE + 2, now + 2)
        self._dense, self.more = batch.dense, batch.open
        self.turn = NEVER

    def _leave(self, now: int, batch: Batch) -> None:
        self.freed.append((now + 2, batch.first + batch.entries))
        self.batch, self.turn, self._last = None, NEVER, now


class Output:
    """Passes on their way to main memory.

    starts : (cycle, batch, pass) of those that come.   heads : cycles in which it reads words of
    the controls' ring.   keeps : for each register on the way, cycles in which it takes over the
    place of a pass's heads.   busy : last cycle of the last pass.   pending : one is on its way,
    and has not begun.
    """

    def __init__(self, array: Array, delay: int) -> None:
        self.drains, self._delay = Drains(array), delay
        self.starts: deque[tuple[int, Batch, int]] = deque()
        self.heads: set[int] = set()
        lag = self.drains.lag
        short = min(pass_cycles(array, log2_groups=log2_groups, signed_in=signed_in)
                    for log2_groups in range(array.groups_max.bit_length())
                    for signed_in in (False, True)) < lag + 4
        self.keeps: list[set[int]] = [set() for _ in range(1 + short)]
        self._writes: set[int] = set()
        self.busy = 0
        self.pending = False
        self._unplaced: deque[int] = deque()

    def announce(self, now: int, batch: Batch, number: int) -> None:
        """A pass comes."""
        start = now + self._delay + self.drains.lag
        self.starts.append((start, batch, number))
        for keeps, cycle in zip(self.keeps, (now + 1, start - 1), strict=False):
            keeps.add(cycle)

    def starting(self, now: int) -> bool:
        """Begin a pass if it is its turn."""
        if not self.starts or self.starts[0][0] != now:
            return False
        _, batch, number = self.starts.popleft()
        drain = self.drains.of(batch, number)
        self.heads.update([now + cycle for cycle in drain.heads])
        self._writes.update([now + cycle for cycle in drain.writes])
        self.busy = max(self.busy, now + drain.busy)
        self._unplaced.append(now + drain.placed)
        return True

    def port(self, now: int) -> bool:
        """Return whether main memory's port is taken."""
        found = now in self._writes
        self._writes.discard(now)
        return found

    def placed(self, now: int) -> bool:
        """Return whether all that began have their bands' positions."""
        while self._unplaced and self._unplaced[0] < now:
            self._unplaced.popleft()
        return not self._unplaced and not self.pending
