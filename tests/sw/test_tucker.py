"""Tucker-2, against an own higher-order orthogonal iteration in numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from celosia.compress.lowrank.tucker import (
    tucker2,
    tucker_full_ranks,
    tucker_macs,
    tucker_parameters,
    tucker_ranks,
    tucker_ranks_for_energy,
)

SHAPES = [
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": (3, 5), "stride": (2, 3), "padding": (0, 2)},
    {"kernel_size": 3, "stride": 2, "padding": 2, "dilation": 2, "bias": False},
    {"kernel_size": (2, 3), "padding": "same", "padding_mode": "circular"},
    {"kernel_size": 1},
]


def conv(**settings) -> nn.Conv2d:
    torch.manual_seed(1)
    return nn.Conv2d(6, 8, **settings).double()


def leading(tensor, mode, rank):
    matrix = np.moveaxis(tensor, mode, 0).reshape(tensor.shape[mode], -1)
    return np.linalg.eigh(matrix @ matrix.T)[1][:, ::-1][:, :rank]


def hooi(kernel, rank_out, rank_in, rounds=200):
    """Return the factors of both modes: HOSVD, then alternating eigenproblems."""
    left, right = leading(kernel, 0, rank_out), leading(kernel, 1, rank_in)
    for _ in range(rounds):
        left = leading(np.einsum("oiyx,iq->oqyx", kernel, right), 0, rank_out)
        right = leading(np.einsum("oiyx,op->piyx", kernel, left), 1, rank_in)
    return left, right


def project(kernel, left, right):
    return np.einsum("oiyx,op,bp,iq,dq->bdyx", kernel, left, left, right, right, optimize=True)


def kernel_of(small):
    """The kernel that three convolutions stand for, from their weights."""
    first, core, last = (part.weight.detach().numpy() for part in small)
    return np.einsum("op,pqyx,qi->oiyx", last[:, :, 0, 0], core, first[:, :, 0, 0])


def low_rank_kernel(rank_out, rank_in, noise, seed=0, shape=(48, 40, 3, 3)):
    random = np.random.default_rng(seed)
    left = np.linalg.qr(random.normal(size=(shape[0], rank_out)))[0]
    right = np.linalg.qr(random.normal(size=(shape[1], rank_in)))[0]
    core = random.normal(size=(rank_out, rank_in, *shape[2:]))
    kernel = np.einsum("op,pqyx,iq->oiyx", left, core, right)
    return kernel + noise * random.normal(size=shape)


def layer_with(kernel):
    layer = nn.Conv2d(kernel.shape[1], kernel.shape[0], kernel.shape[2:]).double()
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(kernel))
    return layer


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("settings", SHAPES)
@pytest.mark.parametrize("full", [False, True])
def test_equals_the_convolution_with_the_reconstructed_kernel(settings, full):
    layer = conv(**settings)
    ranks = (3, 3 if settings["kernel_size"] == 1 else 2)
    if full:
        ranks = tucker_full_ranks(layer)
    small = tucker2(layer, ranks)
    x = torch.randn(2, 6, 11, 13, generator=torch.Generator().manual_seed(2)).double()
    with torch.no_grad():
        found = small(x)
        if not full:
            layer.weight.copy_(torch.from_numpy(kernel_of(small)))
        wanted = layer(x)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-10)
    assert [part.bias is None for part in small] == [True, True, layer.bias is None]
    assert sum(part.weight.numel() for part in small) == tucker_parameters(layer, ranks)
    counted, made = 0, x
    for part in small:
        made = part(made)
        counted += part.weight.numel() * made[0, 0].numel()
    assert tucker_macs(layer, ranks, (11, 13)) == counted


@pytest.mark.parametrize("ranks", [(1, 1), (4, 4), (12, 5), (20, 30), (48, 7)])
def test_is_as_good_as_an_own_iteration(ranks):
    kernel = low_rank_kernel(30, 25, 0.3)
    left, right = hooi(kernel, *ranks)
    small = tucker2(layer_with(kernel), ranks)
    mine = np.linalg.norm(kernel - project(kernel, left, right))
    assert np.linalg.norm(kernel - kernel_of(small)) == pytest.approx(mine, rel=1e-4)


def test_finds_the_planted_subspaces():
    kernel = low_rank_kernel(6, 5, 0.01)
    left, right = hooi(kernel, 6, 5)
    first, _, last = (part.weight.detach().numpy() for part in tucker2(layer_with(kernel), (6, 5)))
    found_left, found_right = last[:, :, 0, 0], first[:, :, 0, 0].T
    np.testing.assert_allclose(found_left @ found_left.T, left @ left.T, atol=1e-5)
    np.testing.assert_allclose(found_right @ found_right.T, right @ right.T, atol=1e-5)
    np.testing.assert_allclose(found_left.T @ found_left, np.eye(6), atol=1e-10)


@pytest.mark.parametrize(
    ("inputs", "outputs", "ranks"), [(64, 64, (16, 16)), (64, 128, (20, 10)), (3, 48, (12, 2))]
)
def test_ratios_are_those_of_the_paper(inputs, outputs, ranks):
    layer = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1)
    r4, r3 = ranks
    rc = 9 * inputs * outputs / (inputs * r3 + 9 * r3 * r4 + outputs * r4)
    assert layer.weight.numel() / tucker_parameters(layer, ranks) == rc
    h, w, ho, wo = 30, 41, 15, 21
    rs = 9 * inputs * outputs * ho * wo / (
        inputs * r3 * h * w + 9 * r3 * r4 * ho * wo + outputs * r4 * ho * wo)
    assert layer.weight.numel() * ho * wo / tucker_macs(layer, ranks, (h, w)) == rs


@pytest.mark.parametrize(("rank_out", "rank_in"), [(12, 9), (20, 14)])
def test_ranks_are_the_planted_ones(rank_out, rank_in):
    layer = layer_with(low_rank_kernel(rank_out, rank_in, 0.02))
    assert tucker_ranks(layer) == (rank_out, rank_in)
    assert tucker_ranks(layer, weakening=0) == (48, 40)
    half = math.floor(48 - 0.5 * (48 - rank_out)), math.floor(40 - 0.5 * (40 - rank_in))
    assert tucker_ranks(layer, weakening=0.5) == half
    assert tucker_ranks(layer, minimum=16) == (max(rank_out, 16), 16)
    assert tucker_ranks_for_energy(layer, 0.95)[0] <= rank_out
    assert tucker_ranks_for_energy(layer, 1.0) == (48, 40)


def test_noise_gets_the_minimum():
    torch.manual_seed(0)
    layer = nn.Conv2d(64, 32, 3)
    assert tucker_ranks(layer) == (8, 8)
    assert tucker_ranks(layer, minimum=1) == (1, 1)
    assert tucker_ranks(nn.Conv2d(1, 32, 3)) == (8, 1)
    assert tucker_ranks(nn.Conv2d(64, 1, 3)) == (1, 8)


def test_energy_ranks_count_each_mode():
    kernel = np.zeros((4, 3, 3, 3))
    kernel[0, 0, 0, 0], kernel[1, 0, 1, 1], kernel[2, 1, 0, 0] = 3, 2, 1    # energies 9, 4, 1
    layer = layer_with(kernel)
    assert tucker_ranks_for_energy(layer, 13 / 14) == (2, 1)
    assert tucker_ranks_for_energy(layer, 0.95) == (3, 2)
    assert tucker_ranks_for_energy(layer, 0.5) == (1, 1)


def test_a_kernel_of_zeros_stays_one():
    layer = layer_with(np.zeros((4, 6, 3, 3)))
    small = tucker2(layer, (2, 2))
    x = torch.ones(1, 6, 5, 5).double()
    assert torch.equal(small(x), layer(x))


def test_tensorly_is_left_as_it_was():
    import tensorly

    np.random.seed(3)   # noqa: NPY002 - the state that tensorly would use
    before = np.random.get_state()[1].copy()   # noqa: NPY002
    tensorly.set_backend("pytorch")
    try:
        tucker2(conv(kernel_size=1), (6, 6))
        assert tensorly.get_backend() == "pytorch"
    finally:
        tensorly.set_backend("numpy")
    np.testing.assert_array_equal(np.random.get_state()[1], before)   # noqa: NPY002


@pytest.mark.parametrize(
    ("layer", "ranks", "message"),
    [
        (nn.Conv2d(4, 4, 3, groups=4), (1, 1), "groups = 4 cannot be decomposed"),
        (nn.Linear(4, 4), (1, 1), "use svd for a Linear"),
        (nn.Conv2d(4, 6, 3), (7, 1), r"from 1 to \(6, 4\), not \(7, 1\)"),
        (nn.Conv2d(4, 6, 3), (4, 0), r"not \(4, 0\)"),
        (nn.Conv2d(4, 6, 3), (4,), r"not \(4,\)"),
        (nn.Conv2d(4, 6, 1), (4, 2), r"\(2, 2\) loses nothing"),
    ],
)
def test_refusals(layer, ranks, message):
    with pytest.raises(ValueError, match=message):
        tucker2(layer, ranks)


def test_weakening_and_minimum_have_ranges():
    layer = nn.Conv2d(4, 4, 3)
    with pytest.raises(ValueError, match="weakening must be from 0"):
        tucker_ranks(layer, weakening=1.5)
    with pytest.raises(ValueError, match="minimum rank must be at least 1"):
        tucker_ranks(layer, minimum=0)
