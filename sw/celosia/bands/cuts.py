"""Streams that end behind a layer: for whoever looks at what it has stored, or at its cycles."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from celosia.bands.entries import NOTHING, Chunk, controls, listed
from celosia.bands.program import Reading, StreamProgram
from celosia_sim.clock.cycles import cycles


@dataclass(frozen=True, kw_only=True, eq=False)
class Cut:
    """A program's list of chunks as it is cut short; all other words of main memory stay.

    words    : uint64, all words of the list, as many as the program's own has.
    clusters : what they say: of each cluster its chunks, and the numbers of those that wait.
    """

    program: StreamProgram
    words: np.ndarray
    clusters: tuple[tuple[Sequence[Chunk], Sequence[int]], ...]

    def cycles(self) -> int:
        """Return the cycles that it takes, exactly."""
        program = self.program
        words = [*program.entries[:program.list_at].tolist(), *self.words.tolist()]
        return cycles(program.array, words, program.list_at, program.sections).cycles


def cut(program: StreamProgram, layer: int) -> Cut:
    """Return the list behind which the machine halts when a layer is done, before the first one
    for -1.

    What is being copied from flash for later layers is waited for: the reader would go on, and
    write where the next input comes to lie.
    """
    order = program.order
    # An entry that says nothing, for all waits but the last: in the word that the list can spare.
    free = program.list_at + order.size - 1
    ahead = sum(len(program.flash.heads(at)) for at, life in program.flash.lives.items()
                if life.born <= layer < life.dies)
    clusters = tuple(_cut(own, layer, ahead, free, program.list_at - 1) for own in order.clusters)
    words = listed(clusters, program.list_at, order.size)
    if ahead > 1:
        words[-1:] = controls([NOTHING])
    return Cut(program=program, words=words, clusters=clusters)


def _cut(reading: Reading, layer: int, ahead: int, free: int,
         halt: int) -> tuple[list[Chunk], list[int]]:
    """Return the chunks of a cluster, and the numbers of those that wait.

    ahead : sections that are waited for.   free, halt : entries that say nothing, and `halt`.
    """
    end, last = reading.ends[layer] if layer >= 0 else (-1, 0)
    chunks = [(int(first), int(count)) for first, count in reading.chunks[:end + 1]]
    copied = [number for number in reading.copied if number <= end]
    if layer >= 0:
        chunks[end] = chunks[end][0], last - chunks[end][0] + 1
    copied += range(len(chunks), len(chunks) + ahead)
    return [*chunks, *[(free, 1)] * (ahead - 1), (halt, 1)], copied
