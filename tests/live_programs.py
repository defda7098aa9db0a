"""Programs and inputs of the tests of `celosia live`."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

import celosia
from celosia import Preprocessing
from celosia.program import Program

LABELS = ("cat", "dog", "<b>cow</b>")
COLOUR, GREY, VECTOR = (3, 6, 8), (1, 6, 8), (5,)
PIXELS = Preprocessing(scale=1 / 255, labels=LABELS)


def network(shape: tuple[int, ...], *end: nn.Module, classes: int = 3) -> nn.Module:
    torch.manual_seed(4)
    body = [nn.Linear(shape[0], 4), nn.ReLU()] if len(shape) == 1 else [
        nn.Conv2d(shape[0], 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*body, nn.Linear(4, classes), *end).eval()


def compiled(shape: tuple[int, ...], *end: nn.Module, classes: int = 3,
             known: Preprocessing | None = PIXELS) -> Program:
    return celosia.compile(network(shape, *end, classes=classes),
                           np.zeros((1, *shape), np.float32), preprocessing=known)


def picture(seed: int, size: tuple[int, int] = (8, 6)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    return Image.fromarray(pixels)


def png(seed: int) -> bytes:
    file = io.BytesIO()
    picture(seed).save(file, "PNG")
    return file.getvalue()


def whole(path: Path, seed: int) -> None:
    path.write_bytes(png(seed))


def sent(*arrays: np.ndarray) -> io.BytesIO:
    stream = io.BytesIO()
    for array in arrays:
        np.save(stream, array)
    stream.seek(0)
    return stream
