"""The memories of an array, and how a stream is read out of them, without time."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from celosia_spec.errors import SimulationError
from celosia_spec.isa.array import CONTROL_BITS, ENTRY_BITS, ENTRY_WORDS, Array
from celosia_spec.isa.controls import COPIES
from celosia_spec.isa.entries import elements_of
from celosia_spec.isa.image import UNIT_WORDS, Section, places
from celosia_spec.isa.numbers import EXPONENT_MIN, EXPONENT_SLOTS


class Meanwhile:
    """What may happen at once, as it stands between two commands that wait: fills go on beside
    the batches of all clusters, and writes behind them. What one of them reads, no other may write.

    Of banks and main memory whether a cell was read, or written, by a cluster's batches and by
    fills.
    """

    def __init__(self, array: Array, main: np.ndarray) -> None:
        banks = array.lanes, array.bank_rows
        self.read, self.filled = np.zeros(banks, bool), np.zeros(banks, bool)
        self.fetched, self.written = np.zeros(len(main), bool), np.zeros(len(main), bool)
        self._all = [self]

    def beside(self) -> "Meanwhile":
        """Return that of another cluster, whose banks have the same fills."""
        found = copy.copy(self)
        found.read, found.written = np.zeros_like(self.read), np.zeros_like(self.written)
        self._all.append(found)
        return found

    def fill(self, bank: np.ndarray, row: np.ndarray, element: np.ndarray | None) -> None:
        """A fill writes these cells of banks, and reads these elements of main memory."""
        if any(cluster.read[bank, row].any() for cluster in self._all):
            raise SimulationError("a fill takes the place of what batches beside it read; compile "
                                  "again")
        self.filled[bank, row] = True
        if element is not None:
            if any(cluster.written[element].any() for cluster in self._all):
                raise SimulationError("a fill reads what batches before it write; compile again")
            self.fetched[element] = True

    def sums(self, bank: np.ndarray, row: np.ndarray) -> None:
        """A batch reads these cells of banks."""
        if self.filled[bank, row].any():
            raise SimulationError("a batch reads what a fill beside it writes; compile again")
        self.read[bank, row] = True

    def store(self, element: np.ndarray) -> None:
        """A batch writes these elements of main memory."""
        if self.fetched[element].any():
            raise SimulationError("a batch writes what a fill beside it reads; compile again")
        self.written[element] = True

    def waits(self, *, fills: bool, writes: bool) -> None:
        """All steps so far of the cluster are issued; all fills, and all its writes, are done,
        too."""
        self.read[:] = False
        if fills:
            self.filled[:] = self.fetched[:] = False
        if writes:
            self.written[:] = False


@dataclass
class State:
    """All memories of an array.

    main  : int64 elements of main memory.   banks : int64 codes (lanes, bank rows).
    taps, tiles : words.   exponents : of every slot.   largest : of what was written since one was
                  set.
    saturated : a mantissa was clipped.   meanwhile : what is read and written beside it.

    Tables, and what was largest, are one cluster's; all of them have the same codes in their banks.
    """

    array: Array
    main: np.ndarray
    banks: np.ndarray = field(init=False)
    taps: np.ndarray = field(init=False)
    tiles: np.ndarray = field(init=False)
    exponents: np.ndarray = field(init=False)
    largest: int = EXPONENT_MIN
    saturated: bool = False
    meanwhile: Meanwhile = field(init=False)

    def __post_init__(self) -> None:
        noise = np.random.default_rng(1)        # what memories hold before must not matter
        array = self.array
        self.banks = noise.integers(0, 1 << array.activation_bits, (array.lanes, array.bank_rows))
        self.taps = noise.integers(0, 1 << CONTROL_BITS, array.taps)
        self.tiles = noise.integers(0, 1 << CONTROL_BITS, array.tiles)
        self.exponents = np.full(EXPONENT_SLOTS, EXPONENT_MIN)
        self.meanwhile = Meanwhile(array, self.main)

    def beside(self) -> "State":
        """Return those of another cluster."""
        found = copy.copy(self)
        other = (1 << CONTROL_BITS) - 1
        found.taps, found.tiles = (table ^ other for table in (self.taps, self.tiles))
        found.meanwhile = self.meanwhile.beside()
        return found


class Flash:
    """Sections that are copied to main memory.

    image : of the flash, its sections.   copied : of each cluster bool of every chunk, whether it
    waits for one.
    late  : a section is there when a chunk waits for it, and until then noise; else at once.
    """

    def __init__(self, state: State, image: Sequence[Section], copied: Sequence[np.ndarray], *,
                 late: bool) -> None:
        self.state, self.late, self.copied = state, late, copied
        self._sections = dict(zip(places(image), image, strict=True))
        self._asked: list[Section] = []
        self._there = 0
        self._noise = np.random.default_rng(2)

    def copy(self, unit: int) -> None:
        """Carry out the command."""
        while True:
            if (section := self._sections.get(unit)) is None:
                raise SimulationError(f"no section begins behind unit {unit} of flash; compile "
                                      f"again")
            self._asked.append(section)
            self._write(section, section.words if not self.late else self._noise.integers(
                0, 1 << ENTRY_BITS, len(section.words), np.uint64))
            if not section.more:
                break
            unit += section.units + 1
        if len(self._asked) > COPIES:
            raise SimulationError(f"{len(self._asked)} sections are copied ahead, {COPIES} can be; "
                                  f"compile again")

    def wait(self, number: int) -> None:
        """Let a cluster's chunk wait for the section of a number."""
        if number < self._there:        # another cluster did
            return
        if not self._asked:
            raise SimulationError("a chunk waits for a section that nobody copies; compile again")
        section = self._asked.pop(0)
        self._there += 1
        self._write(section, section.words)

    def _write(self, section: Section, words: np.ndarray) -> None:
        first = section.first * UNIT_WORDS * ENTRY_WORDS
        self.state.main[first:first + len(words) * ENTRY_WORDS] = elements_of(words).ravel()


class Reader:
    """What the fetcher gives: control words and weight entries of chunks, in order.

    cluster : whose chunks they are.
    taken  : entries that were read, piece by piece, by their words of main memory.
    waited : sections of flash that were waited for before each.
    """

    def __init__(self, entries: np.ndarray, chunks: np.ndarray, flash: Flash | None,
                 cluster: int = 0) -> None:
        self._entries, self._chunks, self._flash = entries, chunks, flash
        self._cluster = cluster
        self._at, self._end, self._next = 0, 0, 0
        self._words: list[int] = []
        self.taken: list[range] = []
        self.waited: list[int] = []
        self._waits = 0

    def _take(self, count: int) -> np.ndarray:
        """Return the next entries, int64 (count, 4)."""
        found = []
        while count:
            if self._at == self._end:
                first, size = self._chunks[self._next]
                self._at, self._end = int(first), int(first + size)
                if self._flash is not None and self._flash.copied[self._cluster][self._next]:
                    self._flash.wait(self._waits)
                    self._waits += 1
                self._next += 1
            taken = min(count, self._end - self._at)
            self.waited.append(self._waits)
            found.append(self._read(self._at, self._at + taken))
            self.taken.append(range(self._at, self._at + taken))
            self._at, count = self._at + taken, count - taken
        return np.concatenate(found)

    def _read(self, first: int, end: int) -> np.ndarray:
        if self._flash is None:
            return elements_of(self._entries[first:end])
        main = self._flash.state.main[first * ENTRY_WORDS:end * ENTRY_WORDS]
        return main.reshape(-1, ENTRY_WORDS).copy()

    def control(self) -> int:
        """Return the next control word."""
        if not self._words:
            self._words = self._take(1)[0].tolist()
        return self._words.pop(0)

    def controls(self, count: int) -> list[int]:
        """Return the next control words."""
        return [self.control() for _ in range(count)]

    def weights(self, count: int) -> np.ndarray:
        """Return so many weight words, int64, from the next entry on; its last one is used up."""
        self._words = []
        return self._take(-(-count // ENTRY_WORDS)).ravel()[:count]
