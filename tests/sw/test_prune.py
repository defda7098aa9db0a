"""Masks, criteria, and schedules of pruning."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from celosia import compress
from celosia.compress.masks.weights import Mask, apply_mask, current_mask
from celosia.compress.options import option
from celosia.compress.weights.schedule import plan, resolve_rates
from celosia.compress.weights.selection import keep_global, keep_largest
from pruning_task import small_net, small_task, weights

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
    with pytest.raises(ValueError, match="no Conv1d, Conv2d or Linear"):
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
