"""LeNet-5 for Fashion-MNIST, and the two sets of trained weights that come with the package.

The shape is that of LeCun et al., "Gradient-based learning applied to document recognition",
Proc. IEEE 86(11), 1998, with ReLU for tanh, max-pooling for trainable subsampling, every map of
conv2 connected to every map of conv1, and, where nothing else is asked for, no padding (28 x 28
instead of 32 x 32 inputs).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

from celosia.datasets.fashion_mnist import CLASSES
from celosia_spec.preprocessing import of_pixels

__all__ = ["LENET5_PREPROCESSING", "LeNet5", "lenet5_metadata", "load_lenet5"]

LENET5_PREPROCESSING = replace(of_pixels(), labels=CLASSES)
"""What the shipped weights were trained with, and their classes; see `datasets.preprocess`."""

_DATA = Path(__file__).resolve().parent.parent / "data"


class LeNet5(nn.Module):
    """Two convolutions and three linear layers; 44,190 weights and 236 biases without padding.

    Forward: float32 (N, 1, 28, 28), as `celosia.datasets.preprocess` makes it, to float32 logits
    (N, 10).

    | layer | weights          | ReLU | max-pool | output      |
    |-------|------------------|------|----------|-------------|
    | conv1 | (6, 1, 5, 5)     | yes  | 2 x 2    | (6, 12, 12) |
    | conv2 | (16, 6, 5, 5)    | yes  | 2 x 2    | (16, 4, 4)  |
    | fc1   | (120, 256)       | yes  |          | (120,)      |
    | fc2   | (84, 120)        | yes  |          | (84,)       |
    | fc3   | (10, 84)         | no   |          | (10,)       |

    padding : of conv1; 2 gives the original's maps, (16, 5, 5) behind conv2, and 61,706 parameters.
    """

    def __init__(self, padding: int = 0) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5, padding=padding)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * ((12 + padding) // 2 - 2) ** 2, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits (N, 10) of the images (N, 1, 28, 28)."""
        x = functional.max_pool2d(functional.relu(self.conv1(x)), 2)
        x = functional.max_pool2d(functional.relu(self.conv2(x)), 2)
        x = torch.flatten(x, 1)
        x = functional.relu(self.fc1(x))
        x = functional.relu(self.fc2(x))
        return self.fc3(x)


def load_lenet5(pruned: bool = False) -> LeNet5:
    """Return the trained network, in eval mode.

    Parameters
    ----------
    pruned
        False: the dense network of ``examples/lenet5/train.py``. True: the network that
        ``examples/lenet5/prune.py`` made of it; removed weights are zeros in dense tensors.

    Raises
    ------
    FileNotFoundError
        The weights are not installed; the message names the file and how to make it.
    """
    model = LeNet5()
    model.load_state_dict(load_file(_checkpoint(pruned)))
    model.eval()
    return model


def lenet5_metadata(pruned: bool = False) -> dict[str, str]:
    """Return what was recorded with the weights: seed, epochs, accuracy, library version.

    Raises FileNotFoundError as `load_lenet5` does.
    """
    with safe_open(_checkpoint(pruned), framework="pt") as file:
        return dict(file.metadata() or {})


def _checkpoint(pruned: bool) -> Path:
    """Return the path of a shipped checkpoint, which exists."""
    stem = "lenet5_fashion_mnist_pruned" if pruned else "lenet5_fashion_mnist"
    path = _DATA / f"{stem}.safetensors"
    if not path.is_file():
        script = "prune.py" if pruned else "train.py"
        raise FileNotFoundError(
            f"{path} is missing; make it with `python examples/lenet5/{script} --output {path}`"
        )
    return path
