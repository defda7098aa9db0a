"""Masks, criteria, schedules, selection, fine-tuning and the pruning loop."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from celosia import compress
from celosia.compress.masks.weights import Mask, apply_mask, current_mask
from celosia.compress.options import option
from celosia.compress.weights.schedule import plan, resolve_rates
from celosia.compress.weights.selection import keep_global, keep_largest
from celosia.models import LeNet5


def small_net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 16, 5))


def small_task() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    inputs = torch.randn(40, 1, 6, 6, generator=generator)
    return inputs, torch.randint(0, 5, (40,), generator=generator)


def weights(model: nn.Module) -> dict[str, np.ndarray]:
    return {
        name: layer.weight.detach().numpy().copy()
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    }


# Masks


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_masked_weights_stay_zero_under_momentum_and_weight_decay(optimizer):
    model = small_net()
    inputs, labels = small_task()
    tune = compress.FineTune(
        inputs=inputs,
        labels=labels,
        epochs=5,
        learning_rate=0.05,
        weight_decay=0.1,
        optimizer=optimizer,
        batch_size=8,
    )
    tune(model, 0)
    before = weights(model)
    compress.prune(model, "magnitude", rates=0.5, finetune=tune, rounds=2)
    tune(model, 0)
    for name, weight in weights(model).items():
        kept = current_mask(model.get_submodule(name)).numpy()
        assert np.count_nonzero(weight[~kept]) == 0
        assert not np.signbit(weight[~kept]).any()
        assert np.all(weight[kept] != before[name][kept]), "the kept weights must have trained"


def test_make_permanent_leaves_a_plain_model_with_the_same_output():
    model = small_net()
    names = list(model.state_dict())
    compress.prune(model, "magnitude", rates=0.5)
    inputs, _ = small_task()
    masked = model(inputs)
    assert list(model.state_dict()) != names
    compress.make_permanent(model)
    assert sorted(model.state_dict()) == sorted(names)
    assert torch.equal(model(inputs), masked)
    assert np.count_nonzero(model[3].weight.detach().numpy()) == 160
    compress.make_permanent(model)
    assert torch.equal(model(inputs), masked)


def test_make_permanent_of_a_copy_leaves_the_original_whole():
    model = small_net()
    inputs, _ = small_task()
    compress.prune(model, "magnitude", rates=0.5)
    before = model(inputs)
    twin = copy.deepcopy(model)
    compress.make_permanent(twin)
    assert torch.equal(model(inputs), before)
    assert torch.equal(twin(inputs), before)
    assert isinstance(model[0].parametrizations.weight[0], Mask)


def test_make_permanent_refuses_a_second_parametrisation():
    class Twice(nn.Module):
        def forward(self, weight):
            return 2 * weight

    model = small_net()
    compress.prune(model, "magnitude", rates=0.5)
    nn.utils.parametrize.register_parametrization(model[3], "weight", Twice())
    with pytest.raises(ValueError, match="layer '3' has another parametrisation"):
        compress.make_permanent(model)


def test_masks_survive_deepcopy_and_independent_pruning():
    model = small_net()
    compress.prune(model, "magnitude", rates=0.5)
    twin = copy.deepcopy(model)
    compress.prune(twin, "magnitude", rates=0.75)
    assert int(current_mask(model[3]).sum()) == 160
    assert int(current_mask(twin[3]).sum()) == 80
    assert not (current_mask(twin[3]) & ~current_mask(model[3])).any()


@pytest.mark.parametrize("kept", [torch.ones(5, 64), torch.ones(5, 63, dtype=torch.bool)])
def test_apply_mask_refuses_a_wrong_mask(kept):
    with pytest.raises(ValueError, match=r"shape \(5, 64\) must be bool"):
        apply_mask(small_net()[3], kept)


def test_a_removed_weight_gets_no_gradient():
    mask = Mask(torch.tensor([True, False]))
    weight = torch.tensor([2.0, 3.0], requires_grad=True)
    mask(weight).sum().backward()
    assert weight.grad.tolist() == [1.0, 0.0]


# Criteria


def test_magnitude_is_the_absolute_value():
    model = small_net()
    result = compress.scores(model, "magnitude", None)
    assert list(result) == ["0", "3"]
    for name, weight in weights(model).items():
        assert result[name].dtype == np.float64
        np.testing.assert_array_equal(result[name], np.abs(weight.astype(np.float64)))


def test_unknown_method_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown method 'size'; known methods: .*magnitude"):
        compress.scores(small_net(), "size", None)
    with pytest.raises(ValueError, match="unknown method"):
        compress.prune(small_net(), "size", rates=0.5)


def test_unknown_option_is_refused():
    with pytest.raises(TypeError, match="'magnitude' has no option power; its options: none"):
        compress.scores(small_net(), "magnitude", None, power=2)


def test_a_model_with_nothing_to_prune_is_refused():
    with pytest.raises(ValueError, match="no Conv2d or Linear"):
        compress.scores(nn.Sequential(nn.ReLU()), "magnitude", None)


def test_scores_that_are_not_finite_are_refused():
    model = small_net()
    with torch.no_grad():
        model[3].weight[0, 0] = float("nan")
    with pytest.raises(ValueError, match="layer '3' a score that is not finite"):
        compress.scores(model, "magnitude", None)


def test_another_criterion_can_join_and_gets_its_options(monkeypatch):
    from celosia.compress.criteria import registry

    monkeypatch.setattr(registry, "_CRITERIA", dict(registry._CRITERIA))

    @dataclass(frozen=True, kw_only=True)
    class Sign:
        sign: int = option(1, about="1 or -1")

    @compress.criterion("by-position", of="weights", options=Sign)
    def by_position(scoring, options):
        return {
            name: options.sign * np.arange(layer.weight.numel(), dtype=float).reshape(
                layer.weight.shape)
            for name, layer in scoring.layers.items()
        }

    model = small_net()
    compress.prune(model, "by-position", rates=0.5, sign=-1)
    kept = current_mask(model[3]).numpy().ravel()
    assert kept[:160].all()
    assert not kept[160:].any()
    assert "by-position" in compress.methods()
    with pytest.raises(ValueError, match="'by-position' is taken"):
        compress.criterion("by-position", of="weights")(by_position)
    with pytest.raises(ValueError, match="of weights or of filters, not of 'rows'"):
        compress.criterion("by-row", of="rows")


# Schedule and selection


@pytest.mark.parametrize(
    "rates", ["search", None, True, 1.0, -0.1, float("nan"), {"a": "high"}, {"a": 1.5}]
)
def test_rates_that_mean_nothing_are_refused(rates):
    with pytest.raises(ValueError, match=r"one number for all layers or \{layer name: number\}"):
        resolve_rates(rates, {"a": 10, "b": 10})


def test_rates_name_layers():
    assert resolve_rates({"b": 0.5}, {"a": 10, "b": 10}) == {"a": 0.0, "b": 0.5}
    with pytest.raises(ValueError, match="no layer is called 'c'; layers: 'a', 'b'"):
        resolve_rates({"c": 0.5}, {"a": 10, "b": 10})
    with pytest.raises(ValueError, match="removes all 10 weights of layer 'a'"):
        resolve_rates(0.96, {"a": 10, "b": 1000})


def test_plans_reach_the_final_density_and_never_rise():
    cubic = plan({"a": 0.8}, 4)
    np.testing.assert_allclose(
        [row["a"] for row in cubic], [1 - 0.8 * (1 - (1 - t / 4) ** 3) for t in (1, 2, 3, 4)]
    )
    linear = [row["a"] for row in plan({"a": 0.8}, 4, "linear")]
    np.testing.assert_allclose(linear, [0.8, 0.6, 0.4, 0.2])
    with pytest.raises(ValueError, match="unknown schedule 'steps'; known: cubic, linear"):
        plan({"a": 0.8}, 4, "steps")
    with pytest.raises(ValueError, match="rounds must be at least 1, not 0"):
        plan({"a": 0.8}, 0)


def test_equal_scores_keep_the_lowest_index():
    alive = np.array([[True, False, True], [True, True, True]])
    kept = keep_largest(np.zeros((2, 3)), alive, 3)
    np.testing.assert_array_equal(kept, [[True, False, True], [True, False, False]])
    np.testing.assert_array_equal(keep_largest(np.ones((2, 3)), alive, 6), alive)


def test_global_selection_compares_layers():
    scores = {"a": np.array([[1.0, 9.0]]), "b": np.array([5.0, 7.0, 3.0])}
    alive = {name: np.ones(value.shape, bool) for name, value in scores.items()}
    kept = keep_global(scores, alive, 3)
    np.testing.assert_array_equal(kept["a"], [[False, True]])
    np.testing.assert_array_equal(kept["b"], [True, True, False])


# The loop


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.29, 0.5, 0.9])
def test_removes_exactly_the_asked_number_and_the_smallest(rate):
    model = LeNet5()
    before = weights(model)
    report = compress.prune(model, "magnitude", rates=rate)
    removed = 0
    for name, weight in weights(model).items():
        gone = weight == 0
        expected = int(rate * weight.size + 0.5 + 1e-9)
        assert np.count_nonzero(gone) == expected
        assert report.layers[name].kept == weight.size - expected
        if expected:
            assert np.abs(before[name][gone]).max() <= np.abs(before[name][~gone]).min()
        removed += expected
    assert report.density == (44_190 - removed) / 44_190


def test_layer_and_global_scope_differ_as_they_should():
    model, twin = small_net(), small_net()
    with torch.no_grad():
        for net in (model, twin):
            net[0].weight.mul_(100)
    compress.prune(model, "magnitude", rates=0.5, scope="layer")
    report = compress.prune(twin, "magnitude", rates=0.5, scope="global")
    assert int(current_mask(model[0]).sum()) == 18
    assert current_mask(twin[0]).all()
    assert int(current_mask(twin[3]).sum()) == (36 + 320) // 2 - 36
    assert report.density == 0.5


def test_global_scope_refuses_what_it_cannot_do():
    with pytest.raises(ValueError, match="takes one rate"):
        compress.prune(small_net(), "magnitude", rates={"0": 0.5}, scope="global")
    model = small_net()
    with torch.no_grad():
        model[3].weight.mul_(1e-6)
    with pytest.raises(ValueError, match="leaves layer '3' without a weight"):
        compress.prune(model, "magnitude", rates=0.95, scope="global")
    assert current_mask(model[3]).all()
    with pytest.raises(ValueError, match="scope must be one of"):
        compress.prune(model, "magnitude", rates=0.5, scope="model")


def run_with_training(seed: int) -> dict[str, np.ndarray]:
    inputs, labels = small_task()
    model = small_net()
    tune = compress.FineTune(
        inputs=inputs, labels=labels, epochs=2, batch_size=16, teacher=small_net(), seed=seed,
        augment=compress.flip_and_shift,
    )  # fmt: skip

    def noisy(net: nn.Module, round: int) -> None:
        tune(net, round)
        with torch.no_grad():
            net[3].bias.add_(torch.randn(5))

    compress.prune(model, "magnitude", rates=0.6, finetune=noisy, rounds=3, seed=seed)
    return {name: value.numpy() for name, value in model.state_dict().items()}


def test_a_seed_decides_everything():
    torch.manual_seed(11)
    first = run_with_training(4)
    torch.manual_seed(12)
    state = torch.get_rng_state()
    second, other = run_with_training(4), run_with_training(5)
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])
    assert any(not np.array_equal(first[name], other[name]) for name in first)
    torch.manual_seed(12)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_global_generator_is_put_back():
    model = small_net()
    torch.manual_seed(12)
    state = torch.get_rng_state()
    compress.prune(model, "magnitude", rates=0.6, finetune=lambda *_: torch.rand(3))
    assert torch.equal(torch.get_rng_state(), state)


def test_rounds_are_reported_and_removed_weights_never_return():
    seen, masks = [], []

    def regrow(model: nn.Module, round: int) -> None:
        masks.append(current_mask(model[3]).numpy())
        with torch.no_grad():
            original = model[3].parametrizations.weight.original
            original.copy_(torch.randn_like(original))

    report = compress.prune(
        small_net(), "magnitude", rates={"3": 0.75}, finetune=regrow, rounds=4,
        schedule="linear", progress=seen.append,
    )  # fmt: skip
    assert tuple(seen) == report.rounds
    assert [(record.round, record.rounds) for record in seen] == [(0, 4), (1, 4), (2, 4), (3, 4)]
    assert [record.layers["3"].kept for record in seen] == [260, 200, 140, 80]
    assert all(record.layers["0"].density == 1 for record in seen)
    assert not any((later & ~earlier).any() for earlier, later in pairwise(masks))
    assert report.density == seen[-1].density == (80 + 36) / 356
    assert report.choices["rates"] == {"0": 0.0, "3": 0.75}
    assert report.choices["method"] == "magnitude"
    assert report.choices["rounds"] == 4


def test_default_rounds_depend_on_finetuning():
    assert len(compress.prune(small_net(), "magnitude", rates=0.5).rounds) == 1
    tuned = compress.prune(small_net(), "magnitude", rates=0.5, finetune=lambda *_: None)
    assert len(tuned.rounds) == 5


# Orders, layers, selections


def deep_net() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 20), nn.ReLU(), nn.Linear(20, 10), nn.ReLU(),
                         nn.Linear(10, 5))


@pytest.mark.parametrize(("order", "first"), [("forward", "1"), ("backward", "5")])
def test_layers_in_turn_get_all_their_rounds(order, first):
    kept = []

    def finetune(model: nn.Module, round: int) -> None:
        kept.append({name: int(current_mask(model.get_submodule(name)).sum())
                     for name in ("1", "3", "5")})

    report = compress.prune(deep_net(), "magnitude", rates={"5": 0.4, "1": 0.5}, order=order,
                            finetune=finetune, rounds=3)
    left = {"1": [600, 480, 360], "5": [43, 37, 30]}
    last = {"1": "5", "5": "1"}[first]
    whole = {"1": 720, "3": 200, "5": 50}
    assert kept == [{**whole, first: n} for n in left[first]] + [
        {**whole, first: left[first][-1], last: n} for n in left[last]]
    assert [record.rounds for record in report.rounds] == [6] * 6
    assert (report.choices["order"], report.choices["schedule"]) == (order, "linear")
    assert report.choices["rounds"] == 3


def test_layer_by_layer_scores_the_model_as_retrained():
    """The second layer's scores must come from the network after the first layer's rounds."""
    model = deep_net()

    def finetune(model: nn.Module, round: int) -> None:
        if round == 0:
            with torch.no_grad():
                model[5].weight[:, :5] = 9

    compress.prune(model, "magnitude", rates={"1": 0.5, "5": 0.5}, order="forward", rounds=1,
                   finetune=finetune)
    assert current_mask(model[5])[:, :5].all()
    assert not current_mask(model[5])[:, 5:].any()


def test_order_and_scope_that_mean_nothing_are_refused():
    for changes, message in [
        ({"order": "sideways"}, "unknown order 'sideways'; known: together, forward, backward"),
        ({"scope": "global", "order": "forward"}, "goes with order='together'"),
        ({"rates": 0.0, "order": "forward"}, "no layer has a rate above 0"),
        ({"rates": {"1": 0.5}, "layers": ["1"]}, "rates name the layers already"),
        ({"layers": ["7"]}, "no layer is called '7'"),
        ({"select": "best"}, "select must be one of"),
        ({"select": "sun2016"}, "goes with method 'correlation' only, not with 'magnitude'"),
        ({"evaluate": lambda model: 1.0}, "go with rates='search'"),
        ({"rates": "search"}, "needs evaluate=.*and accuracy_budget="),
        ({"rounds": 0}, "rounds must be at least 1"),
        ({"schedule": "steps"}, "unknown schedule 'steps'"),
    ]:
        model = deep_net()
        with pytest.raises(ValueError, match=message):
            compress.prune(model, "magnitude", **({"rates": 0.5} | changes))
        assert all(current_mask(model[at]).all() for at in (1, 3, 5))


def test_one_number_for_some_layers():
    report = compress.prune(deep_net(), "magnitude", rates=0.5, layers=["3", "5"])
    assert {name: layer.density for name, layer in report.layers.items()} == {
        "1": 1, "3": 0.5, "5": 0.5}
    whole = compress.prune(deep_net(), "magnitude", rates=0.5, layers=["3", "5"], scope="global")
    assert whole.layers["1"].kept == 720
    assert whole.layers["3"].kept + whole.layers["5"].kept == 125


def test_a_method_may_score_some_layers_only(monkeypatch):
    from celosia.compress.criteria import registry

    monkeypatch.setattr(registry, "_CRITERIA", dict(registry._CRITERIA))

    @dataclass(frozen=True, kw_only=True)
    class Power:
        power: int = option(2, about="of the absolute value")

    @compress.criterion("linear-only", of="weights", options=Power)
    def linear_only(scoring, options):
        return {name: np.abs(layer.weight.detach().numpy().astype(float)) ** options.power
                for name, layer in scoring.layers.items() if isinstance(layer, nn.Linear)}

    report = compress.prune(small_net(), "linear-only", rates={"3": 0.5})
    assert report.layers["3"].kept == 160
    assert report.choices["options"] == {"power": 2}, "defaults are recorded too"
    with pytest.raises(ValueError, match=r"'linear-only' does not score layer '0'; name the lay"):
        compress.prune(small_net(), "linear-only", rates=0.5)


def test_sampled_selection_needs_signs_and_a_seed():
    inputs, _ = small_task()
    settings = {"inputs": inputs.reshape(40, 36), "rates": {"3": 0.5, "5": 0.5}, "rounds": 2,
                "select": "sun2016"}
    masks = []
    for seed, strong in ((0, 0.75), (0, 0.75), (1, 0.75), (0, 1.0)):
        model = deep_net()
        report = compress.prune(model, "correlation", seed=seed, strong=strong, **settings)
        assert report.layers["3"].kept == 100
        assert report.choices["strong"] == strong
        assert report.choices["options"]["signed"] is True
        masks.append(current_mask(model[3]))
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])
    assert not torch.equal(masks[0], masks[3])


def test_choices_can_be_written_as_json():
    inputs, labels = small_task()
    tune = compress.FineTune(inputs=inputs, labels=labels, teacher=small_net())
    report = compress.prune(small_net(), "magnitude", inputs=inputs, rates=np.float64(0.5),
                            finetune=tune, rounds=1)
    assert json.loads(json.dumps(report.choices, allow_nan=False)) == report.choices
    assert report.choices["finetune"]["epochs"] == 1


# Fine-tuning


def test_finetuning_learns_and_keeps_the_mode():
    inputs, labels = small_task()
    model = small_net().eval()
    losses = []
    compress.FineTune(
        inputs=inputs, labels=labels, epochs=(30, 1), learning_rate=0.01, batch_size=8,
        on_epoch=lambda round, epoch, loss: losses.append((round, epoch, loss)),
    )(model, 0)  # fmt: skip
    assert losses[-1][2] < 0.3 * losses[0][2]
    assert losses[-1][:2] == (0, 29)
    assert not model.training


def test_distillation_pulls_towards_the_teacher():
    inputs, labels = small_task()
    teacher = small_net(seed=8).eval()
    distance = []
    for weight in (0.0, 1.0):
        model = small_net()
        compress.FineTune(
            inputs=inputs, labels=labels, epochs=30, learning_rate=0.01, batch_size=8,
            teacher=teacher, teacher_weight=weight,
        )(model, 0)  # fmt: skip
        with torch.no_grad():
            gap = model(inputs).softmax(1) - teacher(inputs).softmax(1)
        distance.append(float(gap.abs().mean()))
    assert distance[1] < 0.3 * distance[0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"labels": torch.zeros(3, dtype=torch.int64)}, "40 inputs and 3 labels"),
        ({"optimizer": "lion"}, "optimizer must be one of"),
        ({"epochs": ()}, "epochs is an empty sequence"),
    ],
)
def test_finetune_refuses_settings_that_cannot_be_meant(settings, message):
    inputs, labels = small_task()
    with pytest.raises(ValueError, match=message):
        compress.FineTune(**({"inputs": inputs, "labels": labels} | settings))


def test_flip_and_shift_only_moves_pixels():
    image = torch.zeros(500, 1, 5, 5)
    image[:, 0, 2, 1] = 1
    moved = compress.flip_and_shift(image, torch.Generator().manual_seed(0))
    assert moved.shape == image.shape
    assert moved.sum() == 500
    places = {(int(y), int(x)) for _, _, y, x in moved.nonzero()}
    assert places == {(y, x) for y in (1, 2, 3) for x in range(5)}
