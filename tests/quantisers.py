"""Networks with quantisers of PyTorch inside, and what is made of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.ao.quantization.fx._decomposed
import torch.nn.functional as F
from torch import nn

from celosia.compiler import Compiler
from celosia.frontend import import_model
from celosia.passes import optimise

RNG = np.random.default_rng(3)
X = RNG.standard_normal((8, 2, 6, 6)).astype(np.float32)
OPS = torch.ops.quantized_decomposed
INT8, UINT8 = (-128, 127, torch.int8), (0, 255, torch.uint8)


def torch_outputs(model, x: np.ndarray = X) -> np.ndarray:
    with torch.no_grad():
        found = [model(torch.from_numpy(one[None])).numpy() for one in x]
    return np.concatenate(found).astype(float)


def rounded(x: torch.Tensor, scale: float, zero: int = 0, kind: tuple = INT8) -> torch.Tensor:
    """Return a tensor behind a quantiser and its dequantiser."""
    return OPS.dequantize_per_tensor(OPS.quantize_per_tensor(x, scale, zero, *kind),
                                     scale, zero, *kind)


def imported(model: nn.Module, x: np.ndarray = X):
    return import_model(model.eval(), x[:1])


def static(graph, x: np.ndarray | None = None):
    return Compiler(exponents="static").quantised(optimise(graph), x)


def exponents(quantised) -> dict[str, int]:
    return {name: tensor.exponent.fixed for name, tensor in quantised.tensors.items()
            if tensor.exponent.fixed is not None}


class Weights(nn.Module):
    """Layers whose weights and biases stand as whole numbers."""

    def __init__(self, kind: str, ends: tuple[int, int], zero: int, of_rows: bool) -> None:
        super().__init__()
        self.kind, self.ends, self.zero, self.of_rows = kind, ends, zero, of_rows
        m = torch.from_numpy(RNG.integers(ends[0], ends[1] + 1, (4, 2, 3, 3)))
        self.register_buffer("m", m.to(getattr(torch, kind)))
        self.register_buffer("scales", torch.tensor([.02, .03, .01, .04]))
        self.register_buffer("zeros", torch.full((4,), zero))
        self.register_buffer("bias", torch.tensor([900, -400, 70, -5], dtype=torch.int32))

    def forward(self, x):
        kind = (*self.ends, getattr(torch, self.kind))
        if self.of_rows:
            weight = OPS.dequantize_per_channel(self.m, self.scales, self.zeros, 0, *kind)
        else:
            weight = OPS.dequantize_per_tensor(self.m, .02, self.zero, *kind)
        bias = OPS.dequantize_per_tensor(self.bias, .001, 0, -2**31, 2**31 - 1, torch.int32)
        return F.conv2d(x, weight, bias)


class Body(nn.Module):
    """A network around some part of it that takes and gives (1, 4, 6, 6)."""

    def __init__(self, part: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.first, self.last = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 3, 3)
        self.side, self.each = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.norm = nn.BatchNorm2d(4)
        self.norm.running_var *= 2
        self.part = part
        self.eval()

    def forward(self, x):
        x = rounded(F.relu(self.first(rounded(x, .03))), .01, -128)
        return rounded(self.last(self.part(self, x)), .02, 3)
