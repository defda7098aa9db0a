"""Masks on convolutions and correlation on hidden linear layers, together."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from celosia.compress.combined import prune_combined
from celosia.compress.cost import measure
from celosia.compress.masks.weights import current_mask, make_permanent
from celosia.compress.training.finetune import FineTune
from celosia.models import LeNet5, ResNet
from celosia_spec.errors import ArgumentError


def small_task() -> tuple[torch.Tensor, torch.Tensor]:
    """Return pictures whose class is where the bright half lies, and their classes."""
    generator = torch.Generator().manual_seed(3)
    labels = torch.randint(0, 4, (256,), generator=generator)
    inputs = 0.6 * torch.randn(256, 1, 8, 8, generator=generator)
    for index, (rows, columns) in enumerate([(slice(4), slice(8)), (slice(4, 8), slice(8)),
                                             (slice(8), slice(4)), (slice(8), slice(4, 8))]):
        inputs[labels == index, :, rows, columns] += 1
    return inputs, labels


def small_net() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(1, 10, 3, padding=1), nn.BatchNorm2d(10), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(10, 12, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(48, 24), nn.ReLU(), nn.Linear(24, 4))


def trainer(**settings):
    inputs, labels = small_task()
    return partial(FineTune, inputs=inputs, labels=labels, batch_size=32, optimizer="sgd",
                   learning_rate=0.05, **settings)


def accuracy(model: nn.Module) -> float:
    inputs, labels = small_task()
    with torch.no_grad():
        return float((model.eval()(inputs).argmax(1) == labels).double().mean())


def test_combined_pruning_masks_filters_and_the_hidden_linear_layers(tmp_path):
    inputs, _ = small_task()
    results = []
    for folder in (None, tmp_path, tmp_path):
        model = small_net()
        trainer(epochs=15)()(model, 0)
        before = accuracy(model)
        report = prune_combined(
            model, inputs[:1], inputs=inputs[:100], rates=0.7, train=trainer(epochs=8),
            strength=0.02, conv_macs=0.6, recover=trainer(epochs=4)(), rounds=2,
            finetune=trainer(epochs=6)(), checkpoint=folder)
        results.append({name: value.clone() for name, value in model.state_dict().items()})
    for other in results[1:]:
        assert all(torch.equal(other[name], value) for name, value in results[0].items())
    after = report.filters.after
    assert after.conv_macs <= 0.4 * report.filters.before.conv_macs
    hidden, last = model[8], model[10]
    assert hidden.weight.shape[0] == 24 and last.weight.shape == (4, 24)
    density = float(current_mask(hidden).double().mean())
    assert density == pytest.approx(0.3, abs=0.01)
    assert bool(current_mask(last).all()), "the layer of the classes stays whole"
    assert accuracy(model) > before - 0.06 > 0.85
    assert report.choices["weights"]["method"] == "correlation"
    make_permanent(model)
    cost = measure(model, inputs[:1])
    assert cost.useful_macs < cost.macs == after.macs


def test_combined_pruning_refuses_the_layer_of_the_classes():
    x = torch.zeros(1, 1, 28, 28)
    for rates, message in (({"fc3": 0.5}, "gives the classes"), ({"conv1": 0.5}, "hidden linear")):
        with pytest.raises(ArgumentError, match=message):
            prune_combined(LeNet5(), x, inputs=x, rates=rates, train=FineTune, strength=0.1,
                           conv_macs=0.5)
    with pytest.raises(ArgumentError, match="no hidden linear layer"):
        prune_combined(ResNet(8), torch.zeros(1, 3, 32, 32), inputs=x, rates=0.5, train=FineTune,
                       strength=0.1, conv_macs=0.5)


def test_the_layer_of_the_classes_is_told_by_the_run_and_not_by_its_place():
    class Turned(nn.Module):
        """The layer of the classes stands first; there are two of them."""

        def __init__(self) -> None:
            super().__init__()
            self.classes, self.more = nn.Linear(6, 4), nn.Linear(6, 2)
            self.hidden, self.conv = nn.Linear(8, 6), nn.Conv2d(1, 8, 3)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            x = torch.relu(self.hidden(torch.relu(self.conv(x)).mean((2, 3))))
            return self.classes(x).log_softmax(1), self.more(x)

    inputs = torch.randn(8, 1, 8, 8)
    report = prune_combined(Turned(), inputs[:1], inputs=inputs, rates=0.5, method="magnitude",
                            train=lambda **hooks: lambda model, round: None, strength=0.1,
                            conv_macs=0.3)
    rates = report.choices["weights"]["rates"]
    assert {name: rate for name, rate in rates.items() if rate} == {"hidden": 0.5}
    with pytest.raises(ArgumentError, match="'more' gives the classes"):
        prune_combined(Turned(), inputs[:1], inputs=inputs, rates={"more": 0.5}, strength=0.1,
                       method="magnitude", train=FineTune, conv_macs=0.3)
