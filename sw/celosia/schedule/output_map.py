"""How a node's results go into the banks: where each beat lies in the map that is read."""

from dataclasses import dataclass

import numpy as np

from celosia.schedule.candidates import Candidate
from celosia.schedule.input_map import InputMap
from celosia_spec.isa import ArrayConfig


@dataclass(frozen=True, eq=False, kw_only=True)
class OutputMap:
    """How a node's output is written.

    entries       : int64 (n, 4), of one batch: whether it is its beat's last, elements, first bank,
                    bank row; without any for the network's output, which stays in the store.
    longest, last : cycles in which the beats of the longest and of the last tile are placed.
    walk          : cycles of a normalising walk.   step : bank rows from one batch to the next.
    """

    entries: np.ndarray
    longest: int
    last: int
    walk: int
    step: int

    @classmethod
    def of(cls, found: Candidate, reader: InputMap | None, base: int | None,
           array: ArrayConfig) -> "OutputMap":
        """Return how the output of a candidate is written.

        reader : the output in the banks; None where no node reads it from there.
        base   : its first bank row, or the row where mantissas fall that only a residual addition
                 reads; None for the network's output.
        """
        tiles, groups, size = found.reads.tiles, found.groups, found.reads.size
        at = np.full(tiles * size, -1)
        if reader is None:
            at[:found.window.positions] = np.arange(found.window.positions) % array.beat
        else:
            at[:found.window.positions] = reader.element_positions(found.window.output).ravel()
        every = np.broadcast_to(at.reshape(tiles, 1, -1, array.beat),
                                (tiles, groups, size // array.beat, array.beat)).copy()
        group = np.broadcast_to(np.arange(groups)[None, :, None], every.shape[:3])
        bases, step = np.full(group.shape, base or 0), 0
        if reader is not None and found.result.spread > 1:
            every += np.where(every >= 0, group[..., None], 0)
            step = 1
        elif reader is not None:
            bases, step = bases + group, groups
        entries, counts = beat_entries(
            array, every.reshape(-1, array.beat), size=reader.size if reader else array.lanes,
            channels=reader.order.channels if reader else 0, base=bases.reshape(-1),
            plane=reader.plane_distance if reader else 0, every_beat=found.direct)
        tile = counts.reshape(tiles, -1).sum(axis=1)
        return cls(entries=entries[:0] if base is None else entries, longest=int(tile.max()),
                   last=int(tile[-1]), walk=int(tile.sum()) * len(found.steps), step=step)


def beat_entries(array: ArrayConfig, beats: np.ndarray, *, size: int, channels: int,
                 base: np.ndarray, plane: int, every_beat: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the write-table entries of one batch, and how many each beat takes.

    beats      : int64 (n, beat): position of every element in the reader's map, -1 for none, in
                 the order in which the machine walks over the beats of a batch.
    size, channels : of the reader's map.
    base       : int64 (n,): bank row of position 0 for the beat's channel.
    plane      : positions that the second half of a deinterleaved beat lies further on, a multiple
                 of ``size``; 0 without deinterleaving.
    every_beat : give beats without any element an entry too (the draining walk meets them).

    An element that is no output position continues the run before it: the machine does not write
    it. Entries end with the last element that is one.
    """
    order = np.arange(array.beat)
    if plane:
        order = np.concatenate([order[::2], order[1::2]])
    at = beats[:, order]
    filled = at >= 0
    # Behind the half, the machine adds the plane's distance by itself.
    at = at - plane * (np.arange(array.beat) >= array.beat // 2)
    for k in range(1, array.beat):
        at[:, k] = np.where(filled[:, k], at[:, k], at[:, k - 1] + 1)
    empty = ~np.any(filled, axis=1)
    length: np.ndarray = np.where(empty, every_beat,
                                  array.beat - filled[:, ::-1].argmax(axis=1))
    inside = np.arange(array.beat) < length[:, None]
    starts = np.diff(at, axis=1, prepend=at[:, :1]) != 1
    starts[:, 0] = True
    starts &= inside
    beat, first = np.nonzero(starts)
    last: np.ndarray = np.append(beat[1:] != beat[:-1], True)[:len(beat)]
    end = np.where(last, length[beat], np.append(first[1:], 0)[:len(first)])
    where = at[beat, first]
    row = (base[beat] + where // size * channels) % (1 << array.bank_row_bits)
    entries = np.stack([last, end - first, where % size, row], axis=1)
    entries[empty[beat]] = 1, 1, 0, 0
    return entries, starts.sum(axis=1)
