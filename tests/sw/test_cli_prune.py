"""``celosia prune``: amounts, orders, data sets, weights, reports, and going on after a stop."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from typer.testing import CliRunner

import celosia
from celosia.cli import app
from celosia.compress.training import journal
from celosia_boards.targets import target
from registered import registered
from rounds_shown import beside_rounds

CLOCK = target("icebreaker").clock_mhz
MODEL = """
import torch

def make():
    torch.manual_seed(1)
    norm = torch.nn.BatchNorm2d(4)
    norm.running_mean[0] = 0.001        # it has seen a batch
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3), norm, torch.nn.ReLU(), torch.nn.Flatten(),
        torch.nn.Linear(4 * 36, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))
"""
SIZES = {"0": 36, "4": 2304, "6": 64}


@pytest.fixture
def folder(network_folder) -> Path:
    return network_folder("cli_prune_net", MODEL)


def invoke(*arguments: object, status: int = 0):
    result = CliRunner().invoke(app, [
        "prune", "cli_prune_net:make", "-o", "pruned.pt2", *map(str, arguments)])
    assert result.exit_code == status, result.output
    return result


def answer(*arguments: object) -> dict:
    result = invoke(*arguments, "--json")
    assert beside_rounds(result.stderr) == ""
    return json.loads(result.stdout)


def kept(result: dict) -> dict[str, int]:
    return {name: layer["kept"] for name, layer in result["layers"].items()}


def test_a_rate_for_each_layer_layer_by_layer(folder):
    result = answer("--rates", "6=0.25,4=0.75", "--order", "backward", "--rounds", 2,
                    "--data", "data.npz", "--epochs", 1)
    assert kept(result) == {"0": 36, "4": 576, "6": 48}
    assert [{name: layer["kept"] for name, layer in record["layers"].items()}
            for record in result["records"]] == [
        {"0": 36, "4": 2304, "6": 56}, {"0": 36, "4": 2304, "6": 48},
        {"0": 36, "4": 1440, "6": 48}, {"0": 36, "4": 576, "6": 48}]
    assert result["rounds"] == 4
    assert result["rate"] is None
    assert result["density"] == (36 + 576 + 48) / sum(SIZES.values())
    choices = result["choices"]
    assert (choices["order"], choices["schedule"]) == ("backward", "linear")
    assert choices["rates"] == {"0": 0.0, "4": 0.75, "6": 0.25}
    assert choices["inputs"] == "pixel / 256"
    assert choices["data"] == "data"
    assert choices["finetune"]["epochs"] == 1


def test_the_search_finds_rates_and_records_its_curves(folder):
    result = answer("--rates", "search", "--accuracy-budget", 0.1, "--data", "data.npz")
    search = result["choices"]["search"]
    assert search["budget"] == 0.1
    assert result["choices"]["search_images"] == 12
    for name, curve in search["curves"].items():
        within = [rate for rate, accuracy in curve if accuracy >= search["baseline"] - 0.1]
        assert search["rates"][name] == max(within, default=0)
        assert kept(result)[name] == SIZES[name] - round(SIZES[name] * search["rates"][name])


def test_a_budget_of_cycles_is_met(folder):
    dense = answer("--rate", 0.0, "--data", "data.npz", "--rounds", 1)["predicted_cycles"]
    budget = int(0.6 * dense)
    result = answer("--budget-cycles", budget, "--data", "data.npz", "--rounds", 2)
    assert 0.9 * budget < result["predicted_cycles"] <= budget
    program = celosia.compile("pruned.pt2", np.zeros((1, 1, 8, 8), np.float32))
    assert program.predicted_cycles == result["predicted_cycles"]
    assert result["choices"]["budget"] == budget
    assert [record["measured"]["predicted_cycles"] for record in result["records"]][-1] <= budget


def test_the_network_is_shown_before_and_after(folder):
    result = answer("--rate", 0.5, "--data", "data.npz", "--rounds", 1)
    before, after = result["network"]["before"], result["network"]["after"]
    example = np.zeros((1, 1, 8, 8), np.float32)
    for found, model in ((before, import_module("cli_prune_net").make()), (after, "pruned.pt2")):
        program = celosia.compile(model, example)
        assert found["predicted_cycles"] == program.predicted_cycles
        assert found["macs"] == sum(layer.macs for layer in program.layers)
        assert found["milliseconds"] == pytest.approx(program.predicted_cycles / (1e3 * CLOCK))
        assert found["per_second"] == pytest.approx(1e6 * CLOCK / program.predicted_cycles)
        assert found["fits"] is True
    assert after["accuracy"] == result["accuracy"]
    assert after["parameters"] == result["parameters"]
    assert before["parameters"] == sum(SIZES.values()) + 4 + 4 + 16 + 4
    shown = invoke("--rate", 0.5, "--data", "data.npz", "--rounds", 1).stdout
    assert max(map(len, shown.splitlines())) <= 80
    for row in ("accuracy", "parameters that are not 0", "multiply-accumulates",
                "cycles on icebreaker", f"ms at {CLOCK:g} MHz", "inferences a second",
                "fits icebreaker"):
        assert row in shown
    assert f"{before['predicted_cycles']:,}" in shown
    assert f"{100 * (after['accuracy'] - before['accuracy']):+.2f} points" in shown


def test_figures_of_a_network_that_does_not_fit_yet(folder):
    """Cycles are told where weights are too many for a target; nothing where there is no program.
    """
    own = target("hx8k")
    small = replace(own.device, array=replace(own.device.array, main_words=256))
    with registered(replace(own, name="small", device=small)):
        result = answer("--rate", 0.9, "--rounds", 1, "--data", "data.npz", "--target", "small")
    before, after = result["network"]["before"], result["network"]["after"]
    assert (before["fits"], after["fits"]) == (False, True)
    assert before["predicted_cycles"] > after["predicted_cycles"] > 0


def test_rounds_are_measured_and_the_last_is_the_result(folder):
    result = answer("--rate", 0.5, "--data", "data.npz", "--rounds", 3, "--epochs", 2,
                    "--learning-rate", 0.01)
    measured = [record["measured"] for record in result["records"]]
    assert result["accuracy"] == measured[-1]["accuracy"]
    assert result["predicted_cycles"] == measured[-1]["predicted_cycles"]
    cycles = [entry["predicted_cycles"] for entry in measured]
    assert cycles == sorted(cycles, reverse=True)
    assert cycles[-1] < cycles[0]
    with np.load("data.npz") as data:
        model = torch.export.load("pruned.pt2").module()
        found = np.concatenate([
            model(torch.from_numpy(image[None, None] / np.float32(256))).detach().numpy().argmax(1)
            for image in data["test_images"]])
        assert result["accuracy"] == (found == data["test_labels"]).mean()


def test_mean_and_deviation_make_the_inputs(folder):
    result = answer("--rate", 0.5, "--data", "data.npz", "--rounds", 1, "--mean", "0.4",
                    "--deviation", "0.25")
    assert result["choices"]["inputs"] == "(pixel / 255 - mean) / deviation"
    assert (result["choices"]["mean"], result["choices"]["deviation"]) == ([0.4], [0.25])
    plain = answer("--rate", 0.5, "--data", "data.npz", "--rounds", 1)
    assert plain["choices"]["start"] != result["choices"]["start"]


def test_weights_of_a_file_are_pruned(folder):
    import importlib

    sys.path.insert(0, str(folder))
    model = importlib.import_module("cli_prune_net").make()
    sys.path.pop(0)
    with torch.no_grad():
        model[4].weight.zero_()
        model[4].weight[:, 0] = torch.arange(1.0, 17.0)
    safetensors.torch.save_file(model.state_dict(), "trained.safetensors")
    result = answer("--rates", "4=0.995", "--weights", "trained.safetensors",
                    "--data", "data.npz", "--rounds", 1, "--learning-rate", 1e-30)
    weight = torch.export.load("pruned.pt2").state_dict["4.weight"]
    assert kept(result)["4"] == 12
    torch.testing.assert_close(weight[4:, 0], torch.arange(5.0, 17.0))
    assert int(weight.count_nonzero()) == 12
    assert result["choices"]["weights"] == "trained.safetensors"
    del (state := model.state_dict())["6.bias"]
    safetensors.torch.save_file(state, "other.safetensors")
    assert "does not fit the model: 6.bias missing" in invoke(
        "--weights", "other.safetensors", status=1).stderr
    Path("other.safetensors").write_bytes(b"nothing of the kind")
    assert "not a readable .safetensors file" in invoke(
        "--weights", "other.safetensors", status=1).stderr


def test_the_report_is_the_result(folder):
    result = answer("--rate", 0.5, "--data", "data.npz", "--report", "result.json")
    assert json.loads(Path("result.json").read_text()) == result
    assert result["rate"] == 0.5
    assert len(result["records"]) == result["rounds"] == 5


RUN = ("--rate", 0.6, "--data", "data.npz", "--rounds", 3, "--checkpoint", "rounds")


def test_the_same_command_goes_on_after_a_stop(folder, monkeypatch):
    answer(*RUN[:-2])
    unbroken = torch.export.load("pruned.pt2").state_dict
    finish = journal.Journal.finish

    def stop(self, record, tensors):
        finish(self, record, tensors)
        if record["round"] == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(journal.Journal, "finish", stop)
    Path("pruned.pt2").unlink()
    assert CliRunner().invoke(app, ["prune", "cli_prune_net:make", "-o", "pruned.pt2",
                                    *map(str, RUN)]).exit_code != 0
    assert not Path("pruned.pt2").exists()
    monkeypatch.setattr(journal.Journal, "finish", finish)
    resumed = invoke(*RUN, "--json")
    assert beside_rounds(resumed.stderr) == (
        "celosia: rounds: 2 of 3 rounds found, going on after them\n")
    assert json.loads(resumed.stdout)["rounds"] == 3
    again = torch.export.load("pruned.pt2").state_dict
    assert again.keys() == unbroken.keys()
    assert all(torch.equal(again[name], unbroken[name]) for name in unbroken)
    changed = invoke(*RUN, "--seed", 1, status=1)
    assert "rounds: holds a run with other choices: finetune.seed was 0, is 1" in changed.stderr


@pytest.mark.parametrize(("arguments", "message"), [
    (("--rate", 0.5, "--rates", "4=0.5"), "--rate and --rates contradict each other"),
    (("--rate", 0.5, "--budget-cycles", 9), "--rate and --budget-cycles contradict each other"),
    (("--budget-cycles", 9, "--order", "forward", "--data", "data.npz"), "leave out --order"),
    (("--budget-cycles", 9, "--data", "data.npz"), "cycles cannot be met"),
    (("--rates", "4:0.5", "--data", "data.npz"), "--rates '4:0.5': give LAYER=RATE with commas"),
    (("--rates", "4=0.5,6=0.1,4=0.9", "--data", "data.npz"), "a layer stands there twice"),
    (("--rates", "4=nan", "--data", "data.npz"), "nan"),
    (("--rates", "fc=0.5", "--data", "data.npz"), "no layer is called 'fc'; layers: '0', '4', '6'"),
    (("--rates", "search", "--data", "data.npz"), "--rates search needs --accuracy-budget, fall"),
    (("--rates", "search", "--accuracy-budget", 0.1), "--rates search needs --data, to measure"),
    (("--accuracy-budget", 0.1, "--data", "data.npz"), "goes with --rates search"),
    (("--mean", "0.5", "--data", "data.npz"), "give both mean and deviation"),
    (("--mean", "a", "--deviation", "1", "--data", "data.npz"), "--mean 'a': give a number"),
    (("--mean", "0.5"), "say how --data becomes inputs"),
    ((), "does not tell its input shape; give --data, or --input-shape C,H,W"),
    (("--input-shape", "1,x"), "--input-shape '1,x': give one to three whole numbers"),
    (("--data", "gone"), "gone: no such file or folder; a data set is"),
    (("--data", "data.npz", "--select", "sun2016"), "goes with method 'correlation' only"),
    (("--data", "data.npz", "--order", "sideways"),
     "order must be one of together, forward, backward, not 'sideways'"),
    (("--data", "data.npz", "--weights", "gone.safetensors"), "gone.safetensors"),
])  # fmt: skip
def test_refusals(folder, arguments, message):
    result = invoke(*arguments, status=1)
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert not Path("pruned.pt2").exists()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_file_that_leaves_sizes_open_is_pruned_as_it_is_compiled(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU()).eval()
    torch.onnx.export(module, (torch.zeros(1, 1, 8, 8),), "open.onnx", dynamo=False,
                      input_names=["x"], dynamic_axes={"x": {2: "h", 3: "w"}})
    wanted = ("prune", "open.onnx", "-o", "pruned.pt2", "--rate", "0.5", "--json")
    refused = CliRunner().invoke(app, wanted)
    assert refused.exit_code == 1 and "tell them with --input-shape" in refused.stderr
    found = CliRunner().invoke(app, [*wanted, "--input-shape", "1,8,8"])
    assert found.exit_code == 0, found.output
    assert torch.export.load("pruned.pt2").example_inputs[0][0].shape == (1, 1, 8, 8)


FIXED = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.conv = torch.nn.Conv2d(1, 4, 3)
        self.head = torch.nn.Linear(4 * 36, 4)

    def forward(self, x):
        return self.head(torch.relu(self.conv(x)).view(1, -1))
"""


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_batch_of_one_in_the_network(network_folder):
    """Of a file it is that of whatever comes; a forward pass that has it is refused, and so is
    data that the network does not take."""
    network_folder("fixed_net", FIXED)
    made: dict = {}
    exec(FIXED, made)
    torch.onnx.export(made["Net"]().eval(), (torch.zeros(1, 1, 8, 8),), "fixed.onnx", dynamo=False)
    data = ("--data", "data.npz", "--epochs", "1")
    pruned = ("prune", "fixed.onnx", *data, "-o", "pruned.pt2", "--rate", "0.5", "--json")
    found = CliRunner().invoke(app, [*pruned])
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout)["density"] == 0.5
    tuned = ("tune", "fixed.onnx", "--data", "data.npz", "-o", "tuned.celo", "--json")
    found = CliRunner().invoke(app, [*tuned])
    assert found.exit_code == 0, found.output
    np.savez("wide.npz", **{f"{split}_{what}": value for split in ("train", "test")
                            for what, value in (("images", np.zeros((4, 9, 9), np.uint8)),
                                                ("labels", np.arange(4)))})
    for command, words in (
            ((*pruned[:1], "fixed_net:Net", *pruned[2:]), "fixed_net:Net: it takes one input at a "
             "time, and --data is run in batches (mat1 and mat2 shapes"),
            ((*tuned[:1], "fixed_net:Net", *tuned[2:]), "; write its forward pass with x.shape[0]"),
            (("prune", "fixed_net:Net", "--data", "wide.npz", *pruned[4:]), "celosia: --data: "
             "inputs of the shape (1, 9, 9), which fixed_net:Net does not take (")):
        refused = CliRunner().invoke(app, [*command])
        assert refused.exit_code == 1 and words in refused.stderr.splitlines()[-1]


BRANCHES = """
import torch

class Branches(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = torch.nn.Linear(64, 4)

    def forward(self, x):
        y = self.fc(x.flatten(1))
        return y if y.sum() > 0 else -y

make = Branches
"""


def test_a_network_that_could_not_be_saved_is_refused_before_it_is_trained(
    network_folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = network_folder("cli_prune_net", BRANCHES)
    monkeypatch.setattr("celosia.cli.network.trainer", lambda *_: pytest.fail("trained"))
    result = invoke("--rate", 0.5, "--data", "data.npz", status=1)
    assert result.stderr == (
        "celosia: model (torch.export): the model cannot be exported, a branch depends on the "
        "values of a tensor; compute the same for every input [cli_prune_net.py:11: return y if "
        "y.sum() > 0 else -y]\n")
    assert not (folder / "pruned.pt2").exists()


EXPORTED = """
import torch

def make():
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 4))
    return torch.export.export(net, (torch.zeros(1, 1, 8, 8),)).module()
"""


@pytest.mark.parametrize("command", [("prune", "--rate", "0.5"),
                                     ("factorise", "--ranks", "fc=2")])
def test_a_module_of_an_exported_program_is_refused(network_folder, command) -> None:
    network_folder("cli_prune_net", EXPORTED)
    result = CliRunner().invoke(app, [command[0], "cli_prune_net:make", "-o", "pruned.pt2",
                                      *command[1:], "--data", "data.npz"])
    assert result.exit_code == 1
    assert result.stderr == (
        "celosia: 'the model' was made by torch.export, has one mode and no layers; give the "
        "torch.nn.Module that was exported\n")
