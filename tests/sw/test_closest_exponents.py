"""Rows whose weights are clipped: at no exponent are mantissas nearer to the row."""

import numpy as np
import pytest

from celosia.closest_exponents import LOWER, clipped_rows
from celosia_spec.block import Format, block_exponents


def nearest(rows: np.ndarray, clipped: np.ndarray, bits: int) -> np.ndarray:
    """Return by how much the mantissas of clipped rows miss the rows, in the sum of squares."""
    format, exponents = Format(bits=bits), block_exponents(clipped)
    m, _ = format.mantissas(clipped, exponents)
    made = m * 2.0 ** format.lsb(exponents)[:, None]
    return np.square(made - rows).sum(axis=1)


@pytest.mark.parametrize("bits", [4, 5, 8])
def test_no_exponent_is_nearer(bits):
    rng = np.random.default_rng(bits)
    rows = rng.standard_t(2, size=(300, 24)) * 2.0 ** rng.integers(-6, 6, size=(300, 1))
    clipped = clipped_rows(rows, bits)
    found, own = nearest(rows, clipped, bits), block_exponents(rows)
    for lower in range(LOWER):
        largest = Format(bits=bits).largest * 2.0 ** Format(bits=bits).lsb(own - lower)[:, None]
        tried = rows if lower == 0 else rows.clip(-largest, largest)
        assert (found <= nearest(rows, tried, bits) * (1 + 1e-12)).all()
    assert {int(lower) for lower in own - block_exponents(clipped)} >= ({0, 1} if bits < 8 else {0})
    inside = np.abs(rows) <= np.abs(clipped).max(axis=1, keepdims=True)
    assert np.array_equal(clipped[inside], rows[inside])


def test_rows_of_nothing_and_of_the_least_exponent():
    rows = np.array([[0.0, 0.0], [2.0**-16, 2.0**-30], [1e-30, 0.0]])
    assert np.array_equal(clipped_rows(rows, 4), rows)


def test_kernels_keep_their_shape():
    weight = np.random.default_rng(0).uniform(-0.3, 0.3, size=(5, 3, 2, 2))
    weight[:, 0, 0, 0] = 1
    flat = clipped_rows(weight.reshape(5, 12), 4)
    assert np.array_equal(clipped_rows(weight, 4), flat.reshape(weight.shape))
    assert not np.array_equal(flat, weight.reshape(5, 12))
