"""Pruning of networks over lines: `Conv1d` layers lose weights, other layers are named."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import celosia
from celosia import compress
from celosia.cli import app
from celosia.compress.criteria.statistics import patches
from celosia.compress.layers import left_alone, prunable_layers
from celosia.compress.masks.weights import apply_mask, current_mask
from celosia.compress.training.finetune import FineTune
from celosia.compress.weights.cycles import prune_to_cycles
from celosia.compress.weights.prediction import Predictor, cycle_costs
from celosia.models.ecg import ECGNet
from celosia_spec.errors import ArgumentError

X = torch.zeros(1, 2, 64)
INPUTS = torch.randn(48, 2, 64, generator=torch.Generator().manual_seed(3))
LABELS = torch.arange(48) % 5
CONVOLUTIONS = ("0", "2", "5")


def net() -> nn.Sequential:
    """One convolution is dilated, one has groups."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv1d(2, 16, 5, padding=2), nn.ReLU(), nn.Conv1d(16, 24, 5, dilation=2), nn.ReLU(),
        nn.MaxPool1d(2), nn.Conv1d(24, 24, 3, stride=2, groups=2), nn.ReLU(), nn.Flatten(),
        nn.Linear(24 * 13, 20), nn.ReLU(), nn.Linear(20, 5)).eval()


def upsampled() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv1d(2, 8, 3, padding=1), nn.ReLU(),
                         nn.ConvTranspose1d(8, 4, 2, stride=2)).eval()


def compiled(model: nn.Module, x: torch.Tensor = X) -> int:
    return celosia.compile(model, x, target="icebreaker").predicted_cycles


@pytest.mark.parametrize("method", ["magnitude", "correlation", "ae-lip"])
def test_a_rate_takes_weights_of_every_layer(method):
    model = net()
    before = compiled(model)
    report = compress.prune(model, method, rates=0.75,
                            inputs=None if method == "magnitude" else INPUTS)
    assert list(report.layers) == [*CONVOLUTIONS, "8", "10"] and not report.skipped
    for name, layer in report.layers.items():
        zeros = int((model.get_submodule(name).weight == 0).sum())
        assert zeros == layer.weights - layer.kept == round(0.75 * layer.weights)
    assert compiled(model) == Predictor(X, target="icebreaker")(model).cycles < 0.7 * before


@pytest.mark.parametrize("lockstep", [True, False])
def test_a_budget_of_cycles_is_met_by_all_layers(lockstep):
    model = net()
    before = compiled(model)
    report = prune_to_cycles(model, example_input=X, budget=before // 2, target="icebreaker",
                             lockstep=lockstep)
    assert 0.47 * before < report.cycles == compiled(model) <= before // 2
    assert report.dense_cycles == before
    assert report.layers["2"].density < 0.6


def test_masks_hold_in_training_between_the_rounds():
    model = net()
    start = {name: model.get_submodule(name).weight.detach().clone() for name in CONVOLUTIONS}
    report = compress.prune(model, "magnitude", rates=0.6, rounds=2,
                            finetune=FineTune(
                                inputs=INPUTS, labels=LABELS, epochs=2, learning_rate=0.05))
    assert report.density == pytest.approx(0.4, abs=1e-3)
    FineTune(inputs=INPUTS, labels=LABELS, epochs=1, learning_rate=0.05)(model, 0)
    for name, weight in start.items():
        layer = model.get_submodule(name)
        mask = current_mask(layer)
        assert not layer.weight[~mask].any() and (layer.weight != weight)[mask].all()
        assert int(mask.sum()) == report.layers[name].kept


def test_a_weight_costs_the_passes_of_its_layer():
    model = net()
    costs = cycle_costs(model, X, target="icebreaker")
    assert {name: cost.shape for name, cost in costs.items()} == {
        name: (len(layer.weight), *[1] * (layer.weight.ndim - 1))
        for name, layer in prunable_layers(model).items()}
    assert costs["2"].max() > costs["8"].max() > 0


def test_the_heartbeat_network_comes_to_half_of_its_cycles():
    torch.manual_seed(0)
    model, x = ECGNet().eval(), torch.zeros(1, 1, 187)
    before = compiled(model, x)
    report = prune_to_cycles(model, example_input=x, budget=before // 2, target="icebreaker")
    compress.make_permanent(model)
    assert report.cycles == compiled(model, x) <= before // 2


@pytest.mark.parametrize("conv", [
    nn.Conv1d(4, 6, 3, stride=2, padding=2, dilation=2), nn.Conv1d(4, 6, 4, groups=2),
    nn.Conv1d(4, 6, 4, padding="same", dilation=2), nn.Conv1d(4, 6, 3, padding="valid"),
    nn.Conv1d(4, 6, 5, padding=2, padding_mode="reflect")], ids=str)
def test_patches_of_a_line_are_what_its_outputs_see(conv):
    x = torch.randn(3, 4, 15)
    out = conv(x)
    seen = patches(conv, x, torch.arange(out.shape[2]))
    weight = conv.weight.flatten(1).unflatten(0, (conv.groups, -1))
    made = torch.einsum("npgk,gok->ngop", seen, weight).flatten(1, 2) + conv.bias[:, None]
    torch.testing.assert_close(made, out)


def test_costs_of_lines_are_counted():
    cost = compress.measure(net(), X)
    assert {name: (layer.weights, layer.positions) for name, layer in cost.layers.items()} == {
        "0": (160, 64), "2": (1920, 56), "5": (864, 13), "8": (6240, 1), "10": (100, 1)}


# Layers that are left alone are named

def test_layers_of_other_kinds_are_named_with_the_reason():
    model = nn.ModuleDict({
        "a": nn.Conv1d(2, 3, 3), "b": nn.ConvTranspose2d(2, 3, 3), "c": nn.Embedding(4, 3),
        "d": nn.LayerNorm((3, 4)), "e": nn.PReLU(3), "f": nn.LSTM(3, 4), "g": nn.Conv3d(1, 1, 1)})
    nn.utils.parametrizations.weight_norm(model["b"])
    apply_mask(model["a"], torch.ones(3, 2, 3) > 0)
    assert {name: why.partition(";")[0] for name, why in left_alone(model).items()} == {
        "b": "is a ParametrizedConvTranspose2d", "c": "is a Embedding", "f": "is a LSTM",
        "g": "is a Conv3d"}


def test_reports_and_budgets_name_what_keeps_its_weights():
    model = upsampled()
    report = compress.prune(copy.deepcopy(model), "magnitude", rates=0.5)
    assert list(report.layers) == ["0"] and list(report.skipped) == ["2"]
    assert report.skipped["2"].startswith("is a ConvTranspose1d; ")
    with pytest.raises(ArgumentError, match="fewest weights .*; layer '2' keeps all of its "
                                            "weights, as it is a ConvTranspose1d"):
        prune_to_cycles(model, example_input=X, budget=100, target="icebreaker")


def test_filters_and_low_rank_say_why_they_leave_lines_alone():
    def make() -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(),
            nn.Flatten(2), nn.Conv1d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 34, 16),
            nn.ReLU(), nn.Linear(16, 4)).eval()

    x = torch.zeros(1, 1, 6, 6)
    filters = compress.prune_filters(make(), x, "l1", rate=0.25)
    assert filters.skipped["5"] == "is a Conv1d; filters go from Conv2d layers"
    assert filters.before.conv_macs == 36 * (72 + 576) + 34 * 192
    for method, others in (("svd", ["5"]), ("tucker", ["5", "8", "10"])):
        found = compress.factorise(make(), x, method, parameters_removed=0.02, minimum=1)
        reasons = {name: row.reason for name, row in found.layers.items()}
        assert reasons["5"] == f"is a Conv1d, which '{method}' does not decompose"
        assert [name for name, why in reasons.items() if "does not decompose" in why] == others
    with pytest.raises(ArgumentError, match="'svd' has no decomposition for layer '5'"):
        compress.factorise(make(), x, "svd", ranks={"5": 2})


def test_fusion_says_why_pools_stay_behind_lines():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv1d(2, 4, 3), nn.BatchNorm1d(4), nn.AvgPool1d(2), nn.Conv1d(4, 4, 3), nn.ReLU(),
        nn.MaxPool1d(2), nn.Unflatten(2, (1, -1)), nn.Conv2d(4, 3, (1, 3)),
        nn.MaxPool2d((1, 2))).eval()
    exact = compress.fuse(model, X)
    assert exact.batch_norms == ("1",)
    assert exact.left == {"0": "is a Conv1d; pools go into Conv2d layers"}
    retrained = compress.fuse(model, X, finetune=lambda net, index: None)
    assert [layer.layer for layer in retrained.merged] == ["7"]
    assert list(retrained.left) == ["0", "3"]


def test_the_command_names_them(network_folder, tmp_path):
    network_folder("cli_lines_net", """
import torch

def make():
    torch.manual_seed(1)
    return torch.nn.Sequential(torch.nn.Conv1d(2, 8, 3, padding=1), torch.nn.ReLU(),
                               torch.nn.ConvTranspose1d(8, 4, 2, stride=2))
""")
    common = ["prune", "cli_lines_net:make", "--input-shape", "2,16", "-o",
              str(tmp_path / "lines.pt2"), "--rate", "0.5"]
    told = CliRunner().invoke(app, [*common, "--json"])
    assert told.exit_code == 0, told.output
    result = json.loads(told.stdout)
    assert result["layers"] == {"0": {"weights": 48, "kept": 24}}
    assert result["skipped"]["2"].startswith("is a ConvTranspose1d")
    shown = CliRunner().invoke(app, common)
    assert "left alone because" in shown.output and "ConvTranspose1d" in shown.output
