"""Networks that do not fit everywhere."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from celosia.fit import Report, TargetCheck

PICTURE, SMALL, VECTOR = (1, 1, 28, 28), (1, 1, 24, 24), (1, 16)


def zeros(shape: tuple[int, ...]) -> np.ndarray:
    return np.zeros(shape, np.float32)


def crowded() -> nn.Module:
    """Too many weights, maps and waiting sums for the smallest device."""
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1),
                         nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8 * 144, 4)).eval()


def by_name(report: Report) -> dict[str, TargetCheck]:
    return {entry.target: entry for entry in report.targets}
