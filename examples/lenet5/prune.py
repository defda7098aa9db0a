"""Prune the dense LeNet-5 by weight magnitude, with fine-tuning between the rounds.

    python examples/lenet5/prune.py --output lenet5_fashion_mnist_pruned.safetensors
    python examples/lenet5/prune.py --quick        # one shot, no training, no training set needed

The full run needs the full data set (see `celosia.datasets`). The rates differ from layer to
layer because a weight does not cost the same everywhere: on an accelerator of sixteen lanes a
weight of conv1 takes 36 cycles, one of conv2 takes 4 and one of a linear layer a quarter.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from common import check_folder, load_split, make_deterministic, measure, reporter
from safetensors.torch import save_file

from celosia.compress import FineTune, PruneReport, flip_and_shift, make_permanent, prune
from celosia.models import LeNet5, load_lenet5

RATES = {"conv1": 0.40, "conv2": 0.60, "fc1": 0.89, "fc2": 0.80, "fc3": 0.55}
"""Fraction of each layer's weights to remove."""

EPOCHS = (4, 4, 4, 4, 4, 50)
"""Epochs of fine-tuning after each round."""


def prune_with_training(model: LeNet5, teacher: LeNet5, seed: int) -> PruneReport:
    """Prune `model` in rounds, retraining it on the training split under `teacher`."""
    inputs, labels = load_split("train")
    finetune = FineTune(
        inputs=inputs,
        labels=labels,
        epochs=EPOCHS,
        learning_rate=2e-3,
        weight_decay=1e-3,
        teacher=teacher,
        augment=flip_and_shift,
        on_epoch=reporter(),
        seed=seed,
    )
    return prune(model, "magnitude", rates=RATES, finetune=finetune, rounds=len(EPOCHS), seed=seed)


def describe(report: PruneReport, before: float, after: float, images: int) -> str:
    """Return the table that the script prints."""
    lines = [f"{'layer':8}{'weights':>9}{'kept':>7}{'density':>9}"]
    for name, layer in report.layers.items():
        lines.append(f"{name:8}{layer.weights:9}{layer.kept:7}{layer.density:9.1%}")
    lines.append(f"density of all weights: {report.density:.2%}")
    lines.append(f"accuracy on {images} test images: {before:.2%} dense, {after:.2%} pruned")
    return "\n".join(lines)


def save(model: LeNet5, path: Path, report: PruneReport, score: float, images: int) -> None:
    """Store dense tensors with zeros, and how they came about."""
    metadata = {
        "network": "celosia.models.lenet5.LeNet5",
        "dataset": "Fashion-MNIST",
        "accuracy": f"{score:.4f}",
        "test_images": str(images),
        "density": f"{report.density:.4f}",
        "method": str(report.choices["method"]),
        "rates": ", ".join(f"{name} {rate}" for name, rate in report.choices["rates"].items()),
        "rounds": str(report.choices["rounds"]),
        "seed": str(report.choices["seed"]),
        "torch": torch.__version__,
    }
    save_file(model.state_dict(), path, metadata)


def main() -> None:
    """Prune, measure before and after on the test split, save if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, help="where to store the pruned network")
    parser.add_argument("--quick", action="store_true", help="one shot, without fine-tuning")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    check_folder(arguments.output)

    make_deterministic()
    model, teacher = load_lenet5(), load_lenet5()
    inputs, labels = load_split("test")
    before = measure(model, inputs, labels)
    if arguments.quick:
        report = prune(model, "magnitude", rates=RATES, seed=arguments.seed)
    else:
        try:
            report = prune_with_training(model, teacher, arguments.seed)
        except FileNotFoundError as error:
            sys.exit(f"{error}; or use --quick, which needs no training set")
    make_permanent(model)
    after = measure(model, inputs, labels)
    print(describe(report, before, after, len(labels)))
    if arguments.output is not None:
        save(model, arguments.output, report, after, len(labels))


if __name__ == "__main__":
    main()
