"""Which activation function follows a layer: every one of torch's, and no guess."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from celosia import compress
from celosia.errors import ArgumentError

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
    (lambda y: torch.sin(y), "sin"), (lambda y: y.exp(), "exp")], ids=["square", "abs", "pow",
                                                                       "sin", "exp"])
def test_an_unknown_function_is_refused_by_name(follow, word):
    with pytest.raises(ArgumentError, match=f"layer 'layer' is followed by {word}, .*'pre'"):
        compress.scores(Net(follow), "correlation", X)
    compress.scores(Net(follow), "correlation", X, activation="pre")


@pytest.mark.parametrize("follow", [lambda y: y * torch.sigmoid(y),
                                    lambda y: torch.tanh(functional.softplus(y)) * y,
                                    lambda y: torch.mul(torch.sigmoid(y), y)],
                         ids=["silu", "mish", "mul"])
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
