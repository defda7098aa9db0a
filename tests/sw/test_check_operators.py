"""Operators and sizes in a network's way: all are told, by its survey and by the command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from celosia.cli import app
from celosia.fit import Problem, Report, TargetCheck, check
from celosia.frontend import import_model
from celosia.frontend.survey import survey
from celosia_boards.targets import targets
from celosia_spec.errors import CelosiaError, CompileError
from checked import PICTURE, SMALL, VECTOR, by_name, crowded, zeros


class Odd(nn.Module):
    """The same, with operators that the machine does not have, one of which makes maps smaller."""

    def __init__(self, *inside: nn.Module) -> None:
        super().__init__()
        self.net, self.act, self.inside = crowded(), nn.Hardshrink(), nn.Sequential(*inside)

    def forward(self, x):
        x = self.act(self.net[0](x))
        x = self.inside(x)
        return nn.functional.hardshrink(self.net[2:](x))


def test_all_operators_and_the_sizes_of_the_rest() -> None:
    report = check(Odd().eval(), zeros(SMALL), ["hx8k", "icebreaker"])
    assert not report.fits and report.sized
    sizes = {}
    for entry in report.targets:
        act, last, *others = entry.problems
        sizes[entry.target] = {problem.what for problem in others}
        assert (act.layer, act.operator) == ("act", "Hardshrink")
        assert act.source.endswith("x = self.act(self.net[0](x))") and act.tried is False
        assert last.operator == "hardshrink" and "on the host" in last.remedy
    assert "main memory" in sizes["hx8k"] - sizes["icebreaker"]
    text = str(report)
    assert text.count("Hardshrink") == 1
    assert "on every target\n  act (Hardshrink): not supported" in text


def test_where_shapes_are_lost_weights_are_still_counted() -> None:
    model = Odd(nn.LocalResponseNorm(2), nn.Upsample(scale_factor=2, mode="bilinear",
                                                     align_corners=True),
                nn.Softmax(1), nn.MaxPool2d(2))
    model.net[5] = nn.Linear(8 * 144, 8)
    report = check(model.eval(), zeros(SMALL))
    assert not report.sized and "is not measured" in str(report)
    found = by_name(report)["hx8k"]
    assert [problem.operator for problem in found.problems[:-1]] == [
        "Hardshrink", "LocalResponseNorm", "Upsample", "Softmax", "hardshrink"]
    weights = found.problems[-1]
    assert weights.what == "main memory" and weights.at_least and weights.available == 6
    assert 8 * 144 * 8 / 1024 < weights.needed < 8 * (9 + 72 + 144 * 8 + 1) / 1024


def test_only_an_operator_in_the_way() -> None:
    found = check(nn.Sequential(nn.Linear(16, 16), nn.Hardshrink(), nn.Linear(16, 4)),
                  zeros(VECTOR))
    assert all(entry.rest_fits and not entry.fits and entry.cycles is None
               for entry in found.targets)
    assert "it fits without these operators" in str(found)


class Sequence(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.MultiheadAttention(16, 2, batch_first=True)
        self.act, self.fc = nn.Hardshrink(), nn.Linear(16, 4)

    def forward(self, x):
        y, _ = self.mix(x, x, x)
        return self.fc(self.act(y)[:, -1])


class Split(nn.Module):
    def forward(self, x):
        a, b = torch.chunk(x, 2, 1)
        return torch.cat([torch.exp(a), b], 1)


SURVEYED = {        # a network, its input; the operators that are refused
    "none": (lambda: nn.Sequential(nn.Linear(16, 4), nn.ReLU()), VECTOR, []),
    "activations": (lambda: nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.Hardshrink(), nn.Conv2d(4, 4, 3), nn.Threshold(1, 0), nn.Softmin(1),
        nn.Flatten(), nn.Linear(4 * 24 * 24, 10), nn.LayerNorm(10), nn.Hardshrink()), PICTURE,
        ["Hardshrink", "Threshold", "Softmin", "LayerNorm", "Hardshrink"]),
    "sequence": (Sequence, (1, 5, 16), ["MultiheadAttention", "Hardshrink"]),
    "split": (Split, (1, 16), ["exp"]),
}


@pytest.mark.parametrize("name", SURVEYED)
def test_operators_that_do_not_compile_are_collected(name: str) -> None:
    make, shape, operators = SURVEYED[name]
    model = make().eval()
    found = survey(model, torch.zeros(shape))
    assert [refusal.operator for refusal in found.refusals] == operators
    if operators:
        with pytest.raises(CompileError) as first:
            import_model(model, torch.zeros(shape))
        assert str(first.value) == str(found.refusals[0])
    else:
        assert [node.name for node in found.graph.nodes] == [
            node.name for node in import_model(model, torch.zeros(shape)).nodes]


def test_what_is_no_network_is_refused_whole() -> None:
    class Number(nn.Module):
        def forward(self, x):
            return x, 3

    with pytest.raises(CompileError, match="the model returns a value there that is no"):
        check(Number(), zeros(VECTOR))
    with pytest.raises(CelosiaError, match="example_input must have the shape"):
        check(nn.Linear(16, 4), zeros((4, 0)))


def test_numbers_read_as_users_know_them() -> None:
    problem = Problem(layer="conv1", operator="conv", problem="", what="maps", needed=29.25,
                      available=8.0, unit="KiB", source="net.py:3: x = conv1(x)")
    assert str(problem) == "conv1 (conv): maps: 29.2 KiB, room for 8 [net.py:3: x = conv1(x)]"
    assert str(replace(problem, needed=256.01, available=256.0, source=None)) == (
        "conv1 (conv): maps: more than 256 KiB, room for 256")


NET = """
import torch
from torch import nn

def small():
    return nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4))

def odd():
    return nn.Sequential(nn.Linear(16, 16), nn.Hardshrink(), nn.Linear(16, 4))
"""


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "check_nets.py").write_text(NET)
    np.save(tmp_path / "x.npy", np.ones((2, 16), np.float32))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "check_nets", raising=False)


def invoke(*arguments: str):
    return CliRunner().invoke(app, ["check", *arguments, "--calibration", "x.npy"])


def test_command(nets: None) -> None:
    done = invoke("check_nets:small")
    assert done.exit_code == 0, done.output
    assert all(name in done.stdout for name in targets()) and "inferences" in done.stdout
    done = invoke("check_nets:small", "--target", "hx8k", "--target", "icebreaker", "--json",
                  "--exponents", "static", "--weight-bits", "6")
    result = json.loads(done.stdout)
    assert done.exit_code == 0 and result["fits"] and result["exponents"] == "static"
    assert [entry["target"] for entry in result["targets"]] == ["hx8k", "icebreaker"]
    assert result["targets"][0]["milliseconds"] > 0


def test_command_where_nothing_fits(nets: None) -> None:
    done = invoke("check_nets:odd")
    assert done.exit_code == 1 and done.stderr.count("celosia: ") == 1
    assert ("celosia: check_nets:odd does not fit any of "
            f"{len(targets())} targets; ") in done.stderr
    assert "1 (Hardshrink): not supported by this machine" in done.stdout
    assert "way out: replace it with ReLU" in done.stdout
    done = invoke("check_nets:odd", "--target", "icebreaker", "--json")
    assert done.exit_code == 1
    entry = json.loads(done.stdout)["targets"][0]
    assert entry["problems"][0]["operator"] == "Hardshrink" and entry["rest_fits"]
    done = invoke("check_nets:gone", "--target", "icebraker")
    assert done.exit_code == 1 and "did you mean 'icebreaker'?" in done.stderr


def test_names_are_whole_and_nothing_that_a_terminal_obeys() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.add_module("\x1b[2J" + "x" * 300, nn.Hardshrink())

        def forward(self, x):
            return next(self.children())(x) * 2

    text = str(check(Net(), zeros(VECTOR), "icebreaker"))
    assert "\x1b" not in text and "\\x1b[2J" + "x" * 300 in text


def test_layers_with_the_same_in_their_way_stand_together() -> None:
    def of(layer: str, needed: float, remedy: str | None) -> Problem:
        return Problem(layer=layer, operator="conv", problem="", what="maps", needed=needed,
                       available=8.0, unit="KiB", remedy=remedy, tried=remedy is not None)

    gelu = [Problem(layer=name, operator="GELU", problem="not supported", remedy="use ReLU")
            for name in ("1", "3")]
    report = Report(targets=(TargetCheck(
        target="icebreaker", lanes=16, clock_mhz=24.0, fits=False, remedies=("go away",),
        problems=(*gelu, of("a", 9.0, "fold"), of("b", 10.5, "fold"), of("c", 9.0, None))),))
    assert list(report.details()) == [
        "icebreaker", "  1, 3 (GELU): not supported", "    way out: use ReLU",
        "  maps, room for 8 KiB: a (9), b (10.5)", "    helps: fold",
        "  c (conv): maps: 9 KiB, room for 8",
        "  without these operators it fits if you go away"]
