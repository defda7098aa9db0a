"""Folding that is refused: words say why, and what leads out."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations, prune

from celosia import compress
from celosia_spec.errors import ArgumentError, CelosiaError
from fold_networks import MAP, Scaled, hooked, named_twice, pair, randn, trained

REFUSED = {
    "weight_norm": (lambda: pair(c=parametrizations.weight_norm(nn.Conv2d(3, 6, 3))),
                    r"layer 'c' has a parametrisation other than a mask .*remove_parametrizations"),
    "old weight_norm": (lambda: pair(c=nn.utils.weight_norm(nn.Conv2d(3, 6, 3))),
                        r"layer 'c' computes its weight by WeightNorm; .*remove_weight_norm"),
    "spectral_norm": (lambda: pair(c=nn.utils.spectral_norm(nn.Conv2d(3, 6, 3))),
                      r"layer 'c' computes its weight by SpectralNorm"),
    "torch's pruning": (lambda: pair(c=prune.l1_unstructured(nn.Conv2d(3, 6, 3), "weight", 0.5)),
                        r"layer 'c' carries a mask of torch.nn.utils.prune; .*prune.remove"),
    "branch on values": (lambda: pair(lambda s, x: s.n(s.c(x)) if x.sum() > 0 else x),
                         r"Net.forward cannot be traced by torch.fx"),
}


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.parametrize("example", [False, True], ids=["graph", "example"])
@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_refused_names_its_layer_and_changes_nothing(kind, example):
    make, words = REFUSED[kind]
    net, x = trained(make()), randn(*MAP)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(CelosiaError, match=words):
        compress.fold_batchnorm(net, x if example else None)
    assert list(before) == list(net.state_dict())
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


@pytest.mark.parametrize("remedy", [
    lambda net: nn.utils.parametrize.remove_parametrizations(net.c, "weight"),
    lambda net: nn.utils.remove_weight_norm(net.c, "weight"),
    lambda net: prune.remove(net.c, "weight")])
@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_the_way_out_leads_out(remedy):
    makes = (REFUSED["weight_norm"][0], REFUSED["old weight_norm"][0],
             REFUSED["torch's pruning"][0])
    for make in makes:
        net, x = trained(make()), randn(*MAP)
        before = net(x)
        try:
            remedy(net)
        except (ValueError, AttributeError):
            continue
        assert compress.fold_batchnorm(net) == ("n",)
        torch.testing.assert_close(net(x), before, rtol=1e-4, atol=1e-5)
        break
    else:
        pytest.fail("no network took this way out")


class Many(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.c, self.n = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6)

    def forward(self, *x):
        return self.n(self.c(*x))


def test_a_forward_of_any_number_of_arguments_is_refused_with_another_way_out():
    with pytest.raises(ArgumentError, match=r"cannot be traced .* without \* in its arguments$"):
        compress.fold_batchnorm(Many())


TRAINING = {
    "functional normalisation": lambda s, x: functional.batch_norm(
        s.c(x), s.n.running_mean, s.n.running_var, s.n.weight, s.n.bias, s.training),
    "branch": lambda s, x: s.n(s.c(x)) * 2 if s.training else s.n(s.c(x)),
    "more outputs": lambda s, x: (s.n(s.c(x)), x) if s.training else s.n(s.c(x)),
    "noise": lambda s, x: s.n(s.c(x)) + (torch.randn(1) if s.training else 0),
    "share of the dropout": lambda s, x: functional.dropout(s.n(s.c(x)), 0.5 * s.training),
}


@pytest.mark.parametrize("kind", TRAINING)
@pytest.mark.parametrize("fuse", [lambda net, x: compress.fuse(net, x),
                                  lambda net, x: compress.fold_average_pool(net)])
def test_what_only_train_mode_does_is_refused_with_its_line(kind, fuse):
    net, x = trained(pair(TRAINING[kind])), randn(*MAP)
    line = r"test_fold_refusals.py:\d+: |random numbers|returns something else in train mode"
    with pytest.raises(ArgumentError, match=f"Net.forward .*(?:{line})"):
        fuse(net, x)


def test_a_weight_read_as_numbers_is_refused():
    net = trained(pair(lambda s, x: s.n(s.c(x)) + s.c._parameters["bias"].sum()))
    with pytest.raises(ArgumentError, match="takes the numbers of 'c.bias' when it is traced"):
        compress.fuse(net, randn(*MAP))


def test_fuse_says_what_it_left():
    net = trained(pair(lambda s, x: s.n(s.c(x).relu())))
    report = compress.fuse(net, randn(*MAP))
    assert report.batch_norms == () and "follows no layer" in report.left["n"]


def test_emulation_finds_layers_by_identity_and_refuses_what_it_would_not_compute():
    settings = {"weight_bits": 4, "activation_bits": 4}
    net, x = trained(named_twice()), randn(*MAP)
    plain = trained(pair(lambda s, x: s.n(s.c(x)).relu()))
    plain.load_state_dict({name: value for name, value in net.state_dict().items()
                           if not name.startswith("all.")})
    coarse = compress.emulate(net, **settings)(x)
    assert torch.equal(coarse, compress.emulate(plain, **settings)(x))
    assert not torch.allclose(coarse, net(x), rtol=0, atol=1e-3)
    for layer in (hooked(nn.Conv2d(3, 6, 3)), Scaled(3, 6, 3)):
        with pytest.raises(ArgumentError, match="layer 'c' has a forward"):
            compress.emulate(pair(c=layer), **settings)
