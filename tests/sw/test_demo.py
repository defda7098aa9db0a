"""``celosia demo``: the whole path without a placement, and what makes it fail."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import celosia
from celosia import demo
from celosia.cli import app
from celosia.datasets import shipped_test_images
from celosia.verify import Mismatch, Verification
from celosia_boards.report import BuildReport
from celosia_boards.targets import target

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def run(folder: Path, *options: str, status: int = 0):
    result = CliRunner().invoke(app, ["demo", "-o", str(folder), *options])
    assert result.exit_code == status, result.output
    return result


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> demo.Demonstration:
    """The demo on 40 of the shipped images, of which 2 are simulated."""
    with pytest.MonkeyPatch.context() as patch:
        images, labels = shipped_test_images()
        patch.setattr(demo, "load_fashion_mnist", lambda split: _only_test(images, labels, split))
        patch.setattr(demo, "IMAGES", 2)
        return demo.demonstrate(tmp_path_factory.mktemp("demo") / "new", place=False)


def _only_test(images: np.ndarray, labels: np.ndarray, split: str):
    if split == "train":
        raise FileNotFoundError
    return images[:40], labels[:40]


@pytest.mark.slow
def test_whole_path(found: demo.Demonstration, tmp_path: Path,
                    monkeypatch: pytest.MonkeyPatch) -> None:
    """Bits and cycles agree, the figures are in range, and the program is there to be loaded."""
    assert found.faults == []
    assert (found.images, found.verification.images, found.build) == (40, 2, None)
    assert min(found.accuracy_dense, found.accuracy_pruned, found.accuracy_accelerator) > 0.8
    assert celosia.load(found.path).predicted_cycles == found.verification.predicted_cycles
    monkeypatch.setattr("celosia.cli.demo.demonstrate", lambda *_, **__: found)
    shown = run(tmp_path, "--no-build").stdout
    assert "accuracy, accelerator" in shown and f"wrote {found.path}\n" in shown
    figures = json.loads(run(tmp_path, "--no-build", "--json").stdout)
    assert figures["values_compared"] == found.verification.values > 0
    assert figures["cycles"] == [figures["predicted_cycles"]]


@pytest.mark.slow
def test_faults_end_it_with_status_1(found: demo.Demonstration, tmp_path: Path,
                                     monkeypatch: pytest.MonkeyPatch) -> None:
    place = target(demo.BOARD)
    missed = BuildReport(
        target=place.name, seed=0, luts=1, ffs=1, brams=1, dsps=1, sprams=1, fmax_mhz=20.0,
        available=place.resources, clock_mhz=24.0, routed_mhz=20.0, timing_met=False,
        log=tmp_path / "log", bitstream=tmp_path / "celosia.bin")
    wrong = Verification(
        images=1, values=9, mismatches=1, tensors=("fc3",), cycles=np.array([8]),
        predicted_cycles=9, first_mismatch=Mismatch(tensor="fc3", image=0, element=(1,),
                                                    expected=2, got=3))
    bad = replace(found, build=missed, verification=wrong)
    monkeypatch.setattr("celosia.cli.demo.demonstrate", lambda *_, **__: bad)
    for options in ((), ("--json",)):
        line = run(tmp_path, *options, status=1).stderr
        assert line.startswith("celosia: the simulated gateware differs from the golden model: ")
        assert "cycles [8] where 9 were predicted; the clock is not met\n" in line


def test_folder_is_checked_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert run(tmp_path / "file", status=1).stderr.count("\n") == 1


def test_readme_names_the_wheel_of_this_version() -> None:
    assert f"dist/celosia-{celosia.__version__}-py3-none-any.whl[torch,onnx,sim,fpga]" in README
