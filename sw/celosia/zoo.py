"""Networks that are known by name: those of `celosia.models` in a shape of their own each."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

SEED = 0
"""What weights that nobody has trained are drawn with."""

UNTRAINED = (f"the weights are random, drawn with seed {SEED}: cycles are those of a network "
             "without zeros among its weights, answers and accuracies mean nothing; give trained "
             "ones with --weights")
"""Remark of a program that was made of such weights."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A network.

    name    : what users call it.   about : what it is, in a few words.
    maker   : of `celosia.models`.   options : what that is called with.
    shape   : of one input, (C, H, W), (C, L) or (F,).
    trained : whether it comes with trained weights.
    """

    name: str
    about: str
    maker: str
    shape: tuple[int, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    trained: bool = False

    def make(self) -> torch.nn.Module:
        """Return the network, in eval mode; its weights are the same each time."""
        import torch

        from celosia import models

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            module: torch.nn.Module = getattr(models, self.maker)(**self.options).eval()
        if not self.trained:
            module.meta = {"remarks": [UNTRAINED]}
        return module

    def cost(self) -> tuple[int, int]:
        """Return the trained numbers that it has, and the multiply-accumulates of one input,
        counted without computing anything."""
        import torch
        from torch.utils.flop_counter import FlopCounterMode

        with torch.device("cpu" if self.trained else "meta"):
            module, x = self.make(), torch.empty(1, *self.shape)
        with FlopCounterMode(display=False) as counted, torch.no_grad():
            module(x)
        parameters = sum(tensor.numel() for tensor in module.parameters())
        return parameters, counted.get_total_flops() // 2


_IMAGE, _DIGIT = (3, 32, 32), (1, 28, 28)


def _resnets(depth: int) -> tuple[Entry, Entry]:
    def one(shortcut: str, name: str) -> Entry:
        return Entry(name=name, about=f"CIFAR-10, shortcuts of kind {shortcut}", maker="ResNet",
                     options={"depth": depth, "shortcut": shortcut}, shape=_IMAGE)
    return one("A", f"resnet-{depth}"), one("B", f"resnet-{depth}-b")


_TABLE = (
    Entry(name="lenet5", about="Fashion-MNIST", maker="load_lenet5", shape=_DIGIT, trained=True),
    Entry(name="lenet5-pruned", about="the same, 15 % of its weights left", maker="load_lenet5",
          options={"pruned": True}, shape=_DIGIT, trained=True),
    Entry(name="lenet-300-100", about="digits, linear layers alone", maker="LeNet300",
          shape=_DIGIT),
    Entry(name="alexnet", about="CIFAR-10", maker="AlexNet", shape=_IMAGE),
    Entry(name="vgg-16", about="CIFAR-10", maker="VGG16", shape=_IMAGE),
    *_resnets(8), *_resnets(20), *_resnets(56), *_resnets(110),
    Entry(name="mobilenet-v1", about="person detection, MLPerf Tiny", maker="MobileNetV1",
          shape=(3, 96, 96)),
    Entry(name="mobilenet-v2", about="ImageNet, a width of 0.35", maker="MobileNetV2",
          shape=(3, 96, 96)),
    Entry(name="squeezenet", about="CIFAR-10", maker="SqueezeNet", shape=_IMAGE),
    Entry(name="u-net", about="segmentation, width 4, two pools", maker="UNet",
          options={"width": 4, "depth": 2}, shape=(1, 64, 64)),
    Entry(name="tiny-yolo", about="objects, a quarter of the width, one class", maker="TinyYOLO",
          options={"width": 0.25, "classes": 1}, shape=(3, 64, 64)),
    Entry(name="ds-cnn", about="keyword spotting, MLPerf Tiny", maker="DSCNN", shape=(1, 49, 10)),
    Entry(name="wakeword", about="streaming wakeword, MLPerf Tiny", maker="Wakeword",
          shape=(40, 30, 1)),
    Entry(name="autoencoder", about="anomaly detection, MLPerf Tiny", maker="FCAutoencoder",
          shape=(640,)),
    Entry(name="conv-autoencoder", about="pictures without their noise, half of the width",
          maker="ConvAutoencoder", options={"wide": 8}, shape=_DIGIT),
    Entry(name="ecg", about="heartbeats", maker="ECGNet", shape=(1, 187)),
    Entry(name="dncnn-17", about="pictures without their noise", maker="DnCNN",
          shape=(1, 40, 40)),
    Entry(name="vdsr-20", about="pictures, sharpened", maker="VDSR", shape=(1, 41, 41)),
)

NETWORKS = MappingProxyType({entry.name: entry for entry in _TABLE})
"""All of them, by name."""


def near(name: str) -> str | None:
    """Return the name that someone who wrote this one may mean, or None."""
    return next(iter(difflib.get_close_matches(name, NETWORKS, n=1)), None)


def now_trained(module: torch.nn.Module) -> None:
    """Forget that a network's weights were random."""
    meta: Any = getattr(module, "meta", {})
    if UNTRAINED in meta.get("remarks", ()):
        meta["remarks"] = [remark for remark in meta["remarks"] if remark != UNTRAINED]
