"""The write table: where each beat of a node's output goes in its consumer's map."""

from dataclasses import dataclass

import numpy as np

from celosia.schedule.candidates import Candidate
from celosia.schedule.input_map import InputMap
from celosia_spec.isa import ArrayConfig


@dataclass(frozen=True)
class Placing:
    """How a node's output is written.

    words         : write-table words of one batch.
    longest, last : cycles in which the beats of the longest and of the last tile are placed.
    walk          : cycles of a normalising walk.   step : bank rows from one batch to the next.
    """

    words: list[int]
    longest: int
    last: int
    walk: int
    step: int


def placed(found: Candidate, reader: InputMap | None, base: int | None,
           array: ArrayConfig) -> Placing:
    """Return how a node's output is written.

    reader : the output in the banks; None where no node reads it from there.
    base   : its first bank row, or the row where mantissas fall that only a residual addition
             reads; None for the network's output, which stays in the store.
    """
    tiles, groups, size = found.source.tiles, found.groups, found.source.size
    at = np.full(tiles * size, -1)
    if reader is None:
        at[:found.window.positions] = np.arange(found.window.positions) % array.beat
    else:
        at[:found.window.positions] = reader.element_positions(found.window.output).ravel()
    every = np.broadcast_to(at.reshape(tiles, 1, -1, array.beat),
                            (tiles, groups, size // array.beat, array.beat)).copy()
    group = np.broadcast_to(np.arange(groups)[None, :, None], every.shape[:3])
    vector = reader is not None and found.result.spread > 1
    bases, step = np.full(group.shape, base or 0), 0
    if vector:
        every += np.where(every >= 0, group[..., None], 0)
        step = 1
    elif reader is not None:
        bases, step = bases + group, groups
    words, counts = write_table(
        array, every.reshape(-1, array.beat), size=reader.size if reader else array.lanes,
        channels=reader.order.channels if reader else 0, base=bases.reshape(-1),
        plane=reader.plane_distance if reader else 0, every_beat=found.direct)
    if base is None:
        words = []
    tile = counts.reshape(tiles, -1).sum(axis=1)
    return Placing(words, int(tile.max()), int(tile[-1]), int(tile.sum()) * found.batches, step)


def beat_order(array: ArrayConfig, deinterleave: bool) -> np.ndarray:
    """Return the order in which the elements of a beat are taken."""
    elements = np.arange(array.beat)
    return np.concatenate([elements[::2], elements[1::2]]) if deinterleave else elements


def write_table(array: ArrayConfig, beats: np.ndarray, *, size: int, channels: int,
                base: np.ndarray, plane: int, every_beat: bool) -> tuple[list[int], np.ndarray]:
    """Return the table words of one batch, and how many entries each beat takes.

    beats      : int64 (n, beat): position of every element in the consumer's map, -1 for none, in
                 the order in which the machine walks over the beats of a batch.
    size, channels : of the consumer's map.
    base       : int64 (n,): bank row of position 0 for the beat's channel.
    plane      : positions that the second half of a deinterleaved beat lies further on, a multiple
                 of ``size``; 0 without deinterleaving.
    every_beat : give beats without any element an entry too (the draining walk meets them).
    """
    order = beat_order(array, plane > 0)
    half = array.beat // 2
    words, counts = [], np.zeros(len(beats), np.int64)
    for n, positions in enumerate(beats):
        at = positions[order]
        real = np.flatnonzero(at >= 0)
        if len(real) == 0:
            if every_beat:
                words.append(array.pack_write(last=True, count=1, bank=0, row=0))
                counts[n] = 1
            continue
        filled = at >= 0
        at, filled = at[:real[-1] + 1], filled[:real[-1] + 1]
        # Behind the half, the machine adds the plane's distance by itself.
        at = at - plane * (np.arange(len(at)) >= half)
        for run in _runs(at, filled):
            first = int(at[run[0]])
            words.append(array.pack_write(
                last=run[-1] == len(at) - 1, count=len(run), bank=first % size,
                row=int(base[n]) + first // size * channels))
            counts[n] += 1
    return words, counts


def _runs(at: np.ndarray, filled: np.ndarray) -> list[np.ndarray]:
    """Split element numbers into runs at consecutive positions. An element that is no output
    position continues the run before it: the machine does not write it."""
    at = at.copy()
    for i in np.flatnonzero(~filled):
        at[i] = at[i - 1] + 1
    return np.split(np.arange(len(at)), np.flatnonzero(np.diff(at) != 1) + 1)
