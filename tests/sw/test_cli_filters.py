"""``celosia prune``: whole filters, masks, both halves, fusion, and options of the methods."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import celosia
from celosia.cli import app, options
from celosia.compress.options import Option
from celosia.compress.training import journal
from rounds_shown import beside_rounds

MODEL = """
import torch

def make():
    torch.manual_seed(1)
    norm = torch.nn.BatchNorm2d(8)
    norm.running_var.uniform_(0.5, 2)
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 8, 3), norm, torch.nn.ReLU(),
        torch.nn.Conv2d(8, 8, 3), torch.nn.ReLU(), torch.nn.MaxPool2d(2),
        torch.nn.Flatten(), torch.nn.Linear(8 * 4, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))

def still():
    torch.manual_seed(1)
    return torch.nn.Sequential(torch.nn.Conv2d(1, 8, 3, bias=False), torch.nn.AvgPool2d(2),
                               torch.nn.Flatten(), torch.nn.Linear(8 * 9, 4))
"""
SIZES = {"0": 72, "3": 576, "7": 512, "9": 64}
MACS = {"0": 72 * 36, "3": 576 * 16, "7": 512, "9": 64}
MASKS = ("--method", "mask", "--data", "data.npz", "--strength", 0.01)
BOTH = ("--method", "combined", "--data", "data.npz", "--strength", 0.01, "--macs-removed", 0.5)


@pytest.fixture
def folder(network_folder) -> Path:
    return network_folder("cli_filters_net", MODEL)


def invoke(*arguments: object, status: int = 0, model: str = "make"):
    result = CliRunner().invoke(app, [
        "prune", f"cli_filters_net:{model}", "-o", "pruned.pt2", *map(str, arguments)])
    assert result.exit_code == status, result.output
    return result


def answer(*arguments: object, model: str = "make") -> dict:
    result = invoke(*arguments, "--json", model=model)
    told = beside_rounds(result.stderr)
    assert told.startswith("celosia: the weights look untrained" * (model == "still"))
    assert told.count("\n") == (model == "still")
    return json.loads(result.stdout)


def original(name: str = "make") -> torch.nn.Module:
    sys.path.insert(0, str(Path.cwd()))
    try:
        return getattr(importlib.import_module("cli_filters_net"), name)().eval()
    finally:
        sys.path.pop(0)


def state() -> dict[str, torch.Tensor]:
    return torch.export.load("pruned.pt2").state_dict


def measured_accuracy() -> float:
    model = torch.export.load("pruned.pt2").module()
    with np.load("data.npz") as data:
        found = [model(torch.from_numpy(image[None, None] / np.float32(256))).detach().argmax(1)
                 for image in data["test_images"]]
        return float((torch.cat(found).numpy() == data["test_labels"]).mean())


def kept_weights(result: dict) -> dict[str, int]:
    return {name: layer["kept"] for name, layer in result["layers"].items()}


def kept_filters(result: dict) -> dict[str, int]:
    return {name: len(layer["kept"]) for name, layer in result["filters"].items()}


@pytest.mark.parametrize(("method", "score"), [
    ("std", lambda weight: weight.reshape(8, -1).std(1)),
    ("l1", lambda weight: np.abs(weight).reshape(8, -1).sum(1)),
])  # fmt: skip
def test_filters_with_the_lowest_scores_go(folder, method, score):
    result = answer("--method", method, "--rate", 0.25, "--data", "data.npz",
                    "--learning-rate", 1e-30)
    for name, layer in result["filters"].items():
        weight = original().get_submodule(name).weight.detach().double().numpy()
        assert layer == {"filters": 8, "kept": sorted(np.argsort(score(weight))[2:].tolist())}
    kept = {"0": 54, "3": 6 * 6 * 9, "7": 6 * 4 * 16, "9": 64}
    assert result["layers"] == {name: {"weights": SIZES[name], "kept": kept[name]}
                                for name in SIZES}
    assert {name: tuple(state()[f"{name}.weight"].shape) for name in "037"} == {
        "0": (6, 1, 3, 3), "3": (6, 6, 3, 3), "7": (16, 24)}
    assert result["density"] == sum(kept.values()) / sum(SIZES.values())
    assert result["after"]["macs"] == 54 * 36 + 6 * 6 * 9 * 16 + 6 * 4 * 16 + 64
    assert result["before"]["macs"] == sum(MACS.values())
    assert (result["method"], result["rate"], result["rounds"]) == (method, 0.25, 1)
    assert result["records"] == [{
        "round": 0, "rounds": 1, "macs": result["after"]["macs"],
        "parameters": result["after"]["parameters"],
        "measured": {"accuracy": result["accuracy"],
                     "predicted_cycles": result["predicted_cycles"]}}]
    assert result["accuracy"] == measured_accuracy()
    assert result["choices"]["model"] == "cli_filters_net:make"
    assert result["choices"]["fusion"] is None
    program = celosia.compile("pruned.pt2", np.zeros((1, 1, 8, 8), np.float32))
    assert program.predicted_cycles == result["predicted_cycles"]


def test_rates_of_layers_and_rounds(folder):
    result = answer("--method", "l1", "--rates", "3=0.5", "--rounds", 2, "--data", "data.npz")
    assert kept_filters(result) == {"0": 8, "3": 4}
    assert [record["round"] for record in result["records"]] == [0, 1]
    assert result["records"][0]["macs"] > result["records"][1]["macs"] == result["after"]["macs"]
    assert result["rate"] is None


@pytest.mark.parametrize(("kind", "cost"), [
    ("macs", lambda k: 9 * k * 36 + 9 * k * k * 16 + 4 * k * 16 + 64),
    ("parameters", lambda k: 9 * k + 3 * k + 9 * k * k + k + 4 * k * 16 + 16 + 64 + 4),
])  # fmt: skip
def test_the_smallest_rate_that_meets_a_target_is_taken(folder, kind, cost):
    result = answer("--method", "std", f"--{kind}-removed", 0.4, "--data", "data.npz")
    kept = max(k for k in range(9) if cost(k) <= 0.6 * cost(8))
    assert kept_filters(result) == {"0": kept, "3": kept}
    assert result["before"][kind] == cost(8)
    assert result["after"][kind] == cost(kept)


def test_masks_are_trained_folded_and_removed(folder):
    result = answer(*MASKS, "--macs-removed", 0.5, "--epochs", 3, "--optimizer", "sgd",
                    "--learning-rate", 0.05, "--option", "step=proximal")
    choices = result["choices"]
    assert (choices["step"], choices["on"], choices["strength"]) == ("proximal", "mask", 0.01)
    assert choices["train"]["optimizer"] == choices["finetune"]["optimizer"] == "sgd"
    assert choices["train"]["epochs"] == 3
    assert choices["scope"] == "global"
    assert result["after"]["macs"] <= 0.5 * result["before"]["macs"]
    assert kept_filters(result) == {name: len(state()[f"{name}.weight"]) for name in "03"}
    assert not any("mask" in name or "parametrizations" in name for name in state())
    assert result["accuracy"] == measured_accuracy()
    assert choices["data"] == "data"


def test_combined_prunes_both_halves(folder):
    result = answer(*BOTH, "--rates", "7=0.75", "--rounds", 2, "--scope", "layer",
                    "--option", "activation=pre")
    filters = kept_filters(result)
    rest = filters["3"] * 4 * 16
    kept = {"0": filters["0"] * 9, "3": filters["0"] * filters["3"] * 9,
            "7": rest - round(0.75 * rest), "9": 64}
    assert kept_weights(result) == kept
    assert result["density"] == sum(kept.values()) / sum(SIZES.values())
    assert int(state()["7.weight"].count_nonzero()) == kept["7"]
    assert [record["stage"] for record in result["records"]] == ["convolutions"] + 2 * ["linear"]
    assert result["records"][-1]["density"] == result["density"]
    assert result["after"]["conv_macs"] <= 0.5 * result["before"]["conv_macs"]
    assert result["choices"]["weights"] is None
    assert result["choices"]["linear"]["options"]["activation"] == "pre"
    assert result["choices"]["linear"]["method"] == "correlation"
    assert result["choices"]["convolutions"]["strength"] == 0.01
    assert result["choices"]["convolutions"]["scope"] == "layer"
    assert result["accuracy"] == measured_accuracy()


@pytest.mark.parametrize("arguments", [
    ("--method", "std", "--rate", 0.5, "--rounds", 2, "--data", "data.npz"),
    (*MASKS, "--rate", 0.5),
    (*BOTH, "--rate", 0.5),
    ("--fuse-retrained", "all", "--rate", 0.5, "--rounds", 2, "--data", "data.npz"),
], ids=["std", "mask", "combined", "fused"])  # fmt: skip
def test_every_method_goes_on_after_a_stop(folder, monkeypatch, arguments):
    whole = answer(*arguments)
    unbroken = state()
    finish = journal.Journal.finish

    def stop(self, record, tensors):
        finish(self, record, tensors)
        raise KeyboardInterrupt

    monkeypatch.setattr(journal.Journal, "finish", stop)
    assert CliRunner().invoke(app, ["prune", "cli_filters_net:make", "-o", "stopped.pt2",
                                    *map(str, arguments), "--checkpoint", "kept"]).exit_code != 0
    assert not Path("stopped.pt2").exists()
    calls = []

    def count(self, record, tensors):
        calls.append(record)
        finish(self, record, tensors)

    monkeypatch.setattr(journal.Journal, "finish", count)
    resumed = json.loads(invoke(*arguments, "--checkpoint", "kept", "--json").stdout)
    monkeypatch.setattr(journal.Journal, "finish", finish)
    again = json.loads(invoke(*arguments, "--checkpoint", "kept", "--json").stdout)
    assert calls
    for result in (resumed, again):
        assert result["choices"] == whole["choices"]
        assert result["accuracy"] == whole["accuracy"]
        assert len(result["records"]) == len(whole["records"])
    assert state().keys() == unbroken.keys()
    assert all(torch.equal(state()[name], unbroken[name]) for name in unbroken)


def test_fusing_is_exact(folder):
    """With nothing removed the outputs stay."""
    x = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    for model, norms, pools in (("make", ["1"], []), ("still", [], ["1"])):
        result = answer("--fuse", "--rate", 0, "--data", "data.npz", "--learning-rate", 1e-30,
                        "--rounds", 1, model=model)
        fused = torch.export.load("pruned.pt2").module()
        assert result["choices"]["fusion"] == {"batch_norms": norms, "average_pools": pools,
                                               "left": {}, "merged": []}
        expected = original(model)(x)
        for index in range(len(x)):
            torch.testing.assert_close(fused(x[index:index + 1]), expected[index:index + 1])
    assert result["layers"]["0"]["weights"] == 8 * 16      # 3 x 3, pooled 2 x 2, is 4 x 4
    assert state()["0.weight"].shape == (8, 1, 4, 4)


def test_a_fused_network_loses_filters(folder):
    result = answer("--fuse", "--method", "std", "--rate", 0.5, "--data", "data.npz")
    assert kept_filters(result) == {"0": 4, "3": 4}
    assert "1.weight" not in state()
    assert result["accuracy"] == measured_accuracy()


def test_retrained_fusion_moves_the_stride(folder):
    result = answer("--fuse-retrained", "3", "--rate", 0.5, "--data", "data.npz", "--epochs", 2)
    (merged,) = result["choices"]["fusion"]["merged"]
    assert (merged["layer"], merged["stride"]) == ("3", [2, 2])
    assert result["choices"]["fusion"]["finetune"]["epochs"] == 2
    program = celosia.compile("pruned.pt2", np.zeros((1, 1, 8, 8), np.float32))
    assert program.predicted_cycles == result["predicted_cycles"]
    assert sum(layer.macs for layer in program.layers) == result["macs"] < sum(MACS.values()) / 2


def test_options_of_a_criterion(folder):
    run = ("--method", "ae-lip", "--rates", "7=0.5", "--data", "data.npz", "--learning-rate", 1e-30,
           "--rounds", 2)
    result = answer(*run, "--option", "score=normalised_sum", "--option", "intervals=32",
                    "--option", "schedule=linear")
    assert result["choices"]["options"]["score"] == "normalised_sum"
    assert result["choices"]["options"]["intervals"] == 32
    assert result["choices"]["schedule"] == "linear"
    assert kept_weights(result)["7"] == 256
    plain = answer(*run)
    assert plain["choices"]["options"] == result["choices"]["options"] | {
        "score": "product", "intervals": 16}
    assert plain["choices"]["schedule"] == "cubic"


def test_layers_that_are_left_alone_by_an_option(folder):
    result = answer("--method", "std", "--rate", 0.5, "--data", "data.npz",
                    "--option", "ignore=0", "--option", "constants=drop", "--learning-rate", 1e-30)
    assert result["skipped"]["0"] == "named in `ignore`" and "0" not in result["filters"]
    assert result["choices"]["constants"] == "drop"


def test_values_of_options():
    known = {name: Option(name, kind, None) for name, kind in {
        "word": str, "flag": bool, "count": int, "share": float, "most": int | None,
        "any": str | None, "names": tuple[str, ...]}.items()}
    read = lambda *texts: options.read_settings("m", texts, known)
    assert read("word=3", "flag=true", "count=4", "share=1", "any=x=y", "most=7") == {
        "word": "3", "flag": True, "count": 4, "share": 1.0, "any": "x=y", "most": 7}
    assert type(read("share=1")["share"]) is float
    assert read("names=conv1, conv2") == {"names": ("conv1", "conv2")}
    for text in ("flag=1", "count=0.5", "most=0.5", "share=inf", "share=", "word", "other=1"):
        with pytest.raises(celosia.CelosiaError, match="option"):
            read(text)
    with pytest.raises(celosia.CelosiaError, match="given twice"):
        read("count=1", "count=2")


def test_what_is_shown(folder):
    shown = invoke("--method", "std", "--rate", 0.25, "--data", "data.npz").stdout
    assert "multiply-accumulates of 12,384 without the filters" in shown
    assert "accuracy" in shown and "wrote pruned.pt2" in shown


@pytest.mark.parametrize(("arguments", "message"), [
    (("--method", "std", "--rate", 0.5, "--budget-cycles", 9),
     "--budget-cycles does not go with --method std; it goes with magnitude, ae-lip, correlation"),
    (("--method", "l1", "--rate", 0.5, "--select", "sun2016"), "--select does not go with"),
    (("--method", "std", "--strength", 1), "--strength does not go with --method std; it goes with "
                                           "mask, combined"),
    (("--macs-removed", 0.5), "--macs-removed does not go with --method magnitude; it goes with "
                              "std, l1, mask, combined"),
    (("--method", "std"), "give one of --rate, --macs-removed, --parameters-removed, --rates"),
    (("--method", "std", "--rate", 0.5, "--macs-removed", 0.5),
     "--rate and --macs-removed contradict each other"),
    (("--method", "std", "--rates", "search"),
     "--rates search does not go with --method std; it goes with magnitude, ae-lip, correlation"),
    (("--method", "std", "--rate", 1.5), "rate must be at least 0 and below 1, not 1.5"),
    (("--method", "std", "--rate", 0.5, "--option", "on=gamma"),
     "method 'std' has no option 'on'; its options: coupled, ignore, constants"),
    (("--method", "mask", "--rate", 0.5), "--method mask needs --strength, the factor"),
    ((*MASKS, "--rounds", 2, "--rate", 0.5), "--rounds does not go with --method mask"),
    ((*MASKS[:4], "--strength", -1, "--rate", 0.5), "strength must be above 0"),
    ((*MASKS, "--rate", 0.5, "--option", "step=none"), "step must be one of"),
    (BOTH[:-2], "--method combined needs --macs-removed"),
    ((*BOTH, "--parameters-removed", 0.5), "--parameters-removed does not go with"),
    ((*BOTH, "--rates", "9=0.5"), "layer '9' gives the classes"),
    (("--method", "ae-lip", "--option", "depth=2"),
     "method 'ae-lip' has no option 'depth'; its options: score, intervals, samples, span, "
     "batch_size, schedule, strong"),
    (("--method", "ae-lip", "--option", "intervals=many"), "intervals=many: give a whole number"),
    (("--fuse-retrained", "0"), "follows '0' alone; layers that can take one over: '3'"),
    (("--optimizer", "adam"), "optimizer must be one of adamw, sgd, not 'adam'"),
])  # fmt: skip
def test_refusals(folder, arguments, message):
    data = () if "--data" in arguments else ("--data", "data.npz")
    result = invoke(*arguments, *data, status=1)
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert not Path("pruned.pt2").exists()


@pytest.mark.parametrize(("arguments", "message"), [
    (("--method", "mask", "--strength", 1, "--rate", 0.5), "needs --data, to train the masks on"),
    (("--epochs", 2), "--epochs say how to retrain on --data"),
    (("--fuse-retrained", "all"), "--fuse-retrained say how to retrain on --data"),
])  # fmt: skip
def test_what_needs_data(folder, arguments, message):
    assert message in invoke(*arguments, status=1).stderr
