"""All targets at once: what fits, everything in the way of what does not, and what helps."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import prune
from typer.testing import CliRunner

import celosia
from celosia.cli import app
from celosia.compiler import Compiler
from celosia.fit import Problem, Report, TargetCheck, check
from celosia.frontend import export, import_model
from celosia.frontend.survey import survey
from celosia.models import LeNet300, load_lenet5
from celosia.passes import optimise
from celosia_boards.targets import target, targets
from celosia_spec.errors import CelosiaError, CompileError, FitError

PICTURE, SMALL, VECTOR = (1, 1, 28, 28), (1, 1, 24, 24), (1, 16)


def zeros(shape: tuple[int, ...]) -> np.ndarray:
    return np.zeros(shape, np.float32)


def crowded() -> nn.Module:
    """Too many weights, maps and waiting sums for the smallest device."""
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1),
                         nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8 * 144, 4)).eval()


class Odd(nn.Module):
    """The same, with operators that the machine does not have, one of which makes maps smaller."""

    def __init__(self, *inside: nn.Module) -> None:
        super().__init__()
        self.net, self.act, self.inside = crowded(), nn.Hardshrink(), nn.Sequential(*inside)

    def forward(self, x):
        x = self.act(self.net[0](x))
        x = self.inside(x)
        return nn.functional.hardshrink(self.net[2:](x))


def add(width: int) -> nn.Module:
    class Add(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = (nn.Linear(width, width) for _ in range(3))

        def forward(self, x):
            return self.c(torch.relu(self.b(torch.relu(self.a(x))) + x))

    return Add()


def by_name(report: Report) -> dict[str, TargetCheck]:
    return {entry.target: entry for entry in report.targets}


def test_what_fits_is_what_compile_makes_of_it() -> None:
    model = load_lenet5(pruned=True)
    report = check(model, zeros(PICTURE))
    assert [entry.target for entry in report.targets] == list(targets())
    assert report.fits and report.sized
    for entry in report.targets:
        if entry.fits:
            cycles = celosia.compile(model, zeros(PICTURE), target=entry.target).predicted_cycles
            assert (entry.cycles, entry.problems) == (cycles, ())
            assert entry.milliseconds == pytest.approx(
                cycles / target(entry.target).clock_mhz / 1000)
            assert entry.per_second == pytest.approx(1000 / entry.milliseconds)
    assert {entry.target for entry in report.targets if not entry.fits} == {"hx8k"}


def test_everything_in_the_way_is_told_at_once() -> None:
    found = by_name(check(Deep(), zeros((1, 1, 72, 72))))["hx8k"]
    assert not found.fits and found.cycles is None
    problems = {(problem.layer, problem.what): problem for problem in found.problems}
    assert problems.keys() == {
        ("convs.1", "tensors to be added"), ("mean", "taps"), ("mean", "rows of the banks"),
        ("convs.1", "main memory")}
    taps = problems["mean", "taps"]
    assert (taps.needed, taps.available) == (328, 256)
    memory = problems["convs.1", "main memory"]
    assert memory.needed > 2 * 8 * 72 * 72 * 2 / 1024 and memory.available == 6
    assert all(problem.needed > problem.available for problem in problems.values()
               if problem.needed is not None)


def test_each_change_removes_what_it_stands_beside() -> None:
    """Looked at once more with the change taken, that problem is not among the others."""
    x = np.random.default_rng(1).normal(size=(2, *SMALL[1:])).astype(np.float32)
    tried = 0
    for entry in check(crowded(), x[:1], ["icebreaker", "hx8k", "hx8k-b-evn"]).targets:
        for problem in entry.problems:
            if problem.remedy is None:
                continue
            model, settings = taken(problem.remedy, crowded(), entry.target)
            again = check(model, x[:1], settings.pop("target"), calibration=x, **settings)
            assert (problem.layer, problem.what) not in {
                (other.layer, other.what) for other in again.targets[0].problems}
            tried += problem.tried
    assert tried >= 2


def taken(remedy: str, model: nn.Module, name: str) -> tuple[nn.Module, dict]:
    """Return the model and the settings with a change made, as a reader would."""
    settings: dict = {"target": name}
    if found := re.search(r"compile it for ([\w-]+)", remedy):
        settings["target"] = found[1]
    if found := re.search(r"use (\d+) lanes|and (\d+) lanes", remedy):
        settings["lanes"] = int(found[1] or found[2])
    if found := re.search(r"weight_bits=(\d)", remedy):
        settings["weight_bits"] = int(found[1])
    if found := re.search(r"the largest (\d+)% of each layer's weights", remedy):
        for layer in model.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d):
                prune.l1_unstructured(layer, "weight", 1 - int(found[1]) / 100)
                prune.remove(layer, "weight")
    return model, settings


NETWORKS = {        # a network, its input's shape; a target that it does not fit
    "static": (lambda: nn.Sequential(nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
                                     nn.Flatten(), nn.Linear(8, 4)), PICTURE, "hx8k"),
    "weights": (lambda: nn.Linear(784, 60), (1, 784), "hx8k"),
    "add": (lambda: add(16), VECTOR, "hx8k"),
    "wide sums": (lambda: filled(nn.Linear(4800, 4), 1.98), (1, 4800), "icebreaker"),
    "rows": (lambda: nn.Sequential(nn.Linear(16, 256), nn.ReLU(), nn.Linear(256, 4)), VECTOR,
             "hx8k"),
    "long rows": (lambda: nn.Linear(7000, 16), (1, 7000), "ecp5-25f"),
}


def filled(layer: nn.Linear, value: float) -> nn.Linear:
    nn.init.constant_(layer.weight, value)
    return layer


@pytest.mark.parametrize("name", NETWORKS)
def test_what_makes_it_fit_compiles(name: str) -> None:
    make, shape, where = NETWORKS[name]
    torch.manual_seed(1)
    x = np.random.default_rng(2).normal(size=(4, *shape[1:])).astype(np.float32)
    found = by_name(check(make().eval(), x[:1]))[where]
    assert not found.fits and found.problems and found.remedies
    for remedy in found.remedies:
        torch.manual_seed(1)
        model, settings = taken(remedy, make().eval(), where)
        assert celosia.compile(model, x[:1], calibration=x, **settings).predicted_cycles > 0


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "wide sums"])
@pytest.mark.parametrize("where", ["icebreaker", "hx8k", "ecp5-25f", "ecp5-85f"])
def test_compiling_and_the_list_of_what_is_in_the_way_agree(name: str, where: str) -> None:
    make, shape, _ = NETWORKS[name]
    torch.manual_seed(1)
    settings = Compiler(target=where)
    graph = settings.quantised(optimise(import_model(make().eval(), torch.zeros(shape))), None)
    found = settings.attempt(graph)
    if found.schedule is not None:
        assert found.schedule.predicted_cycles == settings.program(graph).predicted_cycles
        assert not found.refusals
        return
    with pytest.raises(FitError) as first:
        settings.program(graph)
    assert str(first.value) in [str(refusal) for refusal in found.refusals]


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


def test_it_is_exported_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    real = export.as_program
    monkeypatch.setattr(export, "as_program", lambda *args: calls.append(1) or real(*args))
    assert len(check(nn.Linear(300, 10), zeros((1, 300))).targets) == len(targets())
    assert len(calls) == 1


def test_a_target_that_was_not_asked_for_may_help() -> None:
    report = check(add(16), zeros(VECTOR), "hx8k")
    assert report.targets[0].remedies == ("compile it for icebreaker",)
    problem = report.targets[0].problems[0]
    assert problem.problem == "it adds tensors, and the array has no residual operand"
    assert (problem.available, problem.unit) == (0, "values") and problem.needed >= 16


def test_lanes_that_one_target_cannot_have_are_its_problem_alone() -> None:
    found = by_name(check(nn.Linear(16, 4), zeros(VECTOR), lanes=16))
    assert found["ulx3s-85f"].fits and found["ulx3s-85f"].lanes == 16
    assert found["ulx3s-12f"].problems[0].operator == "array"
    assert "lanes=8" in found["ulx3s-12f"].problems[0].remedy


@pytest.mark.parametrize(("settings", "message"), [
    ({"targets": "virtex"}, "unknown target 'virtex'"),
    ({"targets": [None]}, "unknown target None"), ({"targets": 3}, "unknown target 3;"),
    ({"targets": ["icebreaker", "icebraker"]}, "did you mean 'icebreaker'?"),
    ({"exponents": "both"}, "exponents must be"),
    ({"lanes": 5}, "lanes must be 8, 16, 32, 64 or 128, not 5"),
    ({"weight_bits": 3}, "weight_bits must be"),
    ({"activation_bits": 8.5}, "activation_bits must be"),
    ({"calibration": [[float("nan")]]}, "calibration: element"),
    ({"calibration": np.zeros((0, 16))}, "calibration holds no inputs"),
    ({"calibration": np.float32([[0.0], [-65536.0], [1e30]])},
     "calibration: input 1 needs the block exponent 16, above 15; scale the inputs down"),
])
def test_settings_are_checked_before_the_model_is_read(settings: dict, message: str) -> None:
    with pytest.raises(CelosiaError, match=re.escape(message)):
        check("missing.pt2", None, **settings)


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


class Deep(nn.Module):
    """Three additions, more maps and values to be added than small boards hold."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(8 if k else 1, 8, 3, padding=1) for k in range(4))

    def forward(self, x):
        x = torch.relu(self.convs[0](x))
        for conv in self.convs[1:]:
            x = torch.relu(conv(x) + x)
        return x.mean((2, 3))


def test_a_target_helps_only_where_it_was_looked_at() -> None:
    """Where layers are in the way, additions are not placed; they are counted all the same."""
    found = by_name(check(Deep(), zeros((1, 1, 32, 32))))
    for entry in found.values():
        for problem in entry.problems:
            if problem.remedy and problem.remedy.startswith("compile it for"):
                other = found[problem.remedy.split()[-1]]
                assert (problem.layer, problem.what) not in {
                    (left.layer, left.what) for left in other.problems}
    added = {name: [problem.available for problem in entry.problems
                    if problem.what == "tensors to be added"] for name, entry in found.items()}
    assert added["hx8k"] == [0] and added["icebreaker"] == []


def test_progress_names_what_is_done_for_each_target() -> None:
    calls: list[tuple[str, int, int]] = []
    check(nn.Linear(300, 10), zeros((1, 300)), ["icebreaker", "hx8k"],
          progress=lambda *call: calls.append(call))
    assert calls == [("importing the network", 0, 0), ("compiling for icebreaker", 0, 2),
                     ("compiling for hx8k", 1, 2), ("looking for what helps", 0, 1)]


def test_fewer_lanes_are_told_where_they_are_faster() -> None:
    torch.manual_seed(0)
    (entry,) = check(LeNet300(), zeros(PICTURE), "ulx3s-85f").targets
    program = celosia.compile(LeNet300(), zeros(PICTURE), target="ulx3s-85f", lanes=16)
    assert entry.remarks == (f"16 lanes take {program.predicted_cycles:,} cycles: --lanes 16, in "
                             f"Python lanes=16",)
    assert entry.cycles is not None and entry.cycles > program.predicted_cycles
    for asked in ({"targets": "ulx3s-85f", "lanes": 64}, {"targets": "ulx3s-25f"},
                  {"targets": ["ulx3s-85f", "icebreaker"]}):
        report = check(LeNet300(), zeros(PICTURE), **asked)
        assert not any(entry.remarks for entry in report.targets)


def test_fewer_lanes_that_are_slower_are_not_told() -> None:
    torch.manual_seed(0)
    wide = nn.Sequential(nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3)).eval()
    (entry,) = check(wide, zeros((1, 8, 16, 16)), "ulx3s-85f").targets
    slower = celosia.compile(wide, zeros((1, 8, 16, 16)), target="ulx3s-85f", lanes=16)
    assert entry.lanes == 64 and entry.cycles is not None
    assert entry.cycles < slower.predicted_cycles and not entry.remarks
