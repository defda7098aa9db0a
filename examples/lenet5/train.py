"""Train the dense LeNet-5 on Fashion-MNIST and store it with a record of how it was made.

    python examples/lenet5/train.py --output lenet5_fashion_mnist.safetensors

Needs the full data set (see `celosia.datasets`). One thread and a fixed seed, so that two runs on
the same kind of machine give the same weights.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from common import check_folder, load_split, make_deterministic, measure, reporter
from safetensors.torch import save_file

from celosia.compress import FineTune, flip_and_shift
from celosia.models import LeNet5


def train(epochs: int, seed: int) -> LeNet5:
    """Train a fresh network on the training split; one line an epoch on stderr."""
    inputs, labels = load_split("train")
    torch.manual_seed(seed)
    model = LeNet5()
    FineTune(
        inputs=inputs,
        labels=labels,
        epochs=epochs,
        learning_rate=3e-3,
        weight_decay=1e-2,
        augment=flip_and_shift,
        on_epoch=reporter(),
        seed=seed,
    )(model, 0)
    return model.eval()


def main() -> None:
    """Train, measure on the test split, save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("lenet5_fashion_mnist.safetensors"))
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    check_folder(arguments.output)

    make_deterministic()
    try:
        model = train(arguments.epochs, arguments.seed)
        inputs, labels = load_split("test")
    except FileNotFoundError as error:
        sys.exit(str(error))
    score = measure(model, inputs, labels)
    metadata = {
        "network": "celosia.models.lenet5.LeNet5",
        "dataset": "Fashion-MNIST",
        "accuracy": f"{score:.4f}",
        "test_images": str(len(labels)),
        "seed": str(arguments.seed),
        "epochs": str(arguments.epochs),
        "torch": torch.__version__,
    }
    save_file(model.state_dict(), arguments.output, metadata)
    print(f"{arguments.output}: accuracy {score:.4f} on {len(labels)} test images")


if __name__ == "__main__":
    main()
