"""The training loop: what it trains, what it leaves alone, and what it refuses at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from celosia import compress
from celosia_spec.errors import ArgumentError, CelosiaError

X, CLASSES = torch.randn(64, 8, generator=torch.Generator().manual_seed(0)), torch.arange(64) % 3


def _network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


def _state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_a_part_in_eval_mode_of_a_model_in_train_mode_stays_so():
    net = _network().train()
    net[1].eval()
    before = _state(net)
    compress.FineTune(inputs=X, labels=CLASSES)(net, 0)
    after = _state(net)
    assert torch.equal(before["1.running_mean"], after["1.running_mean"])
    assert not torch.equal(before["0.weight"], after["0.weight"])
    assert net.training and not net[1].training and net[2].training


def test_a_model_in_eval_mode_trains_as_a_whole_and_is_put_back():
    net = _network().eval()
    before = _state(net)
    compress.FineTune(inputs=X, labels=CLASSES)(net, 0)
    assert not torch.equal(before["1.running_mean"], net[1].running_mean)
    assert not any(module.training for module in net.modules())


def test_modes_are_put_back_after_an_error():
    net = _network().eval()

    def stop(model: nn.Module, rate: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compress.FineTune(inputs=X, labels=CLASSES, after_step=stop)(net, 0)
    assert not any(module.training for module in net.modules())


def test_frozen_parameters_stay():
    net = _network()
    net[0].requires_grad_(False)
    before = _state(net)
    compress.FineTune(inputs=X, labels=CLASSES, weight_decay=0.5)(net, 0)
    assert torch.equal(before["0.weight"], net[0].weight)
    with pytest.raises(ArgumentError, match="every parameter of the model is frozen"):
        compress.FineTune(inputs=X, labels=CLASSES)(net.requires_grad_(False), 0)


@pytest.mark.parametrize("count, size, sizes", [
    (65, 32, [32, 33]), (64, 32, [32, 32]), (66, 32, [32, 32, 2]), (33, 32, [33]), (3, 1, [1] * 3),
    (1, 32, [1])])
def test_an_input_left_over_joins_the_batch_before(count, size, sizes):
    seen = []
    net = nn.Sequential(nn.Linear(8, 3))
    net.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    compress.FineTune(inputs=torch.randn(count, 8), labels=torch.zeros(count, dtype=torch.int64),
                      batch_size=size)(net, 0)
    assert sorted(seen[1:]) == sorted(sizes)            # the first run is the trial


@pytest.mark.parametrize("size, count", [(1, 8), (8, 1)])
def test_a_batch_of_one_before_a_normalisation_is_refused_and_leaves_no_trace(size, count):
    net = _network()
    before = _state(net)
    tune = compress.FineTune(inputs=X[:count], labels=CLASSES[:count], batch_size=size)
    with pytest.raises(ArgumentError, match="does not train on a batch of 1 .* larger batch_size"):
        tune(net, 0)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_the_trial_run_changes_nothing():
    """Statistics and random numbers are those of a loop without it."""
    torch.manual_seed(5)
    net = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3))
    tune = compress.FineTune(inputs=X, labels=CLASSES, batch_size=64, learning_rate=1e-30,
                             weight_decay=0.0)
    tune(net, 0)
    assert int(net[1].num_batches_tracked) == 1


@pytest.mark.parametrize("kind", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64,
                                  torch.bool])
def test_classes_may_be_whole_numbers_of_any_type(kind):
    net, labels = _network(), (CLASSES % 2).to(kind)
    compress.FineTune(inputs=X, labels=labels)(net, 0)
    wanted = _network()
    compress.FineTune(inputs=X, labels=CLASSES % 2)(wanted, 0)
    assert torch.equal(net[0].weight, wanted[0].weight)


def test_arrays_and_other_floating_types_train():
    net = _network()
    compress.FineTune(inputs=X.double().numpy(), labels=CLASSES.numpy().astype(np.uint8))(net, 0)
    wanted = _network()
    compress.FineTune(inputs=X, labels=CLASSES)(wanted, 0)
    assert torch.equal(net[0].weight, wanted[0].weight)


def test_probabilities_are_targets_too():
    compress.FineTune(inputs=X, labels=torch.full((64, 3), 1 / 3))(_network(), 0)


@pytest.mark.parametrize("labels, words", [
    (torch.zeros(64), r"labels are float32 of shape \(64,\); give the classes as whole numbers"),
    (torch.zeros(64, 3, dtype=torch.int64), r"labels are int64 of shape \(64, 3\)"),
    (torch.tensor(1), "64 inputs and 1 labels"),
    (CLASSES[:63], "64 inputs and 63 labels")])
def test_labels_that_cannot_be_meant_are_refused_at_once(labels, words):
    with pytest.raises(ArgumentError, match=words):
        compress.FineTune(inputs=X, labels=labels)


@pytest.mark.parametrize("labels, words", [
    (CLASSES + 1, "label 3 is not one of the network's 3 classes, 0 to 2"),
    (CLASSES - 1, "label -1 is not one"),
    (torch.full((64, 4), 0.25), "probabilities of 4 classes, and the network gives 3")])
def test_labels_that_do_not_go_with_the_network_are_refused_before_training(labels, words):
    net = _network()
    before = _state(net)
    with pytest.raises(ArgumentError, match=words):
        compress.FineTune(inputs=X, labels=labels)(net, 0)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_a_loss_that_is_no_number_is_told():
    with pytest.raises(CelosiaError, match="the loss of round 2, epoch 0 is nan; lower the"):
        compress.FineTune(inputs=X, labels=CLASSES, batch_size=8, learning_rate=1e38)(
            nn.Sequential(nn.Linear(8, 3)), 2)


@pytest.mark.parametrize("settings, words", [
    ({"batch_size": 0}, "batch_size must be at least 1"),
    ({"learning_rate": float("nan")}, "learning_rate must be above 0"),
    ({"learning_rate": -1.0}, "learning_rate must be above 0"),
    ({"learning_rate": "0.1"}, "learning_rate must be above 0, not '0.1'"),
    ({"batch_size": 2.5}, "batch_size must be at least 1, a whole number, not 2.5"),
    ({"epochs": -1}, "epochs must be at least 0"), ({"epochs": 1.5}, "epochs must be at least 0"),
    ({"epochs": [1, -2]}, "epochs must be at least 0, a whole number, not -2"),
    ({"epochs": []}, "epochs is an empty sequence"),
    ({"weight_decay": -0.1}, "weight_decay must be 0 or above"),
    ({"label_smoothing": 2}, "label_smoothing must be 0 to 1, not 2"),
    ({"optimizer": "sgd", "momentum": 0.0}, "momentum must be above 0"),
    ({"temperature": 0}, "temperature must be above 0"),
    ({"inputs": X * torch.nan}, "inputs hold NaN or infinity"),
    ({"labels": torch.full((64, 3), -0.5)}, "labels of two axes are probabilities")])
def test_settings_are_checked(settings, words):
    with pytest.raises(ArgumentError, match=words):
        compress.FineTune(**{"inputs": X, "labels": CLASSES} | settings)


class Detached(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x).detach()


@pytest.mark.parametrize("settings, words", [
    ({"loss": lambda y, t: (y - t).square(), "labels": torch.zeros(64, 3)},
     "loss does not return one number; take its mean"),
    ({"loss": lambda y, t: 3.0}, "loss does not return one number"),
    ({"loss": lambda y: y}, "does not train on a batch of 64 .*positional argument"),
    ({"teacher": nn.Linear(8, 4)}, "does not train on a batch of 64 .*must match"),
    ({"augment": lambda batch, generator: batch[:3]}, "does not train on a batch of 64 .*batch"),
    ({"penalty": lambda model: model.none}, "does not train on a batch of 64 .*none")])
def test_what_the_loss_is_made_of_is_tried_before_training(settings, words):
    net = _network()
    before = _state(net)
    with pytest.raises(ArgumentError, match=words):
        compress.FineTune(**{"inputs": X, "labels": CLASSES} | settings)(net, 0)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_outputs_without_gradients_are_refused_before_training():
    with pytest.raises(ArgumentError, match="no parameter of the model has a share in the loss"):
        compress.FineTune(inputs=X, labels=CLASSES)(Detached(), 0)


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_a_teacher_in_train_mode_teaches_in_eval_mode_and_stays_as_it_is(kind):
    teacher = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3))
    teacher = teacher.to(kind).train()
    before, nets = _state(teacher), []
    for mode in (True, False):
        torch.manual_seed(0)
        nets.append(nn.Linear(8, 3))
        compress.FineTune(inputs=X, labels=CLASSES, teacher=teacher.train(mode))(nets[-1], 0)
        assert teacher.training is mode
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert torch.equal(nets[0].weight, nets[1].weight)


def test_a_rate_factor_that_names_nothing_is_refused():
    net = _network()
    with pytest.raises(ArgumentError, match="no parameter's name begins with 'conv1.'; names are"):
        compress.FineTune(inputs=X, labels=CLASSES, rate_factors={"conv1.": 10.0})(net, 0)
    compress.FineTune(inputs=X, labels=CLASSES, rate_factors={"0.": 10.0})(net, 0)
