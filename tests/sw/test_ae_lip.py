"""Criterion "ae-lip" against explicit products and np.histogram."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from celosia import compress
from celosia.compress.criteria import entropy as arithmetic
from tolerance import rounding


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4)).eval().double()


def samples(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def entropy(values: np.ndarray, bins: int | np.ndarray) -> float:
    """P1 eq. (5), (6) of one product's values."""
    share = np.histogram(values, bins)[0] / len(values)
    return -sum(p * np.log(p) for p in share if p > 0)


def products(layer: nn.Module, x: torch.Tensor) -> np.ndarray:
    """Return w_ij x_i of each sample, float64 (N, out, in)."""
    return layer.weight.detach().double().numpy() * x.double().numpy()[:, None, :]


def expected(w_x: np.ndarray, bins: int, span: str) -> tuple[np.ndarray, np.ndarray]:
    """Return |E(w x)| and H(w x) of each weight, one histogram a weight."""
    edges = np.linspace(w_x.min(), w_x.max(), bins + 1)
    h = np.zeros(w_x.shape[1:])
    for place in np.ndindex(*h.shape):
        values = w_x[(slice(None), *place)]
        h[place] = entropy(values, bins if span == "own" else edges)
    return np.abs(w_x.mean(0)), h


def most_apart(w_x: np.ndarray, bins: int) -> float:
    """How far two products of contribution and entropy may lie apart: both are sums of a value for
    each sample or interval, the entropy at most log(bins)."""
    return rounding(len(w_x) + bins) * np.abs(w_x).max() * np.log(bins)


@pytest.mark.parametrize("bins", [4, 16])
@pytest.mark.parametrize("span", ["own", "layer"])
def test_linear_scores_match_explicit_products(span, bins):
    model, x = net(), samples(300, 6)
    hidden = torch.relu(model[0](x)).detach()
    for name, layer_inputs in (("0", x), ("2", hidden)):
        w_x = products(model[int(name)], layer_inputs)
        contribution, h = expected(w_x, bins, span)
        most = most_apart(w_x, bins)
        found = compress.scores(model, "ae-lip", x, span=span, intervals=bins)[name]
        np.testing.assert_allclose(found, contribution * h, rtol=0, atol=most)
        summed = compress.scores(
            model, "ae-lip", x, score="normalised_sum", span=span, intervals=bins
        )[name]
        np.testing.assert_allclose(
            summed, contribution / contribution.max() + h / h.max(), rtol=0,
            atol=2 * most / min(contribution.max(), h.max())
        )
        assert summed.dtype == found.dtype == np.float64


def test_on_its_own_range_a_product_has_the_entropy_of_its_input():
    x = samples(1000, 1).double().numpy()[:, 0]
    for weight in (2.5, -0.3, -17.0):
        assert entropy(weight * x, 16) == pytest.approx(entropy(x, 16), abs=rounding(3 * 16))
    model = nn.Sequential(nn.Linear(1, 3)).eval().double()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[2.5], [-0.3], [0.0]], dtype=torch.float64))
    found = compress.scores(model, "ae-lip", torch.from_numpy(x[:, None]))["0"]
    mean = abs(x.mean())
    np.testing.assert_allclose(
        found[:, 0], np.array([2.5, 0.3, 0.0]) * mean * entropy(x, 16), rtol=0,
        atol=most_apart(2.5 * x, 16)
    )


def test_a_common_grid_tells_large_weights_from_small_ones():
    model = nn.Sequential(nn.Linear(1, 2)).eval().double()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0], [0.01]]))
    x = samples(500, 1) + 3
    for span, ratio in (("own", 100), ("layer", 300)):
        found = compress.scores(model, "ae-lip", x, span=span)["0"][:, 0]
        # 0.01 has float32's rounding; contribution and entropy have float64's.
        assert found[0] >= ratio * found[1] * (1 - rounding(1, torch.float32))
        assert found[0] > 0


@pytest.mark.parametrize("score", ["product", "normalised_sum"])
@pytest.mark.parametrize("span", ["own", "layer"])
def test_dead_inputs_and_removed_weights_score_zero(score, span):
    model, x = net(), samples(200, 6)
    x[:, 3] = 0
    with torch.no_grad():
        model[0].weight[1, 2] = 0
        model[0].bias[4] = -100
    found = compress.scores(model, "ae-lip", x, score=score, span=span)
    assert not found["0"][:, 3].any()
    assert found["0"][1, 2] == 0
    assert not found["2"][:, 4].any(), "the input behind a dead neuron"
    if span == "own" or score == "normalised_sum":
        assert np.count_nonzero(found["0"]) == 24
    allzero = compress.scores(model, "ae-lip", torch.zeros(20, 6), score=score, span=span)["0"]
    assert not allzero.any()


@pytest.mark.parametrize("settings", [
    {"in_channels": 2, "out_channels": 3, "kernel_size": 3, "padding": 1},
    {"in_channels": 4, "out_channels": 6, "kernel_size": (3, 2), "stride": 2, "groups": 2},
    {"in_channels": 3, "out_channels": 3, "kernel_size": 3, "groups": 3, "dilation": 2},
])  # fmt: skip
@pytest.mark.parametrize("span", ["own", "layer"])
def test_convolution_scores_match_patches_at_the_drawn_positions(settings, span):
    torch.manual_seed(0)
    layer = nn.Conv2d(**settings).double()
    x = samples(150, layer.in_channels, 6, 7)
    unfolded = nn.functional.unfold(x, layer.kernel_size, layer.dilation, layer.padding,
                                    layer.stride)  # fmt: skip
    generator = torch.Generator().manual_seed(8)
    torch.randperm(len(x), generator=generator)
    place = torch.randint(unfolded.shape[2], (len(x), 1), generator=generator)[:, 0]
    seen = unfolded[torch.arange(len(x)), :, place].double().numpy()
    seen = seen.reshape(len(x), layer.groups, 1, -1)
    weight = layer.weight.detach().double().numpy()
    w_x = weight.reshape(layer.groups, -1, seen.shape[-1]) * seen
    w_x = w_x.reshape(len(x), -1, 1)
    contribution, h = expected(w_x, 16, span)
    found = compress.scores(
        nn.Sequential(layer), "ae-lip", x, span=span, seed=8, batch_size=len(x)
    )["0"]
    assert found.shape == weight.shape
    np.testing.assert_allclose(found.ravel(), (contribution * h).ravel(), rtol=0,
                               atol=most_apart(w_x, 16))


def test_the_common_grid_may_be_worked_in_pieces(monkeypatch):
    model, x = net(), samples(300, 6)
    whole = compress.scores(model, "ae-lip", x, span="layer")
    monkeypatch.setattr(arithmetic, "_CHUNK", 150)
    pieces = compress.scores(model, "ae-lip", x, span="layer")
    for name in whole:
        np.testing.assert_array_equal(pieces[name], whole[name])


def test_samples_are_drawn_by_the_seed():
    model, x = net(), samples(300, 6)
    drawn = torch.randperm(300, generator=torch.Generator().manual_seed(5))[:50].sort().values
    first = compress.scores(model, "ae-lip", x, samples=50, seed=5)["0"]
    w_x = products(model[0], x[drawn])
    contribution, h = expected(w_x, 16, "own")
    np.testing.assert_allclose(first, contribution * h, rtol=0, atol=most_apart(w_x, 16))
    np.testing.assert_array_equal(
        first, compress.scores(model, "ae-lip", x, samples=50, seed=5)["0"]
    )
    other = compress.scores(model, "ae-lip", x, samples=50, seed=6)["0"]
    assert np.abs(first - other).max() > 1e-4


def test_pruning_in_rounds_never_ranks_a_removed_weight():
    model, x = net(), samples(200, 6)
    report = compress.prune(model, "ae-lip", inputs=x, rates={"0": 0.8}, rounds=4,
                            schedule="linear", finetune=lambda *_: None)  # fmt: skip
    assert report.layers["0"].kept == 6
    assert np.count_nonzero(model[0].weight.detach().numpy()) == 6
    assert report.layers["2"].density == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"score": "sum"}, "score must be one of"),
        ({"span": "global"}, "span must be one of"),
        ({"intervals": 1}, "intervals must be at least 2"),
        ({"samples": 0}, "samples at least 1"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        compress.scores(net(), "ae-lip", samples(20, 6), **options)
    with pytest.raises(ValueError, match="'ae-lip' needs calibration inputs, at least 1, and got"):
        compress.scores(net(), "ae-lip")
