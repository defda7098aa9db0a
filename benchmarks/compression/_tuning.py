"""Fine-tuning as the experiments with filters do it, and keeping what it gave."""

import sys
import time
from pathlib import Path

import torch
from torch import nn

from celosia.compress import FineTune, flip_and_shift
from celosia.compress.training.journal import Journal, describe, fingerprint

RATE, BATCH, REACH, SEED = 0.01, 128, 4, 0

Pictures = tuple[torch.Tensor, torch.Tensor]


def tuner(what: str, train: Pictures, epochs: int, weight_decay: float,
          learning_rate: float = RATE, **hook: object) -> FineTune:
    """Return SGD with mirrored and shifted pictures that tells of each epoch on stderr."""
    started = time.monotonic()

    def report(_round: int, epoch: int, loss: float) -> None:
        print(f"{what}: epoch {epoch + 1} of {epochs}, loss {loss:.3f}, "
              f"{time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)

    return FineTune(inputs=train[0], labels=train[1], epochs=epochs, batch_size=BATCH,
                    learning_rate=learning_rate, weight_decay=weight_decay, optimizer="sgd",
                    seed=SEED, augment=augment, on_epoch=report, **hook)


def augment(batch: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return the batch mirrored and shifted at random, in channels-last order."""
    shifted = flip_and_shift(batch, generator, REACH)
    return shifted.contiguous(memory_format=torch.channels_last)


def trained_on(model: nn.Module, folder: Path, tune: FineTune) -> nn.Module:
    """Train a model in place and return it; what an earlier run has left in `folder` is used."""
    journal = Journal(folder, {"start": fingerprint(model), "finetune": describe(tune)})
    if journal.records:
        model.load_state_dict(journal.restore() or {})
    else:
        tune(model, 0)
        journal.finish({"stage": "trained"}, model.state_dict())
    return model
