"""What calibration inputs tell of a network counts wherever it is compiled: for a program, in
training, for a table of widths, and where cycles are predicted."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import celosia
from celosia import compress
from celosia.compress.weights.prediction import Predictor
from celosia.widths import widths

TARGET = "ulx3s-85f"
RNG = np.random.default_rng(3)
X = 20 * RNG.standard_normal((16, 1, 8, 8), np.float32)
QUIET = 0.005 * RNG.standard_normal((16, 1, 8, 8), np.float32)


class TwoInputs(nn.Module):
    """Reads a loud input and a quiet one, whose weights are as much larger."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 3, 3)
        with torch.no_grad():
            self.a.weight[:, 1] *= 200

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.b(torch.relu(self.a(torch.cat([x, y], 1))))


class TwoOutputs(nn.Module):
    """Returns a loud output and a quiet one."""

    def __init__(self) -> None:
        super().__init__()
        self.c, self.p, self.q = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 2, 3), nn.Conv2d(4, 2, 3)
        with torch.no_grad():
            self.q.weight *= 0.01
            self.q.bias *= 0.01

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        h = torch.relu(self.c(x))
        return self.p(h), self.q(h)


class Product(nn.Module):
    """Multiplies two tensors."""

    def __init__(self, channels: int = 4) -> None:
        super().__init__()
        self.a, self.b = (nn.Conv2d(1, channels, 3, padding=1) for _ in range(2))
        self.c = nn.Conv2d(channels, 8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c(self.a(x) * self.b(x))


class ReadsOne(nn.Module):
    """Reads the second of its inputs alone."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(1, 4, 3, padding=1)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.a(torch.cat([x, y], 1)[:, 1:])


KINDS = {TwoInputs: (X, QUIET), TwoOutputs: X, Product: X, ReadsOne: (1000 * X, QUIET)}


def made(kind: Any, *arguments: int) -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = kind(*arguments).eval()
    return model


def example(kind: Any) -> Any:
    x = KINDS[kind]
    return tuple(one[:1] for one in x) if isinstance(x, tuple) else x[:1]


@pytest.mark.parametrize("exponents", ["dynamic", "static"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_network_in_the_format_becomes_the_program_that_compile_makes(
        kind: Any, exponents: str) -> None:
    settings: Any = {"target": TARGET, "calibration": KINDS[kind], "exponents": exponents}
    compiled = celosia.compile(made(kind), example(kind), accuracy="none", **settings)
    trained = compress.in_format(made(kind), example(kind), **settings).program()
    values = [celosia.run(program, KINDS[kind]).values for program in (compiled, trained)]
    assert np.array_equal(*values)
    assert trained.predicted_cycles == compiled.predicted_cycles


@pytest.mark.parametrize("kind", KINDS)
def test_widths_are_those_of_what_compile_makes(kind: Any) -> None:
    settings: Any = {"target": TARGET, "calibration": KINDS[kind], "accuracy": "none"}
    compiled = celosia.compile(made(kind), example(kind), **settings)
    inputs = KINDS[kind] if isinstance(KINDS[kind], tuple) else (KINDS[kind],)
    with torch.no_grad():
        wanted = made(kind)(*map(torch.tensor, inputs))
    wanted = torch.cat([one.flatten(1) for one in wanted], 1) if isinstance(
        wanted, tuple) else wanted
    values = celosia.run(compiled, KINDS[kind]).values.reshape(wanted.shape)
    ratio = 10 * np.log10(np.sum(wanted.numpy() ** 2) / np.sum((values - wanted.numpy()) ** 2))
    (found,) = widths(made(kind), example(kind), bits=[(8, 8)], **settings).widths
    assert found.cycles == compiled.predicted_cycles
    assert found.ratio == pytest.approx(ratio, abs=0.05)


@pytest.mark.parametrize("exponents", ["dynamic", "static"])
@pytest.mark.parametrize("inputs", [X, abs(X)], ids=["signed", "unsigned"])
def test_cycles_are_predicted_with_calibration(inputs: np.ndarray, exponents: str) -> None:
    settings: Any = {"target": TARGET, "calibration": inputs, "exponents": exponents}
    found = Predictor(X[:1], **settings)(made(Product)).cycles
    assert found == celosia.compile(
        made(Product), X[:1], accuracy="none", **settings).predicted_cycles
    assert found != Predictor(X[:1], target=TARGET, exponents=exponents)(made(Product)).cycles


def test_a_budget_is_kept_with_calibration() -> None:
    inputs = X[:2, :, :4, :4]
    model, settings = made(Product, 12), {"target": "ulx3s-12f", "calibration": inputs}
    budget = Predictor(inputs[:1], **settings)(model).cycles - 100
    compress.prune_to_cycles(model, example_input=inputs[:1], budget=budget, **settings)
    assert celosia.compile(model, inputs[:1], accuracy="none",
                           **settings).predicted_cycles <= budget
