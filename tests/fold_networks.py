"""Networks whose normalisations and pools are folded, and the shapes of their inputs."""

from __future__ import annotations

import torch
from torch import nn

MAP, ROW, VECTOR = (2, 3, 8, 8), (2, 3, 8), (4, 5)


class Net(nn.Module):
    """A network whose forward is a function of it and its input."""

    def __init__(self, forward, **layers) -> None:
        super().__init__()
        self.steps = forward
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x):
        return self.steps(self, x)


def trained(model: nn.Module) -> nn.Module:
    """Give normalisations statistics and factors as training might; eval mode."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for part in model.modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.running_mean is not None:
                part.running_mean.normal_(generator=generator)
                part.running_var.uniform_(0.3, 3, generator=generator)
                if part.affine:
                    part.weight.normal_(generator=generator)
                    part.bias.normal_(generator=generator)
    return model.eval()


def randn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(5))


def pair(forward=lambda s, x: s.n(s.c(x)), **more) -> Net:
    torch.manual_seed(0)
    return Net(forward, **{"c": nn.Conv2d(3, 6, 3), "n": nn.BatchNorm2d(6), **more})


def named_twice() -> nn.Module:
    net = pair(lambda s, x: s.all(x))
    net.all = nn.Sequential(net.c, net.n, nn.ReLU())
    return net


def hooked(layer: nn.Module, pre: bool = False) -> nn.Module:
    if pre:
        layer.register_forward_pre_hook(lambda module, given: (2 * given[0],))
    else:
        layer.register_forward_hook(lambda module, given, output: 2 * output)
    return layer


class Scaled(nn.Conv2d):
    def forward(self, x):
        return 3 * super().forward(x)
