"""The parameters of an array, and the hash over them that a program and its machine share."""

import hashlib
import json
import operator
from dataclasses import asdict, dataclass, fields
from typing import Any

from celosia_spec.isa.numbers import ACCUMULATORS, MANTISSA_BITS

FORMAT_VERSION = 1
"""Version of descriptors and table words. Part of the array hash: another version is refused."""


@dataclass(frozen=True, kw_only=True)
class ArrayConfig:
    """Parameters of one array: everything that a program must match.

    lanes          : multipliers, accumulators and activation banks; a power of two, 4 to 64.
    quad           : lanes of the smallest row group; a power of two. ``lanes / quad`` groups have
                     a weight word of their own each cycle.
    beat           : elements the output stage handles a cycle; a power of two, at most ``quad``.
    weight_rows    : depth of the weight memory, port rows of ``groups_max`` weight words.
    bank_rows      : depth of an activation bank, mantissas.
    table_rows     : depth of the row table, rows.
    taps           : depth of the tap table, entries.
    writes         : depth of the write table, entries.
    program_words  : depth of the program memory, 16-bit words.
    store_beats    : depth of the accumulator store, beats.
    residual_beats : depth of the residual store, beats; 0 leaves residual operands out.
    acc_bits       : accumulator width W, 24 or 32.
    weight_bits, activation_bits : mantissa widths of the multipliers' operands, 4 to 9.
    index_bits     : width of a column index.
    count_bits     : width of the machine's counters: batches, tiles, positions, line width and
                     batch lengths stay below ``2**count_bits``.
    wide_elements  : elements of a beat that can be rounded to 16 bits, 1 or ``beat``; with 1 the
                     network's output must be a vector.
    replicate      : a weight word for several quads stands in the slots of all of them: more
                     weight memory, no multiplexers behind it.
    clearing       : the machine can clear bank rows between layers; without it, maps with zero
                     padding cannot share their place with others.
    clamp          : the output stage can clamp to a bound (ReLU6).
    deep           : pipeline registers for devices with slow memories and fast logic.
    """

    lanes: int
    quad: int = 4
    beat: int = 4
    weight_rows: int = 4096
    bank_rows: int = 512
    table_rows: int = 256
    taps: int = 256
    writes: int = 256
    program_words: int = 256
    store_beats: int = 256
    residual_beats: int = 0
    acc_bits: int = 24
    weight_bits: int = 8
    activation_bits: int = 8
    index_bits: int = 13
    count_bits: int = 16
    wide_elements: int = 1
    replicate: bool = False
    clearing: bool = True
    clamp: bool = False
    deep: bool = False

    def __post_init__(self) -> None:
        take(self)
        for name, low, high in (("lanes", 4, 64), ("quad", 2, 16), ("beat", 2, 8)):
            value = getattr(self, name)
            if not low <= value <= high or value & value - 1:
                raise ValueError(f"{name} must be a power of two, {low} to {high}, not {value!r}")
        if not self.beat <= self.quad <= self.lanes:
            raise ValueError(f"beat ({self.beat}) must be at most quad ({self.quad}), and quad at "
                             f"most lanes ({self.lanes})")
        check_widths(self)
        for name in ("weight_rows", "bank_rows", "table_rows", "taps", "writes", "program_words",
                     "store_beats"):
            value = getattr(self, name)
            if not 4 <= value <= 65536:
                raise ValueError(f"{name} must be 4 to 65536, not {value!r}")
        if not 8 <= self.count_bits <= 16:
            raise ValueError(f"count_bits must be 8 to 16, not {self.count_bits!r}")
        if self.wide_elements not in (1, self.beat):
            raise ValueError(f"wide_elements must be 1 or beat ({self.beat}), "
                             f"not {self.wide_elements!r}")
        if not 0 <= self.residual_beats <= 65536:
            raise ValueError(f"residual_beats must be 0 to 65536, not {self.residual_beats!r}")

    @property
    def groups_max(self) -> int:
        """Row groups the array can be split into; also weight words a port row holds."""
        return self.lanes // self.quad

    @property
    def pass_beats(self) -> int:
        """Beats of one pass: cycles in which its sums drain."""
        return self.lanes // self.beat

    @property
    def lane_bits(self) -> int:
        return self.lanes.bit_length() - 1

    @property
    def beat_bits(self) -> int:
        return self.beat.bit_length() - 1

    @property
    def bank_row_bits(self) -> int:
        return (self.bank_rows - 1).bit_length()

    @property
    def hash(self) -> int:
        """32-bit hash over all parameters and the format version; the gateware carries it."""
        return array_hash(self)


def array_hash(array: ArrayConfig, version: int = FORMAT_VERSION) -> int:
    """Return the hash that gateware of a format version carries for an array."""
    text = json.dumps([version, asdict(array)], sort_keys=True)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")


def take(array: Any) -> None:
    """Make a dataclass's whole numbers, of whatever type, ints; ValueError for one that is none,
    and for a switch that is no bool."""
    for part in fields(array):
        value = getattr(array, part.name)
        if part.type is bool:
            if not isinstance(value, bool):
                raise ValueError(f"{part.name} must be True or False, not {value!r}")
        else:
            try:
                object.__setattr__(array, part.name, operator.index(value))
            except TypeError:
                raise ValueError(f"{part.name} must be a whole number, not {value!r}") from None


def check_widths(array: Any) -> None:
    """ValueError for accumulators or mantissas of a width that no array has."""
    if array.acc_bits not in ACCUMULATORS:
        raise ValueError(f"acc_bits must be {' or '.join(map(str, ACCUMULATORS))}, "
                         f"not {array.acc_bits!r}")
    for name in ("weight_bits", "activation_bits"):
        value = getattr(array, name)
        if value not in MANTISSA_BITS:
            raise ValueError(f"{name} must be {MANTISSA_BITS[0]} to {MANTISSA_BITS[-1]}, "
                             f"not {value!r}")
