"""Predicted cycles, what a weight costs, and pruning to a budget of cycles."""

from __future__ import annotations

import copy
import functools
from itertools import product

import numpy as np
import pytest
import torch
from torch import nn

import celosia
from celosia import compress
from celosia.compress.layers import prunable_layers
from celosia.compress.masks.weights import apply_mask, current_mask
from celosia.compress.weights import cycles
from celosia.compress.weights.cycle_masks import _rank_steps, _search, masks_for
from celosia.compress.weights.cycles import prune_to_cycles
from celosia.compress.weights.prediction import (
    LayerPlan,
    Prediction,
    Predictor,
    cycle_costs,
    row_costs,
)
from celosia_spec.errors import ArgumentError

X = torch.zeros(1, 2, 14, 14)
BUDGET = 8000
"""About 0.6 of the cycles of the dense `net`."""
SLACK = 40
"""Cycles by which what is left may stay below its budget: a few passes of the cheapest layer, and
what the layers wait for."""


def net(seed: int = 0) -> nn.Sequential:
    """Weights of the first layer are used most often, those of the last two once."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(2, 8, 5), nn.ReLU(), nn.Conv2d(8, 12, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(108, 40), nn.ReLU(), nn.Linear(40, 5)).eval()


def compiled(model: nn.Module, exponents: str = "dynamic", target: str = "icebreaker",
             least: float | None = None) -> int:
    """Return the cycles that users see; with calibration inputs from ``least`` on."""
    samples = None
    if least is not None or exponents == "static":
        samples = torch.linspace(-1 if least is None else least, 1, 784).reshape(2, 2, 14, 14)
    return celosia.compile(model, X, target=target, exponents=exponents,
                           calibration=samples).predicted_cycles


def thinned(density: float, seed: int = 1) -> nn.Sequential:
    model = net()
    generator = torch.Generator().manual_seed(seed)
    for layer in prunable_layers(model).values():
        apply_mask(layer, torch.rand(layer.weight.shape, generator=generator) < density)
    return model


def kept(model: nn.Module) -> dict[str, np.ndarray]:
    return {name: current_mask(layer).numpy() for name, layer in prunable_layers(model).items()}


def states_equal(one: nn.Module, other: nn.Module) -> bool:
    mine, theirs = one.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[n], theirs[n]) for n in mine)


# Prediction and costs


@pytest.mark.parametrize("exponents", ["dynamic", "static"])
@pytest.mark.parametrize("density", [1.0, 0.2])
def test_prediction_is_the_compilers(density, exponents):
    model = thinned(density)
    found = Predictor(X, exponents=exponents)(model)
    assert found.cycles == compiled(model, exponents)
    assert found.problem is None
    assert 0 < found.fixed < found.cycles


@pytest.mark.parametrize("exponents", ["dynamic", "static"])
def test_costs_are_about_finite_differences_of_compile(exponents):
    """Some weights less in each row: cycles fall by the costs of these weights. What a layer waits
    for is no part of them."""
    model, less = net(), 8
    before = compiled(model, exponents)
    costs = cycle_costs(model, X, exponents=exponents)
    for name, layer in prunable_layers(model).items():
        assert np.broadcast_to(costs[name], layer.weight.shape).shape == layer.weight.shape
        mask = current_mask(layer).flatten(1)
        mask[:, :less] = False
        trial = copy.deepcopy(model)
        apply_mask(trial.get_submodule(name), mask.reshape(layer.weight.shape))
        saving = before - compiled(trial, exponents)
        assert saving == pytest.approx(less * costs[name].sum(), rel=0.15, abs=20)


def test_a_weight_costs_more_where_it_is_used_more_often():
    plans, costs = Predictor(X)(net()).layers, cycle_costs(net(), X)
    for name, plan in plans.items():        # every step costs its passes, shared among its rows
        assert costs[name].sum() == pytest.approx(plan.passes * len(plan.batches))
    assert costs["0"].min() > costs["2"].max() > costs["6"].max()


def test_rows_below_the_shortest_pass_cost_nothing():
    model = net()
    least = Predictor(X)(model).layers["2"].least
    mask = torch.zeros(12, 200, dtype=torch.bool)
    mask[:, :least] = True
    apply_mask(model[2], mask.reshape(12, 8, 5, 5))
    assert not cycle_costs(model, X)["2"].any()
    mask[:, 1:] = False
    fewer = copy.deepcopy(model)
    apply_mask(fewer[2], mask.reshape(12, 8, 5, 5))
    assert compiled(fewer) > 0.98 * compiled(model)


# Selection


def test_for_equal_values_the_expensive_weights_go_first():
    model = net()
    values = {name: np.ones(layer.weight.shape) for name, layer in prunable_layers(model).items()}
    predict = Predictor(X)
    dense = predict(model)
    for lockstep in (True, False):
        masks = masks_for(model, values, predict, dense.cycles - 40, lockstep=lockstep)
        assert not masks["0"].all()
        assert all(masks[name].all() for name in ("2", "6", "8"))


def test_steps_are_the_best_use_of_the_cycles():
    """Against every choice of batch lengths."""
    rng = np.random.default_rng(4)
    plans = {"a": LayerPlan(batches=np.array([[2, 0], [1, 3]]), lengths=np.array([5, 5]), passes=3,
                            least=1),
             "b": LayerPlan(batches=np.array([[0, 1], [2, -1]]), lengths=np.array([4, 4]), passes=2,
                            least=2)}
    values = {"a": rng.random((4, 5)), "b": rng.random((3, 4))}
    alive = {name: np.ones(array.shape, bool) for name, array in values.items()}
    alive["a"][2, 1:4] = False
    values["a"] *= alive["a"]
    prediction = Prediction(cycles=0, macs=0, layers=plans, problem=None)
    ranking = _rank_steps(prediction, values, alive)

    def worth(masks):
        return sum(values[name][mask].sum() for name, mask in masks.items())

    def best(cycles):
        found = 0.0
        for lengths in product(range(1, 6), range(1, 6), range(2, 5), range(2, 5)):
            spent = 3 * (sum(lengths[:2]) - 2) + 2 * (sum(lengths[2:]) - 4)
            if spent <= cycles:
                rows = [(plans["a"].batches[0], lengths[0], "a"),
                        (plans["a"].batches[1], lengths[1], "a"),
                        (plans["b"].batches[0], lengths[2], "b"),
                        (plans["b"].batches[1], lengths[3], "b")]
                found = max(found, sum(np.sort(values[name][row])[::-1][:length].sum()
                                       for batch, length, name in rows for row in batch
                                       if row >= 0))
        return found

    assert len(ranking.spent) == 1 + 4 + 4 + 2 + 2
    for count, spent in enumerate(ranking.spent):
        masks = ranking.masks(count)
        assert worth(masks) == pytest.approx(best(spent))
        assert not any((mask & ~alive[name]).any() for name, mask in masks.items())


@pytest.mark.parametrize("share", [0.8, 0.5])
def test_lockstep_keeps_more_value_in_the_same_cycles(share):
    model, predict = net(), Predictor(X)
    values = {name: layer.weight.detach().numpy().astype(float) ** 2
              for name, layer in prunable_layers(model).items()}
    goal = round(share * predict(model).cycles)
    worth = {}
    for lockstep in (True, False):
        masks = masks_for(model, values, predict, goal, lockstep=lockstep)
        worth[lockstep] = sum(values[name][mask].sum() for name, mask in masks.items())
        trial = copy.deepcopy(model)
        for name, layer in prunable_layers(trial).items():
            apply_mask(layer, torch.from_numpy(masks[name]))
        assert compiled(trial) <= goal
    assert worth[True] > worth[False]


def test_row_costs_share_a_step_among_the_rows_of_its_batch():
    plan = LayerPlan(batches=np.array([[3, 1], [0, 2], [4, -1]]), lengths=np.array([9, 8, 5]),
                     passes=6, least=5)
    assert row_costs(plan).tolist() == [3, 3, 3, 3, 0]
    assert plan.cycles == 6 * (9 + 8 + 5)


def test_search_needs_no_monotone_prediction():
    """A prediction that jumps up and down around the sum of the costs: still within the goal."""
    rng = np.random.default_rng(0)
    jumps = rng.integers(-30, 30, 400)
    ranking = _rank_steps(
        Prediction(cycles=0, macs=0, problem=None, layers={"a": LayerPlan(
            batches=np.arange(4).reshape(4, 1), lengths=np.full(4, 101), passes=7, least=1)}),
        {"a": rng.random((4, 101))}, {"a": np.ones((4, 101), bool)})

    def attempt(count):
        cycles = 500 + int(ranking.spent[count]) + int(jumps[count] if 0 < count < 400 else 0)
        return Prediction(cycles=cycles, macs=0, layers={}, problem=None)

    for goal in (500, 501, 1000, 2000, 3200):
        count = _search(ranking, attempt, goal, {})
        assert attempt(count).cycles <= goal
        assert attempt(count).cycles > goal - 100


# The whole method


@pytest.mark.parametrize("exponents", ["dynamic", "static"])
@pytest.mark.parametrize("lockstep", [True, False])
def test_the_budget_is_met_and_used(lockstep, exponents):
    dense = compiled(net(), exponents)
    for budget in (dense - 100, round(0.7 * dense)):
        model = net()
        report = prune_to_cycles(model, example_input=X, budget=budget, exponents=exponents,
                                 lockstep=lockstep)
        assert report.dense_cycles == dense
        assert report.cycles == max(compiled(model, exponents),
                                    compiled(model, exponents, least=0)) <= budget
        assert report.cycles > budget - SLACK
        assert {name: layer.kept for name, layer in report.layers.items()} == {
            name: int(mask.sum()) for name, mask in kept(model).items()}
        compress.make_permanent(model)
        assert report.cycles in (compiled(model, exponents), compiled(model, exponents, least=0))
        assert report.choices["lockstep"] == lockstep and report.choices["budget"] == budget


def test_a_network_within_the_budget_stays_as_it_is():
    model = net()
    report = prune_to_cycles(model, example_input=X, budget=10**6)
    assert report.density == 1.0
    assert states_equal(model, net())


def test_rounds_approach_the_budget():
    dense, budget = compiled(net()), round(0.6 * compiled(net()))
    report = prune_to_cycles(net(), example_input=X, budget=budget, rounds=3, schedule="linear")
    found = [record.predicted_cycles for record in report.rounds]
    goals = [dense + (budget - dense) * (index + 1) / 3 for index in range(3)]
    assert all(goal - SLACK < cycles <= round(goal) for cycles, goal in
               zip(found, goals, strict=True))
    assert report.rounds[-1].density < report.rounds[0].density


def test_a_budget_out_of_reach_names_the_fewest_cycles():
    with pytest.raises(ArgumentError, match="a budget of 10 cycles cannot be met") as refusal:
        prune_to_cycles(net(), example_input=X, budget=10)
    least = int(str(refusal.value).split("still takes ")[1].split(";")[0].replace(",", ""))
    model = net()
    assert prune_to_cycles(model, example_input=X, budget=least).cycles == least
    assert all(mask.any() for mask in kept(model).values())
    with pytest.raises(ArgumentError, match=f"{least:,}"):
        prune_to_cycles(net(), example_input=X, budget=least - 1, rounds=3,
                        finetune=lambda model, index: pytest.fail("training before the refusal"))


def test_a_factor_on_a_layers_weights_changes_nothing():
    """Scores of different layers are compared as shares of their layer."""
    plain, scaled = net(), net()
    with torch.no_grad():
        scaled[2].weight *= 8
        scaled[8].weight /= 4
    budget = round(0.6 * compiled(plain))
    for model in (plain, scaled):
        prune_to_cycles(model, example_input=X, budget=budget)
    ours, theirs = kept(plain), kept(scaled)
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


def test_weights_that_the_machine_skipped_and_training_moved(monkeypatch):
    """They cost nothing while they round to zero; what they cost later is taken back."""
    monkeypatch.setattr(cycles, "scores", lambda model, method, inputs: {
        name: np.linspace(1, 1.001, layer.weight.numel()).reshape(layer.weight.shape)
        for name, layer in prunable_layers(model).items()})
    model = net()
    with torch.no_grad():
        model[2].weight.flatten(1)[:, 1::2] *= 1e-5
    budget = compiled(model) - 20

    def wake(pruned: nn.Module, index: int) -> None:
        with torch.no_grad():
            weight = next(pruned[2].parameters())
            weight = weight if weight.dim() == 4 else pruned[2].parametrizations.weight.original
            weight.copy_(weight.sign() * (0.5 + weight.abs()))

    report = prune_to_cycles(model, example_input=X, budget=budget, finetune=wake, rounds=1)
    assert report.trimmed > 0
    assert report.cycles == max(compiled(model), compiled(model, least=0)) <= budget


def test_a_network_too_large_for_the_target_is_pruned_until_it_fits():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(96, 96), nn.ReLU(), nn.Linear(96, 10)).eval()
    x = torch.zeros(1, 96)
    assert "main memory" in Predictor(x, target="hx8k")(model).problem
    prune_to_cycles(model, example_input=x, budget=10**6, target="hx8k")
    program = celosia.compile(model, x, target="hx8k")
    main, *_ = program.memory_use
    assert main.name == "main memory" and 0.85 * main.available < main.used <= main.available


def test_main_memory_without_a_flash_is_pruned_for_too():
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(160, 160) for _ in range(3))).eval()
    x = torch.zeros(1, 160)
    assert "words of main memory, the array has" in Predictor(x, target="upduino")(model).problem
    prune_to_cycles(model, example_input=x, budget=10**6, target="upduino")
    program = celosia.compile(model, x, target="upduino")
    assert program.fullest_moment.used > 0.85 * program.array.main_words


def task() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return (torch.randn(60, 2, 14, 14, generator=generator),
            torch.randint(0, 5, (60,), generator=generator))


def run(folder=None, progress=None) -> tuple[nn.Module, cycles.CycleReport]:
    model, (inputs, labels) = net(), task()
    tune = compress.FineTune(inputs=inputs, labels=labels, epochs=1, batch_size=16)
    report = prune_to_cycles(
        model, example_input=X, budget=BUDGET, finetune=tune, rounds=2, seed=7, checkpoint=folder,
        measure=lambda _: {"accuracy": 0.5}, progress=progress)
    return model, report


unbroken = functools.cache(run)


def test_same_seed_same_bits():
    (one, first), (other, second) = run(), unbroken()
    assert states_equal(one, other)
    assert first == second
    assert first.rounds[-1].accuracy == 0.5
    assert first.rounds[-1].predicted_cycles == first.cycles <= BUDGET


@pytest.mark.parametrize("stop", [0, 1])
def test_resuming_gives_the_bits_of_an_unbroken_run(stop, tmp_path):
    def interrupt(record):
        if record.round == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, interrupt)
    model, report = run(tmp_path)
    assert states_equal(model, unbroken()[0])
    assert report == unbroken()[1]


@pytest.mark.parametrize(
    "wrong, message",
    [({"schedule": "steep"}, "schedule must be"),
     ({"exponents": "fixed"}, "exponents must be"), ({"method": "taste"}, "unknown method"),
     ({"rounds": 0}, "rounds must be at least 1")])
def test_refusals(wrong, message):
    model = net()
    with pytest.raises(ArgumentError, match=message):
        prune_to_cycles(model, **{"method": "magnitude", "budget": BUDGET,
                                  "example_input": X} | wrong)
    assert states_equal(model, net())


def test_refuses_a_layer_that_the_program_does_not_have():
    model = net()
    model.spare = nn.Linear(3, 3)
    model.forward = lambda x: model[:9](x)
    with pytest.raises(ArgumentError, match="layer 'spare' is not one of the program's"):
        Predictor(X)(model)


def test_scores_that_are_all_equal_are_refused_before_anything_is_removed():
    model = net()
    with torch.no_grad():
        for layer in prunable_layers(model).values():
            layer.weight.fill_(0.5)
    dense = compiled(model)
    with pytest.raises(ArgumentError, match="'magnitude' gives all weights of layer '.' the same"):
        prune_to_cycles(model, "magnitude", example_input=X, budget=dense * 3 // 4)
    assert all(mask.all() for mask in kept(model).values())


def test_layers_that_read_what_was_split_have_costs_and_those_on_enlarged_maps_have_none():
    class Split(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Conv2d(1, 8, 3), nn.Conv2d(4, 3, 3)
            nn.init.constant_(self.last.weight, 0.5)

        def forward(self, x):
            return self.last(self.first(x).relu().chunk(2, 1)[1])

    example = torch.zeros(1, 1, 8, 8)
    predict = Predictor(example, target="ulx3s-85f").imported(Split())
    masks = {"last": np.zeros((3, 4, 3, 3), bool)}
    masks["last"][:, 0, 0, 0] = True
    assert predict(masks).macs == predict({}).macs - 3 * 35 * 16
    assert cycle_costs(Split(), example, target="ulx3s-85f")["last"].shape == (3, 1, 1, 1)
    enlarged = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Upsample(scale_factor=2), nn.Conv2d(4, 3, 3))
    with pytest.raises(ArgumentError, match=r"^layer '2' works on an enlarged map, where each of "
                                            r"its weights stands several times, .*; prune by "):
        cycle_costs(enlarged, example, target="ulx3s-85f")
