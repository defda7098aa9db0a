"""Ranks by empirical variational Bayes, on matrices whose rank is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.optimize import brentq

from celosia.compress.lowrank.evbmf import evbmf


def planted(shape, rank, signal, noise, seed=0):
    """Return a matrix with `rank` equal singular values in noise.

    signal : those values, in units of the largest that the noise alone has.
    """
    random = np.random.default_rng(seed)
    rows, columns = shape
    left = np.linalg.qr(random.normal(size=(rows, rank)))[0]
    right = np.linalg.qr(random.normal(size=(columns, rank)))[0]
    edge = noise * (math.sqrt(rows) + math.sqrt(columns))
    return signal * edge * left @ right.T + noise * random.normal(size=shape)


@pytest.mark.parametrize("noise", [1e-6, 0.02, 1.0, 50.0])
@pytest.mark.parametrize(
    ("shape", "rank"),
    [((64, 576), 1), ((64, 576), 16), ((576, 64), 16), ((50, 50), 5), ((20, 300), 6),
     ((200, 400), 40)],
)  # fmt: skip
def test_finds_a_planted_rank_and_the_noise(shape, rank, noise):
    found, sigma2 = evbmf(planted(shape, rank, 3.0, noise, seed=rank))
    assert found == rank
    assert sigma2 == pytest.approx(noise**2, rel=0.1)


@pytest.mark.parametrize("shape", [(64, 576), (64, 64), (8, 72), (300, 100), (3, 1000)])
def test_pure_noise_has_rank_zero(shape):
    for seed in range(10):
        matrix = np.random.default_rng(seed).normal(scale=0.03, size=shape)
        assert evbmf(matrix)[0] == 0


def test_an_untrained_convolution_is_noise_along_both_modes():
    torch.manual_seed(0)
    weight = torch.nn.Conv2d(64, 64, 3).weight.detach().numpy()
    assert evbmf(weight.reshape(64, -1))[0] == 0
    assert evbmf(weight.swapaxes(0, 1).reshape(64, -1))[0] == 0


def test_signals_below_the_noise_are_not_found():
    assert evbmf(planted((64, 576), 8, 0.5, 1.0))[0] == 0


def test_shape_and_scale_do_not_matter():
    matrix = planted((40, 160), 7, 2.0, 1.0)
    rank, sigma2 = evbmf(matrix)
    assert evbmf(matrix.T) == (rank, pytest.approx(sigma2, rel=1e-6))
    for scale in (1e-8, 1e8):
        assert evbmf(scale * matrix) == (rank, pytest.approx(scale**2 * sigma2, rel=1e-6))


@pytest.mark.parametrize("alpha", [1.0, 0.5, 0.1, 0.01])
def test_the_threshold_is_the_published_one(alpha):
    """With a given variance, against tau from its defining equation: 1.1 % apart at most."""
    columns = 1200
    rows = round(alpha * columns)
    phi = lambda z: math.log1p(z) / z - 0.5
    tau = brentq(lambda tau: phi(tau) + phi(tau / alpha), 1e-6, 10)
    edge = math.sqrt(columns * (1 + tau) * (1 + alpha / tau))
    matrix = np.zeros((rows, columns))
    matrix[0, 0] = 1.005 * edge
    assert evbmf(matrix, sigma2=1.0) == (1, 1.0)
    matrix[0, 0] = 0.985 * edge
    assert evbmf(matrix, sigma2=1.0) == (0, 1.0)


def published_energy(singular, sigma2, rows, columns):
    """The free energy as it is printed, term by term; zeros among the values are not allowed."""
    alpha = rows / columns
    tau = 2.5129 * math.sqrt(alpha)
    bound = (1 + tau) * (1 + alpha / tau)
    total = 0.0
    for value in singular:
        x = value**2 / (columns * sigma2)
        total += x - math.log(x)
        if x > bound:
            t = (x - (1 + alpha) + math.sqrt((x - (1 + alpha)) ** 2 - 4 * alpha)) / 2
            total += -t + math.log(t + 1) + alpha * math.log(t / alpha + 1)
    return total


@pytest.mark.parametrize("shape", [(30, 30), (20, 200), (64, 576)])
def test_the_variance_has_the_least_published_energy(shape):
    matrix = planted(shape, 5, 1.5, 1.0, seed=4)
    rows, columns = shape
    singular = np.linalg.svd(matrix, compute_uv=False)
    _, sigma2 = evbmf(matrix)
    least = published_energy(singular, sigma2, rows, columns)
    half = math.ceil(rows / (1 + rows / columns)) - 1
    tau = 2.5129 * math.sqrt(rows / columns)
    bound = (1 + tau) * (1 + rows / columns / tau)
    low = max(singular[half] ** 2 / (columns * bound), np.mean(singular[half:] ** 2) / columns)
    high = np.sum(singular**2) / (rows * columns)
    assert low <= sigma2 <= high
    for other in np.linspace(low, high, 2000):
        assert least <= published_energy(singular, other, rows, columns) + 1e-7


def test_matrices_without_noise():
    random = np.random.default_rng(0)
    exact = random.normal(size=(64, 5)) @ random.normal(size=(5, 300))
    assert evbmf(exact)[0] == 5
    assert evbmf(np.ones((6, 6)))[0] == 1
    assert evbmf(np.zeros((4, 9))) == (0, 0.0)
    assert evbmf(np.zeros((4, 9)), sigma2=2.0) == (0, 2.0)


@pytest.mark.parametrize(
    ("matrix", "sigma2", "message"),
    [
        (np.zeros(3), None, "not an array of shape"),
        (np.zeros((0, 3)), None, "not an array of shape"),
        (np.array([[1.0, np.nan]]), None, "with NaN or infinity"),
        (np.ones((2, 2)), 0.0, "must be above 0, not 0.0"),
    ],
)
def test_refusals(matrix, sigma2, message):
    with pytest.raises(ValueError, match=message):
        evbmf(matrix, sigma2)
