"""Layers by identity, and the promise of equal outputs."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune, weight_norm

from celosia.compress.layers import (
    distinct_weights,
    first_names,
    held_weight,
    holders,
    names_of,
    obstacle,
    parameter_count,
    put,
    strangers,
    weight_sharers,
)
from celosia.compress.masks.weights import apply_mask
from celosia.compress.promise import Promise, restoring, run_once
from celosia_spec.errors import ArgumentError, CelosiaError


class Twice(nn.Module):
    """One layer under two names, and one weight in two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 6)
        self.b.weight = self.a.weight
        self.all = nn.Sequential(self.a, nn.ReLU(), self.b)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.all(x)


def test_names_and_sharers_are_found_by_identity():
    net = Twice()
    assert names_of(net, net.a) == ("a", "all.0")
    assert weight_sharers(net, net.a) == ("b",)
    assert parameter_count(net) == 36 + 6 + 6
    put(net, net.a, nn.Identity())
    assert isinstance(net.a, nn.Identity) and net.all[0] is net.a


def test_weights_are_found_by_identity_under_masks_too():
    net = Twice()
    for masked in (False, True):
        if masked:
            for layer in (net.a, net.b):
                apply_mask(layer, torch.ones(6, 6, dtype=torch.bool))
        assert list(distinct_weights(net)) == ["a"]
        assert list(holders(net, net.b)) == ["a", "b"]
        assert held_weight(net.a) is held_weight(net.b)
        assert first_names(net, ["b", "all.2", "all.1", "x"]) == {
            "b": "a", "all.2": "a", "all.1": "all.1", "x": "x"}
        assert strangers(net, net.a) == ()
    net.extra = nn.Embedding(6, 6)
    net.extra.weight = held_weight(net.a)
    assert strangers(net, net.b) == ("extra",)


def test_a_hook_of_all_modules_is_seen():
    handle = nn.modules.module.register_module_forward_hook(lambda module, given, output: output)
    try:
        assert "hook of all modules" in (obstacle(nn.Linear(3, 3)) or "")
    finally:
        handle.remove()
    assert obstacle(nn.Linear(3, 3)) is None


class Scaled(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 3 * super().forward(x)


class Standardised(nn.Conv2d):
    def _conv_forward(self, x, weight, bias):
        return super()._conv_forward(x, weight - weight.mean(), bias)


def _own_instance() -> nn.Module:
    layer = nn.Linear(3, 3)
    layer.forward = lambda x: x
    return layer


def _hooked(pre: bool) -> nn.Module:
    layer = nn.Linear(3, 3)
    if pre:
        layer.register_forward_pre_hook(lambda module, inputs: None)
    else:
        layer.register_forward_hook(lambda module, inputs, output: 2 * output)
    return layer


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: Scaled(3, 3), "forward of its own"),
        (lambda: Standardised(1, 2, 3), "conv_forward of its own"),
        (_own_instance, "forward of its own"),
        (lambda: _hooked(False), "forward hook"),
        (lambda: _hooked(True), "forward hook"),
        (lambda: prune.l1_unstructured(nn.Linear(3, 3), "weight", 0.5), r"prune.remove\(layer"),
        (lambda: parametrizations.weight_norm(nn.Linear(3, 3)), "remove_parametrizations"),
        (lambda: parametrizations.orthogonal(nn.Linear(3, 3)), "remove_parametrizations"),
        (lambda: weight_norm(nn.Linear(3, 3)), "remove_weight_norm"),
        (lambda: nn.utils.spectral_norm(nn.Linear(3, 3)), "remove_spectral_norm"),
        (lambda: nn.SyncBatchNorm(3), "not one of torch's own layers"),
    ],
)
def test_an_obstacle_is_told_in_words(make, words):
    found = obstacle(make())
    assert found is not None and re.search(words, found), found


@pytest.mark.parametrize("make", [lambda: nn.Linear(3, 3), lambda: nn.Conv2d(1, 2, 3),
                                  lambda: nn.BatchNorm2d(3),
                                  lambda: nn.MultiheadAttention(4, 2).out_proj])
def test_torchs_own_layers_have_no_obstacle(make):
    assert obstacle(make()) is None


def _network() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(),
                        nn.Linear(96, 4))
    net[1].running_var.uniform_(0.5, 2)
    return net.train()


def test_a_kept_promise_changes_nothing():
    net, x = _network(), torch.randn(2, 3, 6, 6)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    promise = Promise(net, x)
    assert promise.broken_by(net) is None and net.training
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


def test_rounding_keeps_a_promise_and_a_small_change_breaks_it():
    net, x = _network(), torch.randn(2, 3, 6, 6)
    promise = Promise(net, x)
    with torch.no_grad():
        net[0].weight.mul_(3).div_(3)
    assert promise.broken_by(net) is None
    with torch.no_grad():
        net[4].bias[2] += 1e-3
    assert promise.broken_by(net) == pytest.approx(1e-3, rel=1e-2)


def test_an_example_of_zeros_hides_nothing():
    net = nn.Linear(4, 3, bias=False)
    promise = Promise(net, torch.zeros(1, 4))
    with torch.no_grad():
        net.weight[1, 2] += 0.01
    assert promise.broken_by(net) is not None


def test_a_broken_promise_names_the_layer_and_puts_the_network_back():
    net, x = _network(), torch.randn(2, 3, 6, 6)
    want = net.eval()(x)
    first, norm = net[0].weight, net[1]

    def harmless() -> None:
        net[0].weight = nn.Parameter(net[0].weight.detach().clone())

    def harmful() -> None:
        net[1] = nn.Identity()

    with pytest.raises(CelosiaError, match=r"^folding '1' changes the outputs by .* put back"):
        Promise(net, x).keep(net, {"0": harmless, "1": harmful}, "folding {layer!r}")
    assert net[0].weight is first and net[1] is norm
    assert torch.equal(net(x), want)


def test_what_is_interrupted_is_put_back():
    net, x = _network().eval(), torch.randn(2, 3, 6, 6)
    want = net(x)

    def interrupted() -> None:
        with restoring(net):
            with torch.no_grad():
                net[4].weight.zero_()
            net[4].weight.data = net[4].weight.data[:2]
            net[0].stride = (2, 2)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert torch.equal(net(x), want)


def test_outputs_of_any_form_are_compared():
    class Nested(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(4, 2)

        def forward(self, x):
            return {"y": self.a(x), "more": [x, (x.argmax(1),)]}

    assert len(run_once(Nested(), torch.randn(3, 4))) == 3


def test_a_random_network_cannot_promise():
    rng = np.random.default_rng(0)

    class Noisy(nn.Module):
        def forward(self, x):
            return x + torch.from_numpy(rng.standard_normal(x.shape)).float()

    with pytest.raises(ArgumentError, match="other outputs each time"):
        Promise(Noisy(), torch.randn(2, 3))


def test_a_network_that_does_not_run_is_refused_in_words():
    with pytest.raises(ArgumentError, match=r"does not run on the example input of shape \(1, 5\)"):
        Promise(nn.Linear(4, 2), torch.zeros(1, 5))


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_every_floating_type_has_its_own_tolerance(kind):
    net, x = _network().to(kind), torch.randn(2, 3, 6, 6)
    promise = Promise(net, x)
    with torch.no_grad():
        net[0].weight.mul_(3).div_(3)
    assert promise.broken_by(net) is None
    with torch.no_grad():
        net[4].weight.mul_(3)
    assert promise.broken_by(net) is not None
