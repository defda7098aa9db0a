"""Folding on every kind of network that people bring: the outputs stay."""

from __future__ import annotations

import copy
import re

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from celosia import compress
from celosia.compress.layers import names_of
from celosia.compress.masks.weights import apply_mask, current_mask
from celosia_spec.errors import ArgumentError, CelosiaError
from fold_networks import MAP, ROW, VECTOR, Scaled, hooked, named_twice, pair, randn, trained


class Standardised(nn.Conv2d):
    def _conv_forward(self, x, weight, bias):
        return super()._conv_forward(x, weight - weight.mean((1, 2, 3), keepdim=True), bias)


class Activated(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(x).relu()


def tied() -> nn.Module:
    net = pair(lambda s, x: s.n(s.c(x)) + s.d(x), d=nn.Conv2d(3, 6, 3))
    net.d.weight = net.c.weight
    return net


def alias_in_storage() -> nn.Module:
    """Another layer's weight looks into the same memory."""
    net = pair(lambda s, x: s.n(s.c(x)) + s.d(x), d=nn.Conv2d(3, 6, 3))
    net.d.weight = nn.Parameter(net.c.weight.data)
    return net


def in_a_list() -> nn.Module:
    """Forward calls a layer that it also keeps in a list of its own."""
    net = pair(lambda s, x: s.parts[1](s.parts[0](x)))
    net.parts = [net.c, net.n]
    return net


def half(kind: torch.dtype) -> nn.Module:
    return trained(pair()).to(kind)


def masked() -> nn.Module:
    net = pair()
    apply_mask(net.c, randn(6, 3, 3, 3) > 0)
    return net


KINDS = {
    # name: (network, shape of its input, normalisations that fold, words of those that stay)
    "plain": (pair, MAP, "n", ""),
    "two names": (named_twice, MAP, "n", ""),
    "masked": (masked, MAP, "n", ""),
    "no bias": (lambda: pair(c=nn.Conv2d(3, 6, 3, bias=False)), MAP, "n", ""),
    "groups, stride, reflected border": (
        lambda: pair(c=nn.Conv2d(3, 6, 3, 2, 1, groups=3, padding_mode="reflect")), MAP, "n", ""),
    "circular border": (
        lambda: pair(c=nn.Conv2d(3, 6, 3, padding=2, padding_mode="circular")), MAP, "n", ""),
    "padding same": (lambda: pair(c=nn.Conv2d(3, 6, 5, padding="same")), MAP, "n", ""),
    "no factors": (lambda: pair(n=nn.BatchNorm2d(6, affine=False)), MAP, "n", ""),
    "cumulative average": (lambda: pair(n=nn.BatchNorm2d(6, momentum=None)), MAP, "n", ""),
    "no statistics": (lambda: pair(n=nn.BatchNorm2d(6, track_running_stats=False)), MAP, "",
                      "has no running statistics"),
    "one dimension": (
        lambda: pair(c=nn.Conv1d(3, 6, 3), n=nn.BatchNorm1d(6)), ROW, "n", ""),
    "three dimensions": (
        lambda: pair(c=nn.Conv3d(3, 6, 3), n=nn.BatchNorm3d(6)), (2, 3, 4, 5, 6), "n", ""),
    "transposed": (lambda: pair(c=nn.ConvTranspose2d(3, 6, 3)), MAP, "",
                   "follows a ConvTranspose2d"),
    "linear on features": (
        lambda: pair(c=nn.Linear(5, 6), n=nn.BatchNorm1d(6)), VECTOR, "with example", "features"),
    "linear on a sequence": (
        lambda: pair(c=nn.Linear(5, 6), n=nn.BatchNorm1d(6)), (4, 6, 5), "",
        "normalises another axis|give example_input"),
    "linear on a sequence, other sizes": (
        lambda: pair(c=nn.Linear(5, 7), n=nn.BatchNorm1d(6)), (4, 6, 5), "",
        "another number of features"),
    "linear behind flatten": (
        lambda: pair(lambda s, x: s.n(s.c(x.flatten(1))), c=nn.Linear(192, 6),
                     n=nn.BatchNorm1d(6)), MAP, "n", ""),
    "linear behind a view": (
        lambda: pair(lambda s, x: s.n(s.c(x.view(x.size(0), -1))), c=nn.Linear(192, 6),
                     n=nn.BatchNorm1d(6)), MAP, "n", ""),
    "linear behind a mean": (
        lambda: pair(lambda s, x: s.n(s.c(s.k(x).mean((2, 3)))), k=nn.Conv2d(3, 5, 1),
                     c=nn.Linear(5, 6), n=nn.BatchNorm1d(6)), MAP, "n", ""),
    "two of different sizes rule a sequence out": (
        lambda: pair(lambda s, x: s.m(s.d(s.n(s.c(x)).relu())), c=nn.Linear(5, 6),
                     n=nn.BatchNorm1d(6), d=nn.Linear(6, 7), m=nn.BatchNorm1d(7)),
        VECTOR, "nm", ""),
    "linear on a sequence behind a transpose": (
        lambda: pair(lambda s, x: s.n(s.c(x.flatten(2).transpose(1, 2)).transpose(1, 2)),
                     c=nn.Linear(3, 6), n=nn.BatchNorm1d(6)), MAP, "", "no layer"),
    "hook": (lambda: pair(c=hooked(nn.Conv2d(3, 6, 3))), MAP, "", "'c' has a forward hook"),
    "hook before": (
        lambda: pair(c=hooked(nn.Conv2d(3, 6, 3), True)), MAP, "", "'c' has a forward hook"),
    "hook of the normalisation": (
        lambda: pair(n=hooked(nn.BatchNorm2d(6))), MAP, "", "'n' has a forward hook"),
    "hook of an identity between": (
        lambda: pair(lambda s, x: s.n(s.i(s.c(x))), i=hooked(nn.Identity())), MAP, "",
        "follows a Identity"),
    "identity between": (lambda: pair(lambda s, x: s.n(s.i(s.c(x))), i=nn.Identity()), MAP, "n",
                         ""),
    "forward of its own": (lambda: pair(c=Scaled(3, 6, 3)), MAP, "", "'c' has a forward of its"),
    "standardised weight": (lambda: pair(c=Standardised(3, 6, 3)), MAP, "",
                            "'c' has a conv_forward of its own"),
    "normalisation and activation": (lambda: pair(n=Activated(6)), MAP, "",
                                     "'n' has a forward of its own"),
    "weight read by a function": (
        lambda: pair(lambda s, x: s.n(s.c(x)) + functional.conv2d(x, s.c.weight)), MAP, "",
        r"test_fold_kinds.py:\d+: .* reads a tensor of layer 'c'"),
    "masked weight read by a function": (
        lambda: (net := pair(lambda s, x: s.n(s.c(x)) + functional.conv2d(x, s.c.weight)),
                 apply_mask(net.c, randn(6, 3, 3, 3) > 0))[0], MAP, "", "reads a tensor"),
    "weight read past its module": (
        lambda: pair(lambda s, x: s.n(s.c(x)) + s.c._parameters["weight"].sum()), MAP, "",
        "forward reads a tensor of layer 'c'"),
    "factor of the normalisation read": (
        lambda: pair(lambda s, x: s.n(s.c(x)) * s.n.weight.mean()), MAP, "",
        "reads a tensor of layer 'n'"),
    "statistics of the normalisation read": (
        lambda: pair(lambda s, x: s.n(s.c(x)) * s.n.running_var.mean()), MAP, "",
        "reads a tensor of layer 'n'"),
    "type and device of a weight asked": (
        lambda: pair(lambda s, x: s.n(s.c(x.to(s.c.weight.dtype))) if next(
            s.parameters()).ndim == 4 else x), MAP, "n", ""),
    "one weight in two layers": (tied, MAP, "", "'c' holds a tensor that 'd' holds too"),
    "two weights in one memory": (alias_in_storage, MAP, "n", ""),
    "output read twice": (lambda: pair(lambda s, x: s.n(y := s.c(x)) + y), MAP, "",
                          "read elsewhere too"),
    "output changed in place": (
        lambda: pair(lambda s, x: (y := s.c(x), y.mul_(2), s.n(y))[2]), MAP, "", "elsewhere"),
    "layer runs twice": (
        lambda: pair(lambda s, x: s.n(s.c(s.c(x))), c=nn.Conv2d(3, 3, 3), n=nn.BatchNorm2d(3)),
        MAP, "", "runs more than once"),
    "normalisation runs twice": (
        lambda: pair(lambda s, x: s.n(s.n(s.c(x)))), MAP, "", "follows a BatchNorm2d"),
    "normalisation comes first": (
        lambda: pair(lambda s, x: s.c(s.n(x)), n=nn.BatchNorm2d(3)), MAP, "", "no layer"),
    "not called": (lambda: pair(lambda s, x: s.c(x)), MAP, "", "is not called in eval mode"),
    "float64": (lambda: half(torch.float64), MAP, "n", ""),
    "float16": (lambda: half(torch.float16), MAP, "n", ""),
    "bfloat16": (lambda: half(torch.bfloat16), MAP, "n", ""),
}  # fmt: skip


@pytest.mark.parametrize("example", [False, True], ids=["graph", "example"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_normalisation_folds_exactly_or_stays(kind, example):
    make, shape, folds, words = KINDS[kind]
    net = trained(make())
    dtype = next(net.parameters()).dtype
    x = randn(*shape).to(dtype)
    before, twin = net(x).detach(), copy.deepcopy(net)
    found = compress.fold_batchnorm(net, x[:2]) if example else compress.fold_batchnorm(net)
    wanted = (("n",) if example else ()) if folds == "with example" else tuple(folds)
    assert found == wanted, found.left
    norms = {name for name, part in twin.named_modules()
             if isinstance(part, nn.modules.batchnorm._BatchNorm)}
    assert set(found) | set(found.left) == norms
    for name in found:
        assert type(net.get_submodule(name)) is nn.Identity
    if not found or (words and not example):
        assert re.search(words, found.left["n"]), found.left
    assert not vars(net).keys() - vars(twin).keys()     # tracing leaves nothing behind
    allowed = 16 * torch.finfo(dtype).eps * float(before.abs().max()) if found else 0
    assert float((net(x) - before).detach().abs().max()) <= allowed


def test_layers_kept_in_a_list_of_their_own_are_put_back():
    net, x = trained(in_a_list()), randn(*MAP)
    before, norm = net(x), net.n
    for example in (None, x):
        with pytest.raises(CelosiaError, match=r"'n'.* put back as it was"):
            compress.fold_batchnorm(net, example)
        assert net.n is norm and torch.equal(net(x), before)
    assert compress.fold_batchnorm(net, x, skip=["n"]) == ()


def test_a_branch_on_the_kind_of_input_is_seen_on_the_example():
    """Symbols are no tensors: the traced branch is not the one that runs."""
    net = trained(pair(lambda s, x: s.n(s.c(x).relu()) if isinstance(x, torch.Tensor)
                       else s.n(s.c(x))))
    x, before = randn(*MAP), net(randn(*MAP))
    with pytest.raises(CelosiaError, match="folding 'n' changes the outputs by .* put back"):
        compress.fold_batchnorm(net, x)
    assert torch.equal(net(x), before)


def test_frozen_layers_optimisers_and_memory_order_stay():
    net = trained(named_twice())
    net.c.weight.requires_grad_(False)
    net.c.weight.data = net.c.weight.data.contiguous(memory_format=torch.channels_last)
    weight, bias = net.c.weight, net.c.bias
    compress.fold_batchnorm(net)
    assert net.c.weight is weight and net.c.bias is bias
    assert not weight.requires_grad and bias.requires_grad
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert names_of(net, net.n) == ("n", "all.1")
    frozen = trained(pair(c=nn.Conv2d(3, 6, 3, bias=False))).requires_grad_(False)
    compress.fold_batchnorm(frozen)
    assert not frozen.c.bias.requires_grad


def test_a_factor_that_no_half_number_holds_is_left_alone():
    net = trained(pair()).half()
    with torch.no_grad():
        net.c.weight.fill_(300)
        net.n.weight.fill_(300)
        net.n.running_var.fill_(1e-4)
    assert compress.fold_batchnorm(net).left == {"n": "folded numbers would not be finite as "
                                                      "float16"}


def test_names_in_skip_stay_and_must_be_there():
    net = trained(named_twice())
    assert compress.fold_batchnorm(net, skip=["all.1"]).left == {"n": "named in skip"}
    with pytest.raises(ArgumentError, match="no batch normalisation is called 'c'; there are: 'n'"):
        compress.fold_batchnorm(net, skip=["c"])


def random_network(seed: int) -> tuple[nn.Module, torch.Tensor]:
    """A chain, with branches, of convolutions, normalisations, activations and pools."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)

    def pick(*choices):
        return choices[int(torch.randint(len(choices), (1,), generator=generator))]

    class Random(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            channels, self.plan = 3, []
            for index in range(pick(2, 3, 4)):
                out = pick(4, 6)
                conv = nn.Conv2d(channels, out, pick(1, 3), padding=1, bias=pick(True, False))
                setattr(self, f"c{index}", conv)
                setattr(self, f"n{index}", pick(nn.BatchNorm2d(out), nn.Identity()))
                setattr(self, f"a{index}", pick(nn.ReLU(), nn.Tanh(), nn.Identity(),
                                                nn.BatchNorm2d(out)))
                self.plan.append(pick("plain", "shortcut", "concat", "pool"))
                channels = out + channels if self.plan[-1] == "concat" else out
            self.last = nn.Linear(channels, 5)
            self.norm = pick(nn.BatchNorm1d(5), nn.Identity())

        def forward(self, x):
            for index, kind in enumerate(self.plan):
                y = getattr(self, f"a{index}")(getattr(self, f"n{index}")(
                    z := getattr(self, f"c{index}")(x)))
                if kind == "shortcut":
                    y = y + z
                elif kind == "concat":
                    y = torch.cat([y, functional.interpolate(x, y.shape[2:])], 1)
                x = functional.avg_pool2d(y, 2, 1) if kind == "pool" else y
            return self.norm(self.last(x.mean((2, 3))))

    return trained(Random()), randn(2, 3, 12, 12)


def test_random_networks_keep_their_outputs():
    folded = stayed = 0
    for seed in range(24):
        net, x = random_network(seed)
        before = net(x)
        found = compress.fold_batchnorm(net, x if seed % 2 else None)
        torch.testing.assert_close(net(x), before, rtol=1e-4, atol=1e-4)
        folded, stayed = folded + len(found), stayed + len(found.left)
    assert folded > 20 and stayed > 5


def test_functional_dropout_still_works_in_both_modes():
    net = trained(pair(lambda s, x: s.l(functional.dropout(
        functional.dropout2d(s.n(s.c(x)), 0.3, s.training).mean((2, 3)), 0.5, s.training)),
        l=nn.Linear(6, 3)))
    x = randn(*MAP)
    for mode in (False, True):
        fused = compress.fuse(net.train(mode), x[:1]).model
        assert fused.training is mode
        kinds = [type(part) for part in fused.modules()]
        assert kinds.count(nn.Dropout) == kinds.count(nn.Dropout2d) == 1
        fused.train()
        assert not torch.equal(fused(x), fused(x))
        fused.eval()
        torch.testing.assert_close(fused(x), net.eval()(x), rtol=1e-4, atol=1e-5)
    assert compress.fold_average_pool(net, x).training is False


POOLS = {
    "size from the map": (lambda s, x: functional.avg_pool2d(s.c(x), x.size(3) - 2), {}, 0),
    "size from the map behind an activation": (
        lambda s, x: functional.avg_pool2d(y := s.c(x).relu(), y.size(3)), {}, 0),
    "plain": (lambda s, x: s.p(s.c(x)), {}, 1),
    "hook": (lambda s, x: s.p(s.c(x)), {"p": hooked(nn.AvgPool2d(2))}, 0),
    "hook of the convolution": (lambda s, x: s.p(s.c(x)), {"c": hooked(nn.Conv2d(3, 6, 3))}, 0),
    "forward of its own": (lambda s, x: s.p(s.c(x)), {"c": Scaled(3, 6, 3)}, 0),
    "weight read elsewhere": (
        lambda s, x: s.p(s.c(x)) + functional.conv2d(x, s.c.weight)[..., ::2, ::2], {}, 0),
    "weight_norm": (lambda s, x: s.p(s.c(x)),
                    {"c": parametrizations.weight_norm(nn.Conv2d(3, 6, 3))}, 0),
    "half": (lambda s, x: s.p(s.c(x)), {}, 1),
}  # fmt: skip


@pytest.mark.parametrize("kind", POOLS)
def test_an_average_pool_folds_exactly_or_stays(kind):
    forward, layers, count = POOLS[kind]
    net = pair(forward, **{"p": nn.AvgPool2d(2), **layers}).eval()
    net = net.half() if kind == "half" else net
    x = randn(*MAP).to(next(net.parameters()))
    before, weight = net(x), net.c.weight.detach().clone()
    for example in (None, x):
        folded = compress.fold_average_pool(net, example)
        assert folded.get_submodule("c").kernel_size == ((4, 4) if count else (3, 3))
        torch.testing.assert_close(folded(x), before, rtol=0, atol=1e-2 if kind == "half" else 1e-5)
    assert torch.equal(net.c.weight, weight) and hasattr(net, "p")


def test_a_folded_pool_keeps_mask_and_frozen_parameters():
    net, x = pair(lambda s, x: s.p(s.c(x)), p=nn.AvgPool2d(2)).eval(), randn(*MAP)
    kept = torch.zeros(6, 3, 3, 3, dtype=torch.bool)
    kept[:, :, 0, 0] = True
    apply_mask(net.c, kept)
    net.c.bias.requires_grad_(False)
    folded = compress.fold_average_pool(net, x)
    torch.testing.assert_close(folded(x), net(x))
    mask = current_mask(folded.c)
    assert mask[:, :, :2, :2].all() and mask.sum() == 6 * 3 * 4
    assert not folded.c.bias.requires_grad


def test_emulation_folds_behind_a_linear_layer_with_an_example():
    net, x = trained(pair(c=nn.Linear(5, 6), n=nn.BatchNorm1d(6))), randn(*VECTOR)
    kinds = [type(compress.emulate(net, weight_bits=8, activation_bits=8, example_input=example).n)
             for example in (None, x)]
    assert kinds == [nn.BatchNorm1d, nn.Identity]
