"""``celosia factorise``: rules, budgets, ranks, reports, and going on after a stop."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import celosia
from celosia.cli import app
from celosia_boards.targets import target
from rounds_shown import beside_rounds

MODEL = """
import torch

def make():
    torch.manual_seed(1)
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 12, 3), torch.nn.ReLU(), torch.nn.Conv2d(12, 12, 3), torch.nn.ReLU(),
        torch.nn.Flatten(), torch.nn.Linear(12 * 16, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))
"""
CLOCK = f"ms at {target('ulx3s-85f').clock_mhz:g} MHz"
UNTRAINED = ("celosia: the weights look untrained, every layer's are as torch draws them; give a "
             "trained model, or its weights with --weights\n")


@pytest.fixture
def folder(network_folder) -> Path:
    return network_folder("cli_factorise_net", MODEL)


def invoke(*arguments: object, status: int = 0, output: str = "small.pt2"):
    result = CliRunner().invoke(app, [
        "factorise", "cli_factorise_net:make", "-o", output, "--target", "ulx3s-85f",
        *map(str, arguments)])
    assert result.exit_code == status, result.output
    return result


def answer(*arguments: object) -> dict:
    result = invoke(*arguments, "--json")
    assert beside_rounds(result.stderr) == UNTRAINED
    return json.loads(result.stdout)


def ranks(result: dict) -> dict[str, list[int]]:
    return {name: layer["ranks"] for name, layer in result["layers"].items()}


def test_given_ranks_end_in_a_network_that_compiles(folder):
    result = answer("--ranks", "2=3,5=4", "--data", "data.npz", "--epochs", 30, "--rounds", 2,
                    "--learning-rate", 0.01, "--scheme", "spatial", "--report", "report.json")
    assert {"accuracy", "density", "parameters", "macs", "predicted_cycles", "rounds",
            "choices"} <= result.keys()
    assert ranks(result) == {"2": [3], "5": [4]}
    assert result["rounds"] == 2
    assert result["accuracy"] > 0.9
    weights = 9 * 12 + 3 * 6 * 12 + 4 * (192 + 16) + 64
    assert result["parameters"] == weights + 12 + 12 + 16 + 4
    assert result["density"] == weights / (9 * 12 + 144 * 9 + 192 * 16 + 64)
    assert result["macs"] < result["macs_before"]
    assert result["refused"] is None
    program = celosia.compile("small.pt2", np.zeros((1, 1, 8, 8), np.float32), target="ulx3s-85f")
    assert program.predicted_cycles == result["predicted_cycles"]
    assert [layer.kind for layer in program.layers].count("conv") >= 3
    assert json.loads(Path("report.json").read_text()) == result
    assert result["choices"]["scheme"] == "spatial"
    assert result["choices"]["data"] == "data"
    assert result["choices"]["finetune"]["epochs"] == 30


@pytest.mark.parametrize("method", ["svd", "tucker"])
def test_budgets(folder, method):
    for count in ("parameters", "macs"):
        result = answer("--method", method, f"--{count}-removed", 0.2, "--minimum", 1,
                        "--data", "data.npz", "--epochs", 0)
        assert result[count] <= 0.8 * result[f"{count}_before"]
        assert result["choices"]["rule"] is None
        assert result["choices"]["finetuned"] is False


def test_rules(folder):
    plain = answer("--rule", "energy", "--value", 0.5, "--data", "data.npz", "--epochs", 0)
    more = answer("--rule", "energy", "--value", 0.7, "--data", "data.npz", "--epochs", 0,
                  "--skip", "0, 7")
    assert set(more["layers"]) == {"2", "5"}
    assert more["layers"]["2"]["ranks"] > plain["layers"]["2"]["ranks"]
    # An untrained network is noise: EVBMF leaves the least ranks.
    default = answer("--data", "data.npz", "--epochs", 0)
    assert default["choices"]["rule"] == "evbmf"
    assert ranks(default) == {"0": [2], "2": [2], "5": [1], "7": [1]}
    tucker = answer("--method", "tucker", "--ranks", "2=4x5", "--data", "data.npz", "--epochs", 0)
    assert ranks(tucker) == {"2": [4, 5]}


def test_a_curve_is_measured_on_training_images(folder):
    result = answer("--rule", "curve", "--accuracy-budget", 0.2, "--data", "data.npz",
                    "--epochs", 1)
    assert result["choices"]["search_images"] == 12
    curves, baseline = result["choices"]["curves"], result["choices"]["baseline"]
    for name, curve in curves.items():
        good = [point[0] for point in curve if max(baseline - point[1], 0) <= 0.2]
        assert ranks(result)[name] == (min(good) if good else None)


def test_a_second_run_goes_on_from_the_folder(folder):
    arguments = ("--ranks", "5=4", "--data", "data.npz", "--rounds", 2, "--checkpoint", "kept")
    first = answer(*arguments)
    written = Path("small.pt2").read_bytes()
    index = Path("kept/run.json").read_text()
    second = invoke(*arguments, "--json")
    assert second.stderr == UNTRAINED + "celosia: kept: 2 of 2 rounds found, going on after them\n"
    assert json.loads(second.stdout) == first
    assert Path("kept/run.json").read_text() == index
    states = []
    for content in (written, Path("small.pt2").read_bytes()):
        Path("one.pt2").write_bytes(content)
        states.append(torch.export.load("one.pt2").state_dict)
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    refused = invoke(*arguments[:2], "--data", "data.npz", "--checkpoint", "kept", status=1)
    assert "rounds was 2, is 1" in refused.stderr


def test_the_table_tells_what_was_left_alone(folder):
    text = invoke("--ranks", "0=5,2=3", "--data", "data.npz", "--epochs", 0).stdout
    assert "ranks (6,)" not in text
    for words in ("parameters that are not 0", "multiply-accumulates", "accuracy",
                  "cycles on ulx3s-85f", CLOCK, "inferences a second", "wrote small.pt2"):
        assert words in text
    assert max(map(len, text.splitlines())) <= 80
    text = invoke("--ranks", "0=9,2=3", "--data", "data.npz", "--epochs", 0).stdout
    assert "would save no weights" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--ranks", "2:3"), "give LAYER=RANK with commas between"),
        (("--ranks", "2=3", "--rule", "evbmf"), "give ranks, or else a rule"),
        (("--method", "cp"), "unknown method 'cp'; known methods: svd, tucker"),
        (("--method", "tucker", "--scheme", "spatial"),
         "--scheme does not go with --method tucker; it goes with svd"),
        (("--ranks", "2=3,2=4"), "a layer stands there twice"),
        (("--skip", "9"), "no layer is called '9'"),
    ],
)
def test_refusals(folder, arguments, message):
    result = invoke(*arguments, "--data", "data.npz", status=1)
    assert message in result.stderr
    assert result.stdout == ""
    assert not Path("small.pt2").exists()


def test_what_needs_data_is_refused_without(folder):
    assert "does not tell its input shape; give --data" in invoke(status=1).stderr
    result = CliRunner().invoke(app, ["factorise", "lenet5", "-o", "small.pt2", "--rule", "curve",
                                      "--accuracy-budget", "0.1"])
    assert result.exit_code == 1
    assert "--rule curve needs --data, to measure accuracy on" in result.stderr
