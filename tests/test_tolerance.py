"""The bound that other tests take holds for any order of a sum, and is no wider than it need be."""

import numpy as np
import torch

from celosia.models import LeNet5
from tolerance import operations, rounding


def test_a_sum_in_any_order():
    rng, worst = np.random.default_rng(0), 0.0
    for _ in range(200):
        terms = rng.normal(size=rng.integers(2, 40)).astype(np.float32)
        allowed = rounding(len(terms), np.float32) * float(np.abs(terms).sum())
        orders = [np.float32(0), np.float32(0)]
        for number, order in enumerate((terms, rng.permutation(terms))):
            for term in order:
                orders[number] += term
        worst = max(worst, abs(float(orders[0]) - float(orders[1])) / allowed)
    assert 0.01 < worst <= 1


def test_formats_and_networks():
    assert rounding(1, torch.float32) == rounding(1, np.float32) > 2**-23
    assert rounding(10) < 11 * 2**-52
    # Terms of the sums of two convolutions and three linear layers, each with a bias.
    assert operations(LeNet5()) == (25 + 1) + (150 + 1) + (256 + 1) + (120 + 1) + (84 + 1)
