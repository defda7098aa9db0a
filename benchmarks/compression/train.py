"""Train the CIFAR-10 networks that the compression experiments start from, and keep them.

AlexNet at half width with hidden layers of 3,072 and VGG-16 at quarter width with hidden layers of
2,688: small enough for two cores, and their linear layers hold the share of the weights (95 % and
89 %) that those of the ImageNet networks do. ResNet-8 is the residual network that the
accelerator runs. A network that is there already is left as it is; --again trains it anew.
"""

import argparse
import sys
import time

import _path  # noqa: F401
import torch
from harness.command import main
from harness.pictures import CIFAR10, TRAINED, cifar10, make, top1, trained_metadata
from harness.result import Result, Table
from safetensors.torch import save_file

from celosia.compress import FineTune, flip_and_shift

RECIPES = {
    "alexnet": {"epochs": 20, "optimizer": "adamw", "learning_rate": 5e-4},
    "vgg16": {"epochs": 18, "optimizer": "sgd", "learning_rate": 0.05},
    "resnet8": {"epochs": 8, "optimizer": "sgd", "learning_rate": 0.1},
}
WEIGHT_DECAY, BATCH, SEED, REACH = 5e-4, 128, 0, 4


def measure(arguments: argparse.Namespace) -> Result:
    """Train what is missing, and report what there is."""
    torch.set_num_threads(1)
    rows = []
    for name in arguments.networks:
        if arguments.again or not (TRAINED / f"{name}.safetensors").is_file():
            train(name)
        known = trained_metadata(name)
        parameters = sum(p.numel() for p in make(name).parameters())
        rows.append([name, parameters, int(known["epochs"]), known["optimizer"],
                     float(known["seconds"]) / 60, float(known["accuracy"])])
    table = Table.of(f"Networks trained on {CIFAR10}",
                     {"network": "", "parameters": ",d", "epochs": "d", "optimiser": "",
                      "minutes, one thread": ".0f", "top-1": ".2%"}, rows)
    notes = (f"50,000 pictures an epoch, mirrored and shifted by up to {REACH} pixels; learning "
             "rate rising over the first tenth and falling along a half cosine. Accuracy on all "
             "10,000 test pictures. The schedules are as long as two shared cores allow, a tenth "
             "of the usual ones.",)
    return Result(title="Networks for the compression experiments", tables=(table,), notes=notes)


def train(name: str) -> None:
    """Train a network on all training pictures and write its weights and metadata."""
    torch.manual_seed(SEED)
    model = make(name).to(memory_format=torch.channels_last)
    x, labels = cifar10("train")
    recipe, started = RECIPES[name], time.monotonic()

    def report(_round: int, epoch: int, loss: float) -> None:
        print(f"{name}: epoch {epoch + 1} of {recipe['epochs']}, loss {loss:.3f}, "
              f"{time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)

    FineTune(inputs=x, labels=labels, batch_size=BATCH, weight_decay=WEIGHT_DECAY, seed=SEED,
             augment=lambda batch, generator: flip_and_shift(batch, generator, REACH),
             on_epoch=report, **recipe)(model, 0)
    metadata = {key: str(value) for key, value in recipe.items()} | {
        "seconds": f"{time.monotonic() - started:.0f}", "seed": str(SEED),
        "accuracy": f"{top1(model, *cifar10('test')):.4f}"}
    TRAINED.mkdir(parents=True, exist_ok=True)
    save_file({key: value.contiguous() for key, value in model.state_dict().items()},
              TRAINED / f"{name}.safetensors", metadata=metadata)


if __name__ == "__main__":
    main(measure, __doc__,
         ("--networks", {"nargs": "+", "choices": list(RECIPES), "default": list(RECIPES)}),
         ("--again", {"action": "store_true", "help": "train also what is there"}))
