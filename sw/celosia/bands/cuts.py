"""Streams that end behind a layer: for whoever looks at what it has stored, or at its cycles."""

from dataclasses import dataclass

import numpy as np

from celosia.bands.entries import NOTHING, controls
from celosia.bands.program import StreamProgram
from celosia_sim.clock.cycles import cycles
from celosia_spec.isa.controls import CHUNK


@dataclass(frozen=True, kw_only=True, eq=False)
class Cut:
    """A program's list of chunks as it is cut short; all other words of main memory stay.

    words  : uint64, all words of the list, as many as the program's own has.
    chunks, copied : what they say, as `StreamProgram` has it.
    """

    program: StreamProgram
    words: np.ndarray
    chunks: tuple[tuple[int, int], ...]
    copied: tuple[int, ...]

    def cycles(self) -> int:
        """Return the cycles that it takes, exactly."""
        program = self.program
        entries = [*program.entries[:program.list_at].tolist(), *self.words.tolist()]
        return cycles(program.array, entries, self.chunks, self.copied, program.sections).cycles


def cut(program: StreamProgram, layer: int) -> Cut:
    """Return the list behind which the machine halts when a layer is done, before the first one
    for -1.

    What is being copied from flash for later layers is waited for: the reader would go on, and
    write where the next input comes to lie.
    """
    halt, free = program.list_at - 1, program.list_at + len(program.chunks)
    end, last = program.ends[layer] if layer >= 0 else (-1, 0)
    chunks = [(int(first), int(count)) for first, count in program.chunks[:end + 1]]
    copied = [number for number in program.copied if number <= end]
    if layer >= 0:
        chunks[end] = chunks[end][0], last - chunks[end][0] + 1
    ahead = sum(len(program.flash.heads(at)) for at, life in program.flash.lives.items()
                if life.born <= layer < life.dies)
    copied += range(len(chunks), len(chunks) + ahead)
    # An entry that says nothing, for all waits but the last: in the word that the list can spare.
    chunks += [(free, 1)] * (ahead - 1) + [(halt, 1)]
    words = np.zeros(len(program.chunks) + 1, np.uint64)
    words[-1:] = controls([NOTHING])
    first, count = np.array(chunks).T
    number = np.arange(len(chunks))
    packed = CHUNK.pack(first=first, entries=count,
                        final=(number == len(chunks) - 1).astype(np.int64),
                        copied=np.isin(number, copied).astype(np.int64))
    words[:len(chunks)] = packed.astype(np.uint64)
    return Cut(program=program, words=words, chunks=tuple(chunks), copied=tuple(copied))
