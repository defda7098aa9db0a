"""MLPerf Tiny's trained networks (mlcommons/tiny, Apache-2.0), as PyTorch modules with inputs.

The files lie in the folder that CELOSIA_EXPERIMENTS names: mlperf_tiny_vww.safetensors and others,
channels first, with the list of layers in their metadata.
"""

import json

import numpy as np
import torch
from safetensors import safe_open
from torch import nn
from torch.nn import functional

from harness.pictures import DEVIATION, MEAN, cifar10, experiment

__all__ = ["keyword_spotter", "person_detector", "wakeword"]


class _Same(nn.Conv2d):  # type: ignore[misc]
    """A convolution padded as TensorFlow does: the smaller half before."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        sides: list[int] = []
        for size, kernel, stride in reversed(
                list(zip(x.shape[2:], self.kernel_size, self.stride, strict=True))):
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            sides += [total // 2, total - total // 2]
        return super().forward(functional.pad(x, sides))


def person_detector(pictures: int) -> tuple[nn.Module, torch.Tensor]:
    """Return the person detector (MobileNet, a quarter of its width) without its softmax, and
    pictures of CIFAR-10 enlarged to what it takes, float32 (N, 3, 96, 96) in [0, 1].
    """
    x, _ = cifar10("test", pictures)
    mean, deviation = (torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, DEVIATION))
    small = (x * deviation + mean).clamp(0, 1)
    return _network("vww"), functional.interpolate(small, size=(96, 96), mode="bilinear",
                                                   align_corners=False)


def wakeword(windows: int) -> tuple[nn.Module, torch.Tensor]:
    """Return the streaming wakeword's network over one window, and up to so many of the
    benchmark's recorded windows, float32 (N, 40, 30, 1), never below 0.
    """
    with np.load(experiment("mlperf_tiny_sww_inputs.npz"), allow_pickle=False) as archive:
        return _network("sww"), torch.from_numpy(archive["x"][:windows])


def keyword_spotter(samples: int) -> tuple[nn.Module, torch.Tensor]:
    """Return the keyword spotter (DS-CNN) without its softmax, and made inputs, float32
    (N, 1, 49, 10): ten cepstral coefficients over time, normal, the first of which is eight times
    as large as the others, about as it is in speech.
    """
    x = torch.randn(samples, 1, 49, 10, generator=torch.Generator().manual_seed(0)) * 8
    x[..., 0] *= 8
    return _network("kws"), x


def _network(name: str) -> nn.Module:
    with safe_open(experiment(f"mlperf_tiny_{name}.safetensors"), "pt") as file:
        structure = json.loads(file.metadata()["structure"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    layers = [_layer(entry, f"{at}.bias" in tensors) for at, entry in enumerate(structure)]
    network = nn.Sequential(*layers)
    found = network.load_state_dict(tensors, strict=False)
    missing = [name for name in found.missing_keys if "num_batches" not in name]
    assert not missing and not found.unexpected_keys, (missing, found.unexpected_keys)
    return network.eval()


def _layer(entry: dict, bias: bool) -> nn.Module:
    match entry["kind"]:
        case "conv":
            kind = _Same if entry["padding"] == "same" else nn.Conv2d
            inputs = entry["cin"] if entry["groups"] == 1 else entry["groups"]
            return kind(inputs, entry["cout"], tuple(entry["kernel"]), tuple(entry["stride"]),
                        groups=entry["groups"], bias=bias)
        case "bn":
            return nn.BatchNorm2d(entry["features"], eps=entry["eps"])
        case "relu":
            return nn.ReLU()
        case "avgpool":
            return nn.AvgPool2d(tuple(entry["kernel"]))
        case "flatten":
            return nn.Flatten()
        case "linear":
            return nn.Linear(entry["cin"], entry["cout"])
        case "softmax":
            return nn.Identity()
        case other:
            raise ValueError(f"{other} is no layer of these networks")
