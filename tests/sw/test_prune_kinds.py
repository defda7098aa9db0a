"""Pruning on every kind of layer that people bring: masks that hold, counts of distinct weights."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

from celosia import compress
from celosia.compress.masks.weights import apply_mask, current_mask
from celosia.compress.training.rounds import RoundRecord, run_rounds
from celosia.compress.weights.prediction import Predictor
from celosia_spec.errors import ArgumentError


class Shared(nn.Module):
    """One weight in two layers, of which one has two names, and a layer of its own."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 4)
        self.b.weight = self.a.weight
        self.all = nn.Sequential(self.a, nn.ReLU(), self.b, nn.ReLU(), self.c)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.all(x)


def chain(first: nn.Module | None = None) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(first or nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4)).eval()


X = torch.randn(6, 8, generator=torch.Generator().manual_seed(1))


def state(net: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in net.state_dict().items()}


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return list(first) == list(second) and all(
        torch.equal(first[name], second[name]) for name in first)


# Weights that a hook computes

COMPUTED = {
    "torch's pruning": (lambda: prune.l1_unstructured(nn.Linear(8, 8), "weight", 0.5),
                        lambda layer: prune.remove(layer, "weight"), "carries a mask of torch"),
    "old weight_norm": (lambda: nn.utils.weight_norm(nn.Linear(8, 8)),
                        lambda layer: nn.utils.remove_weight_norm(layer, "weight"),
                        "computes its weight by WeightNorm"),
    "old spectral_norm": (lambda: nn.utils.spectral_norm(nn.Linear(8, 8)),
                          lambda layer: nn.utils.remove_spectral_norm(layer, "weight"),
                          "computes its weight by SpectralNorm"),
}
STEPS = {
    "prune": lambda net: compress.prune(net, "magnitude", rates=0.5),
    "search": lambda net: compress.search_rates(net, "magnitude", evaluate=lambda net: 1.0,
                                                budget=0.1, grid=[0.5]),
    "rounds": lambda net: run_rounds(net, 1, lambda net, index: {
        "2": np.zeros((4, 8), bool) | (np.arange(8) < 4), "0": np.eye(8, dtype=bool)}),
    "cycles": lambda net: compress.prune_to_cycles(net, example_input=X[:1].numpy(), budget=1000),
}


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("kind", COMPUTED)
def test_a_weight_that_a_hook_computes_is_refused_and_the_way_out_leads_out(kind, step):
    make, remedy, words = COMPUTED[kind]
    net = chain(make())
    before = state(net)
    with pytest.raises(ArgumentError, match=f"layer '0' {words}.*; fix it with torch"):
        STEPS[step](net)
    assert equal(before, state(net))
    with pytest.raises(ArgumentError, match=f"a layer that is to be masked {words}"):
        apply_mask(net[0], torch.ones(8, 8, dtype=torch.bool))
    compress.prune(net, "magnitude", rates={"2": 0.5})      # the other layer may go
    compress.make_permanent(net)
    outputs = net(X)
    remedy(net[0])
    torch.testing.assert_close(net(X), outputs)
    if step != "cycles":
        STEPS[step](net)


def test_a_new_weight_norm_takes_a_mask_that_holds_and_lets_go_of_it_in_words():
    net = chain(parametrizations.weight_norm(nn.Linear(8, 8)))
    report = compress.prune(net, "magnitude", rates=0.5, finetune=compress.FineTune(
        inputs=X, labels=torch.arange(6) % 4), rounds=2)
    assert int((net[0].weight == 0).sum()) == 32 == report.layers["0"].weights // 2
    outputs, before = net(X), state(net)
    with pytest.raises(ArgumentError, match=r"layer '0' .*remove_parametrizations\(layer, 'w"):
        compress.make_permanent(net)
    assert equal(before, state(net))
    parametrize.remove_parametrizations(net[0], "weight")
    compress.make_permanent(net)
    assert torch.equal(net(X), outputs) and int((net[0].weight == 0).sum()) == 32
    assert not [name for name in net.state_dict() if "parametrizations" in name]


# One weight in two layers, one layer under two names


def test_a_shared_weight_is_masked_in_both_layers_and_counted_once():
    net = Shared()
    report = compress.prune(net, "magnitude", rates=0.5, rounds=3,
                            finetune=compress.FineTune(inputs=X, labels=torch.arange(6) % 4))
    assert {name: layer.kept for name, layer in report.layers.items()} == {"a": 32, "c": 16}
    assert report.density == 0.5
    assert torch.equal(current_mask(net.a), current_mask(net.b))
    assert torch.equal(net.a.weight, net.b.weight) and int((net.a.weight == 0).sum()) == 32
    outputs = net(X)
    compress.make_permanent(net)
    assert net.a.weight is net.b.weight and torch.equal(net(X), outputs)
    assert int((net.b.weight == 0).sum()) == 32


def test_any_name_of_a_weight_will_do_but_not_two():
    for name in ("a", "b", "all.0", "all.2"):
        report = compress.prune(Shared(), "magnitude", rates={name: 0.75})
        assert report.choices["rates"] == {"a": 0.75, "c": 0.0}
        report = compress.prune(Shared(), "magnitude", rates=0.75, layers=[name])
        assert report.layers["a"].kept == 16 and report.layers["c"].kept == 32
    with pytest.raises(ArgumentError, match="'a' and 'b' name one weight; give it one rate"):
        compress.prune(Shared(), "magnitude", rates={"a": 0.5, "b": 0.5})
    with pytest.raises(ArgumentError, match="no layer is called 'all.1'; layers: 'a', 'c'"):
        compress.prune(Shared(), "magnitude", rates={"all.1": 0.5})


def test_the_search_tries_a_shared_weight_once_in_both_layers():
    seen = []

    def evaluate(net: nn.Module) -> float:
        seen.append((int((net.a.weight == 0).sum()), int((net.b.weight == 0).sum())))
        return 1.0

    found = compress.search_rates(Shared(), "magnitude", evaluate=evaluate, budget=0.1, grid=[0.5])
    assert list(found.rates) == ["a", "c"] and seen == [(0, 0), (32, 32), (0, 0)]


def test_a_stopped_run_on_shared_weights_goes_on_to_the_same_bits(tmp_path):
    def run(folder, stop: bool) -> nn.Module:
        net = Shared()
        tune = compress.FineTune(inputs=X, labels=torch.arange(6) % 4)

        def finetune(net: nn.Module, index: int) -> None:
            if stop and index == 1:
                raise KeyboardInterrupt
            tune(net, index)

        compress.prune(net, "magnitude", rates=0.5, rounds=3, finetune=finetune, checkpoint=folder)
        return net

    whole = run(None, False)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, True)
    assert equal(state(run(tmp_path, False)), state(whole))


def test_two_masks_of_one_weight_that_differ_are_refused_before_any_goes():
    net = Shared()
    kept = torch.arange(64).view(8, 8) % 2 == 0
    apply_mask(net.c, torch.ones(4, 8, dtype=torch.bool))
    apply_mask(net.a, kept)
    apply_mask(net.b, ~kept)
    before = state(net)
    with pytest.raises(ArgumentError, match="layers 'a' and 'b' hold one weight, and their masks"):
        compress.make_permanent(net)
    assert equal(before, state(net))


def test_cycles_know_layers_by_any_name_and_refuse_shared_weights():
    net = Shared()
    with pytest.raises(ArgumentError, match="layers 'a' and 'b' hold one weight, which costs cyc"):
        compress.prune_to_cycles(net, example_input=X[:1].numpy(), budget=1000)
    class Conv(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 8, 3)
            self.all = nn.Sequential(self.conv, nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.all(x)

    attempt = Predictor(np.zeros((1, 1, 8, 8), np.float32)).imported(Conv().eval())
    dense, mask = attempt({}), np.arange(72).reshape(8, 1, 3, 3) % 9 == 0
    assert list(dense.layers) == ["conv", "all.3"]
    assert attempt({"conv": mask}).cycles < dense.cycles


class Tied(nn.Module):
    """An embedding whose weight is that of the last layer, or a weight that the network keeps."""

    def __init__(self, embedding: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(8, 8), nn.Linear(8, 4)
        if embedding:
            self.words = nn.Embedding(4, 8)
            self.words.weight = self.last.weight
        else:
            self.kept = self.last.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.words.weight if hasattr(self, "words") else self.kept
        return self.last(self.first(x)) + x @ weight.T


@pytest.mark.parametrize("embedding, words", [(True, "'words'"), (False, "'the network itself'")])
def test_a_weight_that_no_mask_would_reach_everywhere_is_refused(embedding, words):
    net = Tied(embedding)
    before = state(net)
    masks = {"last": np.arange(32).reshape(4, 8) % 2 == 0}
    for step in (lambda: compress.prune(net, "magnitude", rates=0.5),
                 lambda: compress.search_rates(net, "magnitude", evaluate=lambda net: 1.0,
                                               budget=0.1, layers=["last"]),
                 lambda: run_rounds(net, 1, lambda net, index: masks),
                 lambda: compress.prune_to_cycles(net, example_input=X[:1].numpy(), budget=1000)):
        with pytest.raises(ArgumentError, match=f"layer 'last' holds a weight that {words} holds"):
            step()
    assert equal(before, state(net))
    compress.prune(net, "magnitude", rates={"first": 0.5})
    apply_mask(net.last, torch.from_numpy(masks["last"]))
    outputs = net(X)
    with pytest.raises(ArgumentError, match="layer 'last' holds a weight that"):
        compress.make_permanent(net)
    assert torch.equal(net(X), outputs)
    free = Tied(embedding)
    free.last.weight = nn.Parameter(free.last.weight.detach().clone())
    compress.prune(free, "magnitude", rates=0.5)


class Remembers(nn.Linear):
    def get_extra_state(self):
        return {"calls": 3}

    def set_extra_state(self, state) -> None:
        pass


def test_state_that_is_no_tensor_is_refused_with_a_checkpoint_only(tmp_path):
    net = chain(Remembers(8, 8))
    before = net(X)
    with pytest.raises(ArgumentError, match="'0._extra_state' is state of a module that is no ten"):
        compress.prune(net, "magnitude", rates=0.5, checkpoint=tmp_path)
    assert torch.equal(net(X), before)
    assert compress.prune(net, "magnitude", rates=0.5).density == 0.5


# Layers that compute something else


class Scaled(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 3 * super().forward(x)


def hooked() -> nn.Module:
    layer = nn.Linear(8, 8)
    layer.register_forward_hook(lambda module, given, output: output * 2)
    return layer


@pytest.mark.parametrize("make", [lambda: Scaled(8, 8), hooked,
                                  lambda: nn.Linear(8, 8).requires_grad_(False)],
                         ids=["forward of its own", "hook", "frozen"])
def test_masks_hold_in_any_layer_and_leave_it_as_it_is(make):
    net = chain(make())
    twin = copy.deepcopy(net)
    trained = net[0].weight.requires_grad
    compress.prune(net, "magnitude", rates=0.5)
    with torch.no_grad():
        twin[0].weight.mul_(current_mask(net[0]))
        twin[2].weight.mul_(current_mask(net[2]))
    torch.testing.assert_close(net(X), twin(X), rtol=0, atol=0)
    compress.make_permanent(net)
    torch.testing.assert_close(net(X), twin(X), rtol=0, atol=0)
    assert type(net[0]) is type(twin[0]) and net[0].weight.requires_grad is trained


# Equal scores


def test_equal_scores_are_told():
    net = chain()
    with torch.no_grad():
        net[0].weight.copy_(torch.arange(64).view(8, 8) // 4 + 1)       # sixteen values, four each
        net[2].weight.copy_(torch.arange(32).view(4, 8) + 1)
    report = compress.prune(net, "magnitude", rates=22 / 64)
    assert report.rounds[0].ties == {"0": 2}
    assert torch.equal(current_mask(net[0]).flatten()[20:24], torch.tensor([1, 1, 0, 0]).bool())
    record = RoundRecord.from_json(json.loads(json.dumps(report.rounds[0].as_json())))
    assert record == report.rounds[0]
    assert compress.prune(chain(), "magnitude", rates=0.5).rounds[0].ties == {}


def test_equal_scores_over_all_layers_are_told_by_layer():
    net = chain()
    with torch.no_grad():
        net[0].weight.fill_(2)
        net[0].weight[0] = 3
        net[2].weight.fill_(2)
        net[2].weight[0] = 1
    report = compress.prune(net, "magnitude", rates=0.25, scope="global")
    assert report.rounds[0].ties == {"2": 16}
    assert current_mask(net[0]).all() and int((~current_mask(net[2])).sum()) == 24 == 16 + 8


@pytest.mark.parametrize("method, inputs", [("magnitude", None), ("ae-lip", X[:1])])
def test_scores_that_are_all_equal_are_refused_by_name(method, inputs):
    """One sample has no entropy, so AE-LIP scores all weights 0."""
    net = chain()
    with torch.no_grad():
        net[0].weight.copy_(torch.randn(8, 8).sign())
    before, words = state(net), f"method '{method}' gives all weights of layer '0' the same score"
    with pytest.raises(ArgumentError, match=words):
        compress.prune(net, method, inputs=inputs, rates={"0": 0.5})
    with pytest.raises(ArgumentError, match=words):
        compress.search_rates(net, method, inputs=inputs, evaluate=lambda net: 1.0, budget=0.1)
    assert equal(before, state(net))
    if method == "magnitude":       # the ways out: other inputs have nothing to do with it
        compress.prune(net, method, rates={"2": 0.5})
        compress.prune(net, "ae-lip", inputs=X, rates={"0": 0.5})
