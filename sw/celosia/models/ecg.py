"""A network over one heartbeat: Kachuee, Fazeli, Sarrafzadeh, "ECG heartbeat classification: a deep
transferable representation", arXiv 1805.00794, figure 3."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["ECGNet"]


class ECGNet(nn.Module):
    """A convolution over time, five residual blocks that halve it, and three linear layers.

    Forward: one heartbeat of 187 samples, float32 (N, 1, 187), to float32 logits (N, classes);
    55,013 parameters.
    """

    def __init__(self, classes: int = 5, channels: int = 32, blocks: int = 5) -> None:
        super().__init__()
        self.first = nn.Conv1d(1, channels, 5, padding=2)
        self.blocks = nn.Sequential(*(_Block(channels) for _ in range(blocks)))
        self.classifier = nn.Sequential(
            nn.Flatten(), nn.Linear(2 * channels, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(),
            nn.Linear(32, classes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits (N, classes) of the heartbeats (N, 1, 187)."""
        return self.classifier(self.blocks(self.first(x)))


class _Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv1d(channels, channels, 5, padding=2)
        self.second = nn.Conv1d(channels, channels, 5, padding=2)
        self.pool = nn.MaxPool1d(5, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.pool(torch.relu(x + self.second(torch.relu(self.first(x)))))
