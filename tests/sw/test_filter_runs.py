"""Removing filters from whole networks: published counts, rounds, resuming, and what is left."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

import celosia
from celosia.compress.criteria.scoring import filter_scores
from celosia.compress.filters.prune import prune_filters
from celosia.compress.training.finetune import FineTune
from celosia.models import VGG16, VGG16_PRUNED_A, LeNet5, ResNet
from celosia_spec.errors import ArgumentError

# Published networks


def li_resnet110(rates: tuple[float, float, float], skip: tuple[int, ...]) -> dict[str, float]:
    """Return rates of the first convolutions of blocks; layers count from 1, as in Li et al."""
    return {f"layer{stage + 1}.{block}.conv1": rates[stage]
            for stage in range(3) for block in range(18)
            if 2 * (18 * stage + block) + 2 not in skip}


def test_vgg16_pruned_a_has_the_published_counts():
    model, x = VGG16(), torch.zeros(1, 3, 32, 32)
    convs = [name for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d)]
    report = prune_filters(model, x, "std", rate=dict.fromkeys([convs[0], *convs[7:]], 0.5))
    assert (report.before.macs, report.before.parameters) == (313_463_808, 14_987_210)
    assert (report.after.macs, report.after.parameters) == (206_279_680, 5_396_522)
    assert f"{report.macs_removed:.1%} {report.parameters_removed:.1%}" == "34.2% 64.0%"
    wanted = {name: value.shape for name, value in VGG16(VGG16_PRUNED_A).state_dict().items()}
    assert {name: value.shape for name, value in model.state_dict().items()} == wanted


@pytest.mark.parametrize("rates, skip, widths, macs, parameters, removed", [
    ((0.5, 0, 0), (36,), (8, 32, 64), 212_779_648, 1_688_522, "15.9% 2.3%"),
    ((0.5, 0.4, 0.3), (36, 38, 74), (8, 19, 44), 155_124_352, 1_168_424, "38.7% 32.4%"),
])
def test_resnet110_has_the_published_counts(rates, skip, widths, macs, parameters, removed):
    model, x = ResNet(110, "A"), torch.zeros(1, 3, 32, 32)
    report = prune_filters(model, x, "std", rate=li_resnet110(rates, skip))
    assert (report.before.macs, report.before.parameters) == (252_887_680, 1_727_962)
    assert f"{report.macs_removed:.1%} {report.parameters_removed:.1%}" == removed
    inner = {block: widths[block // 18] for block in range(54) if 2 * block + 2 not in skip}
    wanted = ResNet(110, "A", inner=inner).state_dict()
    assert {n: v.shape for n, v in model.state_dict().items()} == {
        n: v.shape for n, v in wanted.items()}
    assert (report.after.macs, report.after.parameters) == (macs, parameters)


@pytest.mark.parametrize("shortcut", ["A", "B"])
def test_resnet110_loses_the_same_inner_filters_with_either_shortcut(shortcut):
    model = ResNet(110, shortcut)
    report = prune_filters(model, (torch.zeros(1, 3, 32, 32)), "l1", rate=0.3)
    widths = [len(layer.kept) for layer in report.layers.values()]
    assert widths == [11] * 18 + [22] * 18 + [44] * 18
    assert 0.30 < report.macs_removed < 0.32
    assert [model.bn1.num_features, model.layer2[3].bn2.num_features] == [16, 32]


# Rounds


def small_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 10, 3), nn.ReLU(),
        nn.Flatten(), nn.Linear(160, 3))


def small_task() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return (torch.randn(48, 1, 8, 8, generator=generator),
            torch.randint(0, 3, (48,), generator=generator))


def test_rounds_remove_equal_shares_and_indices_count_in_the_first_network():
    model, x = small_net(), small_task()[0][:1]
    first = copy.deepcopy(model)
    seen = []
    report = prune_filters(model, x, "std", rate=0.5, rounds=3, progress=seen.append,
                           finetune=lambda network, round: None)
    one_shot = prune_filters(copy.deepcopy(first), x, "std", rate=0.5)
    assert report.layers["0"] == one_shot.layers["0"], "nothing comes before this layer"
    assert torch.equal(model[0].weight, first[0].weight[list(report.layers["0"].kept)])
    kept = list(report.layers["3"].kept)
    assert torch.equal(model[3].weight, first[3].weight[kept][:, list(report.layers["0"].kept)])
    assert [record.round for record in seen] == [0, 1, 2] and tuple(seen) == report.rounds
    widths = [(int(8 * (1 - share / 6)), int(10 * (1 - share / 6))) for share in (1, 2, 3)]
    macs = [36 * 9 * a + 16 * 9 * a * b + 3 * 16 * b for a, b in widths]
    assert [record.macs for record in seen] == macs
    assert report.after.macs == macs[-1]


def test_the_scores_of_a_later_round_are_those_of_the_trained_network():
    model, x = small_net(), small_task()[0][:1]
    order = np.argsort(filter_scores(model, "l1")["0"])

    def raise_the_weakest(network: nn.Module, round: int) -> None:
        if round == 0:
            network[0].weight.data[0] *= 100

    report = prune_filters(model, x, "l1", rate={"0": 0.5}, rounds=2, finetune=raise_the_weakest)
    assert len(report.layers["0"].kept) == 4
    survivor = min(set(range(8)) - set(order[:2].tolist()))
    assert survivor in report.layers["0"].kept


@pytest.mark.parametrize("budget", [{"rate": 0.5}, {"macs": 0.6, "scope": "global"}])
def test_a_run_that_is_stopped_goes_on_to_the_same_bits(tmp_path, budget):
    inputs, labels = small_task()
    tune = FineTune(inputs=inputs, labels=labels, epochs=1, learning_rate=0.01, batch_size=16)

    def run(folder, stop=None):
        model = small_net()

        def finetune(network: nn.Module, round: int) -> None:
            tune(network, round)
            if round == stop:
                raise KeyboardInterrupt

        report = prune_filters(model, inputs[:1], "std", rounds=3, checkpoint=folder,
                               finetune=finetune, **budget)
        return model, report

    whole, wanted = run(tmp_path / "whole")
    for stop in range(3):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / f"{stop}", stop)
        model, report = run(tmp_path / f"{stop}")
        assert report == wanted
        for name, value in whole.state_dict().items():
            assert torch.equal(model.state_dict()[name], value), (stop, name)
    model, report = run(tmp_path / "whole")
    assert report == wanted
    assert all(torch.equal(model.state_dict()[n], v) for n, v in whole.state_dict().items())
    with pytest.raises(ArgumentError, match="other choices"):
        prune_filters(small_net(), inputs[:1], "l1", rounds=3, checkpoint=tmp_path / "whole",
                      finetune=tune, **budget)


def test_fine_tuning_brings_back_what_pruning_lost():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(256, 1, 8, 8, generator=generator)
    labels = inputs.reshape(256, 2, 4, 8).mean((2, 3)).argmax(1)
    tune = FineTune(inputs=inputs, labels=labels, epochs=8, learning_rate=0.01, batch_size=32)
    model = small_net()
    tune(model, 0)
    bare = copy.deepcopy(model)

    def loss(network: nn.Module) -> float:
        with torch.no_grad():
            return float(nn.functional.cross_entropy(network.eval()(inputs), labels))

    prune_filters(bare, inputs[:1], "l1", macs=0.7)
    prune_filters(model, inputs[:1], "l1", macs=0.7, rounds=2, finetune=tune)
    assert loss(model) < 0.7 * loss(bare)


# What is left is a plain network


@pytest.mark.parametrize("network", ["lenet5", "resnet8"])
def test_the_smaller_network_exports_saves_and_compiles(network, tmp_path):
    torch.manual_seed(0)
    model, shape = ((LeNet5(), (1, 1, 28, 28)) if network == "lenet5"
                    else (ResNet(8, "B"), (1, 3, 32, 32)))
    x = torch.rand(shape)
    prune_filters(model.eval(), x, "std", macs=0.75)
    exported = torch.export.export(model, (x,))
    torch.export.save(exported, tmp_path / "model.pt2")
    loaded = torch.export.load(tmp_path / "model.pt2").module()
    assert torch.equal(loaded(x), model(x))
    program = celosia.compile(model, x, target="ulx3s-85f")
    widths = [layer.out_channels for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    rows = [layer.rows for layer in program.layers if layer.kind == "conv"]
    assert rows == widths
    found = celosia.run(program, x).values
    wanted = model(x).detach().numpy()
    assert np.abs(found - wanted).max() < 0.1 * np.abs(wanted).max() + 0.05
