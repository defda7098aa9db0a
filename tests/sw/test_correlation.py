"""Criterion "correlation", its streamed sums, and the sampled selection of Sun et al."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from celosia import compress
from celosia.compress.criteria import pearson
from celosia.compress.criteria.statistics import CrossMoments, observe
from celosia.compress.weights.sun2016 import keep_sun2016
from celosia_spec.errors import ArgumentError
from tolerance import rounding


def samples(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def built(make, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return make().eval().double()


def most_apart(x: torch.Tensor, *layers: nn.Module) -> float:
    """How far two correlations over samples ``x``, behind ``layers``, may lie apart: errors count
    against the spread that is left when the mean is taken away."""
    terms = len(x) + sum(layer.weight[0].numel() + 1 for layer in layers)
    return rounding(terms) * float(1 + x.abs().max() / x.std())


# The sums


def test_sums_match_numpy_and_keep_digits_beside_a_large_mean():
    generator = np.random.default_rng(0)
    a = 1e7 + generator.normal(size=(500, 2, 3))
    b = -3e8 + generator.normal(size=(500, 2, 4)) + 0.5 * a[:, :, :1]
    moments = CrossMoments()
    for part in np.array_split(np.arange(500), 7):
        moments.update(torch.from_numpy(a[part]), torch.from_numpy(b[part]))
    assert moments.count == 500
    # The mean of a part, of 72 samples at most, is off by so much, which counts squared.
    most = rounding(500) + (rounding(72) * 3e8) ** 2
    for group in range(2):
        expected = np.corrcoef(a[:, group].T - 1e7, b[:, group].T + 3e8)[:3, 3:]
        np.testing.assert_allclose(moments.correlation()[group].numpy(), expected, rtol=0,
                                   atol=most)
    covariance = np.cov((a[:, 0, 1] - 1e7), (b[:, 0, 2] + 3e8), ddof=0)[0, 1]
    np.testing.assert_allclose(moments.products[0, 1, 2] / 500, covariance, rtol=0, atol=most)


def test_a_variable_that_never_changes_correlates_with_nothing():
    a = torch.full((30, 1, 1), 0.1, dtype=torch.float64)
    b = samples(30, 1, 2).double()
    b[:, :, 1] = -7.3e5 / 3
    moments = CrossMoments()
    for start in range(0, 30, 7):
        moments.update(a[start : start + 7], b[start : start + 7])
    assert moments.squares[0].tolist() == [[0.0]]
    assert moments.correlation().tolist() == [[[0.0, 0.0]]]


def test_memory_of_the_sums_does_not_grow_with_the_samples():
    def held(count: int) -> int:
        moments = CrossMoments()
        for part in samples(count, 7).split(50):
            moments.update(part[:, None, :3], part[:, None, 3:])
        parts = []
        for value in vars(moments).values():
            parts += value if isinstance(value, tuple) else [value]
        return sum(part.nbytes for part in parts if isinstance(part, torch.Tensor))

    assert held(100) == held(10_000) == 8 * (3 * 4 + 3 * 7)


# What a layer answers


class Named(nn.Module):
    """A layer in each of the places where an activation function may or may not follow it."""

    def __init__(self) -> None:
        super().__init__()
        self.normed = nn.Conv2d(2, 3, 3, bias=False)
        self.norm = nn.BatchNorm2d(3)
        self.relu = nn.ReLU(inplace=True)
        self.summed = nn.Conv2d(3, 3, 3, padding=1)
        self.method = nn.Linear(48, 5)
        self.last = nn.Linear(5, 4)

    def forward(self, x):
        x = self.relu(self.norm(self.normed(x)))
        y = self.summed(x)
        y += x
        x = torch.relu_(y)
        x = self.method(torch.flatten(x, 1)).relu()
        return self.last(x)


def test_the_activation_function_after_a_layer_is_found_even_behind_batch_norm():
    model = built(Named)
    nn.init.uniform_(model.norm.weight, 0.5, 2.0)
    nn.init.uniform_(model.norm.bias, -0.5, 0.5)
    layers = {name: layer for name, layer in model.named_modules()
              if isinstance(layer, nn.Conv2d | nn.Linear)}  # fmt: skip
    x = samples(5, 2, 6, 6)
    found = {"post": {}, "pre": {}}
    for activation, seen in found.items():

        def keep(name, layer, x, a, seen=seen):
            seen[name] = x.clone(), a.clone()

        observe(model, layers, x, keep, activation=activation, batch_size=5)
    with torch.no_grad():
        pre = {"normed": model.normed(x)}
        post = {"normed": torch.relu(model.norm(pre["normed"]))}
        pre["summed"] = post["summed"] = model.summed(post["normed"])
        flat = torch.relu(pre["summed"] + post["normed"]).flatten(1)
        pre["method"] = model.method(flat)
        post["method"] = torch.relu(pre["method"])
        pre["last"] = post["last"] = model.last(post["method"])
    for name in layers:
        assert torch.equal(found["pre"][name][1], pre[name]), name
        assert torch.equal(found["post"][name][1], post[name]), name
    assert torch.equal(found["post"]["summed"][0], post["normed"]), "safe from relu in place"
    assert not torch.equal(post["normed"], pre["normed"])


def test_modes_hooks_and_parameters_are_left_as_they_were_even_on_error():
    model = built(Named)
    model.train()
    model.norm.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    x = samples(4, 2, 6, 6)
    compress.scores(model, "correlation", x)
    with pytest.raises(ArgumentError, match="does not run"):
        compress.scores(model, "correlation", torch.zeros(4, 2, 9, 9))
    assert [module.training for module in model.modules()] == modes
    assert not any(module._forward_hooks for module in model.modules())
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


# Linear layers


def linear_net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(7, 6), nn.ReLU(), nn.Linear(6, 4))


def numpy_linear(model: nn.Sequential, x: torch.Tensor) -> list[np.ndarray]:
    """Return the signed cross blocks of both layers, by numpy alone."""
    w0, b0, w2, b2 = (p.detach().double().numpy() for p in model.parameters())
    x = x.double().numpy()
    h = np.maximum(x @ w0.T + b0, 0)
    y = h @ w2.T + b2
    with np.errstate(invalid="ignore"):
        return [np.nan_to_num(np.corrcoef(h.T, x.T)[:6, 6:]),
                np.nan_to_num(np.corrcoef(y.T, h.T)[:4, 4:])]  # fmt: skip


def test_linear_scores_are_numpys_correlation():
    model, x = built(linear_net), samples(200, 7)
    with torch.no_grad():
        model[0].bias[2] = -100
    expected = numpy_linear(model, x)
    assert np.all(expected[0][2] == 0), "a dead neuron"
    for name, signed in zip(("0", "2"), expected, strict=True):
        found = compress.scores(model, "correlation", x, signed=True)[name]
        np.testing.assert_allclose(found, signed, rtol=0, atol=most_apart(x, model[0], model[2]))
        assert found.dtype == np.float64
        assert (found < -0.05).any()
        plain = compress.scores(model, "correlation", x)[name]
        np.testing.assert_array_equal(plain, np.abs(found))
    dead = compress.scores(model, "correlation", x)
    assert not dead["0"][2].any() and not dead["2"][:, 2].any()


def test_pre_activation_is_another_score():
    model, x = built(linear_net), samples(200, 7)
    y = (x @ model[0].weight.T + model[0].bias).detach().double().numpy()
    expected = np.abs(np.corrcoef(y.T, x.double().numpy().T)[:6, 6:])
    found = compress.scores(model, "correlation", x, activation="pre")["0"]
    np.testing.assert_allclose(found, expected, rtol=0, atol=most_apart(x, model[0]))
    assert np.abs(found - compress.scores(model, "correlation", x)["0"]).max() > 0.01


@pytest.mark.parametrize("size", [1, 7, 200])
def test_the_batch_size_does_not_matter(size):
    model = built(lambda: nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(),
                                        nn.Linear(48, 5)))  # fmt: skip
    x = 5 + samples(60, 2, 6, 6)
    whole = compress.scores(model, "correlation", x, batch_size=60)
    parts = compress.scores(model, "correlation", x, batch_size=size)
    for name in whole:
        # The convolution of another batch size rounds its results otherwise.
        np.testing.assert_allclose(parts[name], whole[name], rtol=0,
                                   atol=most_apart(x, model[0], model[3]))


# Convolutions


def brute_force(layer: nn.Conv2d, x: torch.Tensor, chosen: list[int] | None = None) -> np.ndarray:
    """Sun et al. eq. (2) with np.corrcoef, one pair and one position after another."""
    margins = layer._reversed_padding_repeated_twice
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    padded = functional.pad(x, margins, mode=mode).double().numpy()
    with torch.no_grad():
        a = torch.relu(layer(x)).double().numpy()
    (kh, kw), (sy, sx), (dy, dx) = layer.kernel_size, layer.stride, layer.dilation
    out, channels = layer.out_channels, layer.in_channels // layer.groups
    places = [(y, z) for y in range(a.shape[2]) for z in range(a.shape[3])]
    places = places if chosen is None else [places[index] for index in chosen]
    result = np.zeros((out, channels, kh, kw))
    for o, c, i, j in np.ndindex(*result.shape):
        channel = o // (out // layer.groups) * channels + c
        for y, z in places:
            tap = padded[:, channel, y * sy + i * dy, z * sx + j * dx]
            unit = a[:, o, y, z]
            if tap.std() > 1e-12 and unit.std() > 1e-12:
                result[o, c, i, j] += abs(np.corrcoef(tap, unit)[0, 1])
    return result / len(places)


CONVOLUTIONS = {
    "plain": {"in_channels": 2, "out_channels": 3, "kernel_size": 3},
    "padded": {"in_channels": 2, "out_channels": 3, "kernel_size": 3, "padding": 1},
    "strided": {"in_channels": 2, "out_channels": 2, "kernel_size": (3, 2), "stride": (2, 1),
                "padding": (2, 1)},
    "dilated, same": {"in_channels": 1, "out_channels": 3, "kernel_size": (2, 3),
                      "dilation": (2, 1), "padding": "same"},
    "circular": {"in_channels": 2, "out_channels": 2, "kernel_size": 3, "padding": 1,
                 "padding_mode": "circular"},
    "grouped": {"in_channels": 4, "out_channels": 6, "kernel_size": 3, "groups": 2,
                "padding": "valid"},
    "depthwise": {"in_channels": 3, "out_channels": 6, "kernel_size": 3, "groups": 3,
                  "padding": 1},
}  # fmt: skip


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolution_scores_are_those_of_a_double_loop(name):
    model = built(lambda: nn.Sequential(nn.Conv2d(**CONVOLUTIONS[name]), nn.ReLU()))
    x = samples(25, model[0].in_channels, 5, 6)
    found = compress.scores(model, "correlation", x, batch_size=8)["0"]
    assert found.shape == tuple(model[0].weight.shape)
    np.testing.assert_allclose(found, brute_force(model[0], x), rtol=0,
                               atol=most_apart(x, model[0]))
    assert found.max() > 0.1


def test_several_passes_give_the_same_as_one(monkeypatch):
    model = built(lambda: nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(),
                                        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(),
                                        nn.Linear(64, 5)))  # fmt: skip
    x = samples(40, 2, 6, 6)
    once = compress.scores(model, "correlation", x)
    monkeypatch.setattr(pearson, "ACCUMULATOR_BYTES", 8 * 54 * 10)
    monkeypatch.setattr(pearson, "_PATCH_BYTES", 3000)
    passes = []
    model.register_forward_hook(lambda *_: passes.append(None))
    often = compress.scores(model, "correlation", x)
    # 36 positions of 54 weights, 16 of 108 and one of 320, in blocks of at most 540 numbers.
    assert len(passes) == 1 + 8
    for name in once:
        np.testing.assert_allclose(often[name], once[name], rtol=0,
                                   atol=most_apart(x, model[0], model[2], model[5]))


def test_a_choice_of_positions_is_seeded_and_unbiased():
    model = built(lambda: nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.ReLU()))
    x = samples(30, 2, 6, 6)
    drawn = np.sort(np.random.default_rng(4).choice(36, 5, replace=False)).tolist()
    first = compress.scores(model, "correlation", x, positions=5, seed=4)["0"]
    np.testing.assert_allclose(first, brute_force(model[0], x, drawn), rtol=0,
                               atol=most_apart(x, model[0]))
    again = compress.scores(model, "correlation", x, positions=5, seed=4)["0"]
    np.testing.assert_array_equal(first, again)
    every = compress.scores(model, "correlation", x, positions=100)["0"]
    np.testing.assert_array_equal(every, compress.scores(model, "correlation", x)["0"])
    assert np.abs(first - every).max() > 1e-3


def test_a_convolution_has_no_sign():
    model = built(lambda: nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU()))
    x = samples(30, 2, 6, 6)
    plain = compress.scores(model, "correlation", x)["0"]
    np.testing.assert_array_equal(compress.scores(model, "correlation", x, signed=True)["0"], plain)


# What is refused


class TwoSizes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3)
        self.idle = nn.Linear(3, 3)

    def forward(self, x):
        return self.conv(self.conv(x))


def test_what_cannot_be_meant_is_refused():
    model, x = built(linear_net), samples(10, 7)
    for inputs, count in ((None, 0), (x[:1], 1)):
        with pytest.raises(ValueError, match=rf"needs .* at least 2, and got {count}"):
            compress.scores(model, "correlation", inputs)
    with pytest.raises(ValueError, match="activation must be one of"):
        compress.scores(model, "correlation", x, activation="middle")
    with pytest.raises(ValueError, match="positions must be None or at least 1, not 0"):
        compress.scores(model, "correlation", x, positions=0)
    with pytest.raises(TypeError, match="has no option lag; its options: activation, signed"):
        compress.scores(model, "correlation", x, lag=1)
    model, x = built(TwoSizes), samples(4, 1, 8, 8)
    with pytest.raises(ValueError, match="layer 'idle' never runs"):
        compress.scores(model, "correlation", x)
    with pytest.raises(ValueError, match=r"layer 'conv' makes maps of \(4, 4\) and of \(6, 6\)"):
        compress.scores(model, "correlation", x, layers=["conv"])


def test_the_global_generators_are_not_touched():
    model, x = built(lambda: nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU())), samples(9, 2, 6, 6)
    state = torch.get_rng_state()
    compress.scores(model, "correlation", x, positions=3)
    compress.scores(model, "ae-lip", x)
    assert torch.equal(torch.get_rng_state(), state)


# The sampled selection


def test_sampled_selection_draws_the_papers_shares_from_each_half():
    generator = np.random.default_rng(1)
    signed = generator.uniform(0.1, 1.0, (6, 40)) * np.repeat([1, -1], 20)
    kept = keep_sun2016(signed, np.ones(signed.shape, bool), 96, 0.75, np.random.default_rng(2))
    for row, mask in zip(signed, kept, strict=True):
        for sign in (1, -1):
            order = [k for k in np.argsort(-sign * row) if sign * row[k] > 0]
            # S = 96 / 240, K = 20: 0.75 * 8 of the strong ten and 0.25 * 8 of the weak ten.
            assert mask[order[:10]].sum() == 6
            assert mask[order[10:]].sum() == 2


@pytest.mark.parametrize("strong", [0.0, 0.5, 0.75, 1.0])
@pytest.mark.parametrize("kept", [0, 1, 50, 137, 180, 500])
def test_sampled_selection_keeps_the_asked_number_and_revives_nothing(kept, strong):
    generator = np.random.default_rng(3)
    signed = generator.normal(size=(7, 2, 5, 5))
    signed[:, :, 0] = 0
    alive = generator.random(signed.shape) < 0.6
    living = int(alive.sum())
    mask = keep_sun2016(signed, alive, kept, strong, np.random.default_rng(0))
    assert mask.dtype == bool and mask.shape == signed.shape
    assert mask.sum() == min(kept, living)
    assert not (mask & ~alive).any()
    related = alive & (signed != 0)
    assert not (mask & ~related).any() or (mask & related).sum() == related.sum()


def test_sampled_selection_takes_the_rest_from_the_other_half():
    signed = np.arange(1.0, 11.0)[None]
    mask = keep_sun2016(signed, np.ones((1, 10), bool), 8, 1.0, np.random.default_rng(0))
    assert mask[0, 5:].all() and mask[0, :5].sum() == 3
    mask = keep_sun2016(signed, np.ones((1, 10), bool), 8, 0.0, np.random.default_rng(0))
    assert mask[0, :5].all() and mask[0, 5:].sum() == 3


def test_sampled_selection_follows_its_generator():
    signed = np.random.default_rng(5).normal(size=(9, 30))
    alive = np.ones(signed.shape, bool)
    masks = [keep_sun2016(signed, alive, 60, 0.75, np.random.default_rng(seed))
             for seed in (1, 1, 2)]  # fmt: skip
    np.testing.assert_array_equal(masks[0], masks[1])
    assert (masks[0] != masks[2]).any()
    with pytest.raises(ValueError, match="strong must be 0 to 1, not 1.5"):
        keep_sun2016(signed, alive, 60, 1.5, np.random.default_rng(1))


def test_sampled_selection_through_prune():
    masks = []
    for seed in (3, 3, 4):
        model, x = built(linear_net), samples(200, 7)
        report = compress.prune(model, "correlation", inputs=x, rates={"0": 0.5}, seed=seed,
                                select="sun2016", strong=0.6)  # fmt: skip
        assert report.layers["0"].kept == 21
        assert report.choices["select"] == "sun2016" and report.choices["strong"] == 0.6
        masks.append(model[0].weight.detach().numpy() != 0)
    np.testing.assert_array_equal(masks[0], masks[1])
    assert (masks[0] != masks[2]).any()
    best = np.abs(numpy_linear(built(linear_net), x)[0])
    assert best[~masks[0]].max() > best[masks[0]].min(), "some weak ones stay"
