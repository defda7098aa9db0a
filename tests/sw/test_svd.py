"""Low-rank layers by singular value decomposition."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from celosia.compress.lowrank.svd import (
    rank_for_energy,
    rank_for_speedup,
    svd,
    svd_full_rank,
    svd_macs,
    svd_parameters,
)

SHAPES = [
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": (3, 5), "stride": (2, 3), "padding": (0, 2)},
    {"kernel_size": 3, "stride": 2, "padding": 2, "dilation": 2, "bias": False},
    {"kernel_size": (2, 3), "padding": "same", "dilation": (1, 2)},
    {"kernel_size": 3, "padding": "valid"},
    {"kernel_size": 3, "padding": 1, "padding_mode": "reflect"},
    {"kernel_size": 1},
]


def conv(**settings) -> nn.Conv2d:
    torch.manual_seed(1)
    return nn.Conv2d(5, 7, **settings).double()


def picture() -> torch.Tensor:
    return torch.randn(2, 5, 11, 13, generator=torch.Generator().manual_seed(2)).double()


def truncated(weight: np.ndarray, rank: int, scheme: str) -> np.ndarray:
    """The kernel of that rank, from numpy alone and summed term by term."""
    outputs, width = weight.shape[0], weight.shape[3]
    spatial = scheme == "spatial"
    order = (0, 3, 1, 2) if spatial else (0, 1, 2, 3)
    moved = weight.transpose(order)
    matrix = moved.reshape(outputs * (width if spatial else 1), -1)
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    total = sum(values[i] * np.outer(left[:, i], right[i]) for i in range(rank))
    return total.reshape(moved.shape).transpose(np.argsort(order))


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("scheme", ["channel", "spatial"])
@pytest.mark.parametrize("settings", SHAPES)
@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_equals_the_convolution_with_the_truncated_kernel(settings, scheme, share):
    layer = conv(**settings)
    rank = max(1, round(share * svd_full_rank(layer, scheme)))
    small = svd(layer, rank, scheme)
    kernel = torch.from_numpy(truncated(layer.weight.detach().numpy(), rank, scheme))
    with torch.no_grad():
        found = small(picture())
        layer.weight.copy_(kernel) if share < 1 else None
        wanted = layer(picture())
    assert found.shape == wanted.shape
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-10)
    assert sum(part.weight.numel() for part in small) == svd_parameters(layer, rank, scheme)
    assert small[0].bias is None
    assert (small[1].bias is None) == (layer.bias is None)


def test_linear_equals_the_truncated_matrix():
    torch.manual_seed(1)
    layer = nn.Linear(9, 6).double()
    x = torch.randn(4, 9).double()
    left, values, right = np.linalg.svd(layer.weight.detach().numpy(), full_matrices=False)
    matrix = (left[:, :2] * values[:2]) @ right[:2]
    wanted = x.numpy() @ matrix.T + layer.bias.detach().numpy()
    small = svd(layer, 2)
    np.testing.assert_allclose(small(x).detach().numpy(), wanted, rtol=0, atol=1e-12)
    assert sum(part.weight.numel() for part in small) == svd_parameters(layer, 2) == 2 * (9 + 6)
    np.testing.assert_allclose(svd(layer, 6)(x).detach(), layer(x).detach(), rtol=0, atol=1e-12)
    assert svd_macs(layer, 2) == 30


@pytest.mark.parametrize("scheme", ["channel", "spatial"])
def test_what_is_lost_is_the_cut_singular_values(scheme):
    layer = conv(kernel_size=3)
    weight = layer.weight.detach().numpy()
    order = (0, 3, 1, 2) if scheme == "spatial" else (0, 1, 2, 3)
    rows = 7 * (3 if scheme == "spatial" else 1)
    values = np.linalg.svd(weight.transpose(order).reshape(rows, -1), compute_uv=False)
    for rank in range(1, len(values) + 1):
        first, second = (part.weight.detach().numpy() for part in svd(layer, rank, scheme))
        form = "oruv,riyx->oiyx" if scheme == "channel" else "orux,riyv->oiyx"
        kernel = np.einsum(form, second, first)
        lost = math.sqrt(np.sum(values[rank:] ** 2))
        assert math.isclose(np.linalg.norm(weight - kernel), lost, abs_tol=1e-12)
        # Both halves carry the root of the singular values.
        norms = np.linalg.norm(first.reshape(rank, -1), axis=1)
        np.testing.assert_allclose(norms, np.sqrt(values[:rank]), atol=1e-12)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("scheme", ["channel", "spatial"])
def test_macs_are_those_of_the_layers_that_come_out(scheme):
    for settings in SHAPES:
        layer = conv(**settings)
        small = svd(layer, 3, scheme)
        middle = small[0](picture())
        out = small[1](middle)
        counted = sum(part.weight.numel() * made[0, 0].numel()
                      for part, made in zip(small, (middle, out), strict=True))
        assert svd_macs(layer, 3, scheme, (11, 13)) == counted


def test_keeps_type_device_and_mode():
    layer = nn.Conv2d(4, 4, 3).half().eval()
    small = svd(layer, 2)
    assert {parameter.dtype for parameter in small.parameters()} == {torch.float16}
    assert not small.training
    assert not small[0].training
    assert all(parameter.requires_grad for parameter in small.parameters())


def test_rank_for_energy():
    layer = nn.Linear(4, 4, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.diag(torch.tensor([1.0, 4.0, 2.0, 3.0])))
    # Energies 16, 9, 4, 1 of 30.
    shares = (0.5, 16 / 30, 0.54, 25 / 30, 0.9, 29 / 30, 0.97, 1.0)
    assert [rank_for_energy(layer, share) for share in shares] == [1, 1, 2, 2, 3, 3, 4, 4]
    with torch.no_grad():
        layer.weight.zero_()
    assert rank_for_energy(layer, 0.9) == 1
    for share in (0.0, 1.1, float("nan")):
        with pytest.raises(ValueError, match="share of energy must be above 0 and at most 1"):
            rank_for_energy(layer, share)


def test_rank_for_speedup_is_the_formula_of_the_book():
    layer = nn.Conv2d(64, 128, 3)
    for factor in (2, 3, 4, 1.5):
        wanted = math.floor(64 * 9 * 128 / (factor * (64 * 9 + 128)))
        assert rank_for_speedup(layer, factor) == wanted
        assert svd_parameters(layer, wanted) <= layer.weight.numel() / factor
        assert svd_parameters(layer, wanted + 1) > layer.weight.numel() / factor
    assert rank_for_speedup(layer, 10**6) == 1
    assert rank_for_speedup(layer, 0.01) == 128
    assert rank_for_speedup(nn.Linear(60, 20), 3) == 5
    assert rank_for_speedup(layer, 4, "spatial") == 64 * 9 * 128 // (4 * (64 * 3 + 128 * 3))
    with pytest.raises(ValueError, match="speed-up must be above 0"):
        rank_for_speedup(layer, 0)


@pytest.mark.parametrize(
    ("layer", "rank", "scheme", "message"),
    [
        (nn.Conv2d(4, 4, 3, groups=2), 1, "channel", "groups = 2 cannot be decomposed"),
        (nn.Conv2d(4, 4, 3), 0, "channel", "whole number from 1 to 4, not 0"),
        (nn.Conv2d(4, 4, 3), 5, "channel", "whole number from 1 to 4, not 5"),
        (nn.Conv2d(4, 4, 3), 13, "spatial", "whole number from 1 to 12, not 13"),
        (nn.Conv2d(4, 4, 3), 2.0, "channel", "not 2.0"),
        (nn.Conv2d(4, 4, 3), 1, "rows", "scheme must be one of"),
        (nn.Conv1d(4, 4, 3), 1, "channel", "not Conv1d"),
    ],
)
def test_refusals(layer, rank, scheme, message):
    with pytest.raises(ValueError, match=message):
        svd(layer, rank, scheme)


def test_gradients_reach_both_layers():
    small = svd(conv(kernel_size=3), 2)
    functional.mse_loss(small(picture()), torch.zeros(2, 7, 9, 11).double()).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in small.parameters())
