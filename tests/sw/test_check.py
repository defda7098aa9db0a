"""All targets at once: what fits, everything in the way of what does not, and what helps."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import prune

import celosia
from celosia.compiler import Compiler
from celosia.fit import check
from celosia.frontend import export, import_model
from celosia.models import LeNet300, load_lenet5
from celosia.passes import optimise
from celosia_boards.targets import target, targets
from celosia_spec.errors import CelosiaError, FitError
from checked import PICTURE, SMALL, VECTOR, by_name, crowded, zeros


def add(width: int) -> nn.Module:
    class Add(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = (nn.Linear(width, width) for _ in range(3))

        def forward(self, x):
            return self.c(torch.relu(self.b(torch.relu(self.a(x))) + x))

    return Add()


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
