"""A network at several widths of its mantissas, on the user's inputs."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import celosia
from celosia.accuracy import output_ratio
from celosia.cli import app
from celosia.cli.widths import read_bits
from celosia.compiler import Compiler
from celosia.float_values import outputs
from celosia.widths import widths
from celosia_spec.errors import CelosiaError
from pages import xml

SHAPE = (2, 8, 8)


def network() -> nn.Sequential:
    torch.manual_seed(7)
    return nn.Sequential(nn.Conv2d(2, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(),
                         nn.Flatten(), nn.Linear(128, 4)).eval()


def inputs(count: int = 24) -> np.ndarray:
    return np.random.default_rng(8).normal(size=(count, *SHAPE)).astype(np.float32)


def right(x: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return network()(torch.from_numpy(x)).argmax(1).numpy()


@pytest.mark.parametrize("settings", [{}, {"exponents": "static"}, {"input_bits": 11}])
def test_figures_are_those_of_the_programs(settings: dict) -> None:
    x = inputs()
    labels = right(x)
    labels[:6] = (labels[:6] + 1) % 4
    found = widths(network(), x[:1], bits=[(8, 8), (4, 6)], calibration=x, labels=labels,
                   **settings)
    assert (found.target, found.inputs, found.accuracy) == ("icebreaker", 24, 0.75)
    wanted = outputs(Compiler().graph(network(), x[:1]), x)
    for width, (weight_bits, activation_bits) in zip(found.widths, [(8, 8), (4, 6)], strict=True):
        program = celosia.compile(network(), x[:1], calibration=x, weight_bits=weight_bits,
                                  activation_bits=activation_bits, **settings)
        values = celosia.run(program, x).values
        assert width.cycles == program.predicted_cycles
        assert width.weight_bytes == sum(layer.weight_bytes for layer in program.layers)
        assert width.ratio == pytest.approx(output_ratio(program.graph, x, wanted))
        assert width.agreement == np.mean(values.argmax(1) == right(x))
        assert width.accuracy == np.mean(values.argmax(1) == labels)
        assert width.problem is None
    assert found.widths[0].ratio > found.widths[1].ratio + 6


def test_passes_for_accuracy_are_made_at_each_width() -> None:
    x = inputs(32) + 1
    plain, passed = (widths(network(), x[:1], bits=[(4, 8)], calibration=x, accuracy=accuracy)
                     for accuracy in ("none", "default"))
    assert passed.widths[0].ratio > plain.widths[0].ratio + 0.5


@pytest.mark.parametrize(("accuracy", "told"), [
    (None, ()), ("none", ()), ("default", ("accuracy: cannot be judged by 1 different calibration "
                                           "input; give 8 different ones",))])
def test_equal_inputs_judge_no_pass(accuracy: str | None, told: tuple[str, ...]) -> None:
    x = np.repeat(inputs(1), 8, axis=0)
    assert widths(network(), x[:1], bits=[(8, 8)], calibration=x, accuracy=accuracy).remarks == told


def test_widths_that_cannot_be_are_told() -> None:
    x = inputs(4)
    found = widths(network(), x[:1], bits=[(8, 9), (8, 8), (3, 8)], calibration=x)
    assert "at most 8" in found.widths[0].problem
    assert found.widths[0].ratio is None
    assert found.widths[1].problem is None
    assert "weight_bits must be 4 to 8" in found.widths[2].problem


def test_networks_that_do_not_fit_are_measured() -> None:
    torch.manual_seed(1)
    large = nn.Sequential(nn.Conv2d(2, 64, 3), nn.Flatten(), nn.Linear(64 * 36, 200)).eval()
    x = inputs(2)
    (width,) = widths(large, x[:1], bits=[(8, 8)], calibration=x, target="hx8k").widths
    assert width.ratio > 20
    assert width.cycles is None
    assert "hx8k" in width.problem or "memory" in width.problem


@pytest.mark.parametrize(("settings", "words"), [
    ({"bits": []}, "no pairs"), ({"calibration": None}, "give calibration an array"),
    ({"labels": np.zeros(3, int)}, "a whole number for each of the 4 inputs"),
    ({"labels": np.zeros(4)}, "a whole number for each"),
    ({"target": "moon"}, "moon"), ({"exponents": "some"}, "exponents must be")])
def test_refused(settings: dict, words: str) -> None:
    with pytest.raises(CelosiaError, match=words):
        widths(network(), (1, *SHAPE),
               **{"bits": [(8, 8)], "calibration": inputs(4), **settings})


def test_pairs_are_read() -> None:
    assert read_bits("8/8, 4/6") == [(8, 8), (4, 6)]
    assert len(set(read_bits("all"))) == 30
    for text in ("8", "8/", "a/8", "8/8,"):
        with pytest.raises(CelosiaError, match="give pairs"):
            read_bits(text)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    x = inputs()
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", right(x))
    torch.export.save(torch.export.export(network(), (torch.from_numpy(x[:1]),)),
                      tmp_path / "net.pt2")
    monkeypatch.chdir(tmp_path)
    return ["check", "net.pt2", "--calibration", "x.npy", "--target", "icebreaker",
            "--bits", "8/8,4/8,8/9"]


def test_command(files: list[str]) -> None:
    found = json.loads(CliRunner().invoke(app, [*files, "--labels", "y.npy", "--json"]).stdout)
    assert found["accuracy"] == 1
    assert [width["weight_bits"] for width in found["widths"]] == [8, 4, 8]
    shown = CliRunner().invoke(app, files)
    assert shown.exit_code == 0
    assert max(map(len, shown.stdout.splitlines())) <= 80
    for width in found["widths"][:2]:
        line = next(line for line in shown.stdout.splitlines()
                    if f"{width['weight_bits']} bits" in line)
        assert f"{width['ratio']:.1f}" in line
        assert f"{width['cycles']:,}" in line
    assert "8/9: icebreaker: activation_bits can be at most 8" in " ".join(shown.stdout.split())


@pytest.mark.parametrize("labels", [[], ["--labels", "y.npy"]])
def test_page(files: list[str], labels: list[str]) -> None:
    """Every width that the target takes is in both plots, the more right and the finer higher."""
    found = json.loads(CliRunner().invoke(
        app, [*files, *labels, "--html", "x.html", "--json"]).stdout)
    body = xml(Path("x.html"))
    assert [cell.text for cell in body.iter("td")][::8 if labels else 7] == [
        f"{width['weight_bits']} bits" for width in found["widths"]]
    for plot, key in zip(body.iter("svg"), ("cycles", "weight_bytes"), strict=True):
        places = [(float(point.get("cx")), -float(point.get("cy")))
                  for point in plot.iter("circle")]
        assert len(places) == 2
        assert {"8/8", "4/8"} <= {text.text for text in plot.iter("text")}
        one, other = found["widths"][:2]
        up = "accuracy" if labels else "ratio"
        for axis, name in enumerate((key, up)):
            assert (places[0][axis] > places[1][axis]) == (one[name] > other[name])
    told = [text.text for text in body.iter("p")]
    assert any("activation_bits can be at most 8" in text for text in told)
    assert any(text.startswith("right in float") for text in told) == bool(labels)


def test_target_is_the_icebreaker_where_none_is_given(files: list[str]) -> None:
    given = [*files[:4], *files[6:], "--json"]
    assert "--target" not in given
    found = json.loads(CliRunner().invoke(app, given).stdout)
    assert found["target"] == "icebreaker"
    assert found["widths"]


def test_one_input_is_no_plural(files: list[str]) -> None:
    np.save("x.npy", inputs(1))
    shown = " ".join(CliRunner().invoke(app, [*files, "--accuracy", "best"]).stdout.split())
    assert "icebreaker, 1 input " in shown
    assert "accuracy: cannot be judged by 1 different calibration input; give 8" in shown


@pytest.mark.parametrize(("given", "words"), [
    (["--target", "ulx3s-85f"], "give --target once"), (["--bits", "8"], "give pairs of weight"),
    (["--labels", "x.npy"], "a whole number for each of the 24 inputs")])
def test_command_refuses(files: list[str], given: list[str], words: str) -> None:
    shown = CliRunner().invoke(app, [*files, *given])
    assert shown.exit_code == 1
    assert words in shown.stderr


def test_command_fails_where_no_width_is_taken(files: list[str]) -> None:
    shown = CliRunner().invoke(app, [*files[:-1], "8/9,3/8", "--json"])
    assert shown.exit_code == 1
    assert all(width["problem"] for width in json.loads(shown.stdout)["widths"])
    assert "icebreaker takes net.pt2 with none of these widths" in shown.stderr


@pytest.mark.parametrize(("given", "words"), [
    (["--labels", "y.npy"], "--labels goes with --bits"),
    (["--html", "x.html"], "--html goes with --bits"),
    (["--bits", "8/8", "--calibration", "x.npy", "--html", "x.npy"], "for something else"),
    (["--bits", "8/8", "--target", "hx8k"], "give --calibration"),
    (["--accuracy", "default"], "needs calibration inputs")])
def test_what_belongs_together(files: list[str], given: list[str], words: str) -> None:
    shown = CliRunner().invoke(app, ["check", "net.pt2", *given])
    assert shown.exit_code == 1
    assert words in shown.stderr


def test_check_measures_accuracy(files: list[str]) -> None:
    shown = CliRunner().invoke(app, [*files[:-2], "--accuracy", "default", "--json"])
    (target,) = json.loads(shown.stdout)["targets"]
    assert target["fits"]
    assert any(remark.startswith("accuracy: correct_bias") for remark in target["remarks"])
