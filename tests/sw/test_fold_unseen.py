"""Folding without an example: what tracing does not look into is refused, and folds with one."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from celosia import compress
from celosia_spec.errors import ArgumentError, CelosiaError
from fold_networks import Net, pair, randn, trained


class Tied(nn.Linear):
    """A decoder with its encoder's weight, which it holds where no module is found."""

    def __init__(self, encoder: nn.Linear) -> None:
        super().__init__(encoder.out_features, encoder.in_features)
        self.encoder = [encoder]

    def forward(self, x):
        return functional.linear(x, self.encoder[0].weight.t(), self.bias)


class Called(nn.Sequential):
    def __call__(self, x):
        return super().__call__(x) * self[0].weight.abs().mean()


def tied() -> Net:
    net = Net(lambda s, x: s.d(s.n(s.c(x.flatten(1)))), c=nn.Linear(243, 6), n=nn.BatchNorm1d(6))
    net.d = Tied(net.c)
    return net


def stack(kind=nn.Sequential) -> nn.Sequential:
    return kind(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Conv2d(6, 4, 3), nn.AvgPool2d(2),
                nn.ReLU())


def with_hook(at: int | None, pre: bool = False) -> nn.Module:
    net = stack()
    part = net if at is None else net[at]
    if pre:
        part.register_forward_pre_hook(lambda m, given: (given[0] * net[0].weight.abs().mean(),))
    else:
        part.register_forward_hook(lambda m, given, y: y * net[0].weight.abs().mean())
    return net


def called_by_instance() -> nn.Module:
    net = stack()
    first = net[0]
    net[4].forward = lambda x: x.relu() * first.weight.abs().mean()
    return net


UNSEEN = {
    "tied by reference": (tied, "'d' has a forward of its own .class Tied"),
    "hook of another layer": (lambda: with_hook(4), "'4' has a forward hook"),
    "hook before another layer": (lambda: with_hook(4, pre=True), "'4' has a forward hook"),
    "hook of the network": (lambda: with_hook(None), "the network has a forward hook"),
    "hook before the network": (lambda: with_hook(None, True), "the network has a forward hook"),
    "call of its own": (lambda: stack(Called), "Called has a __call__ of its own"),
    "forward of an instance": (called_by_instance, "'4' has a forward of its own"),
}


@pytest.mark.parametrize("kind", UNSEEN)
def test_without_an_example_what_tracing_does_not_look_into_is_refused(kind):
    make, words = UNSEEN[kind]
    x = randn(4, 3, 9, 9)
    for change in (compress.fold_batchnorm, compress.fold_average_pool,
                   lambda net: compress.emulate(net, weight_bits=8, activation_bits=8)):
        net = trained(make())
        before = net(x)
        if change is compress.fold_average_pool and kind == "tied by reference":
            assert torch.equal(change(net)(x), before)      # there is no pool
        else:
            with pytest.raises(ArgumentError, match=f"{words}.*give example_input"):
                change(net)
        assert torch.equal(net(x), before)


def test_a_hook_of_all_modules_is_refused_without_an_example():
    handle = nn.modules.module.register_module_forward_hook(lambda module, given, y: None)
    try:
        with pytest.raises(ArgumentError, match="hook of all modules.*give example_input"):
            compress.fold_average_pool(stack())
    finally:
        handle.remove()


def test_with_an_example_such_a_network_folds_where_its_outputs_stay():
    net, x = stack(), randn(2, 3, 9, 9)
    net[4].register_forward_hook(lambda module, given, y: y + 1)
    before = trained(net)(x)
    assert compress.fold_batchnorm(net, x) == ("1",)
    torch.testing.assert_close(net(x), before, rtol=1e-4, atol=1e-5)


def test_layers_of_ones_own_that_add_no_code_fold_without_an_example():
    class Same(nn.Conv2d):
        def __init__(self, n, m) -> None:
            super().__init__(n, m, 3, padding=1)

    net, x = trained(nn.Sequential(Same(3, 6), nn.BatchNorm2d(6), Same(6, 4))), randn(2, 3, 9, 9)
    before = net(x)
    assert compress.fold_batchnorm(net) == ("1",)
    torch.testing.assert_close(net(x), before, rtol=1e-4, atol=1e-5)


def test_blocks_in_a_list_of_modules_fold_without_an_example():
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.c, self.n = nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3)

        def forward(self, x):
            return self.n(self.c(x))

    net = trained(Net(lambda s, x: s.m["a"](s.l[1](s.l[0](x))), l=nn.ModuleList([Block(), Block()]),
                      m=nn.ModuleDict({"a": Block()})))
    before = net(randn(2, 3, 9, 9))
    assert compress.fold_batchnorm(net) == ("l.0.n", "l.1.n", "m.a.n")
    torch.testing.assert_close(net(randn(2, 3, 9, 9)), before, rtol=1e-4, atol=1e-5)


KEPT: list[nn.Module] = []


def scaled_by_what_is_kept(x):
    return x * KEPT[0].weight.abs().mean()


torch.fx.wrap("scaled_by_what_is_kept")


def test_a_function_that_tracing_does_not_enter_is_refused_without_an_example():
    net = trained(pair(lambda s, x: scaled_by_what_is_kept(s.n(s.c(x)))))
    KEPT[:] = [net.c]
    before = net(randn(2, 3, 9, 9))
    with pytest.raises(ArgumentError, match="function scaled_by_what_is_kept is called.*give ex"):
        compress.fold_batchnorm(net)
    with pytest.raises(CelosiaError, match="folding 'n' changes the outputs"):
        compress.fold_batchnorm(net, randn(2, 3, 9, 9))
    assert torch.equal(net(randn(2, 3, 9, 9)), before)
