"""How much of LeNet-5 AE-LIP can remove with patience: many small rounds and long retraining.

AE-LIP removes whole columns at high rates. What feeds the neurons that nothing reads any more does
work for nothing, and `compress.drop_unread` removes it, which changes no output. So the rounds
aim at a milder density, and the rest comes for free. Lenet5.py has AE-LIP beside the other criteria
under P1's schedule.
"""

import argparse
import sys

import _path  # noqa: F401
import torch
from harness.command import main
from harness.pictures import fashion_mnist, top1
from harness.result import Check, Result, Table

from celosia import compress
from celosia.compress.cost import measure as cost_of
from celosia.models import load_lenet5

WANTED, MOST_LOST = 0.125, 1.0
RATES = {"conv1": 0.30, "conv2": 0.55, "fc1": 0.855, "fc2": 0.82, "fc3": 0.50}
"""Fractions removed by AE-LIP before the unread weights go."""

HARDER = ("fc1", "fc2")
"""Layers that lose a fiftieth of what they have left, again and again, until the density is met."""

ROUNDS, EPOCHS, LAST = 6, 4, 50
SAMPLES, RATE, DECAY, SEED = 1000, 2e-3, 1e-4, 0


def measure(arguments: argparse.Namespace) -> Result:
    """Prune, drop what is not read, retrain."""
    torch.set_num_threads(1)
    train = fashion_mnist("train", arguments.pictures)
    test = fashion_mnist("test")
    model, x = load_lenet5(), test[0][:1]
    base = top1(model, *test)
    rows = [["dense", *_figures(model, test)]]
    calibration = train[0][:SAMPLES]
    compress.prune(model, "ae-lip", inputs=calibration, rates=RATES, rounds=ROUNDS, seed=SEED,
                   finetune=_tuner(train, EPOCHS))
    rows.append([f"AE-LIP, {ROUNDS} rounds of {EPOCHS} epochs", *_figures(model, test)])
    free = compress.drop_unread(model, x)
    rows.append(["unread weights dropped", *_figures(model, test)])
    while cost_of(model, x).density > WANTED:
        compress.prune(model, "ae-lip", inputs=calibration, seed=SEED, rates=_harder(model))
        compress.drop_unread(model, x)
    rows.append(["to the density", *_figures(model, test)])
    _tuner(train, LAST)(model, ROUNDS)
    rows.append([f"retrained, {LAST} epochs", *_figures(model, test)])
    rows = [[*row, 100 * (row[-1] - base)] for row in rows]
    lost = round(-rows[-1][-1], 6)
    table = Table.of(
        "LeNet-5 on Fashion-MNIST",
        {"network": "", "density": ".2%", "parameters": ",d", "multiply-accumulates": ",d",
         "weight bytes": ",d", "compression": ".1f", "top-1": ".2%", "points": "+.2f"}, rows)
    notes = (f"Layers together, cubic schedule; AdamW, peak rate {RATE:g}, the dense network as "
             f"teacher, {len(train[0]):,} pictures mirrored and shifted by a pixel; one seed. "
             f"Dropped as unread: {', '.join(f'{n} {c:,}' for n, c in free.items() if c)}.",)
    return Result(
        title="Compression: AE-LIP with patience", tables=(table,), notes=notes,
        checks=(Check.at_most("density", rows[-1][1], WANTED, ".2%"),
                Check.at_most("points that AE-LIP loses", lost, MOST_LOST, ".2f")))


def _harder(model: torch.nn.Module) -> dict[str, float]:
    """Return rates that remove a fiftieth of what is left in the layers of HARDER."""
    found = {}
    for name in HARDER:
        weight = model.get_submodule(name).weight
        kept = int(torch.count_nonzero(weight))
        found[name] = 1 - int(0.98 * kept) / weight.numel()
    return found


def _figures(model: torch.nn.Module, test: tuple[torch.Tensor, torch.Tensor]) -> list:
    cost, found = cost_of(model, test[0][:1]), top1(model, *test)
    print(f"density {cost.density:.2%}, {found:.2%}", file=sys.stderr, flush=True)
    return [cost.density, cost.nonzero_parameters, cost.useful_macs, cost.weight_bytes,
            cost.compression, found]


def _tuner(train: tuple[torch.Tensor, torch.Tensor], epochs: int) -> compress.FineTune:
    return compress.FineTune(
        inputs=train[0], labels=train[1], epochs=epochs, learning_rate=RATE, weight_decay=DECAY,
        teacher=load_lenet5(), augment=compress.flip_and_shift, seed=SEED)


if __name__ == "__main__":
    main(measure, __doc__,
         ("--pictures", {"type": int, "help": "for training; all if not given"}))
