"""Networks that return several tensors. Every file of tests may import it, where there is torch."""

from collections import OrderedDict, namedtuple
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves

MAP, VECTOR = (1, 4, 8, 8), (1, 16)
TARGET = "ulx3s-85f"


class Function(nn.Module):
    """A forward pass given as a function of layers and x."""

    def __init__(self, function, *layers: nn.Module) -> None:
        super().__init__()
        self.function, self.layers = function, nn.ModuleList(layers)

    def forward(self, x):
        return self.function(*self.layers, x)


def conv(rows: int, channels: int = 4, kernel: int = 3, **fields) -> nn.Module:
    return nn.Conv2d(channels, rows, kernel, padding=kernel // 2, **fields)


Boxes = namedtuple("Boxes", "where what")


@dataclass
class Found:
    where: torch.Tensor
    what: torch.Tensor


torch.export.register_dataclass(Found, serialized_type_name="returning.Found")


def body(first, second, x):
    return F.relu(second(F.max_pool2d(F.relu(first(x)), 2)))


def shared(*layers):
    """Two heads on the features of a body, which are returned, too."""
    first, second, a, b, x = layers
    y = body(first, second, x)
    return {"features": y, "a": a(y), "b": b(y)}


NETWORKS = {    # what it is, the shape of its input, what users call its outputs, layers
    "two heads": (lambda: Function(lambda a, b, x: (a(x), b(x)), nn.Linear(16, 4),
                                   nn.Linear(16, 2)), VECTOR, ["0", "1"], 1),
    "a list of three": (lambda: Function(
        lambda a, b, c, x: [a(x), b(x), c(F.relu(a(x)))], nn.Linear(16, 4), nn.Linear(16, 2),
        nn.Linear(4, 3)), VECTOR, ["0", "1", "2"], 5),
    "a dictionary": (lambda: Function(lambda a, b, x: {"what": a(x), "where": b(x)}, conv(3),
                                      conv(2, kernel=1)), MAP, ["what", "where"], 1),
    "an ordered one": (lambda: Function(lambda a, b, x: OrderedDict(z=a(x), y=b(x)), conv(3),
                                        conv(2)), MAP, ["z", "y"], 1),
    "names": (lambda: Function(lambda a, b, x: Boxes(a(x), b(x)), conv(3), conv(2)), MAP,
              ["where", "what"], 1),
    "a dataclass": (lambda: Function(lambda a, b, x: Found(a(x), b(x)), conv(3), conv(2)), MAP,
                    ["where", "what"], 1),
    "nested": (lambda: Function(
        lambda a, b, x: {"heads": [a(x), {"last": b(x)}], "none": None}, conv(3), conv(2)), MAP,
        ["heads.0", "heads.1.last"], 1),
    "kernels of two sizes": (lambda: Function(lambda a, b, x: (a(x), b(x)), conv(3, kernel=5),
                                              conv(2)), MAP, ["0", "1"], 1),
    "dilated": (lambda: Function(
        lambda a, b, x: (a(x), b(x)), nn.Conv2d(4, 3, 3, padding=2, dilation=2),
        conv(2, kernel=1)), MAP, ["0", "1"], 1),
    "strides": (lambda: Function(lambda a, b, x: (a(x), b(x)), conv(3, stride=2),
                                 conv(2, stride=2, kernel=1)), MAP, ["0", "1"], 1),
    "several strides": (lambda: Function(lambda a, b, x: (a(x), F.max_pool2d(b(x), 2)),
                                         conv(3, stride=2), conv(2)), MAP, ["0", "1"], 3),
    "groups": (lambda: Function(lambda a, b, x: (a(x), b(x)), conv(4, groups=4),
                                conv(4, groups=2)), MAP, ["0", "1"], 1),
    "both behind a ReLU": (lambda: Function(lambda a, b, x: (F.relu(a(x)), F.relu(b(x))), conv(3),
                                            conv(2)), MAP, ["0", "1"], 1),
    "one behind a ReLU": (lambda: Function(lambda a, b, x: (F.relu(a(x)), b(x)), conv(3), conv(2)),
                          MAP, ["0", "1"], 3),
    "heads and features": (lambda: Function(shared, conv(8), conv(6, 8), conv(3, 6),
                                            conv(2, 6, 1)), MAP, ["features", "a", "b"], 3),
    "heads of two bodies": (lambda: Function(
        lambda a, b, c, d, x: (c(F.relu(a(x))), d(F.relu(b(x)))), conv(5), conv(6), conv(3, 5),
        conv(2, 6)), MAP, ["0", "1"], 3),
    "two scales": (lambda: Function(
        lambda a, b, c, d, x: (c(F.relu(a(x))), d(F.relu(b(F.relu(a(x)))))), conv(6),
        conv(8, 6, stride=2), conv(3, 6, 1), conv(3, 8, 1)), MAP, ["0", "1"], 8),
    "a map and a vector": (lambda: Function(
        lambda a, b, x: (a(x), b(F.relu(a(x)).mean((2, 3)))), conv(4), nn.Linear(4, 3)), MAP,
        ["0", "1"], 5),
    "a sum": (lambda: Function(lambda a, b, x: (a(x) + b(x), b(x)), conv(3), conv(3)), MAP,
              ["0", "1"], 4),
    "the same twice": (lambda: Function(lambda a, x: {"y": a(x), "again": a(x)}, conv(3)), MAP,
                       ["y", "again"], 1),
    "one tensor twice": (lambda: Function(lambda a, x: [a(x)] * 2, conv(3)), MAP, ["0", "1"], 1),
    "halves": (lambda: Function(lambda a, x: a(x).chunk(2, 1), conv(6)), MAP, ["0", "1"], 1),
    "halves the other way": (lambda: Function(lambda a, x: a(x).chunk(2, 1)[::-1], conv(6)), MAP,
                             ["0", "1"], 1),
    "the input, too": (lambda: Function(lambda a, x: (a(x), x), conv(3)), MAP, ["0", "1"], 1),
    "enlarged": (lambda: Function(
        lambda a, b, x: (F.interpolate(a(x), scale_factor=2), b(x)), conv(3),
        nn.ConvTranspose2d(4, 2, 2, 2)), MAP, ["0", "1"], 1),
    "lines": (lambda: Function(lambda a, b, x: (a(x), b(x)), nn.Conv1d(4, 3, 3, padding=1),
                               nn.Conv1d(4, 2, 5, padding=2)), (1, 4, 16), ["0", "1"], 1),
    "ends of their own": (lambda: Function(
        lambda a, b, c, x: {"share": a(x).softmax(1), "on": torch.sigmoid(b(x)).squeeze(1),
                            "class": c(x).argmax(1), "raw": c(x)}, nn.Linear(16, 4),
        nn.Linear(16, 1), nn.Linear(16, 5)), VECTOR, ["share", "on", "class", "raw"], 1),
    "heights and classes": (lambda: Function(
        lambda a, b, x: (a(x).flatten(1), b(x).argmax(1)), conv(1), conv(3)), MAP, ["0", "1"], 1),
}


def made(name: str) -> nn.Module:
    torch.manual_seed(4)
    return NETWORKS[name][0]().eval()


def inputs(shape: tuple[int, ...], count: int = 4) -> np.ndarray:
    return np.random.default_rng(5).normal(size=(count, *shape[1:])).astype(np.float32)


def leaves(model: nn.Module, x: np.ndarray) -> list[np.ndarray]:
    """Return the tensors that a model returns, of N inputs one by one."""
    with torch.no_grad():
        found = [[leaf.numpy() for leaf in tree_leaves(model(torch.from_numpy(one[None])))
                  if leaf is not None] for one in x]
    return [np.concatenate(parts) for parts in zip(*found, strict=True)]
