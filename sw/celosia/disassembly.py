"""A program's words read back: what the machine will do, out of its memory images alone."""

from dataclasses import dataclass

import numpy as np

from celosia_spec.isa import (
    BATCH,
    BLOCK,
    DESCRIPTOR,
    DESCRIPTOR_WORDS,
    ArrayConfig,
    Space,
    tap_word,
    weight_word,
    write_word,
)
from celosia_spec.program import Program


@dataclass(frozen=True, eq=False, kw_only=True)
class LayerWords:
    """What one descriptor says, and the words that it leads to.

    fields     : the descriptor's, by name.
    steps, waits : int64 (batches,), of a pass of each batch, and the cycles that it waits.
    mantissas, deltas : int64 (steps of all batches, groups), the weight words, each copy once.
    words      : words that these take in the weight memory, copies and whole port rows included.
    columns    : int64, column indices that the weight words reach, each once, rising.
    writes     : write-table entries of one batch.
    """

    array: ArrayConfig
    fields: dict[str, int]
    steps: np.ndarray
    waits: np.ndarray
    mantissas: np.ndarray
    deltas: np.ndarray
    words: int
    columns: np.ndarray
    writes: int

    @classmethod
    def of(cls, program: Program, number: int) -> "LayerWords":
        """Read the descriptor of a number and what it leads to."""
        array, images = program.array, program.images
        first = number * DESCRIPTOR_WORDS
        fields = DESCRIPTOR.unpack(images[Space.PROGRAM][first:first + DESCRIPTOR_WORDS])
        batches = BATCH.unpack(_part(images[Space.PROGRAM], fields["length_base"],
                                     fields["last_batch"] + 1))
        groups = 1 << fields["log2_groups"]
        stride = array.groups_max if array.replicate else groups
        steps = batches["steps"]
        stored = _part(images[Space.WEIGHTS], fields["weight_base"] * array.groups_max,
                       int(steps.sum()) * stride)
        weights = weight_word(array).unpack(stored.reshape(-1, stride)[:, ::stride // groups])
        reached = [np.unique(np.cumsum(part, axis=0))
                   for part in np.split(weights["step"], np.cumsum(steps)[:-1])]
        return cls(
            array=array, fields=fields, steps=steps, waits=batches["wait"],
            mantissas=weights["mantissa"], deltas=weights["step"],
            words=-(-stored.size // array.groups_max) * array.groups_max,
            columns=np.unique(np.concatenate(reached)),
            writes=_entries(array, fields, images[Space.WRITES]))

    @property
    def groups(self) -> int:
        """Row groups."""
        return 1 << self.fields["log2_groups"]

    @property
    def size(self) -> int:
        """Lanes of a group; output positions of a tile."""
        return self.array.lanes // self.groups

    @property
    def batches(self) -> int:
        return self.fields["last_batch"] + 1

    @property
    def tiles(self) -> int:
        return self.fields["last_tile"] + 1

    @property
    def windows(self) -> int:
        """Positions of a pooling window; 1 without pooling."""
        return self.fields["last_phase"] + 1

    @property
    def positions(self) -> int:
        """Output positions of one row."""
        return self.fields["last_position"] + 1

    @property
    def passes(self) -> int:
        """Passes of all batches, tiles and windows."""
        return self.batches * self.tiles * self.windows

    @property
    def issued(self) -> int:
        """Steps of all passes."""
        return int(self.steps.sum()) * self.tiles * self.windows

    @property
    def waited(self) -> int:
        """Cycles that all passes wait."""
        return int(self.waits.sum()) * self.tiles * self.windows

    @property
    def entries(self) -> np.ndarray:
        """Tap-table entries of all columns, int64 (windows, columns)."""
        phases = np.arange(self.windows) * self.fields["tap_step"] + self.fields["tap_base"]
        places: np.ndarray = np.add.outer(phases, self.columns // BLOCK)
        return places

    def taps(self, table: np.ndarray) -> np.ndarray:
        """Return what the weights are multiplied by, int64 (2, taps): rows from a position group's
        first, and banks from a lane.   table : the program's tap table."""
        taps = tap_word(self.array).unpack(table[self.entries].astype(np.int64))
        pairs = np.stack([taps["row"] + self.columns % BLOCK, taps["rotation"]])
        return np.unique(pairs.reshape(2, -1), axis=1)


def layer_words(program: Program) -> list[LayerWords]:
    """Read every descriptor of a program."""
    return [LayerWords.of(program, number) for number in range(program.descriptors)]


def _part(image: np.ndarray, first: int, count: int) -> np.ndarray:
    words: np.ndarray = image[first:first + count].astype(np.int64)
    return words


def _entries(array: ArrayConfig, fields: dict[str, int], image: np.ndarray) -> int:
    """Write-table entries that the beats of one batch take; none where no bank is written."""
    if fields["wide"]:
        return 0
    size = array.lanes >> fields["log2_groups"]
    tile, beat = np.divmod(np.arange((fields["last_tile"] + 1) * array.pass_beats),
                           array.pass_beats)
    left = fields["last_position"] + 1 - tile * size - beat * array.beat % size
    beats = len(left) if fields["direct"] else int((left > 0).sum())
    last = write_word(array).unpack(image[fields["write_base"]:].astype(np.int64))["last"]
    return int(np.flatnonzero(last)[beats - 1]) + 1
