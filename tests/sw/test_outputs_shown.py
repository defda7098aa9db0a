"""Several outputs in files, on the command line, live, and where they are measured."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import celosia
from celosia.backends import GoldenModel
from celosia.cli import app
from celosia.live.runner import OnModel, answer
from celosia.live.shots import Shot
from celosia.widths import widths
from celosia_spec.errors import CelosiaError

torch = pytest.importorskip("torch")

from celosia.compress.weights.prediction import Predictor  # noqa: E402
from celosia.frontend import import_model  # noqa: E402
from returning import MAP, TARGET, VECTOR, inputs, made  # noqa: E402


def test_outputs_of_an_onnx_file_have_its_names(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(made("two heads"), (torch.zeros(VECTOR),), tmp_path / "net.onnx",
                          dynamo=False, output_names=["scores", "box 2"])
    program = celosia.compile(tmp_path / "net.onnx", target=TARGET)
    assert [output.name for output in program.outputs] == ["scores", "box 2"]
    found, wanted = (celosia.run(one, inputs(VECTOR)).values for one in (
        program, celosia.compile(made("two heads"), VECTOR, target=TARGET)))
    assert np.array_equal(found, wanted)


def test_outputs_of_an_exported_program_have_the_models_names(tmp_path: Path) -> None:
    exported = torch.export.export(made("nested"), (torch.zeros(MAP),))
    torch.export.save(exported, tmp_path / "net.pt2")
    assert [output.name for output in import_model(tmp_path / "net.pt2").returns] == [
        "heads.0", "heads.1.last"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("outputs")
    celosia.compile(made("ends of their own"), VECTOR, target=TARGET, preprocessing=(
        celosia.Preprocessing(labels=tuple("abcde")))).save(path / "ends.celo")
    celosia.compile(made("heights and classes"), MAP, target=TARGET).save(path / "maps.celo")
    np.save(path / "x.npy", inputs(VECTOR))
    np.save(path / "maps.npy", inputs(MAP))
    np.save(path / "truth.npy", celosia.run(celosia.load(path / "ends.celo"), inputs(VECTOR))
            .answers["class"])
    return path


def invoke(command: str, *arguments: object, status: int = 0):
    result = CliRunner().invoke(app, [command, *map(str, arguments)])
    assert result.exit_code == status, result.output
    return result


def test_the_command_line_shows_each_output(folder: Path) -> None:
    given = (folder / "ends.celo", "--input", folder / "x.npy")
    found = json.loads(invoke("run", *given, "--json").stdout)
    assert (found["answers"], found["map"], found["accuracy"]) == (None, None, None)
    assert {name: sorted(told["answers"][0]) for name, told in found["outputs"].items()} == {
        "share": ["best", "class", "name"], "on": ["class", "name", "value"],
        "class": ["best", "class", "name"], "raw": ["best", "class", "name"]}
    classes = [told["name"] for told in found["outputs"]["class"]["answers"]]
    assert set(classes) <= set("abcde")
    one = json.loads(invoke("run", *given, "--of", "class", "--truth", folder / "truth.npy",
                            "--json").stdout)
    assert one["outputs"] is None and one["accuracy"] == 1.0
    assert [told["name"] for told in one["answers"]] == classes
    shown = invoke("run", *given).stdout.splitlines()
    assert [line for line in shown if line in ("share:", "on:", "class:", "raw:")] == [
        "share:", "on:", "class:", "raw:"]
    refused = invoke("run", *given, "--truth", folder / "truth.npy", status=1)
    assert "the network returns share, on, class, raw; say which is meant" in refused.output


def test_all_arrays_of_a_run_are_written_and_one_map_is_drawn(folder: Path) -> None:
    given = (folder / "maps.celo", "--input", folder / "maps.npy")
    invoke("run", *given, "-o", folder / "all.npz")
    wanted = celosia.run(celosia.load(folder / "maps.celo"), inputs(MAP)).arrays
    with np.load(folder / "all.npz") as written:
        assert set(written.files) == set(wanted) >= {"answer.0", "answer.1", "values"}
        assert all(np.array_equal(written[name], wanted[name]) for name in wanted)
    assert "say which is meant" in invoke("run", *given, "-o", folder / "a.png", status=1).output
    invoke("run", *given, "--of", "1", "-o", folder / "a.png")
    assert (folder / "a.png").exists()


def test_live_shows_the_output_that_is_named(folder: Path) -> None:
    program = celosia.load(folder / "ends.celo")
    shot = Shot(name="0", inputs=inputs(VECTOR)[:1], picture=lambda: None)
    wanted = celosia.run(program, shot.inputs)
    for name in ("share", "class"):
        found = answer(program, OnModel(program, GoldenModel()), shot, name)
        assert found.number == wanted.answers[name].reshape(-1)[0] or name == "share"
        assert (found.label is None) == (name == "share")
    assert "say which is meant" in invoke("live", folder / "ends.celo", "--stdin", "--backend",
                                          "golden", status=1).output


def test_widths_are_measured_of_all_outputs() -> None:
    x = inputs(VECTOR, 8)
    [found] = widths(made("two heads"), x[:1], bits=[(8, 8)], calibration=x,
                     target=TARGET).widths
    assert found.ratio > 30 and found.agreement > 0.5
    with pytest.raises(CelosiaError, match="labels are classes of one output, and the network "
                                           "returns 2"):
        widths(made("two heads"), x[:1], bits=[(8, 8)], calibration=x, target=TARGET,
               labels=np.zeros(8, np.int64))


def test_heads_that_are_one_layer_have_no_cycles_of_their_own() -> None:
    with pytest.raises(CelosiaError, match="^layer 'layers.0' makes an output together with oth"):
        Predictor(inputs(VECTOR)[:1], target=TARGET)(made("two heads"))
