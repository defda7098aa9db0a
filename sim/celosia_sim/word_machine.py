"""A model of the machine in plain Python: runs a program's memory images, word by word.

Slow, and good for what RTL is too slow to try: many arrays, many odd networks.
"""

import numpy as np

from celosia_sim.golden.requantise import clip, scale_rne
from celosia_spec.block import floor_log2, limit
from celosia_spec.isa import (
    BATCH_STEP_BITS,
    BLOCK,
    DESCRIPTOR_WORDS,
    OUTPUT_BITS,
    Flag,
    Space,
    Word,
)
from celosia_spec.program import Program

__all__ = ["WordMachine"]


class WordMachine:
    """A program's memories, and what the descriptors do to them.

    It decodes descriptors, batch words, weight words, tap, row and write entries as the gateware's
    docstrings describe them, and shares nothing with the compiler that wrote them. No timing.
    """

    def __init__(self, program: Program) -> None:
        self.program, self.array = program, program.array
        self.image = {space: words.astype(np.int64) for space, words in program.images.items()}
        self.banks = np.zeros((self.array.bank_rows, self.array.lanes), np.int64)
        self.store = np.zeros((self.array.store_beats, self.array.beat), np.int64)
        self.residual = np.zeros((self.array.residual_beats, self.array.beat), np.int64)
        self.exponents: dict[int, int] = {}

    def run(self, mantissa: np.ndarray, exponent: int) -> dict[str, tuple[np.ndarray, int]]:
        """Return every stored tensor right after its descriptor has run: mantissas int64
        (C, H, W) and block exponent.

        mantissa : int (C, H, W), the input's.   exponent : its block exponent. Memories keep what
        the run before left in them. AssertionError where copies of a tensor differ.
        """
        source, tensors = self.program.graph.input, {}
        place = self.program.places[source]
        self.banks.reshape(-1)[place.addresses] = mantissa
        self.exponents[self.program.slots[source]] = exponent
        for k in range(self.program.descriptors):
            self._descriptor(k)
            for name, place in self.program.places.items():
                if place.written == k:
                    tensors[name] = self.read(name), self.exponents[self.program.slots[name]]
        return tensors

    def read(self, name: str) -> np.ndarray:
        place = self.program.places[name]
        memory = {Space.BANKS: self.banks, Space.STORE: self.store,
                  Space.RESIDUAL: self.residual}[place.space]
        copies = memory.reshape(-1)[place.addresses]
        assert (copies == copies[0]).all(), f"copies of {name} differ"
        mantissas: np.ndarray = copies[0]
        return mantissas

    def _descriptor(self, k: int) -> None:
        words = self.image[Space.PROGRAM][k * DESCRIPTOR_WORDS:][:DESCRIPTOR_WORDS]
        self.word = {word: int(words[word]) for word in Word}
        w, array = self.word, self.array
        self.flags = w[Word.FLAGS]
        self.groups, out_groups = 1 << (w[Word.GROUPS] & 15), 1 << (w[Word.GROUPS] >> 4)
        self.size, self.out_size = array.lanes // self.groups, array.lanes // out_groups
        shift = array.activation_bits - 2
        self.s_x = self.exponents[w[Word.INPUT_SLOT] & 255] - shift
        base = w[Word.CLEAR_BASE]
        self.banks[base:base + w[Word.CLEAR_ROWS]] = 0
        totals = [self._batch(b) for b in range(w[Word.LAST_BATCH] + 1)]
        self.exponent = self._block_exponent(np.array(totals))
        self.exponents[w[Word.INPUT_SLOT] >> 8] = self.exponent
        self.wide_beat = 0
        for b, total in enumerate(totals):
            self._place(b, total)

    def _row(self, batch: int, group: int) -> tuple[int, int, int]:
        """Bias mantissa, s_w, s_b - s_w of a row."""
        word = int(self.image[Space.ROWS][self.word[Word.ROW_BASE] + batch * self.groups + group])
        fields = ((word, 16), (word >> 16, 6), (word >> 22, 8))
        bias, s_w, s_b = (_signed(value, bits) for value, bits in fields)
        return bias, s_w, s_b

    def _batch(self, b: int) -> np.ndarray:
        """Return A' of a batch, int64 (tiles, lanes); 0 where there is no output position."""
        w = self.word
        totals = np.full((w[Word.LAST_TILE] + 1, self.array.lanes), np.iinfo(np.int64).min)
        for tile in range(len(totals)):
            for phase in range(w[Word.LAST_PHASE] + 1):
                sums = self._passes(b, tile, phase) + self._added(b, tile)
                totals[tile] = np.maximum(totals[tile],
                                          np.maximum(sums, 0) if self.flags & Flag.RELU else sums)
        n = np.arange(len(totals))[:, None] * self.size + np.arange(self.array.lanes) % self.size
        return np.where(n <= w[Word.LAST_POSITION], totals, 0)

    def _added(self, b: int, tile: int) -> np.ndarray:
        """Bias and residual operand of every lane."""
        result = np.zeros(self.array.lanes, np.int64)
        beats = np.arange(self.array.pass_beats) + (
            b * (self.word[Word.LAST_TILE] + 1) + tile) * self.array.pass_beats
        for group in range(self.groups):
            bias, s_w, s_b = self._row(b, group)
            mine = slice(group * self.size, (group + 1) * self.size)
            result[mine] = scale_rne(np.array(bias), s_b - self.s_x, OUTPUT_BITS)
            if self.flags & Flag.RESIDUAL_READ:
                operand = self.residual[self.word[Word.RESIDUAL_READ] + beats].reshape(-1)[mine]
                s_r = (self.exponents[self.word[Word.RESIDUAL_SLOT]]
                       - self.array.activation_bits + 2)
                result[mine] += clip(scale_rne(operand[None], s_r - s_w - self.s_x, 9),
                                     (1 << self.array.acc_bits - 3) - 1)[0][0]
        return result

    def _passes(self, b: int, tile: int, phase: int) -> np.ndarray:
        """Exact sums of one pass, a lane at a time."""
        w, array = self.word, self.array
        steps = [self._batch_steps(k) for k in range(b + 1)]
        stride = array.groups_max if array.replicate else self.groups
        start = w[Word.WEIGHT_BASE] * array.groups_max + sum(steps[:-1]) * stride
        rows, behind = self._tile_rows(tile)
        sums = np.zeros(array.lanes, np.int64)
        index = np.zeros(self.groups, np.int64)
        lane = np.arange(self.size)
        for step in range(steps[-1]):
            for group in range(self.groups):
                copies = array.groups_max // self.groups if array.replicate else 1
                slot = start + step * stride + group * copies
                same = self.image[Space.WEIGHTS][slot:slot + copies]
                assert (same == same[0]).all()
                index[group] += int(same[0]) >> array.weight_bits
                tap = int(self.image[Space.TAPS][
                    w[Word.TAP_BASE] + phase * w[Word.TAP_STEP] + index[group] // BLOCK])
                offset, rotation = tap >> array.lane_bits, tap % array.lanes
                bank = (lane + rotation) % self.size
                groups_on = behind + (lane + rotation >= self.size).astype(int)
                row = rows + offset + index[group] % BLOCK + w[Word.IN_CHANNELS] * groups_on
                x = self.banks[row % (1 << array.bank_row_bits) % array.bank_rows,
                               group * self.size + bank]
                sums[group * self.size + lane] += _signed(int(same[0]), array.weight_bits) * x
        return sums

    def _batch_steps(self, b: int) -> int:
        word = int(self.image[Space.PROGRAM][self.word[Word.LENGTH_BASE] + b])
        return (word & (1 << BATCH_STEP_BITS) - 1) + 1

    def _tile_rows(self, tile: int) -> tuple[int, np.ndarray]:
        """Bank row of a tile's first position, and which lanes lie behind a line end."""
        start, line = tile * self.size, self.word[Word.LINE]
        ends = start // line if self.flags & Flag.JUMP else 0
        behind = (start % line + np.arange(self.size) >= line) * bool(self.flags & Flag.JUMP)
        return self.word[Word.IN_BASE] + self.word[Word.IN_CHANNELS] * (tile + ends), behind

    def _block_exponent(self, totals: np.ndarray) -> int:
        low, least = (_signed(self.word[Word.EXPONENT] >> k, 8) for k in (0, 8))
        if self.flags & Flag.KEEP:
            return self.exponents[self.word[Word.INPUT_SLOT] & 255]
        if self.flags & Flag.STATIC:
            return low
        s_w = np.array([[self._row(b, lane // self.size)[1] for lane in range(self.array.lanes)]
                        for b in range(len(totals))])
        found = (floor_log2(totals) + s_w[:, None]).max() + self.s_x
        return int(np.clip(found, least, 15))

    def _place(self, b: int, totals: np.ndarray) -> None:
        """Round a batch and write it, beat after beat, as the write table says."""
        w, array = self.word, self.array
        entry, bits = w[Word.WRITE_BASE], 16 if self.flags & Flag.WIDE else array.activation_bits
        for tile in range(len(totals)):
            for beat in range(array.pass_beats):
                group, first = divmod(beat * array.beat, self.size)
                left = w[Word.LAST_POSITION] + 1 - tile * self.size - first
                if left <= 0 and not self.flags & Flag.DIRECT:
                    continue
                s = self._row(b, group)[1] + self.s_x - self.exponent + bits - 2
                m = clip(scale_rne(totals[tile, beat * array.beat:][:array.beat], s,
                                   array.acc_bits)[None], limit(bits))[0][0]
                if self.flags & Flag.WIDE:
                    self.store[self.wide_beat] = m
                    self.wide_beat += 1
                    continue
                if self.flags & Flag.RESIDUAL_WRITE:
                    at = (b * len(totals) + tile) * array.pass_beats + beat
                    self.residual[w[Word.RESIDUAL_WRITE] + at] = m
                entry = self._write(entry, b, m, left)

    def _write(self, entry: int, b: int, m: np.ndarray, left: int) -> int:
        """Write one beat of which ``left`` elements are real; return the next entry."""
        w, array = self.word, self.array
        spread = bool(self.flags & Flag.DEINTERLEAVE)
        order = np.arange(array.beat)
        order = np.concatenate([order[::2], order[1::2]]) if spread else order
        element, last = 0, False
        while not last:
            word = int(self.image[Space.WRITES][entry])
            last, count = bool(word & 1), (word >> 1) % array.beat + 1
            bank = (word >> 1 + array.beat_bits) % array.lanes
            row = (word >> 1 + array.beat_bits + array.lane_bits) + b * w[Word.WRITE_STEP]
            for k in range(count):
                at = bank + k
                here = (row + w[Word.WRITE_CARRY] * (at >= self.out_size)
                        + w[Word.PLANE_ROWS] * (spread and element + k >= array.beat // 2))
                if order[element + k] < left:
                    self.banks[here % (1 << array.bank_row_bits),
                               at % self.out_size::self.out_size] = m[order[element + k]]
            element, entry = element + count, entry + 1
        return entry


def _signed(value: int, bits: int) -> int:
    value &= (1 << bits) - 1
    return value - (value >> bits - 1 << bits)
