"""Entries of the stream: commands, packed four words each, and the order in which they are read."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from celosia_spec.stream.array import CONTROL_BITS, ENTRY_WORDS
from celosia_spec.stream.controls import CHUNK, COMMAND, RECORDS, Op

NOTHING = COMMAND.pack(command=1, op=Op.WAIT, argument=0)
"""A command that does nothing: what an entry of control words is filled with."""

Chunk = tuple[int, int]
"""First entry and number of entries."""


@dataclass
class Stream:
    """Entries as they stand in main memory, and the chunks in which they are read.

    size : entries.   chunks : in reading order.
    """

    size: int = 0
    chunks: list[Chunk] = field(default_factory=list)
    _parts: list[np.ndarray] = field(default_factory=list)

    def add(self, entries: np.ndarray) -> Chunk:
        """Add entries, uint64, and return the chunk that they are."""
        first = self.size
        self._parts.append(entries)
        self.size += len(entries)
        return first, len(entries)

    def read(self, chunk: Chunk) -> None:
        """Read a chunk next; one that follows the last one in memory is read with it."""
        if self.chunks and sum(self.chunks[-1]) == chunk[0]:
            self.chunks[-1] = self.chunks[-1][0], self.chunks[-1][1] + chunk[1]
        elif chunk[1]:
            self.chunks.append(chunk)

    def words(self) -> np.ndarray:
        """Return the entries, and behind them the list of chunks for the fetcher, uint64."""
        first, count = np.array(self.chunks).T
        final = np.arange(len(self.chunks)) == len(self.chunks) - 1
        return np.concatenate([*self._parts, CHUNK.pack(
            first=first, last=first + count - 1, final=final.astype(np.int64)).astype(np.uint64)])


def packed(words: np.ndarray) -> np.ndarray:
    """Return words (entries, 4) as entries, uint64 (entries,)."""
    if ((words < 0) | (words >> CONTROL_BITS)).any():
        raise ValueError("a word of an entry has 16 bits")
    return (words.astype(np.uint64) << np.arange(0, 64, CONTROL_BITS, dtype=np.uint64)).sum(
        axis=1, dtype=np.uint64)


def controls(words: Sequence[int]) -> np.ndarray:
    """Return control words as entries, uint64, the last one filled up."""
    filled = [*words] + [NOTHING] * (-len(words) % ENTRY_WORDS)
    return packed(np.array(filled, np.int64).reshape(-1, ENTRY_WORDS))


def command(op: Op, **fields: int) -> list[int]:
    """Return the words of a command."""
    record = RECORDS.get(op)
    return _told(op, record.pack(**fields) if record else [])


def wait(cycles: int) -> list[int]:
    """Return the command that waits for so many cycles, from when all steps before it are issued;
    1 at least."""
    return [COMMAND.pack(command=1, op=Op.WAIT, argument=cycles)]


def table(op: Op, words: Sequence[int]) -> list[int]:
    """Return the commands that write words to a table."""
    most = COMMAND["argument"].most - len(RECORDS[op].words)
    return [word for place in range(0, len(words), most)
            for word in _told(op, [*RECORDS[op].pack(place=place), *words[place:place + most]])]


def _told(op: Op, words: Sequence[int]) -> list[int]:
    return [COMMAND.pack(command=1, op=op, argument=len(words)), *words]
