"""The pruning loop: rounds, orders, selection and fine-tuning."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from celosia import compress
from celosia.compress.masks.weights import current_mask
from celosia.compress.options import option
from celosia.models import LeNet5
from pruning_task import small_net, small_task, weights

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
