"""A model of the machine in plain Python: runs a program's memory images, word by word.

Slow, and good for what RTL is too slow to try: many arrays, many odd networks.
"""

import numpy as np

from celosia_sim.golden.requantise import clip, scale_rne
from celosia_spec.block import Format, floor_log2
from celosia_spec.isa import (
    BATCH,
    BLOCK,
    DESCRIPTOR,
    DESCRIPTOR_WORDS,
    EXPONENT_MAX,
    MEMORIES,
    OUTPUT_BITS,
    Space,
)
from celosia_spec.program import Program

__all__ = ["WordMachine"]


class WordMachine:
    """A program's memories, and what the descriptors do to them.

    It shares the tables of fields with the compiler that wrote the words, as the gateware does, and
    nothing else: what the machine does with them is written here a second time. No timing.
    """

    def __init__(self, program: Program) -> None:
        self.program, self.array = program, program.array
        words = {memory.space: memory.word(self.array).unpack(
            program.images[memory.space].astype(np.int64))
            for memory in MEMORIES if memory.holds == "image"}
        self.descriptors = program.images[Space.PROGRAM].astype(np.int64)
        self.steps = BATCH.unpack(self.descriptors)["steps"]
        self.weights = program.images[Space.WEIGHTS]
        self.weight, self.row, self.tap, self.write = (
            words[space] for space in (Space.WEIGHTS, Space.ROWS, Space.TAPS, Space.WRITES))
        self.maps = {memory.space: np.zeros(memory.depth(self.array), np.int64)
                     for memory in MEMORIES if memory.holds == "tensors"}
        self.banks = self.maps[Space.BANKS].reshape(-1, self.array.lanes)
        self.store, self.residual = (self.maps[space].reshape(-1, self.array.beat)
                                     for space in (Space.STORE, Space.RESIDUAL))
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
        copies = self.maps[place.space][place.addresses]
        assert (copies == copies[0]).all(), f"copies of {name} differ"
        mantissas: np.ndarray = copies[0]
        return mantissas

    def _descriptor(self, k: int) -> None:
        self.layer = DESCRIPTOR.unpack(self.descriptors[k * DESCRIPTOR_WORDS:][:DESCRIPTOR_WORDS])
        w, array = self.layer, self.array
        self.groups, out_groups = 1 << w["log2_groups"], 1 << w["log2_out_groups"]
        self.size, self.out_size = array.lanes // self.groups, array.lanes // out_groups
        shift = array.activation_bits - 2
        self.s_x = self.exponents[w["input_slot"]] - shift
        base = w["clear_base"]
        self.banks[base:base + w["clear_rows"]] = 0
        totals = [self._batch(b) for b in range(w["last_batch"] + 1)]
        self.exponent = self._block_exponent(np.array(totals))
        self.exponents[w["output_slot"]] = self.exponent
        self.wide_beat = 0
        for b, total in enumerate(totals):
            self._place(b, total)

    def _row(self, batch: int, group: int) -> tuple[int, int, int]:
        """Bias mantissa, s_w, s_b - s_w of a row."""
        at = self.layer["row_base"] + batch * self.groups + group
        return int(self.row["bias"][at]), int(self.row["sw"][at]), int(self.row["sb"][at])

    def _batch(self, b: int) -> np.ndarray:
        """Return A' of a batch, int64 (tiles, lanes); 0 where there is no output position."""
        w = self.layer
        totals = np.full((w["last_tile"] + 1, self.array.lanes), np.iinfo(np.int64).min)
        for tile in range(len(totals)):
            for phase in range(w["last_phase"] + 1):
                sums = self._passes(b, tile, phase) + self._added(b, tile)
                totals[tile] = np.maximum(totals[tile],
                                          np.maximum(sums, 0) if self.layer["relu"] else sums)
        n = np.arange(len(totals))[:, None] * self.size + np.arange(self.array.lanes) % self.size
        return np.where(n <= w["last_position"], totals, 0)

    def _added(self, b: int, tile: int) -> np.ndarray:
        """Bias and residual operand of every lane."""
        result = np.zeros(self.array.lanes, np.int64)
        beats = np.arange(self.array.pass_beats) + (
            b * (self.layer["last_tile"] + 1) + tile) * self.array.pass_beats
        for group in range(self.groups):
            bias, s_w, s_b = self._row(b, group)
            mine = slice(group * self.size, (group + 1) * self.size)
            result[mine] = scale_rne(np.array(bias), s_b - self.s_x, OUTPUT_BITS)
            if self.layer["residual_read"]:
                operand = self.residual[self.layer["residual_from"] + beats].reshape(-1)[mine]
                s_r = (self.exponents[self.layer["residual_slot"]]
                       - self.array.activation_bits + 2)
                result[mine] += clip(scale_rne(operand[None], s_r - s_w - self.s_x, 9),
                                     (1 << self.array.acc_bits - 3) - 1)[0][0]
        return result

    def _passes(self, b: int, tile: int, phase: int) -> np.ndarray:
        """Exact sums of one pass, a lane at a time."""
        w, array = self.layer, self.array
        steps = self.steps[w["length_base"]:][:b + 1].tolist()
        stride = array.groups_max if array.replicate else self.groups
        start = w["weight_base"] * array.groups_max + sum(steps[:-1]) * stride
        rows, behind = self._tile_rows(tile)
        sums = np.zeros(array.lanes, np.int64)
        index = np.zeros(self.groups, np.int64)
        lane = np.arange(self.size)
        for step in range(steps[-1]):
            for group in range(self.groups):
                copies = array.groups_max // self.groups if array.replicate else 1
                slot = start + step * stride + group * copies
                assert (self.weights[slot:slot + copies] == self.weights[slot]).all()
                index[group] += self.weight["step"][slot]
                tap = w["tap_base"] + phase * w["tap_step"] + index[group] // BLOCK
                offset, rotation = self.tap["row"][tap], self.tap["rotation"][tap]
                bank = (lane + rotation) % self.size
                groups_on = behind + (lane + rotation >= self.size).astype(int)
                row = rows + offset + index[group] % BLOCK + w["in_channels"] * groups_on
                x = self.banks[row % (1 << array.bank_row_bits) % array.bank_rows,
                               group * self.size + bank]
                sums[group * self.size + lane] += self.weight["mantissa"][slot] * x
        return sums

    def _tile_rows(self, tile: int) -> tuple[int, np.ndarray]:
        """Bank row of a tile's first position, and which lanes lie behind a line end."""
        start, line = tile * self.size, self.layer["line"]
        ends = start // line if self.layer["jump"] else 0
        behind = (start % line + np.arange(self.size) >= line) * bool(self.layer["jump"])
        return self.layer["in_base"] + self.layer["in_channels"] * (tile + ends), behind

    def _block_exponent(self, totals: np.ndarray) -> int:
        if self.layer["keep"]:
            return self.exponents[self.layer["input_slot"]]
        if self.layer["static"]:
            return self.layer["exponent"]
        s_w = np.array([[self._row(b, lane // self.size)[1] for lane in range(self.array.lanes)]
                        for b in range(len(totals))])
        found = (floor_log2(totals) + s_w[:, None]).max() + self.s_x
        most = self.layer["exponent"] if self.layer["clamp"] else EXPONENT_MAX
        return int(np.clip(found, self.layer["least_exponent"], most))

    def _place(self, b: int, totals: np.ndarray) -> None:
        """Round a batch and write it, beat after beat, as the write table says."""
        w, array = self.layer, self.array
        entry, bits = w["write_base"], 16 if self.layer["wide"] else array.activation_bits
        for tile in range(len(totals)):
            for beat in range(array.pass_beats):
                group, first = divmod(beat * array.beat, self.size)
                left = w["last_position"] + 1 - tile * self.size - first
                if left <= 0 and not self.layer["direct"]:
                    continue
                s = self._row(b, group)[1] + self.s_x - self.exponent + bits - 2
                m = clip(scale_rne(totals[tile, beat * array.beat:][:array.beat], s,
                                   array.acc_bits)[None], self._largest(bits))[0][0]
                if self.layer["wide"]:
                    self.store[self.wide_beat] = m
                    self.wide_beat += 1
                    continue
                if self.layer["residual_write"]:
                    at = (b * len(totals) + tile) * array.pass_beats + beat
                    self.residual[w["residual_to"] + at] = m
                entry = self._write(entry, b, m, left)

    def _largest(self, bits: int) -> int:
        """Largest mantissa of ``bits`` bits that the layer stores."""
        if not self.layer["clamp"] or self.exponent != self.layer["exponent"]:
            return Format(bits=bits).largest
        return self.layer["bound"] << bits - self.array.activation_bits

    def _write(self, entry: int, b: int, m: np.ndarray, left: int) -> int:
        """Write one beat of which ``left`` elements are real; return the next entry."""
        w, array = self.layer, self.array
        spread = bool(self.layer["deinterleave"])
        order = np.arange(array.beat)
        order = np.concatenate([order[::2], order[1::2]]) if spread else order
        element, last = 0, 0
        while not last:
            last, count, bank, row = (int(self.write[name][entry])
                                      for name in ("last", "count", "bank", "row"))
            row += b * w["write_step"]
            for k in range(count):
                at = bank + k
                here = (row + w["write_carry"] * (at >= self.out_size)
                        + w["plane_rows"] * (spread and element + k >= array.beat // 2))
                if order[element + k] < left:
                    self.banks[here % (1 << array.bank_row_bits),
                               at % self.out_size::self.out_size] = m[order[element + k]]
            element, entry = element + count, entry + 1
        return entry
