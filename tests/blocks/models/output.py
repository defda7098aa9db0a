"""The machine's output path: what passes leave in main memory (decision 16)."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from blocks.models.arithmetic import align_residual, scaled
from celosia_spec.floats import exponent_of, to_odd
from celosia_spec.isa.array import ENTRY_WORDS, Array
from celosia_spec.isa.numbers import EXPONENT_MIN
from celosia_spec.isa.passes import code_weight


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row's head."""

    sw: int
    sb: int
    real: bool
    bias: int
    word: int
    element: int = 0
    excess: int = 0


@dataclass(frozen=True, kw_only=True)
class Pass:
    """``sums`` of all lanes, those of excess included; ``written`` of the lanes of a group."""

    rows: Sequence[Row]
    sums: Sequence[int]
    written: Sequence[bool]
    fresh: bool
    first: bool
    final: bool


@dataclass
class Output:
    """Main memory, elements, and the largest exponent so far.

    layer : fields of the layer.   exponent, residual_exponent : of the tensors.
    position : of the band.
    """

    array: Array
    layer: dict[str, int]
    exponent: int
    residual_exponent: int
    position: int
    memory: np.ndarray
    top: int = EXPONENT_MIN
    codes: Sequence[int] = ()
    pooled: list[int] = field(default_factory=list)
    at: int = 0
    length: int = 0

    def drain(self, one: Pass) -> list[list[tuple[int, int]]]:
        """Drain a pass; return for each of its rows the (lane, element) that are written."""
        if one.fresh:
            self.at = self.position
        elif one.first:
            self.at += self.length
        size, residual = len(one.written), self.layer["residual"]
        self.length = (1 + self.layer["wide"]) * sum(one.written)
        if residual and one.first:
            weight = code_weight(signed_out=bool(self.layer["signed_out"]))
            self.codes = [total // weight for total in one.sums]
            return [[] for _ in one.rows]
        totals = [self._total(row, one, group * size + lane)
                  for group, row in enumerate(one.rows) for lane in range(size)]
        if not (one.first or residual):
            totals = [max(pair) for pair in zip(totals, self.pooled, strict=True)]
        self.pooled = totals
        return [self._store(row, one, totals[group * size:(group + 1) * size], group * size)
                for group, row in enumerate(one.rows)]

    def _places(self, row: Row, one: Pass) -> list[int]:
        """Return the element of each lane of a row."""
        before = np.cumsum(one.written) - one.written
        every = row.word * ENTRY_WORDS + row.element + self.at + before * (1 + self.layer["wide"])
        return [int(place) for place in every % len(self.memory)]

    def _unit(self, exponent: int, signed: int) -> int:
        return exponent - (self.array.activation_bits - 1) + signed

    def _total(self, row: Row, one: Pass, lane: int) -> int:
        layer, w = self.layer, self.array.acc_bits
        input_unit = self._unit(self.exponent, layer["signed_in"])
        total = one.sums[lane] - row.excess + scaled(row.bias, row.sb - input_unit)
        if layer["residual"]:
            signed = layer["residual_signed"]
            total += align_residual(
                self.codes[lane] - (signed << self.array.activation_bits - 1),
                self._unit(self.residual_exponent, signed) - row.sw - input_unit, w)
        total = (total + (1 << w - 1)) % (1 << w) - (1 << w - 1)
        return max(total, 0) if layer["relu"] else total

    def _store(self, row: Row, one: Pass, totals: Sequence[int],
               lane: int) -> list[tuple[int, int]]:
        if not (row.real and one.final):
            return []
        unit = row.sw + self._unit(self.exponent, self.layer["signed_in"])
        stored = []
        for k, (total, place) in enumerate(zip(totals, self._places(row, one), strict=True)):
            if not one.written[k]:
                continue
            if self.layer["wide"]:
                elements = [total & 0xffff, total >> 16 & 0xffff]
            else:
                bound = self.layer["bound"]
                element = int(to_odd(np.array(total), unit, signed=bool(self.layer["signed_out"])))
                if self.layer["clamp"]:
                    sign = element & self.layer["signed_out"] << 10
                    element = min(element & ~sign, bound) | sign
                elements = [element]
                self.top = max(self.top, int(exponent_of(np.array(element))))
            for number, element in enumerate(elements):
                self.memory[(place + number) % len(self.memory)] = element
                stored.append((lane + k, (place + number) % len(self.memory)))
        return stored
