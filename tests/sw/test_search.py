"""Rates read off the accuracy-against-rate curve of each layer."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

from celosia import compress
from celosia.compress import FineTune
from celosia.compress.masks.weights import current_mask
from celosia.compress.training.journal import fingerprint
from celosia.compress.weights.search import GRID, search_rates

SAMPLES = 200


class Planted(nn.Module):
    """Sorts by the first layer's ten inputs; the second branch adds nothing at all.

    All ten weights of a row of `useful` are equal in size, so each that goes is felt. `idle` has
    large weights behind a factor of zero.
    """

    def __init__(self) -> None:
        super().__init__()
        self.useful = nn.Linear(10, 10, bias=False)
        self.idle = nn.Linear(10, 10)
        with torch.no_grad():
            self.useful.weight.copy_(torch.eye(10) * 2 + 0.1 * torch.rand(10, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.useful(x) + 0 * self.idle(x)


def make() -> tuple[Planted, torch.Tensor, torch.Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Planted()
        x = torch.randn(SAMPLES, 10)
        with torch.no_grad():
            return model, x, model(x).argmax(1)


def accuracy_on(x: torch.Tensor, labels: torch.Tensor):
    return lambda model: float((model(x).argmax(1) == labels).float().mean())


def test_a_useless_layer_is_cut_and_a_useful_one_is_spared():
    model, x, labels = make()
    found = search_rates(model, "magnitude", evaluate=accuracy_on(x, labels), budget=0.02)
    assert found.rates["idle"] == 0.95
    assert found.rates["useful"] < 0.9
    assert found.baseline == 1.0
    assert {accuracy for _, accuracy in found.curves["idle"]} == {1.0}
    assert [rate for rate, _ in found.curves["useful"]] == list(GRID)
    wider = search_rates(model, "magnitude", evaluate=accuracy_on(x, labels), budget=0.6)
    assert wider.rates["useful"] > found.rates["useful"]


def test_a_curve_is_what_pruning_that_layer_alone_gives():
    model, x, labels = make()
    evaluate = accuracy_on(x, labels)
    found = search_rates(model, "magnitude", evaluate=evaluate, budget=0.1, grid=(0.92, 0.3, 0.3))
    for rate, accuracy in found.curves["useful"]:
        alone, _, _ = make()
        compress.prune(alone, "magnitude", rates={"useful": rate})
        assert evaluate(alone) == accuracy
    curve = dict(found.curves["useful"])
    assert list(curve) == [0.3, 0.92]
    assert curve[0.92] < curve[0.3]
    assert found.rates["useful"] == max(
        (rate for rate, value in curve.items() if value >= 0.9), default=0.0)


def test_the_model_stays_as_it_was():
    model, x, labels = make()
    compress.prune(model, "magnitude", rates={"useful": 0.5})
    model.train()
    before = fingerprint(model)
    modes = []

    def evaluate(trial: nn.Module) -> float:
        modes.append(trial.training)
        assert not (current_mask(trial.useful) & ~current_mask(model.useful)).any()
        torch.rand(1)
        return accuracy_on(x, labels)(trial)

    torch.manual_seed(5)
    state = torch.get_rng_state()
    search_rates(model, "magnitude", evaluate=evaluate, budget=0.1)
    assert torch.equal(torch.get_rng_state(), state)
    assert fingerprint(model) == before
    assert model.training
    assert set(modes) == {False}


def test_a_layer_beyond_the_budget_keeps_its_weights():
    model, _, _ = make()
    found = search_rates(model, "magnitude", budget=0.5, grid=(0.5,), layers=["useful"],
                         evaluate=lambda trial: float(current_mask(trial.useful).all()))
    assert found.rates == {"useful": 0.0}
    with pytest.raises(ValueError, match="no layer has a rate above 0"):
        compress.prune(model, "magnitude", rates="search", accuracy_budget=0.5, grid=(0.5,),
                       layers=["useful"],
                       evaluate=lambda trial: float(current_mask(trial.useful).all()))


def test_progress_names_layer_rate_and_accuracy():
    model, x, labels = make()
    seen = []
    found = search_rates(model, "magnitude", evaluate=accuracy_on(x, labels), budget=0.1,
                         grid=(0.5, 0.9), progress=lambda *point: seen.append(point))
    assert seen == [(name, *point) for name, curve in found.curves.items() for point in curve]
    assert len(seen) == 4


@pytest.mark.parametrize(("changes", "message"), [
    ({"budget": -0.1}, "budget must be at least 0"),
    ({"budget": float("nan")}, "budget must be at least 0"),
    ({"grid": ()}, "grid must hold rates above 0 and below 1"),
    ({"grid": (0.5, 1.0)}, "grid must hold rates above 0 and below 1"),
    ({"grid": (0.999,)}, "removes all 100 weights of layer 'useful'"),
    ({"layers": ["other"]}, "no layer is called 'other'"),
    ({"evaluate": lambda model: float("nan")}, "must give a finite number"),
])  # fmt: skip
def test_what_cannot_be_searched_is_refused(changes, message):
    model, x, labels = make()
    settings = {"evaluate": accuracy_on(x, labels), "budget": 0.1} | changes
    with pytest.raises(ValueError, match=message):
        search_rates(model, "magnitude", **settings)


def test_prune_searches_once_and_records_the_curves(tmp_path):
    model, x, labels = make()
    calls = []

    def evaluate(trial: nn.Module) -> float:
        calls.append(1)
        return accuracy_on(x, labels)(trial)

    settings = {"rates": "search", "evaluate": evaluate, "accuracy_budget": 0.02, "rounds": 2,
                "finetune": FineTune(inputs=x, labels=labels), "checkpoint": tmp_path,
                "order": "forward"}
    report = compress.prune(model, "magnitude", **settings)
    count = len(calls)
    assert count == 1 + 2 * len(GRID)
    search = report.choices["search"]
    assert search["budget"] == 0.02
    assert search["rates"] == report.choices["rates"]
    assert {name: layer.kept for name, layer in report.layers.items()} == {
        "useful": 100 - round(100 * search["rates"]["useful"]), "idle": 5}
    assert [len(search["curves"][name]) for name in ("useful", "idle")] == [10, 10]
    json.dumps(report.choices, allow_nan=False)
    again, _, _ = make()
    repeated = compress.prune(again, "magnitude", **settings)
    assert len(calls) == count, "the search's result is in the folder"
    assert repeated.choices == report.choices
    np.testing.assert_array_equal(again.idle.weight.detach(), model.idle.weight.detach())
