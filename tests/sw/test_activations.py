"""Which activation function follows a layer: every one of torch's, and no guess."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from celosia import compress
from celosia_spec.errors import ArgumentError

X = torch.randn(200, 6, generator=torch.Generator().manual_seed(0))

MODULES = (
    nn.ReLU(), nn.ReLU6(), nn.Hardtanh(), nn.LeakyReLU(), nn.PReLU(), nn.ELU(), nn.SELU(),
    nn.CELU(), nn.GELU(), nn.SiLU(), nn.Mish(), nn.Hardswish(), nn.Hardsigmoid(), nn.Sigmoid(),
    nn.LogSigmoid(), nn.Tanh(), nn.Tanhshrink(), nn.Softplus(), nn.Softsign(), nn.Softshrink(),
    nn.Hardshrink(), nn.Threshold(0.1, 0.0), nn.RReLU(), nn.ReLU(inplace=True),
    nn.CELU(inplace=True), nn.SELU(inplace=True), nn.Threshold(0.1, 0.0, inplace=True))
FUNCTIONS = {
    "torch.relu": torch.relu, "F.mish": functional.mish, "F.softplus": functional.softplus,
    "F.celu": functional.celu, "torch.tanh": torch.tanh, "clamp": lambda y: y.clamp(min=0),
    "torch.clamp": lambda y: torch.clamp(y, 0, 1), "clamp_min": lambda y: y.clamp_min(0)}


class Net(nn.Module):
    def __init__(self, follow) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.follow = nn.Linear(6, 5), follow

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.follow(self.layer(x))


def _correlation(answer: torch.Tensor) -> torch.Tensor:
    both = torch.cat([answer, X], 1).T.detach().double()
    return torch.corrcoef(both)[:answer.shape[1], answer.shape[1]:].abs()


@pytest.mark.parametrize("follow", [*MODULES, *FUNCTIONS.values()],
                         ids=[*map(repr, MODULES), *FUNCTIONS])
def test_the_answer_comes_after_the_activation_function(follow):
    net = Net(follow).eval()
    found = torch.from_numpy(compress.scores(net, "correlation", X)["layer"])
    torch.testing.assert_close(found, _correlation(net(X)).nan_to_num(0), atol=1e-5, rtol=0)


@pytest.mark.parametrize("follow, word", [
    (lambda y: y.square(), "square"), (lambda y: y.abs(), "abs"), (lambda y: y ** 2, "pow"),
    (lambda y: torch.sin(y), "sin"), (lambda y: y.exp(), "exp"),
    (lambda y: torch.maximum(y, torch.zeros_like(y)), "maximum"),
    (lambda y: torch.maximum(y, torch.zeros(5)), "maximum"),
    (lambda y: torch.fmax(torch.zeros(()), y), "fmax"),
    (lambda y: torch.where(y > 0, y, 0.1 * y), "where"),
    (lambda y: torch.where(y > 0, y, torch.zeros(5)), "where"),
    (lambda y: torch.heaviside(y, torch.zeros(())), "heaviside"),
    (lambda y: functional.glu(y[:, :4]), "glu"),
    (lambda y: torch.relu(-y), "relu behind neg"), (lambda y: torch.relu(2 * y + 1), "relu behind"),
    (lambda y: functional.relu6(y + 3) / 6, "relu6 behind add"),
    (lambda y: torch.relu(torch.softmax(y, 1) - 0.1), "relu behind")],
    ids=["square", "abs", "pow", "sin", "exp", "zeros_like", "zeros", "fmax", "where", "where data",
         "heaviside", "glu", "neg", "scaled", "hardsigmoid", "softmax"])
def test_an_unknown_function_is_refused_by_name(follow, word):
    with pytest.raises(ArgumentError, match=f"layer 'layer' is followed by {word}.*'pre'"):
        compress.scores(Net(follow), "correlation", X)
    compress.scores(Net(follow), "correlation", X, activation="pre")


@pytest.mark.parametrize("follow", [lambda y: y * torch.sigmoid(y),
                                    lambda y: torch.tanh(functional.softplus(y)) * y,
                                    lambda y: torch.mul(torch.sigmoid(y), y),
                                    lambda y: y * (y > 0)],
                         ids=["silu", "mish", "mul", "mask"])
def test_an_activation_function_written_out_is_not_taken_for_its_part(follow):
    with pytest.raises(ArgumentError, match="layer 'layer' is followed by an .* written out"):
        compress.scores(Net(follow), "correlation", X)


@pytest.mark.parametrize("follow", [lambda y: 2 * y + 1, lambda y: y.flatten(1),
                                    lambda y: functional.dropout(y, 0.5, False),
                                    lambda y: y.clone().detach()], ids=range(4))
def test_what_is_no_activation_function_leaves_the_layers_output(follow):
    net = Net(follow).eval()
    found = torch.from_numpy(compress.scores(net, "correlation", X)["layer"])
    torch.testing.assert_close(found, _correlation(net.layer(X)), atol=1e-5, rtol=0)


def test_a_residual_sum_is_no_activation_function():
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.layer, self.second = nn.Linear(6, 5), nn.Linear(5, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.layer(x)
            return self.second(torch.relu(y)) + y

    net = Block()
    found = torch.from_numpy(compress.scores(net, "correlation", X)["layer"])
    torch.testing.assert_close(found, _correlation(net.layer(X).relu()), atol=1e-5, rtol=0)


class Maps(nn.Module):
    """A convolution with something between it and its activation function."""

    def __init__(self, between, act) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.between, self.act = nn.Conv2d(2, 4, 3, bias=False), between, act

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.between(self.layer(x)))


@pytest.mark.parametrize("act", [torch.relu, nn.ELU(), lambda y: y.clamp(min=-0.2, max=0.5)],
                         ids=["relu", "elu", "clamp"])
@pytest.mark.parametrize("between", [
    nn.Flatten(), nn.MaxPool2d(2), nn.Dropout(0.5), nn.Identity(), lambda y: y.view(len(y), 4, -1),
    lambda y: y.permute(0, 2, 3, 1), lambda y: y.transpose(1, 2).contiguous(),
    lambda y: functional.pad(y, (1, 1)), lambda y: functional.max_pool2d(y, 3).flatten(1)],
    ids=range(9))
def test_new_shapes_and_max_pools_hide_no_activation_function(between, act):
    """The answer is that of each number of the map, as if the function came first."""
    x = torch.randn(40, 2, 6, 6, generator=torch.Generator().manual_seed(1))
    found = compress.scores(Maps(between, act).eval(), "correlation", x)["layer"]
    wanted = compress.scores(Maps(nn.Identity(), act).eval(), "correlation", x)["layer"]
    assert abs(found - wanted).max() < 1e-12


@pytest.mark.parametrize("norm", [nn.GroupNorm(2, 4), nn.InstanceNorm2d(4), nn.GroupNorm(1, 4),
                                  nn.LayerNorm([4, 4]), nn.BatchNorm2d(4)], ids=repr)
def test_a_normalisation_hides_no_activation_function(norm):
    """The answer is behind both."""
    x = torch.randn(40, 2, 6, 6, generator=torch.Generator().manual_seed(1))
    net = Maps(norm, torch.relu).eval()
    found = compress.scores(net, "correlation", x)["layer"]
    seen = functional.unfold(x, 3).unflatten(1, (18,)).double()
    answer = net(x).flatten(2).detach().double()
    a, b = answer - answer.mean(0), seen - seen.mean(0)
    wanted = torch.einsum("nop,nkp->okp", a, b) / torch.einsum(
        "op,kp->okp", a.square().sum(0).sqrt(), b.square().sum(0).sqrt())
    wanted = wanted.nan_to_num(0).abs().mean(2).reshape(4, 2, 3, 3)
    assert abs(found - wanted.numpy()).max() < 1e-6


def test_parameters_of_an_activation_function_in_another_shape_are_refused():
    x = torch.randn(8, 2, 6, 6)
    with pytest.raises(ArgumentError, match="layer 'layer' is followed by prelu, with parameters"):
        compress.scores(Maps(nn.Flatten(), nn.PReLU()), "correlation", x)


def test_an_answer_may_meet_what_was_made_of_it():
    """Attention over channels and the like: the activation function came before."""
    def follow(y: torch.Tensor) -> torch.Tensor:
        y = torch.relu(y)
        return y * torch.sigmoid(y - y.mean(1, keepdim=True))

    net = Net(follow).eval()
    found = torch.from_numpy(compress.scores(net, "correlation", X)["layer"])
    torch.testing.assert_close(found, _correlation(net.layer(X).relu()), atol=1e-5, rtol=0)


@pytest.mark.parametrize("method", ["correlation", "ae-lip"])
def test_inputs_that_the_network_does_not_take_are_refused_in_words(method):
    with pytest.raises(ArgumentError, match=r"does not run on the example input of shape \(.*7\)"):
        compress.scores(Net(torch.relu), method, torch.zeros(20, 7))
