"""Exact folds leave a network's outputs alone; retrained fusion changes what it says, in order."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from celosia.compress import FineTune, prune
from celosia.compress.fusion.fold import fold_average_pool, fold_batchnorm
from celosia.compress.fusion.fuse import fuse
from celosia.compress.masks.weights import apply_mask, current_mask
from celosia.models import VGG16, DnCNN, LeNet5, ResNet
from celosia_spec.errors import ArgumentError
from tolerance import operations, rounding


def with_statistics(model: nn.Module) -> nn.Module:
    """Give every normalisation statistics and factors as training might."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for part in model.modules():
            if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d) and part.track_running_stats:
                for tensor, start in ((part.running_mean, -0.3), (part.bias, -0.4),
                                      (part.running_var, 0.5), (part.weight, 0.5)):
                    tensor.copy_(start + torch.rand(len(tensor), generator=generator))
    return model


def gap(first: nn.Module, second: nn.Module, x: torch.Tensor) -> float:
    """Return the largest difference of two networks' outputs in eval mode, over the largest.

    Computed in float64, whatever the networks' format: what they are is compared, and not the order
    in which a processor adds.
    """
    with torch.no_grad():
        a, b = (copy.deepcopy(model).eval().double()(x.double()) for model in (first, second))
    assert a.shape == b.shape
    return float((a - b).abs().max() / a.abs().max())


def randn(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(5)).to(dtype)


# Batch normalisation


@pytest.mark.parametrize("make, shape, count", [
    (VGG16, (2, 3, 32, 32), 14),
    (lambda: ResNet(20, "A"), (2, 3, 32, 32), 19),
    (lambda: ResNet(20, "B"), (2, 3, 32, 32), 21),
    (DnCNN, (1, 1, 40, 40), 15),
], ids=["vgg16", "resnet20-a", "resnet20-b", "dncnn"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_batch_normalisation_folds_exactly(make, shape, count, dtype):
    torch.manual_seed(0)
    model = with_statistics(make()).to(dtype)
    folded = copy.deepcopy(model)
    names = fold_batchnorm(folded)
    norms = [name for name, part in model.named_modules()
             if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d)]
    assert sorted(names) == sorted(norms) and len(names) == count
    assert not any(isinstance(p, nn.BatchNorm1d | nn.BatchNorm2d) for p in folded.modules())
    # Each folded weight is rounded once, to the network's format; the rest is float64's.
    most = rounding(count, dtype) + rounding(operations(model))
    assert gap(model, folded, randn(*shape)) <= most
    assert type(folded) is type(model) and folded.state_dict().keys() <= {
        *model.state_dict(), *(name + ".bias" for name, part in folded.named_modules()
                               if isinstance(part, nn.Conv2d | nn.Linear))}


class Branches(nn.Module):
    """Normalisations that cannot be folded, and one that can."""

    def __init__(self) -> None:
        super().__init__()
        self.shared, self.twice, self.plain = (nn.Conv2d(2, 2, 3, padding=1) for _ in range(3))
        self.after_shared, self.after_twice, self.after_plain, self.first = (
            nn.BatchNorm2d(2) for _ in range(4))
        self.batch = nn.BatchNorm2d(2, track_running_stats=False)
        self.last = nn.Conv2d(2, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.shared(self.first(x))
        y = y + self.after_shared(y)
        y = self.after_twice(self.twice(self.twice(y)))
        return self.batch(self.last(torch.relu(self.after_plain(self.plain(y)))))


def test_what_cannot_be_folded_is_left_alone():
    torch.manual_seed(0)
    model = with_statistics(Branches().double())
    folded = copy.deepcopy(model)
    assert fold_batchnorm(folded) == ("after_plain",)
    assert gap(model, folded, randn(2, 2, 6, 6)) <= rounding(operations(model))


def test_folding_keeps_mode_masks_and_frozen_parameters():
    torch.manual_seed(0)
    model = with_statistics(nn.Sequential(nn.Conv2d(1, 3, 3, bias=False), nn.BatchNorm2d(3),
                                          nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2))).train()
    kept = randn(3, 1, 3, 3) > 0
    apply_mask(model[0], kept)
    model[2].requires_grad_(False)
    model[3].eval()
    before = copy.deepcopy(model)
    fold_batchnorm(model)
    assert model.training and model[0].training
    assert torch.equal(current_mask(model[0]), kept)
    assert torch.equal(model[0].weight != 0, kept)
    assert model[0].bias.requires_grad and not model[2].bias.requires_grad
    most = rounding(2, torch.float32) + rounding(operations(before))
    assert gap(before, model, randn(2, 1, 8, 8)) <= most


def test_another_parametrisation_is_refused():
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(1, 2, 3)),
                          nn.BatchNorm2d(2))
    with pytest.raises(ArgumentError, match="layer '0' has a parametrisation other than a mask"):
        fold_batchnorm(model)


class Asks(nn.Module):
    """Its forward depends on values."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(x)) if x.sum() > 0 else x


def test_a_model_that_cannot_be_traced_is_refused_and_keeps_its_modes():
    model = Asks().train()
    model.norm.eval()
    with pytest.raises(ArgumentError, match="Asks.forward cannot be traced by torch.fx"):
        fold_batchnorm(model)
    assert model.training and model.conv.training and not model.norm.training


# Average pools


@pytest.mark.parametrize("kernel, stride, padding, dilation, groups", [
    (3, 1, 1, 1, 1), (3, 1, 0, 1, 1), (5, 2, 2, 1, 1), (3, 2, 1, 2, 1), (1, 1, 0, 1, 1),
    ((3, 2), (1, 2), (2, 0), 1, 2), (3, 1, "same", 1, 1), (3, 2, "valid", 1, 4),
])
@pytest.mark.parametrize("pool, step", [(2, 2), (3, 2), (2, 1), ((1, 3), (2, 1))])
def test_average_pools_fold_exactly(kernel, stride, padding, dilation, groups, pool, step):
    if padding == "same":
        stride = 1
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 4, kernel, stride, padding, dilation, groups)
    model = nn.Sequential(conv, nn.AvgPool2d(pool, step), nn.ReLU()).double()
    folded = fold_average_pool(model)
    assert len([part for part in folded.modules() if isinstance(part, nn.AvgPool2d)]) == 0
    assert len(model) == 3 and isinstance(model[1], nn.AvgPool2d)     # the given one is as it was
    for size in ((17, 16), (12, 13)):
        assert gap(model, folded, randn(2, 4, *size)) <= rounding(operations(folded))


def test_two_pools_and_functions_and_other_borders_fold():
    class Functions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 2, 3, padding=1, padding_mode="reflect", bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return functional.avg_pool2d(functional.avg_pool2d(self.conv(x), 2), 3, stride=1)

    torch.manual_seed(0)
    model = Functions().double()
    folded = fold_average_pool(model)
    assert folded.conv.kernel_size == (3 + 1 + 4,) * 2 and folded.conv.stride == (2, 2)
    assert gap(model, folded, randn(1, 1, 13, 14)) <= rounding(operations(folded))


@pytest.mark.parametrize("between", [
    [nn.ReLU(), nn.AvgPool2d(2)],
    [nn.AvgPool2d(2, ceil_mode=True)],
    [nn.AvgPool2d(2, padding=1)],
    [nn.AvgPool2d(2, padding=1, count_include_pad=False)],
    [nn.AvgPool2d(2, divisor_override=3)],
    [nn.MaxPool2d(2)],
])
def test_pools_that_are_not_linear_or_have_borders_stay(between):
    model = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), *between)
    folded = fold_average_pool(model)
    assert [type(p) for p in folded.children()] == [type(p) for p in model.children()]
    assert gap(model, folded, randn(1, 1, 7, 7)) == 0


def test_fuse_without_finetune_is_exact():
    torch.manual_seed(0)
    model = with_statistics(nn.Sequential(
        nn.Conv2d(1, 3, 3, bias=False), nn.BatchNorm2d(3), nn.AvgPool2d(2), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(27, 4))).double()
    report = fuse(model, randn(1, 1, 14, 14))
    assert report.batch_norms == ("1",) and report.average_pools == ("2",) and not report.merged
    assert gap(model, report.model, randn(3, 1, 14, 14)) <= rounding(operations(report.model))


# Retrained


class Stack(nn.Module):
    """As AlexNet begins: convolution, ReLU, response normalisation, overlapping pool, again."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.LocalResponseNorm(3),
            nn.MaxPool2d(3, 2), nn.Conv2d(4, 6, 3, bias=False), nn.BatchNorm2d(6),
            nn.ReLU(inplace=True), nn.Dropout(0.2), nn.AvgPool2d(2))
        self.last = nn.Linear(24, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.flatten(self.features(x), 1))


def task(model: nn.Module | None = None, **options) -> tuple[nn.Module, FineTune]:
    torch.manual_seed(100)
    model = model or with_statistics(Stack()).eval()
    x = randn(48, 1, 14, 14) if isinstance(model, Stack) else randn(48, 1, 28, 28)
    labels = torch.randint(0, 3, (48,), generator=torch.Generator().manual_seed(1))
    return model, FineTune(inputs=x, labels=labels, batch_size=16, **options)


def test_shapes_order_and_untouched_layers():
    model, tune = task()
    seen = []

    def finetune(current: nn.Module, round: int) -> None:
        seen.append((round, copy.deepcopy(current.state_dict()),
                     [type(p).__name__ for p in current.modules()]))

    report = fuse(model, tune.inputs[:1], finetune=finetune)
    assert [round for round, _, _ in seen] == [0, 1, 2]
    assert [(m.layer, m.removed, m.kernel, m.stride, m.padding) for m in report.merged] == [
        ("features.0", ("features_2", "features_3"), (3, 3), (2, 2), (0, 0)),
        ("features.4", ("features_8",), (3, 3), (2, 2), (0, 0))]
    kinds = [kinds for _, _, kinds in seen]
    assert "LocalResponseNorm" not in kinds[0] and "AvgPool2d" in kinds[0]
    assert "AvgPool2d" not in kinds[1] and "Dropout" in kinds[1]
    folded = copy.deepcopy(model)
    fold_batchnorm(folded)
    before, after = folded.state_dict(), [state for _, state, _ in seen]
    for name in ("features.4.weight", "features.4.bias", "last.weight", "last.bias"):
        assert torch.equal(after[0][name], before[name])
    for name in ("features.0.weight", "last.weight"):
        assert torch.equal(after[1][name], after[0][name])
    assert not torch.equal(after[0]["features.0.weight"], before["features.0.weight"])
    assert not torch.equal(after[1]["features.4.weight"], after[0]["features.4.weight"])
    assert all(torch.equal(after[1][name], after[2][name]) for name in after[1])
    assert report.model(tune.inputs).shape == model(tune.inputs).shape
    assert not report.model.training and not model.training


def test_the_new_layer_starts_as_torch_starts_one():
    model, tune = task()
    report = fuse(model, tune.inputs[:1], finetune=lambda model, round: None, seed=7)
    torch.manual_seed(8)        # seed + the layer's round
    wanted = nn.Conv2d(4, 6, 3, stride=2)
    assert torch.equal(report.model.get_submodule("features.4").weight, wanted.weight)


def test_the_new_layer_learns_ten_times_faster(monkeypatch):
    model, tune = task(learning_rate=1e-3)
    rates = []
    monkeypatch.setattr(FineTune, "__call__",
                        lambda self, model, round: rates.append(dict(self.rate_factors)))
    fuse(model, tune.inputs[:1], finetune=tune)
    assert rates == [{"features.0.": 10.0}, {"features.4.": 10.0}, {}]
    rates.clear()
    fuse(model, tune.inputs[:1], finetune=tune, rate_factor=3, layers=["features.4"])
    assert rates == [{"features.4.": 3}, {}]


def test_a_factor_of_zero_really_reaches_the_layer():
    model, tune = task(weight_decay=0.0)
    states = []
    fuse(model, tune.inputs[:1], layers=["features.0"], rate_factor=0.0, seed=3,
         finetune=FineTune(inputs=tune.inputs, labels=tune.labels, batch_size=16,
                           after_step=lambda m, _: states.append(copy.deepcopy(m.state_dict()))))
    first, third = states[0], states[2]     # three steps with the factor
    assert torch.equal(first["features.0.weight"], third["features.0.weight"])
    assert not torch.equal(first["last.weight"], third["last.weight"])
    assert not torch.equal(third["features.0.weight"], states[-1]["features.0.weight"])


def test_functions_fuse_too_and_any_pruning_follows():
    model, tune = task(LeNet5().train())
    report = fuse(model, tune.inputs[:1], finetune=tune)
    assert [m.layer for m in report.merged] == ["conv1", "conv2"] and report.model.training
    assert report.model.conv1.stride == report.model.conv2.stride == (2, 2)
    assert report.model(tune.inputs).shape == (48, 10)
    assert prune(report.model, "magnitude", rates=0.5).density == pytest.approx(0.5, abs=1e-4)


def test_deterministic_and_global_generator_left_alone():
    model, tune = task()
    torch.manual_seed(11)
    untouched = torch.rand(1)
    found = []
    for _ in range(2):
        torch.manual_seed(11)
        found.append(fuse(model, tune.inputs[:1], finetune=tune, seed=2).model.state_dict())
        assert torch.equal(torch.rand(1), untouched)
    other = fuse(model, tune.inputs[:1], finetune=tune, seed=3).model.state_dict()
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    assert not torch.equal(found[0]["last.weight"], other["last.weight"])


@pytest.mark.parametrize("stop", [0, 1, 2])
def test_a_run_that_is_stopped_goes_on_to_the_same_bits(tmp_path, stop):
    model, tune = task()
    whole = fuse(model, tune.inputs[:1], finetune=tune).model.state_dict()
    calls = []

    class Breaks(FineTune):
        def __call__(self, model: nn.Module, round: int) -> None:
            calls.append(round)
            super().__call__(model, round)
            if round == stop and calls.count(round) == 1:
                raise KeyboardInterrupt

    breaks = Breaks(inputs=tune.inputs, labels=tune.labels, batch_size=16)
    with pytest.raises(KeyboardInterrupt):
        fuse(model, tune.inputs[:1], finetune=breaks, checkpoint=tmp_path)
    found = fuse(model, tune.inputs[:1], finetune=breaks, checkpoint=tmp_path).model.state_dict()
    assert calls == [*range(stop + 1), *range(stop, 3)]
    again = fuse(model, tune.inputs[:1], finetune=breaks, checkpoint=tmp_path).model.state_dict()
    assert len(calls) == 4      # nothing was left to do
    for name, value in whole.items():
        assert torch.equal(value, found[name]) and torch.equal(value, again[name])
    with pytest.raises(ArgumentError, match="rate_factor was 10.0, is 5.0"):
        fuse(model, tune.inputs[:1], finetune=breaks, checkpoint=tmp_path, rate_factor=5.0)


def test_refusals(tmp_path):
    model, tune = task()
    x = tune.inputs[:1]
    with pytest.raises(ArgumentError, match="'last' alone; layers that can take one over: "
                                            "'features.0', 'features.4'"):
        fuse(model, x, finetune=tune, layers=["last"])
    with pytest.raises(ArgumentError, match="give finetune too"):
        fuse(model, x, layers=["features.0"])
    with pytest.raises(ArgumentError, match="give finetune too"):
        fuse(model, x, checkpoint=tmp_path)
    with pytest.raises(ArgumentError, match="any convolution alone.*none, so leave finetune out"):
        fuse(ResNet(8), np.zeros((1, 3, 32, 32), np.float32), finetune=tune)
    odd = nn.Sequential(nn.Conv2d(1, 1, 3), nn.ReLU(), nn.MaxPool2d(3, 2))
    with pytest.raises(ArgumentError, match="layer '0': with the stride 2 no padding turns 13 "
                                            "positions into the 5 that the pool gives"):
        fuse(odd, np.zeros((1, 1, 13, 13), np.float32), finetune=tune)
