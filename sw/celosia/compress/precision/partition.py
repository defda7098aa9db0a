"""Which numbers share an exponent: the four partitions of a matrix product into blocks.

A layer is the product O[M, N] = W[M, K] I[K, N]: M output channels, K = I kh kw weights a row, N
output positions (P3, section 6.2, eq. 6-9 to 6-12).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from celosia_spec.errors import ArgumentError

__all__ = ["PARTITIONS", "Partition", "mean_bits", "partition_of"]


@dataclass(frozen=True, kw_only=True)
class Partition:
    """Blocks of W and of I.

    equation      : its number in P3.
    weight_rows   : each row of W is a block; else all of W is one.
    input_columns : each column of I is a block; else all of I is one.
    """

    equation: str
    weight_rows: bool
    input_columns: bool


PARTITIONS: Mapping[str, Partition] = {
    "whole": Partition(equation="6-9", weight_rows=False, input_columns=False),
    "rows-columns": Partition(equation="6-10", weight_rows=True, input_columns=True),
    "rows": Partition(equation="6-11", weight_rows=True, input_columns=False),
    "columns": Partition(equation="6-12", weight_rows=False, input_columns=True),
}
"""By name. "rows" is the machine's (docs/numerics.md)."""


def partition_of(name: str) -> Partition:
    """Return a partition by name; ArgumentError for an unknown one."""
    if name not in PARTITIONS:
        raise ArgumentError(f"partition must be one of {', '.join(PARTITIONS)}, not {name!r}")
    return PARTITIONS[name]


def mean_bits(partition: str, shape: tuple[int, int, int], weight_bits: int, activation_bits: int,
              exponent_bits: int = 5) -> tuple[float, float]:
    """Return the bits that one number of W and one of I take, its share of an exponent included.

    partition                    : "whole", "rows-columns", "rows" or "columns".
    shape                        : M, K, N of the matrix product.
    weight_bits, activation_bits : width of a mantissa, the sign included, as everywhere here (P3's
                                   L does not count it: its 1 + L is this number).
    exponent_bits                : of one exponent.

    A block of n numbers adds exponent_bits / n to each: n is M K for the whole of W, K N for the
    whole of I, and K for a row of W or a column of I.
    """
    blocks = partition_of(partition)
    if min(shape) < 1:
        raise ArgumentError(f"shape must be three numbers of at least 1, not {shape}")
    m, k, n = shape
    weights = k if blocks.weight_rows else m * k
    inputs = k if blocks.input_columns else k * n
    return weight_bits + exponent_bits / weights, activation_bits + exponent_bits / inputs
