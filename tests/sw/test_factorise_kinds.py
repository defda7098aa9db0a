"""Factorising every kind of layer that people bring: replaced soundly, or left with the reason."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations, prune

from celosia import compress
from celosia.compress.layers import parameter_count
from celosia.compress.lowrank.decomposition import Svd, Tucker2
from celosia_spec.errors import ArgumentError, CelosiaError

WIDE = 16


def low_rank(layer: nn.Module, rank: int = 3) -> nn.Module:
    """Give a layer a weight of a rank."""
    generator = torch.Generator().manual_seed(1)
    rows, columns = len(layer.weight), layer.weight[0].numel()
    with torch.no_grad():
        layer.weight.copy_((torch.randn(rows, rank, generator=generator) @ torch.randn(
            rank, columns, generator=generator)).view(layer.weight.shape))
    return layer


class Net(nn.Module):
    """Layers 16 -> 16 -> 4, the first of rank 3; forward is a function of it and its input."""

    def __init__(self, forward=lambda s, x: s.b(s.a(x).relu()), **layers) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = low_rank(nn.Linear(WIDE, WIDE)), nn.Linear(WIDE, 4)
        for name, layer in layers.items():
            setattr(self, name, layer)
        self.steps = forward

    def forward(self, x):
        return self.steps(self, x)


class Scaled(nn.Linear):
    def forward(self, x):
        return 3 * super().forward(x)


def hooked() -> nn.Module:
    layer = low_rank(nn.Linear(WIDE, WIDE))
    layer.register_forward_hook(lambda module, given, output: 2 * output)
    return layer


def tied() -> nn.Module:
    net = Net(lambda s, x: s.b(s.c(s.a(x)).relu()), c=nn.Linear(WIDE, WIDE))
    net.c.weight = net.a.weight
    return net


X = torch.randn(5, WIDE, generator=torch.Generator().manual_seed(2))
LEFT = {
    "hook": (lambda: Net(a=hooked()), "has a forward hook"),
    "forward of its own": (lambda: Net(a=low_rank(Scaled(WIDE, WIDE))), "forward of its own"),
    "weight_norm": (lambda: Net(a=parametrizations.weight_norm(nn.Linear(WIDE, WIDE))),
                    "has a parametrisation other than a mask"),
    "old weight_norm": (lambda: Net(a=nn.utils.weight_norm(nn.Linear(WIDE, WIDE))), "WeightNorm"),
    "torch's pruning": (
        lambda: Net(a=prune.l1_unstructured(nn.Linear(WIDE, WIDE), "weight", 0.5)),
        "carries a mask of torch.nn.utils.prune"),
    "shared weight": (tied, "holds a tensor that 'c' holds too"),
    "read by a function": (
        lambda: Net(lambda s, x: s.b(s.a(x).relu()) + functional.linear(x, s.a.weight)[:, :4]),
        "has a weight that is read without calling it"),
    "not called": (lambda: Net(lambda s, x: s.b(x)), "is not called"),
}
NEVER = pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")


def state(net: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in net.state_dict().items()}


def unchanged(net: nn.Module, before: dict[str, torch.Tensor]) -> bool:
    return list(before) == list(net.state_dict()) and all(
        torch.equal(value, before[name]) for name, value in net.state_dict().items())


@NEVER
@pytest.mark.parametrize("kind", LEFT)
def test_a_layer_that_nothing_can_stand_for_stays_with_the_reason(kind):
    make, words = LEFT[kind]
    net = make().eval()
    layer, outputs, count = net.a, net(X), parameter_count(net)
    report = compress.factorise(net, X[:1], "svd", rule="energy", value=0.3)
    assert net.a is layer and report.layers["a"].ranks is None
    assert words in report.layers["a"].reason and report.layers["b"].ranks is not None
    assert net(X).shape == outputs.shape
    assert report.parameters_before == count > parameter_count(net) == report.parameters
    if kind == "shared weight":
        assert words.replace("'c'", "'a'") in report.layers["c"].reason


@NEVER
@pytest.mark.parametrize("kind", LEFT)
def test_naming_such_a_layer_is_refused_before_anything_changes(kind):
    make, words = LEFT[kind]
    for named in ({"ranks": {"a": 3}}, {"rule": "energy", "value": 0.5, "layers": ["a"]}):
        net = make().eval()
        before = state(net)
        with pytest.raises(ArgumentError, match=f"layer 'a' .*{words}"):
            compress.factorise(net, X[:1], "svd", **named)
        assert unchanged(net, before)


def test_attention_still_runs():
    net = Net(lambda s, x: s.b(s.t(*[x[:, None]] * 3)[0][:, 0]),
              t=nn.MultiheadAttention(WIDE, 2, batch_first=True)).eval()
    report = compress.factorise(net, X[:1], "svd", rule="energy", value=0.3, skip=["a"])
    assert "is read without calling it" in report.layers["t.out_proj"].reason
    assert report.layers["b"].ranks is not None and net(X).shape == (5, 4)
    with pytest.raises(ArgumentError, match="layer 't.out_proj' has a weight that is read without"):
        compress.factorise(net, X[:1], "svd", ranks={"t.out_proj": 2})


def test_a_network_of_such_layers_only_is_refused_with_the_reasons():
    net = Net(lambda s, x: s.a(x), a=hooked(), b=nn.Identity())
    with pytest.raises(ArgumentError, match=r"no layer is left .* \('a' has a forward hook"):
        compress.factorise(net, X[:1], "svd", rule="evbmf")


def test_two_names_are_one_layer_and_any_of_them_will_do():
    for name in ("a", "all.0"):
        net = Net(lambda s, x: s.all(x))
        net.all = nn.Sequential(net.a, nn.ReLU(), net.b)
        before = net.eval()(X)
        report = compress.factorise(net, X[:1], "svd", ranks={name: 3})
        assert net.all[0] is net.a and isinstance(net.a, nn.Sequential)
        torch.testing.assert_close(net(X), before)
        assert list(report.layers) == ["a"] and report.parameters == parameter_count(net)
    net = Net(lambda s, x: s.all(x))
    net.all = nn.Sequential(net.a, nn.ReLU(), net.b)
    with pytest.raises(ArgumentError, match="ranks name a layer twice"):
        compress.factorise(net, X[:1], "svd", ranks={"a": 3, "all.0": 3})


@pytest.mark.parametrize("method", ["svd", "tucker"])
def test_parts_of_a_frozen_layer_are_frozen(method):
    net = nn.Sequential(nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3))
    net[0].weight.requires_grad_(False)
    net[2].bias.requires_grad_(False)
    ranks = 3 if method == "svd" else (3, 3)
    compress.factorise(net, torch.zeros(1, 8, 8, 8), method, ranks={"0": ranks, "2": ranks},
                       rounds=2)
    assert [part.weight.requires_grad for part in net[0]] == [False] * len(net[0])
    assert net[0][-1].bias.requires_grad
    assert all(part.weight.requires_grad for part in net[2]) and not net[2][-1].bias.requires_grad


def test_masked_layers_know_whether_they_are_frozen():
    net = Net().eval()
    net.a.requires_grad_(False)
    compress.prune(net, "magnitude", rates={"a": 0.5, "b": 0.5})
    compress.factorise(net, X[:1], "svd", ranks={"a": 2, "b": 1})
    assert not any(part.requires_grad for part in net.a.parameters())
    assert all(part.requires_grad for part in net.b.parameters())


def test_exact_ranks_that_change_the_outputs_are_put_back_by_name():
    """Forward does one thing with a Linear and another with anything else."""
    net = Net(lambda s, x: s.b(s.a(x) * (2 if isinstance(s.a, nn.Linear) else 1))).eval()
    before, layer = net(X), net.a
    with pytest.raises(CelosiaError, match="decomposing 'a' changes the outputs by .* put back"):
        compress.factorise(net, X[:1], "svd", ranks={"a": 3, "b": 1})
    assert net.a is layer and torch.equal(net(X), before)


@pytest.mark.parametrize("rank", [2, 3], ids=["some lost", "exact"])
def test_a_network_that_no_longer_runs_is_put_back_by_name(rank):
    net = Net(lambda s, x: s.b(s.a(x.expand(-1, s.a.in_features)))).eval()
    before, layers = net(X), (net.a, net.b)
    with pytest.raises(CelosiaError, match=r"'a' .*(no attribute 'in_features'|fail)"):
        compress.factorise(net, X[:1], "svd", ranks={"b": 1, "a": rank})
    assert (net.a, net.b) == layers and torch.equal(net(X), before)
    compress.factorise(net, X[:1], "svd", rule="energy", value=0.3, skip=["a"])


def test_an_example_that_does_not_fit_is_refused_in_words():
    with pytest.raises(ArgumentError, match=r"does not run on the example input of shape \(1, 7\)"):
        compress.factorise(Net(), torch.zeros(1, 7), "svd", rule="evbmf")


# The layers themselves

GEOMETRIES = [{}, {"padding": 1}, {"padding": "same"}, {"stride": (2, 1), "padding": (2, 1)},
              {"dilation": (1, 2), "padding": (1, 3)}, {"bias": False, "padding": "valid"},
              *({"padding": (2, 1), "padding_mode": mode} for mode in
                ("reflect", "replicate", "circular"))]


@pytest.mark.parametrize("way", [Svd(), Tucker2(), Svd(scheme="spatial")],
                         ids=["channel", "tucker", "spatial"])
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_full_ranks_lose_nothing_in_any_geometry(way, geometry):
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 6, (3, 5), **geometry).double()
    x = torch.randn(2, 4, 9, 11).double()
    parts = way.split(conv, way.full(conv))
    torch.testing.assert_close(parts(x), conv(x), rtol=1e-10, atol=1e-10)
    assert way.lost(conv, parts) < 1e-14 < way.lost(conv, way.split(conv, tuple(
        rank - 1 for rank in way.full(conv))))


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_every_floating_type_is_factorised(kind):
    net = Net().eval().to(kind)
    before = net(X.to(kind))
    compress.factorise(net, X[:1], "svd", ranks={"a": 3})
    torch.testing.assert_close(net(X.to(kind)), before, rtol=0.05, atol=0.5)
    assert all(part.dtype == kind for part in net.parameters())


def test_a_layer_that_computes_something_else_is_refused_by_hand_too():
    for make in (hooked, lambda: Scaled(WIDE, WIDE)):
        with pytest.raises(ArgumentError, match="a layer that is to be decomposed has a forward"):
            compress.svd(make(), 3)
    conv = nn.Conv2d(3, 3, 3)
    conv.register_forward_pre_hook(lambda module, given: None)
    with pytest.raises(ArgumentError, match="a layer that is to be decomposed has a forward hook"):
        compress.tucker2(conv, (2, 2))


def test_parts_that_compute_something_else_are_found(monkeypatch):
    way, layer = Svd(), nn.Linear(4, 4)

    def wrong(layer, rank, scheme):
        parts = compress.svd(layer, rank)
        parts[1].register_forward_hook(lambda module, given, output: output + 1)
        return parts

    monkeypatch.setattr("celosia.compress.lowrank.decomposition.svd", wrong)
    with pytest.raises(CelosiaError, match="the layers that take the place of Linear"):
        way.split(layer, (2,))
