"""Entries of the stream: commands, packed four words each, and the order in which they are read."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np

from celosia_spec.isa.array import ENTRY_WORDS
from celosia_spec.isa.controls import CHUNK, COMMAND, RECORDS, Op
from celosia_spec.isa.entries import entries_of

NOTHING = COMMAND.pack(command=1, op=Op.NOTHING)
"""A command that does nothing: what an entry of control words is filled with."""

Chunk = tuple[int, int]
"""First entry and number of entries."""


@dataclass
class Entries:
    """Entries one behind the other in main memory.

    first : where they begin.   size : how many.
    """

    first: int = 0
    size: int = 0
    _parts: list[np.ndarray] = field(default_factory=list)
    _known: dict[tuple[Hashable, bytes], Chunk] = field(default_factory=dict)

    def add(self, entries: np.ndarray, role: Hashable = None) -> Chunk:
        """Add entries, uint64, and return the chunk that they are; if the same have been added for
        the same role, that one."""
        key = role, b"" if role is None else entries.tobytes()
        if key in self._known:
            return self._known[key]
        chunk = self.first + self.size, len(entries)
        if role is not None:
            self._known[key] = chunk
        self._parts.append(entries)
        self.size += len(entries)
        return chunk

    def all(self) -> np.ndarray:
        """Return all entries, uint64."""
        return np.concatenate([np.zeros(0, np.uint64), *self._parts])


@dataclass
class Order:
    """The order in which entries are read.

    chunks : in reading order.   copied : numbers of those that wait for a section of flash.
    ends   : of each layer, the chunk in which its last entry is read, and that entry.
    """

    chunks: list[Chunk] = field(default_factory=list)
    copied: list[int] = field(default_factory=list)
    ends: list[Chunk] = field(default_factory=list)

    def wait(self) -> None:
        """Let the next chunk wait for a section of flash."""
        self.copied.append(len(self.chunks))

    def read(self, chunk: Chunk) -> None:
        """Read a chunk next; one that follows the last one in memory is read with it, unless it
        waits."""
        waits = bool(self.copied) and self.copied[-1] == len(self.chunks)
        if self.chunks and sum(self.chunks[-1]) == chunk[0] and not waits:
            self.chunks[-1] = self.chunks[-1][0], self.chunks[-1][1] + chunk[1]
        elif chunk[1]:
            self.chunks.append(chunk)

    def ended(self) -> None:
        """What was read so far is a layer."""
        first, count = self.chunks[-1]
        self.ends.append((len(self.chunks) - 1, first + count - 1))


@dataclass
class Lists:
    """An order for each cluster.

    A list of chunks in main memory has them one behind the other, and a word for another chunk
    behind each: who lets the machine halt behind a layer needs it. Of several clusters, their first
    chunks stand before all others.
    """

    clusters: list[Order]

    def read(self, chunk: Chunk) -> None:
        """Let all clusters read a chunk next."""
        for order in self.clusters:
            order.read(chunk)

    def wait(self) -> None:
        """Let the next chunk of each wait for a section of flash."""
        for order in self.clusters:
            order.wait()

    def ended(self) -> None:
        """What was read so far is a layer."""
        for order in self.clusters:
            order.ended()

    @property
    def size(self) -> int:
        """Words of the list."""
        return sum(len(order.chunks) + 1 for order in self.clusters)

    def words(self, at: int) -> np.ndarray:
        """Return the list's words, uint64, where it begins in word ``at``."""
        return listed([(order.chunks, order.copied) for order in self.clusters], at, self.size)


def listed(lists: Sequence[tuple[Sequence[Chunk], Sequence[int]]], at: int,
           size: int) -> np.ndarray:
    """Return a list of so many words, uint64: of each cluster its chunks, and the numbers of those
    that wait."""
    words = np.zeros(size, np.uint64)
    if len(lists) == 1:
        (chunks, copied), = lists
        words[:len(chunks)] = chunk_words(chunks, copied)
        return words
    free = len(lists)
    for cluster, (chunks, copied) in enumerate(lists):
        places = np.array([cluster, *range(free, free + len(chunks) - 1)])
        words[places] = chunk_words(chunks, copied, [*(places[1:] + at), 0])
        free += len(chunks) - 1
    return words


def chunk_words(chunks: Sequence[Chunk], copied: Sequence[int],
                follows: Sequence[int] | int = 0) -> np.ndarray:
    """Return the words of chunks, uint64.

    copied : numbers of those that wait.   follows : the word of the one behind each.
    """
    first, count = np.array(chunks).T
    number = np.arange(len(chunks))
    found: np.ndarray = CHUNK.pack(
        first=first, entries=count, final=(number == len(chunks) - 1).astype(np.int64),
        copied=np.isin(number, copied).astype(np.int64),
        next=np.broadcast_to(follows, number.shape)).astype(np.uint64)
    return found


@dataclass
class Stream(Entries):
    """Entries as they stand in main memory, and the orders in which they are read.

    orders   : one; of a network in steps one for each step of a period; of each cluster its own.
    sections : entries that are copied from flash, by the layer and which of its sections it is.
    layers   : entries of each layer, those of all orders.   begins : those before its first band.
    """

    orders: list[Lists] = field(default_factory=list)
    sections: dict[tuple[int, int], Entries] = field(default_factory=dict)
    layers: list[int] = field(default_factory=list)
    begins: list[int] = field(default_factory=list)

    @property
    def order(self) -> Lists:
        """The order that is being made."""
        return self.orders[-1]

    @property
    def words_needed(self) -> int:
        """Words of main memory for the entries and the lists of chunks."""
        return self.size + sum(order.size for order in self.orders)

    def section(self, number: tuple[int, int], first: int) -> Entries:
        """Return a section of a layer, which is copied to word ``first`` and on."""
        return self.sections.setdefault(number, Entries(first))

    def lists(self) -> list[int]:
        """Return the words in which the lists of chunks begin."""
        sizes = [order.size for order in self.orders]
        words: list[int] = (self.size + np.cumsum([0, *sizes[:-1]])).tolist()
        return words

    def words(self) -> np.ndarray:
        """Return the entries, and behind them the lists of chunks, uint64."""
        return np.concatenate([self.all(), *(order.words(at) for at, order in zip(
            self.lists(), self.orders, strict=True))])


def controls(words: Sequence[int]) -> np.ndarray:
    """Return control words as entries, uint64, the last one filled up."""
    filled = [*words] + [NOTHING] * (-len(words) % ENTRY_WORDS)
    return entries_of(np.array(filled, np.int64).reshape(-1, ENTRY_WORDS))


def command(op: Op, **fields: int) -> list[int]:
    """Return the words of a command."""
    record = RECORDS.get(op)
    return _told(op, record.pack(**fields) if record else [])


def table(op: Op, words: Sequence[int], first: int = 0) -> list[int]:
    """Return the commands that write words to a table, from its word ``first`` on."""
    most = COMMAND["argument"].most - len(RECORDS[op].words)
    return [word for at in range(0, len(words), most)
            for word in _told(op, [*RECORDS[op].pack(place=first + at), *words[at:at + most]])]


def _told(op: Op, words: Sequence[int]) -> list[int]:
    return [COMMAND.pack(command=1, op=op, argument=max(len(words), 1)), *words]
