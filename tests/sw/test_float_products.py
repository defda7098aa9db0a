"""What multiplies besides layers that are known: emulation and costs refuse it by name."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from celosia import compress
from celosia_spec.errors import ArgumentError


class Net(nn.Module):
    """A network whose forward is a function of it and its input."""

    def __init__(self, forward, **parts) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.steps, self.a, self.b = forward, nn.Linear(4, 4), nn.Linear(4, 4)
        for name, part in parts.items():
            setattr(self, name, part)
        self.eval()

    def forward(self, x):
        return self.steps(self, x)


def bare() -> nn.Parameter:
    return nn.Parameter(torch.eye(4))


X = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(1))

MODULES = {
    "one dimension": (lambda: nn.Sequential(nn.Conv1d(5, 4, 2), nn.ReLU(), nn.Conv1d(4, 4, 2)),
                      "layer '0' is a Conv1d"),
    "transposed": (lambda: Net(lambda s, x: s.t(s.a(x)[:, None]), t=nn.ConvTranspose2d(1, 2, 3)),
                   "layer 't' is a ConvTranspose2d"),
    "recurrent": (lambda: Net(lambda s, x: s.a(s.t(x)[0]), t=nn.LSTM(4, 4, batch_first=True)),
                  "layer 't' is a LSTM"),
    "attention": (lambda: Net(lambda s, x: s.a(s.t(x, x, x)[0]),
                              t=nn.MultiheadAttention(4, 2, batch_first=True)),
                  "layer 't' is a MultiheadAttention"),
}  # fmt: skip

PRODUCTS = {
    "bare parameter": (lambda: Net(lambda s, x: s.a(x) @ s.w, w=bare()), "matmul"),
    "bare convolution": (lambda: Net(lambda s, x: functional.conv1d(s.a(x), s.w),
                                     w=nn.Parameter(torch.ones(3, 5, 1))), "conv1d"),
    "sums of products": (lambda: Net(lambda s, x: torch.einsum("nij,jk->nik", s.a(x), s.w),
                                     w=bare()), "einsum"),
    "two activations": (lambda: Net(lambda s, x: s.a(x).bmm(s.b(x).transpose(1, 2))), "bmm"),
}  # fmt: skip


def emulate(net: nn.Module, **more) -> nn.Module:
    return compress.emulate(net, **{"weight_bits": 4, "activation_bits": 4} | more)


@pytest.mark.parametrize("kind", MODULES)
def test_modules_that_multiply_are_named(kind):
    make, words = MODULES[kind]
    for example in (None, X):
        with pytest.raises(ArgumentError, match=f"{words}, where nothing is formatted"):
            emulate(make(), example_input=example)
    if kind == "one dimension":
        assert list(compress.measure(make(), X[:1]).layers) == ["0", "2"]
        return
    with pytest.raises(ArgumentError,
                       match=f"{words}; only Conv1d, Conv2d and Linear layers are counted"):
        compress.measure(make(), X[:1])


@pytest.mark.filterwarnings("ignore:.*jit:DeprecationWarning")
def test_torchscript_is_named():
    linear = torch.jit.script(nn.Sequential(nn.Linear(4, 4)))
    for net, words in ((linear, "the network is TorchScript"),
                       (nn.Sequential(linear, nn.Linear(4, 4)), "layer '0' is TorchScript")):
        for example in (None, X):
            with pytest.raises(ArgumentError, match=words):
                emulate(net, example_input=example)
        with pytest.raises(ArgumentError, match=words):
            compress.measure(net, X[:1])


@pytest.mark.parametrize("kind", PRODUCTS)
def test_products_in_a_forward_are_named(kind):
    make, name = PRODUCTS[kind]
    line = r" \(test_float_products.py:\d+: .*\)"
    with pytest.raises(ArgumentError, match=f"multiplies by '{name}' itself{line}, where nothing"):
        emulate(make())
    with pytest.raises(ArgumentError, match=f"multiplies by '{name}' itself, where nothing"):
        emulate(make(), example_input=X)
    with pytest.raises(ArgumentError, match=f"multiplies by '{name}' itself; only Conv1d"):
        compress.measure(make(), X[:1])


@pytest.mark.parametrize("kind", [*PRODUCTS, "recurrent", "attention"])
def test_named_layers_are_emulated_and_the_rest_stays_float(kind):
    net = (PRODUCTS | MODULES)[kind][0]()
    emulated = emulate(net, layers=["a"])
    assert not torch.equal(emulated(X), net(X))


def test_a_weight_that_is_read_past_its_layer_is_refused():
    net = Net(lambda s, x: s.b(functional.linear(x, s.a.weight)))
    for more in ({}, {"layers": ["a"]}, {"example_input": X},
                 {"layers": ["a"], "example_input": X}):
        with pytest.raises(ArgumentError, match="layer 'a' has a weight that is read without call"):
            emulate(net, **more)
    with pytest.raises(ArgumentError, match="weight of layer 'a' is read without calling"):
        compress.measure(net, X[:1])
    asked = Net(lambda s, x: s.b(x.reshape(-1, s.a.weight.shape[1])))
    assert compress.measure(asked, X[:1]).macs == 16 * 5
    assert emulate(asked)(X).shape == (10, 4)


def test_layers_within_a_module_of_torch_are_refused():
    net = Net(lambda s, x: s.t(x, x, x)[0], t=nn.MultiheadAttention(4, 2, batch_first=True))
    for example in (None, X):
        with pytest.raises(ArgumentError, match=r"'t.out_proj' is part of 't' .MultiheadAttention"):
            emulate(net, layers=["t.out_proj"], example_input=example)


def test_what_lies_between_layers_stays_float():
    net = Net(lambda s, x: s.b(s.n(s.a(input=x)) * s.w).cumsum(1), n=nn.LayerNorm(4),
              w=nn.Parameter(torch.full((4,), 2.0)))
    assert compress.measure(net, X[:1]).macs == 2 * 16 * 5
    found = [emulate(net, example_input=example)(X) for example in (None, X)]
    assert torch.equal(*found) and not torch.equal(found[0], net(X))
    assert set(compress.nsr(net, X).layers) == {"a", "b"}


def test_without_a_trace_an_example_tells():
    net = Net(lambda s, x: s.a(x) if x.sum() > 0 else s.b(x))
    with pytest.raises(ArgumentError, match="cannot be traced.*or give example_input"):
        emulate(net)
    assert not torch.equal(emulate(net, example_input=X)(X), net(X))


def test_nothing_to_emulate_is_refused():
    with pytest.raises(ArgumentError, match="no Conv2d or Linear layer to emulate"):
        emulate(nn.Sequential(nn.ReLU()))
