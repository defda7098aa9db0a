"""What the output path does with a pass, and when: cycles from the pass's begin there on."""

from dataclasses import dataclass
from functools import cache

from celosia_sim.clock.events import Batch, Layer
from celosia_spec.isa.array import ENTRY_WORDS, Array
from celosia_spec.isa.timing import BIAS, NORMALISE, SUMS


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row that is written, lane by lane or two a cycle.

    begins : its first beat.   written : lanes of it.   slot : of its first element in a word.
    """

    layer: Layer
    begins: int
    written: int
    slot: int


@dataclass(frozen=True, kw_only=True)
class Drain:
    """A pass in the output path.

    heads  : cycles in which it reads control words.   writes : in which it writes to main memory.
    odd    : of each of these, whether its word has an odd number; only of several clusters.
    placed : when it has taken its band's position.   busy : the last cycle in which it is inside.
    """

    heads: tuple[int, ...]
    writes: tuple[int, ...]
    odd: tuple[bool, ...]
    placed: int
    busy: int


class Writing:
    """A row on its way to main memory: its elements gather in words, as in `Writer`."""

    def __init__(self, array: Array, row: Row) -> None:
        self._row = row
        layer = row.layer
        size = array.lanes // layer.groups
        self._beats = size if layer.single else size // 2
        self._beat, self._slot = 0, row.slot
        self._held, self._beyond, self._done = [False] * ENTRY_WORDS, False, False

    @property
    def over(self) -> bool:
        return self._beat >= self._beats and not self._done

    def step(self) -> bool:
        """Let a cycle pass, from its first beat on; return whether a word is written."""
        beat, slot = self._beat, self._slot
        first, second = self._takes(beat) if beat < self._beats else (False, False)
        here = [slot == k for k in range(ENTRY_WORDS)]
        into = [(here[k] and (first or second)) or (here[k - 1] and first and second)
                for k in range(ENTRY_WORDS)]
        early = here[-1] and first and beat > 0 and not self._done
        leaves = self._done
        kept = ([self._held[0] and self._beyond, False, False, False] if leaves else
                [False] * ENTRY_WORDS if early else self._held)
        self._held = [kept[k] or (into[k] and not (k == ENTRY_WORDS - 1 and early))
                      for k in range(ENTRY_WORDS)]
        self._beyond = here[-1] and first and second and not early
        self._done = ((into[-1] and not early)
                      or (beat == self._beats - 1 and any(self._held)))
        self._slot = (slot + first + second) % ENTRY_WORDS
        self._beat += 1
        return leaves or early

    def _takes(self, beat: int) -> tuple[bool, bool]:
        """Return which elements of a beat have a place."""
        written, layer = self._row.written, self._row.layer
        if not layer.single:
            return bool(written >> 2 * beat & 1), bool(written >> 2 * beat + 1 & 1)
        lane = bool(written >> beat & 1)
        if layer.wide:
            return lane, lane
        return (lane, False) if beat % 2 == 0 else (False, lane)


class Drains:
    """The passes of an array.

    lag : cycles from a pass's last step to its begin here.
    """

    def __init__(self, array: Array) -> None:
        self.array = array
        lead = 1 + BIAS + array.residual
        latency = 2 + NORMALISE + array.clamp
        self.lag = SUMS - lead
        self._late = lead - 1 + latency     # a row's first elements are written
        self._pass_of, self._writes_of = cache(self._pass), cache(self._writes)

    def of(self, batch: Batch, number: int) -> Drain:
        """Return what a batch's pass does."""
        tile, phase = divmod(number, batch.layer.phases)
        before = batch.begins[tile] << batch.layer.wide
        begins = batch.position + before
        rows = tuple((*self._begin(word, begins + element), real)
                     for word, element, real in batch.rows)
        return self._pass_of(batch.layer, rows, batch.tiles[tile],
                             phase == batch.layer.phases - 1, number == 0)

    def _begin(self, word: int, element: int) -> tuple[int, bool]:
        """Return the slot in which a row begins, and whether that is in a word with an odd
        number."""
        words, slot = divmod(element, ENTRY_WORDS)
        return slot, self.array.clusters > 1 and (word + words) % 2 == 1

    def _pass(self, layer: Layer, rows: tuple[tuple[int, bool, bool], ...], written: int,
              ends: bool, fresh: bool) -> Drain:
        size, one = self.array.lanes // layer.groups, self.array.drain == 1
        base = self._late
        if one and layer.wide and (ends or not layer.residual):     # no elements are waited for
            base = BIAS + 2 + self.array.residual
        heads: list[int] = []
        writes: list[int] = []
        odd: list[bool] = []
        for number, (slot, begins_odd, real) in enumerate(rows):
            at = number * layer.row
            heads += [at + 1 + cycle for cycle in layer.heads]
            row = Row(layer=layer, begins=base + 1, written=written, slot=slot)
            if real and ends:
                writes += [at + cycle for cycle in self._writes_of(row)]
                if self.array.clusters > 1:
                    odd += [begins_odd ^ (word % 2 == 1) for word in range(len(writes) - len(odd))]
        last = (layer.groups - 1) * layer.row
        busy = last + base + (size if layer.single else size // 2) + (not one)
        return Drain(heads=tuple(heads), writes=tuple(writes), odd=tuple(odd),
                     placed=base - one if fresh else 2, busy=busy)

    def _writes(self, row: Row) -> tuple[int, ...]:
        """Return the cycles in which a row's words are written."""
        if self.array.drain == 1:
            return _pairs(row, self.array.lanes // row.layer.groups)
        writing, now, found = Writing(self.array, row), row.begins, []
        while not writing.over:
            if writing.step():
                found.append(now)
            now += 1
        return tuple(found)


def _pairs(row: Row, size: int) -> tuple[int, ...]:
    """Return the cycles in which a row's halves of words are written: with their upper element, or
    the row's last lane."""
    slot, held, found = row.slot, False, []
    for lane in range(size):
        takes = row.written >> lane & 1
        upper = row.layer.wide or slot % 2 == 1
        held = (held or bool(takes)) and not (takes and upper)
        if (takes and upper) or (held and lane == size - 1):
            found.append(row.begins + lane)
        slot += takes << row.layer.wide
    return tuple(found)
