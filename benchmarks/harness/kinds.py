"""Kinds of networks that people bring, small and untrained, with an example as they give it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

GRAY, COLOUR = (1, 1, 28, 28), (1, 3, 32, 32)
LINE, VECTOR = (1, 3, 64), (1, 16)


@dataclass(frozen=True, eq=False)
class Kind:
    """name : what it shows.   model : in evaluation, but where its mode is the matter.

    example : what the user gives beside it.
    """

    name: str
    model: nn.Module
    example: Any


class Forward(nn.Module):
    """A forward pass that is a function of layers and inputs."""

    def __init__(self, function: Callable, **layers: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, *inputs: torch.Tensor) -> Any:
        return self.function(self, *inputs)


class Residual(nn.Module):
    """A ResNet block, where ``down`` with a stride of 2 and twice the channels."""

    def __init__(self, channels: int, down: bool = False) -> None:
        super().__init__()
        rows, stride = (2 * channels, 2) if down else (channels, 1)
        self.first = normalised(channels, rows, stride=stride)
        self.second = nn.Sequential(nn.Conv2d(rows, rows, 3, padding=1, bias=False),
                                    nn.BatchNorm2d(rows))
        self.short = nn.Sequential(nn.Conv2d(channels, rows, 1, stride, bias=False),
                                   nn.BatchNorm2d(rows)) if down else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.second(self.first(x)) + self.short(x))


def normalised(channels: int, rows: int, kernel: int = 3, stride: int = 1, groups: int = 1,
               activation: Callable[[], nn.Module] = nn.ReLU) -> nn.Module:
    """Return a convolution, BatchNorm and an activation."""
    return nn.Sequential(nn.Conv2d(channels, rows, kernel, stride, kernel // 2, groups=groups,
                                   bias=False), nn.BatchNorm2d(rows), activation())


def classifier(*layers: nn.Module, channels: int, classes: int = 10) -> nn.Module:
    """Return the layers, a global average and a linear layer."""
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(channels, classes))


def perceptron(*sizes: int) -> nn.Module:
    """Return linear layers of such sizes, ReLU between them."""
    layers: list[nn.Module] = []
    for a, b in pairwise(sizes):
        layers += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def ended(layer: nn.Module, outputs: int = 3) -> nn.Module:
    return nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, outputs), layer)


def averaged(function: Callable, channels: int = 8, **layers: nn.Module) -> nn.Module:
    """Return a network whose last maps, the function's, are averaged and classified."""
    return Forward(lambda net, *x: net.last(function(net, *x).mean((2, 3))),
                   last=nn.Linear(channels, 4), **layers)


def kinds() -> Iterator[Kind]:
    """Yield all of them; the same weights each time."""
    torch.manual_seed(0)
    for name, model, example in (*_dense(), *_maps(), *_images(), *_functions(), *_sequences(),
                                 *_joined(), *_written(), *_examples()):
        yield Kind(name, model if name.startswith("training mode") else model.eval(), example)


def _dense() -> Iterator[tuple]:
    yield "perceptron", perceptron(784, 64, 10), (1, 784)
    yield "perceptron, flattened picture", nn.Sequential(
        nn.Flatten(), perceptron(784, 64, 10)), GRAY
    yield "BatchNorm1d, dropout", nn.Sequential(
        nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Dropout(), nn.Linear(64, 10)), (1, 64)
    yield "BatchNorm1d behind ReLU", nn.Sequential(
        nn.Linear(64, 64), nn.ReLU(), nn.BatchNorm1d(64), nn.Linear(64, 10)), (1, 64)
    yield "tiny perceptron", perceptron(16, 8, 3), VECTOR
    yield "softmax regression", nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), GRAY
    yield "residual perceptron", Forward(
        lambda net, x: net.c(F.relu(net.b(F.relu(net.a(x)))) + x),
        a=nn.Linear(16, 16), b=nn.Linear(16, 16), c=nn.Linear(16, 4)), VECTOR


def _maps() -> Iterator[tuple]:
    yield "CNN, global average", classifier(
        normalised(1, 8), nn.MaxPool2d(2), normalised(8, 16), nn.MaxPool2d(2), channels=16), GRAY
    yield "CNN with ReLU6", classifier(
        normalised(1, 8, activation=nn.ReLU6), nn.MaxPool2d(2),
        normalised(8, 16, activation=nn.ReLU6), channels=16), GRAY
    yield "BatchNorm behind ReLU", nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(8), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(1568, 10)), GRAY
    yield "mean((2, 3))", averaged(lambda net, x: net.a(x), a=normalised(1, 8, stride=2)), GRAY
    yield "Keras' MNIST example", nn.Sequential(
        nn.Conv2d(1, 32, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), perceptron(1600, 128, 10)), GRAY
    yield "PyTorch's CIFAR-10 tutorial", nn.Sequential(
        nn.Conv2d(3, 6, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), perceptron(400, 120, 84, 10)), COLOUR
    for name, function in (("ReLU", nn.ReLU), ("ReLU6", nn.ReLU6)):
        yield f"depthwise separable, {name}", classifier(
            normalised(3, 8, stride=2, activation=function),
            normalised(8, 8, groups=8, activation=function),
            normalised(8, 16, 1, activation=function), channels=16), COLOUR
    yield "two groups", classifier(normalised(3, 8), normalised(8, 8, stride=2, groups=2),
                                   channels=8), COLOUR
    yield "dilated", classifier(nn.Conv2d(3, 8, 3, padding=2, dilation=2), nn.ReLU(),
                                channels=8), COLOUR
    yield "residual blocks", classifier(normalised(3, 8, stride=2), Residual(8), Residual(8, True),
                                        channels=16), COLOUR
    yield "ResNet's stem", classifier(normalised(3, 8, 7, 2), nn.MaxPool2d(3, 2, 1),
                                      normalised(8, 8), channels=8), COLOUR
    yield "overlapping max pool", classifier(normalised(3, 8), nn.MaxPool2d(3, 2),
                                             normalised(8, 8), channels=8), COLOUR
    yield "AvgPool2d", nn.Sequential(normalised(1, 8), nn.AvgPool2d(2), nn.Flatten(),
                                     nn.Linear(1568, 10)), GRAY
    yield "AdaptiveAvgPool2d(4)", nn.Sequential(normalised(1, 8), nn.AdaptiveAvgPool2d(4),
                                                nn.Flatten(), nn.Linear(128, 10)), GRAY


def _images() -> Iterator[tuple]:
    yield "autoencoder", nn.Sequential(nn.Flatten(), perceptron(784, 32, 784),
                                       nn.Unflatten(1, (1, 28, 28))), GRAY
    yield "autoencoder, sigmoid", nn.Sequential(perceptron(784, 32, 784), nn.Sigmoid()), (1, 784)
    yield "denoiser", nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(),
        nn.Conv2d(8, 1, 3, padding=1)), GRAY
    down = (nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU())
    yield "Upsample, nearest", nn.Sequential(*down, nn.Upsample(scale_factor=2),
                                             nn.Conv2d(8, 1, 3, padding=1)), GRAY
    yield "Upsample, bilinear", nn.Sequential(*down, nn.Upsample(scale_factor=2, mode="bilinear"),
                                              nn.Conv2d(8, 1, 3, padding=1)), GRAY
    yield "ConvTranspose2d", nn.Sequential(*down, nn.ConvTranspose2d(8, 1, 2, 2)), GRAY
    yield "PixelShuffle", nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 4, 3, padding=1),
        nn.PixelShuffle(2)), (1, 1, 14, 14)
    yield "U-Net", Forward(lambda net, x: net.c(torch.cat([net.a(x), F.interpolate(
        net.b(F.max_pool2d(net.a(x), 2)), scale_factor=2)], 1)),
        a=normalised(1, 8), b=normalised(8, 8), c=nn.Conv2d(16, 1, 1)), GRAY


def _functions() -> Iterator[tuple]:
    for function in (nn.LeakyReLU(0.1), nn.Sigmoid(), nn.Tanh(), nn.Hardswish(), nn.Hardsigmoid(),
                     nn.GELU(), nn.SiLU(), nn.PReLU(), nn.ELU(), nn.Hardtanh()):
        yield f"{type(function).__name__} between layers", nn.Sequential(
            nn.Linear(16, 16), function, nn.Linear(16, 4)), VECTOR
    yield "Softmax at the end", ended(nn.Softmax(1)), VECTOR
    yield "LogSoftmax at the end", ended(nn.LogSoftmax(1)), VECTOR
    yield "Sigmoid at the end", ended(nn.Sigmoid(), 1), VECTOR
    yield "argmax at the end", Forward(lambda net, x: net.a(x).argmax(1),
                                       a=perceptron(16, 8, 3)), VECTOR
    yield "ReLU at the end", nn.Sequential(nn.Linear(16, 8), nn.ReLU()), VECTOR


def _sequences() -> Iterator[tuple]:
    yield "Conv1d", nn.Sequential(
        nn.Conv1d(3, 16, 5, padding=2), nn.BatchNorm1d(16), nn.ReLU(), nn.MaxPool1d(2),
        nn.Conv1d(16, 16, 3), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(),
        nn.Linear(16, 5)), LINE
    for kind in (nn.LSTM, nn.GRU):
        yield kind.__name__, Forward(
            lambda net, x: net.b(net.a(x)[0][:, -1]), a=kind(8, 16, batch_first=True),
            b=nn.Linear(16, 4)), (1, 10, 8)
    yield "MultiheadAttention", Forward(
        lambda net, x: net.b(net.a(x, x, x)[0].mean(1)),
        a=nn.MultiheadAttention(16, 2, batch_first=True), b=nn.Linear(16, 4)), (1, 10, 16)
    yield "LayerNorm", nn.Sequential(nn.Linear(16, 16), nn.LayerNorm(16), nn.ReLU(),
                                     nn.Linear(16, 4)), VECTOR
    yield "GroupNorm", classifier(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.ReLU(),
                                  channels=8), COLOUR
    yield "Embedding", nn.Sequential(nn.Embedding(50, 8), nn.Flatten(), nn.Linear(80, 4)), (
        torch.randint(0, 50, (1, 10)))


def _joined() -> Iterator[tuple]:
    yield "concat, Inception", averaged(lambda net, x: torch.cat([net.a(x), net.b(x)], 1), 16,
                                        a=normalised(3, 8, 1), b=normalised(3, 8)), COLOUR
    yield "concat, DenseNet", averaged(lambda net, x: torch.cat([x, net.a(x)], 1), 11,
                                       a=normalised(3, 8)), COLOUR
    yield "squeeze-and-excite", averaged(lambda net, x: net.a(x) * torch.sigmoid(
        net.b(net.a(x).mean((2, 3), keepdim=True))), a=normalised(3, 8), b=nn.Conv2d(8, 8, 1)), (
        COLOUR)
    yield "two outputs", Forward(lambda net, x: (net.a(x), net.b(x)),
                                 a=nn.Linear(16, 4), b=nn.Linear(16, 2)), VECTOR
    yield "two inputs", Forward(lambda net, x, y: net.a(x) + net.b(y), a=nn.Linear(16, 4),
                                b=nn.Linear(16, 4)), (torch.rand(1, 16), torch.rand(1, 16))
    yield "a dictionary as output", Forward(lambda net, x: {"y": net.a(x)},
                                            a=nn.Linear(16, 4)), VECTOR
    yield "one layer called twice", Forward(lambda net, x: net.b(F.relu(net.a(F.relu(net.a(x))))),
                                            a=nn.Linear(16, 16), b=nn.Linear(16, 4)), VECTOR
    yield "chunk", averaged(lambda net, x: torch.chunk(net.a(x), 2, 1)[0], 4,
                            a=normalised(1, 8)), GRAY


def _written() -> Iterator[tuple]:
    yield "view(-1, ...)", Forward(lambda net, x: net.b(F.relu(net.a(x)).view(-1, 5408)),
                                   a=nn.Conv2d(1, 8, 3), b=nn.Linear(5408, 10)), GRAY
    yield "view(x.size(0), -1)", Forward(
        lambda net, x: net.b(F.max_pool2d(F.relu(net.a(x)), 2).view(x.size(0), -1)),
        a=nn.Conv2d(1, 8, 5), b=nn.Linear(1152, 10)), GRAY
    yield "channels last", averaged(lambda net, x: F.relu(net.a(x.permute(0, 3, 1, 2))),
                                    a=nn.Conv2d(3, 8, 3)), (1, 32, 32, 3)
    yield "permute, then flatten", Forward(
        lambda net, x: net.b(F.relu(net.a(x)).permute(0, 2, 3, 1).flatten(1)),
        a=nn.Conv2d(1, 4, 5, 2), b=nn.Linear(576, 10)), GRAY
    yield "F.pad", averaged(lambda net, x: F.relu(net.a(F.pad(x, (1, 1, 1, 1)))),
                            a=nn.Conv2d(1, 8, 3)), GRAY
    yield "F.pad, two sides", averaged(lambda net, x: F.relu(net.a(F.pad(x, (0, 1, 0, 1)))),
                                       a=nn.Conv2d(1, 8, 3, 2)), GRAY
    yield "reflection", classifier(nn.Conv2d(1, 8, 3, padding=1, padding_mode="reflect"),
                                   nn.ReLU(), channels=8), GRAY
    yield "padding='same'", classifier(nn.Conv2d(1, 8, 3, padding="same"), nn.ReLU(),
                                       channels=8), GRAY
    yield "x[:, :, ::2, ::2]", averaged(lambda net, x: F.relu(net.a(x[:, :, ::2, ::2])),
                                        a=nn.Conv2d(1, 8, 3)), GRAY
    yield "(x - mean) / deviation", Forward(lambda net, x: net.a((x - 0.5) / 0.25),
                                            a=nn.Linear(16, 4)), VECTOR
    yield "x * 2", Forward(lambda net, x: net.a(x * 2.0), a=nn.Linear(16, 4)), VECTOR
    yield "if x.sum() > 0", Forward(lambda net, x: net.a(x) if x.sum() > 0 else net.a(-x),
                                    a=nn.Linear(16, 4)), VECTOR
    yield "F.linear", Forward(lambda net, x: F.linear(x, net.a.weight * 0.5),
                              a=nn.Linear(16, 4)), VECTOR
    yield "weight_norm", nn.Sequential(
        nn.utils.parametrizations.weight_norm(nn.Linear(16, 8)), nn.ReLU(), nn.Linear(8, 4)), VECTOR


def _examples() -> Iterator[tuple]:
    yield "example of four", perceptron(16, 8, 3), torch.rand(4, 16)
    yield "example of NumPy", perceptron(16, 8, 3), np.zeros(VECTOR, np.float32)
    yield "a shape as example", perceptron(16, 8, 3), VECTOR
    yield "example without its batch", nn.Sequential(nn.Flatten(), nn.Linear(28, 8)), (
        torch.rand(28, 28))
    for kind in (torch.float16, torch.bfloat16, torch.float64):
        yield str(kind).removeprefix("torch."), perceptron(16, 8, 3).to(kind), (
            torch.rand(VECTOR).to(kind))
    yield "training mode, BatchNorm1d, dropout", nn.Sequential(
        nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Dropout(), nn.Linear(64, 10)), (1, 64)
