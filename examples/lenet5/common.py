"""What the training and the pruning script share."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from celosia.datasets import load_fashion_mnist, preprocess
from celosia.evaluate import accuracy


def load_split(split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a split as network inputs float32 (N, 1, 28, 28) and labels int64 (N,)."""
    images, labels = load_fashion_mnist(split)
    return torch.from_numpy(preprocess(images)), torch.from_numpy(labels)


def measure(model: torch.nn.Module, inputs: torch.Tensor, labels: torch.Tensor) -> float:
    """Return the accuracy of `model` in eval mode, 0 to 1."""
    with torch.no_grad():
        return accuracy(model.eval()(inputs), labels)


def reporter() -> Callable[[int, int, float], None]:
    """Return an ``on_epoch`` that writes one line an epoch to stderr."""
    started = time.monotonic()

    def report(round: int, epoch: int, loss: float) -> None:
        spent = time.monotonic() - started
        line = f"round {round + 1}, epoch {epoch + 1}: loss {loss:.4f}, {spent:.0f} s"
        print(line, file=sys.stderr, flush=True)

    return report


def check_folder(output: Path | None) -> None:
    """Exit with a message now, not after the training, if `output` has no folder to go to."""
    if output is not None and not output.parent.is_dir():
        sys.exit(f"{output}: the folder {output.parent} does not exist; create it first")


def make_deterministic() -> None:
    """Use one thread and only deterministic kernels: same machine, same weights."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
