"""Memory contents while they grow."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from celosia_spec.isa import Space


@dataclass
class Table:
    """A table of words that layers share where they need the same ones."""

    words: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint32))

    def place(self, words: Iterable[int]) -> int:
        """Return where ``words`` stand, one after another, appending them if they do not yet."""
        new = np.fromiter(words, np.uint32)
        known, wanted = self.words.tobytes(), new.tobytes()
        at = known.find(wanted)
        while at % new.itemsize and at >= 0:
            at = known.find(wanted, at + 1)
        if at >= 0:
            return at // new.itemsize
        self.words = np.concatenate([self.words, new])
        return len(self.words) - len(new)


@dataclass
class Images:
    """Contents of every memory of a program, from address 0.

    program : descriptors and batch words, once all are known.   lengths : batch words so far.
    weights : port rows of ``groups_max`` words; ``weight_rows`` of them.   rows : row-table words.
    """

    program: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    weights: list[np.ndarray] = field(default_factory=list)
    weight_rows: int = 0
    rows: list[int] = field(default_factory=list)
    taps: Table = field(default_factory=Table)
    writes: Table = field(default_factory=Table)

    def add_weights(self, words: np.ndarray, row_words: int) -> int:
        """Append a layer's weight words, whole port rows; return the first port row."""
        first = self.weight_rows
        self.weights.append(words)
        self.weight_rows += len(words) // row_words
        return first

    def arrays(self) -> dict[Space, np.ndarray]:
        """Return the images as uint32 vectors."""
        return {Space.PROGRAM: np.array(self.program, np.uint32),
                Space.WEIGHTS: np.concatenate(self.weights).astype(np.uint32),
                Space.ROWS: np.array(self.rows, np.uint32),
                Space.TAPS: self.taps.words, Space.WRITES: self.writes.words}
