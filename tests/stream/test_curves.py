# amaranth: UnusedElaboratable=no
"""Networks with functions and products that are straight pieces: on the gateware, and refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import celosia
from celosia.compiler import Compiler
from celosia.verify import verify
from celosia_spec.errors import CompileError
from registered import carrying
from stream.compared import compare
from stream.conftest import ARRAY

CLAMPING = replace(ARRAY, clamp=True)
SHAPE = (2, 6, 6)


class Gated(nn.Module):
    """Squeeze-and-excite, and a gated linear unit behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.gate = nn.Conv2d(2, 4, 3), nn.Conv2d(4, 4, 1)
        self.b = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.GLU(), nn.Linear(5, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.a(x).relu()
        return self.b(y * torch.sigmoid(self.gate(y.mean((2, 3), keepdim=True))))


@pytest.fixture(scope="module", params=["functions", "products"])
def model(request) -> nn.Module:
    torch.manual_seed(0)
    return Gated().eval() if request.param == "products" else nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.SiLU(), nn.Conv2d(4, 3, 3, padding=1), nn.Tanh(), nn.Flatten(),
        nn.Linear(48, 5), nn.ELU(), nn.Linear(5, 3)).eval()


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((2, *SHAPE)).astype(np.float32)


@pytest.mark.parametrize("exponents", ["dynamic", "static"])
def test_the_machine_of_words_is_the_golden_model_and_near_the_network(model, x, exponents):
    samples = x if exponents == "static" else None
    with carrying(CLAMPING, "clamping", "ecp5-85f"):
        program = celosia.compile(model, SHAPE, target="clamping", exponents=exponents,
                                  calibration=samples)
        found = celosia.run(program, x)
        settings = Compiler(target="clamping", exponents=exponents)
        compare(settings.quantised(settings.graph(model, SHAPE), samples), CLAMPING, x[0])
    with torch.no_grad():
        wanted = model(torch.from_numpy(x)).numpy()
    assert np.abs(found.answer - wanted).max() < 0.05 * np.abs(wanted).max()


def test_the_gateware_is_the_golden_model(model, x):
    with carrying(CLAMPING, "clamping", "ecp5-85f"):
        found = verify(celosia.compile(model, SHAPE, target="clamping"), x)
    assert found.passed and found.values > 0


def test_an_array_that_lacks_what_pieces_take_is_told():
    def of(function: nn.Module) -> nn.Module:
        return nn.Sequential(nn.Linear(6, 4), function, nn.Linear(4, 2))

    assert celosia.compile(of(nn.Tanh()), (1, 6), target="hx8k").remarks
    with pytest.raises(CompileError, match=r"^1 \(add\): it adds tensors, and the array has no "
                                           r"residual operand; compile it for icebreaker$"):
        celosia.compile(of(nn.SiLU()), (1, 6), target="hx8k")
    with carrying(ARRAY, "small", "ecp5-85f"), pytest.raises(
            CompileError, match=r"^1\.1 \(clamp\): a clamp to 0 ... 1 follows it, and the array "):
        celosia.compile(of(nn.Tanh()), (1, 6), target="small")
