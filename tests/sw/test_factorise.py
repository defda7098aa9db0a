"""Choosing ranks for whole networks, and replacing layers."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
from torch import nn

from celosia.compress import prune
from celosia.compress.cost import measure
from celosia.compress.lowrank.decomposition import decomposition
from celosia.compress.lowrank.factorise import factorise
from celosia.compress.lowrank.rank_search import Budget
from celosia.compress.lowrank.sites import find_sites
from celosia.compress.lowrank.svd import rank_for_energy, rank_for_speedup, svd_parameters
from celosia.compress.lowrank.tucker import tucker_parameters, tucker_ranks
from celosia.models import VDSR, DnCNN
from low_rank_task import EXAMPLE, Net, task

# Replacing


@pytest.mark.parametrize("scheme", ["channel", "spatial"])
def test_full_ranks_change_nothing_and_names_stay(scheme):
    model = Net().double().eval()
    x = task()[0].double()
    wanted = model(x)
    # A rank that loses nothing saves nothing: make the layers low-rank first.
    factorise(model, EXAMPLE.double(), "svd", ranks={"first": 3, "body.0": 4}, scheme=scheme)
    assert isinstance(model.first, nn.Sequential)
    assert model.alias is model.body[0]
    between = model(x)
    assert not torch.allclose(between, wanted)
    for name in ("first", "body.0"):
        for part in model.get_submodule(name):
            assert isinstance(part, nn.Conv2d)
            assert not part.training


def test_replaced_layers_are_the_best_of_their_rank():
    model = Net().double().eval()
    factor = torch.randn(16, 4).double() @ torch.randn(4, 16 * 9).double()
    with torch.no_grad():
        model.body[0].weight.copy_(factor.reshape(16, 16, 3, 3))
    x = task()[0].double()
    wanted = model(x)
    report = factorise(model, EXAMPLE.double(), "svd", ranks={"body.0": 4})
    torch.testing.assert_close(model(x), wanted, rtol=1e-9, atol=1e-9)
    assert report.layers["body.0"].kept == 4 * (16 * 9 + 16)


def test_counts_are_those_of_the_network_before_and_after():
    model = Net()
    before = measure(model, EXAMPLE)
    report = factorise(model, EXAMPLE, "svd", ranks={"first": 2, "body.0": 3, "last": 1})
    after = measure(model, EXAMPLE)
    assert (report.parameters_before, report.macs_before) == (before.parameters, before.macs)
    assert (report.parameters, report.macs) == (after.parameters, after.macs)
    saved = sum(row.weights - row.kept for row in report.layers.values())
    assert before.parameters - after.parameters == saved
    conv = 64 * (27 * 16 - 2 * (27 + 16)) + 2 * 64 * (16 * 16 * 9 - 3 * (144 + 16))
    assert before.macs - after.macs == conv + 5 * 1024 - (5 + 1024)


def test_layers_that_get_no_smaller_are_left_alone_and_reported():
    model = Net()
    layer = model.first
    report = factorise(model, EXAMPLE, "svd", ranks={"first": 11, "body.0": 3})
    assert model.first is layer
    assert report.layers["first"].ranks is None
    assert report.layers["first"].kept == report.layers["first"].weights == 432
    assert report.layers["first"].reason == "ranks (11,) would save no weights"
    assert report.layers["body.0"].reason == ""
    assert "last" not in report.layers
    with pytest.raises(ValueError, match=r"no layer gets smaller \(first: ranks \(11,\)"):
        factorise(Net(), EXAMPLE, "svd", ranks={"first": 11})


def test_masked_layers_become_plain_products_of_what_they_computed():
    model = Net().double().eval()
    prune(model, "magnitude", rates={"body.0": 0.5})
    twin = copy.deepcopy(model)
    factorise(model, EXAMPLE.double(), "svd", ranks={"body.0": 14})
    assert "alias.0.weight" in model.state_dict()
    assert not [name for name in model.state_dict() if "parametrizations" in name]
    matrix = twin.body[0].weight.detach().reshape(16, -1)
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    first, second = (part.weight.detach() for part in model.body[0])
    wanted = (left[:, :14] * values[:14]) @ right[:14]
    torch.testing.assert_close(second[:, :, 0, 0] @ first.reshape(14, -1), wanted)


# Rules


def test_rules_for_single_layers():
    for rule, value, find in (("energy", 0.6, rank_for_energy), ("speedup", 3, rank_for_speedup)):
        model = Net()
        wanted = {name: (max(find(layer, value), 2 if layer.weight.ndim == 4 else 1),)
                  for name, layer in model.named_modules() if hasattr(layer, "out_channels")
                  or name == "last"}
        report = factorise(model, EXAMPLE, "svd", rule=rule, value=value)
        assert {name: row.ranks for name, row in report.layers.items()
                if row.ranks is not None} == {
            name: ranks for name, ranks in wanted.items()
            if svd_parameters(Net().get_submodule(name), *ranks)
            < Net().get_submodule(name).weight.numel()}
        assert report.choices["rule"] == rule
        assert report.choices["value"] == value


def test_evbmf_with_tucker_and_its_knobs():
    model = DnCNN(layers=4, channels=24)
    random = np.random.default_rng(0)
    kernel = np.einsum("op,pqyx,iq->oiyx", random.normal(size=(24, 5)),
                       random.normal(size=(5, 4, 3, 3)), random.normal(size=(24, 4)))
    with torch.no_grad():
        for name in ("2", "5"):
            model.dncnn.get_submodule(name).weight.copy_(torch.from_numpy(
                kernel + 0.05 * random.normal(size=kernel.shape)))
    example = torch.zeros(1, 1, 8, 8)
    found = {}
    for minimum, weakening in ((1, 1.0), (None, 1.0), (1, 0.9)):
        twin = copy.deepcopy(model)
        skip = ("dncnn.0", "dncnn.8")
        report = factorise(twin, example, "tucker", rule="evbmf", minimum=minimum,
                           weakening=weakening, skip=skip)
        assert list(report.layers) == ["dncnn.2", "dncnn.5"]
        found[minimum, weakening] = report.layers["dncnn.2"].ranks
        for name, row in report.layers.items():
            layer = model.get_submodule(name)
            assert row.ranks == tucker_ranks(layer, weakening, 8 if minimum is None else minimum)
            assert row.kept == tucker_parameters(layer, row.ranks)
            assert len(twin.get_submodule(name)) == 3
    assert found == {(1, 1.0): (5, 4), (None, 1.0): (8, 8), (1, 0.9): (6, 6)}


def test_evbmf_with_svd():
    model = Net()
    random = np.random.default_rng(0)
    matrix = random.normal(size=(16, 3)) @ random.normal(size=(3, 144))
    with torch.no_grad():
        model.body[0].weight.copy_(torch.from_numpy(
            matrix + 0.1 * random.normal(size=(16, 144))).reshape(16, 16, 3, 3))
    report = factorise(model, EXAMPLE, "svd", rule="evbmf", layers=["body.0"])
    assert report.layers["body.0"].ranks == (3,)


@pytest.mark.parametrize("method", ["svd", "tucker"])
@pytest.mark.parametrize("count", ["parameters", "macs"])
@pytest.mark.parametrize("share", [0.3, 0.5])
def test_budgets_are_met_and_hardly_overshot(method, count, share):
    model = VDSR(layers=6, channels=32)
    example = torch.zeros(1, 1, 12, 12)
    budget = {f"{count}_removed": share}
    skip = ("input", "output")
    report = factorise(model, example, method, **budget, skip=skip, minimum=1)
    cost = measure(model, example)
    removed = 1 - getattr(cost, count) / getattr(report, f"{count}_before")
    assert share <= removed < share + 0.06      # one rank of a layer of 32 is 4 %
    larger = {name: tuple(rank + 1 for rank in row.ranks) for name, row in report.layers.items()}
    less = factorise(VDSR(layers=6, channels=32), example, method, ranks=larger)
    assert 1 - getattr(less, count) / getattr(less, f"{count}_before") < share
    assert len({row.ranks for row in report.layers.values()}) == 1


def test_budget_scales_the_ranks_of_a_rule():
    plain = factorise(Net(), EXAMPLE, "svd", rule="energy", value=0.4)
    scaled = factorise(Net(), EXAMPLE, "svd", rule="energy", value=0.4, parameters_removed=0.3)
    assert 1 - scaled.parameters / scaled.parameters_before >= 0.3
    ratios = [row.ranks[0] / plain.layers[name].ranks[0] for name, row in scaled.layers.items()
              if row.ranks and plain.layers[name].ranks]
    assert ratios
    with pytest.raises(ValueError, match=r"at their least ranks remove \d+\.\d% of the macs"):
        factorise(Net(), EXAMPLE, "svd", macs_removed=0.999)


class Mixed(nn.Module):
    """Strides, a dilation, a layer called twice, and a linear layer on each column of a map."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a = nn.Conv2d(3, 16, (3, 5), stride=(1, 2), padding=(1, 2))
        self.b = nn.Conv2d(16, 16, 3, padding=2, dilation=2)
        self.c = nn.Conv2d(16, 20, 3, stride=2)
        self.d = nn.Linear(20, 24)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.d(self.c(self.b(self.b(self.a(x)))).flatten(2).transpose(1, 2))


@pytest.mark.parametrize(("method", "scheme"),
                         [("svd", "channel"), ("svd", "spatial"), ("tucker", "channel")])
@pytest.mark.parametrize("count", ["parameters", "macs"])
def test_what_a_budget_counts_is_what_is_measured(method, scheme, count):
    example = torch.zeros(1, 3, 13, 18)
    model = Mixed()
    before = measure(model, example)
    way = decomposition(method, scheme, minimum=1)
    sites = {name: site for name, site in find_sites(model, example).items()
             if way.takes(site.layer)}
    ranks = {name: way.scaled(site.layer, way.full(site.layer), 0.3)
             for name, site in sites.items()}
    assert sum(site.macs for site in sites.values()) == before.macs - (
        before.layers["d"].macs if method == "tucker" else 0)
    total = getattr(before, count)
    share = Budget(count=count, removed=0.5, total=total).share(way, sites, ranks)
    factorise(model, example, method, ranks=ranks, scheme=scheme)
    assert share * total == pytest.approx(total - getattr(measure(model, example), count))


def rank_of(module: nn.Module) -> float:
    return module[0].weight.shape[0] if isinstance(module, nn.Sequential) else 99


def test_curves_hold_the_other_layers_and_choose_within_the_budget():
    seen = []

    def evaluate(model: nn.Module) -> float:
        ranks = rank_of(model.first), rank_of(model.alias), rank_of(model.last)
        seen.append(ranks)
        assert not model.training
        # The first convolution is worth a tenth a rank below 8, the other a hundredth below 10.
        return 1 - 0.1 * max(0, 8 - ranks[0]) - 0.01 * max(0, 10 - ranks[1])

    model = Net()
    report = factorise(model, EXAMPLE, "svd", rule="curve", evaluate=evaluate,
                       accuracy_budget=0.055)
    assert model.training
    assert all(sum(rank != 99 for rank in ranks) <= 1 for ranks in seen)
    curves = report.choices["curves"]
    assert report.choices["baseline"] == 1.0
    assert list(curves) == ["first", "body.0", "last"]
    assert [ranks for ranks, _ in curves["body.0"]] == [[2], [4], [5], [7], [9], [11], [12], [14]]
    assert curves["body.0"][3][1] == pytest.approx(0.97)
    assert {name: row.ranks for name, row in report.layers.items()} == {
        "first": (8,), "body.0": (5,), "last": (1,)}
    json.dumps(report.choices, allow_nan=False)


def test_a_curve_may_leave_layers_alone_or_meet_a_parameter_budget():
    def evaluate(model: nn.Module) -> float:
        costs = ((model.first, 0.5), (model.alias, 0.02), (model.last, 0.01))
        return 1 - sum(cost for layer, cost in costs if isinstance(layer, nn.Sequential))

    report = factorise(Net(), EXAMPLE, "svd", rule="curve", evaluate=evaluate,
                       accuracy_budget=0.03)
    assert report.layers["first"].ranks is None
    assert report.layers["first"].reason.startswith("every rank that was tried costs more")
    # Only the linear layer, the cheapest, is needed for 40 %; the convolution too for 65 %.
    for share, names in ((0.4, {"last"}), (0.65, {"last", "body.0"})):
        report = factorise(Net(), EXAMPLE, "svd", rule="curve", evaluate=evaluate,
                           parameters_removed=share)
        assert {name for name, row in report.layers.items() if row.ranks} == names
        assert report.parameters <= (1 - share) * report.parameters_before
    with pytest.raises(ValueError, match="at their least ranks remove"):
        factorise(Net(), EXAMPLE, "svd", rule="curve", evaluate=evaluate, parameters_removed=0.99)


# Published counts


@pytest.mark.parametrize("make", [DnCNN, VDSR])
@pytest.mark.parametrize(("rank", "removed"), [(16, 88.0), (18, 85.7), (20, 83.1)])
def test_the_ranks_behind_the_published_ratios(make, rank, removed):
    model = make(layers=17) if make is DnCNN else make(layers=20)
    # The decomposition's values do not matter here: a sparse kernel makes it quick.
    convs = [name for name, layer in model.named_modules()
             if isinstance(layer, nn.Conv2d) and layer.weight.shape[:2] == (64, 64)]
    before = sum(p.numel() for p in model.parameters() if p.ndim == 4)
    with torch.no_grad():
        for name in convs:
            model.get_submodule(name).weight.zero_()
    factorise(model, torch.zeros(1, 1, 4, 4), "tucker", ranks=dict.fromkeys(convs, rank))
    after = sum(p.numel() for p in model.parameters() if p.ndim == 4)
    assert len(convs) == (15 if make is DnCNN else 18)
    assert 100 * (1 - after / before) == pytest.approx(removed, abs=0.06)
