"""MLPerf Tiny's trained networks (mlcommons/tiny, Apache-2.0), with inputs.

Their weights lie in the folder that CELOSIA_EXPERIMENTS names: mlperf_tiny_vww.safetensors and
others, channels first.
"""

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

from celosia.zoo import NETWORKS, now_trained
from harness.pictures import DEVIATION, MEAN, cifar10, experiment

__all__ = ["GIVEN", "keyword_spotter", "person_detector", "trained", "wakeword"]

GIVEN = {"ds-cnn": "kws", "mobilenet-v1": "vww", "wakeword": "sww"}
"""Networks of `celosia.zoo`, and what their weights' files are called after."""


def person_detector(pictures: int) -> tuple[nn.Module, torch.Tensor]:
    """Return the person detector (MobileNet, a quarter of its width) without its softmax, and
    pictures of CIFAR-10 enlarged to what it takes, float32 (N, 3, 96, 96) in [0, 1].
    """
    x, _ = cifar10("test", pictures)
    mean, deviation = (torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, DEVIATION))
    small = (x * deviation + mean).clamp(0, 1)
    return trained("mobilenet-v1"), functional.interpolate(
        small, size=(96, 96), mode="bilinear", align_corners=False)


def wakeword(windows: int) -> tuple[nn.Module, torch.Tensor]:
    """Return the streaming wakeword's network over one window, and up to so many of the
    benchmark's recorded windows, float32 (N, 40, 30, 1), never below 0.
    """
    with np.load(experiment("mlperf_tiny_sww_inputs.npz"), allow_pickle=False) as archive:
        return trained("wakeword"), torch.from_numpy(archive["x"][:windows])


def keyword_spotter(samples: int) -> tuple[nn.Module, torch.Tensor]:
    """Return the keyword spotter (DS-CNN) without its softmax, and made inputs, float32
    (N, 1, 49, 10): ten cepstral coefficients over time, normal, the first of which is eight times
    as large as the others, about as it is in speech.
    """
    x = torch.randn(samples, 1, 49, 10, generator=torch.Generator().manual_seed(0)) * 8
    x[..., 0] *= 8
    return trained("ds-cnn"), x


def trained(name: str) -> nn.Module:
    """Return one of `GIVEN` with its trained weights, in eval mode."""
    network = NETWORKS[name].make()
    network.load_state_dict(load_file(experiment(f"mlperf_tiny_{GIVEN[name]}.safetensors")))
    now_trained(network)
    return network
