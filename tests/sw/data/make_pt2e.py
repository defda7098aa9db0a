"""Write this folder's .pt2 files: a network, quantised by torchao's pt2e.

    pip install torchao==0.18.0
    python tests/sw/data/make_pt2e.py
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86
from torchao.testing.pt2e import _xnnpack_quantizer as xnnpack


class Network(nn.Module):
    """A shortcut, a max-pool, a clamp, joined maps and an average."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.deep, self.side = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
        self.last = nn.Linear(8, 3)

    def forward(self, x):
        x = F.relu(self.norm(self.first(x)))
        x = F.max_pool2d(F.relu(self.deep(x) + x), 2)
        x = torch.cat([F.relu6(self.side(x)), x], 1)
        return self.last(x.mean((2, 3)))


def quantiser(module, config):
    chosen = getattr(module, "XNNPACKQuantizer", None) or module.X86InductorQuantizer
    return chosen().set_global(config)


torch.manual_seed(0)
network, inputs = Network().eval(), torch.randn(16, 1, 2, 6, 6)
quantisers = {
    "xnnpack": quantiser(xnnpack, xnnpack.get_symmetric_quantization_config(is_per_channel=True)),
    "dynamic": quantiser(xnnpack, xnnpack.get_symmetric_quantization_config(is_dynamic=True)),
    "x86": quantiser(x86, x86.get_default_x86_inductor_quantization_config()),
}
for name, chosen in quantisers.items():
    module = prepare_pt2e(torch.export.export(network, (inputs[0],)).module(), chosen)
    for one in inputs:
        module(one)
    # Of x86 the weights stay float, with a quantiser and a dequantiser behind them.
    converted = convert_pt2e(module, fold_quantize=name != "x86")
    program = torch.export.export(converted, (inputs[0],))
    torch.export.save(program, Path(__file__).parent / f"pt2e_{name}.pt2")
