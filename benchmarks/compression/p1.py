"""P1's experiment: AE-LIP, correlation and magnitude on AlexNet and VGG-16, CIFAR-10.

Only the two hidden linear layers are pruned, first the one, then the other, at one rate that
leaves the wanted share of *all* parameters (87.5 % removed from AlexNet, 84.1 % from VGG-16). All
three criteria get the same rounds and the same retraining of the whole network after each. Beside
it, as in P1: the second hidden layer alone, pruned without retraining.
"""

import argparse
import copy
import sys

import _path  # noqa: F401
import torch
from harness.command import main
from harness.pictures import CIFAR10, cifar10, top1, trained, trained_metadata
from harness.plots import lines
from harness.result import Check, Result, Table
from torch import nn

from celosia import compress
from celosia.compress.cost import measure as cost_of

METHODS = ("ae-lip", "correlation", "magnitude")
NETWORKS = {
    "alexnet": {"layers": ("fc1", "fc2"), "removed": 0.875, "paper": (77.15, 75.03, 74.12, 73.49)},
    "vgg16": {"layers": ("classifier.0", "classifier.3"), "removed": 0.841,
              "paper": (89.63, 87.01, 86.74, 86.39)},
}
ALONE = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98)
"""Rates of the second hidden layer pruned alone."""

SAMPLES, RATE, SEED, REACH = 1000, 1e-4, 0, 4


def measure(arguments: argparse.Namespace) -> Result:
    """Run both networks and gather their tables."""
    torch.set_num_threads(1)
    tables, checks = [], []
    for name in arguments.networks:
        found = _network(name, arguments)
        tables += found[0]
        checks += found[1]
    notes = (
        f"{CIFAR10}; networks of `make bench-compression-train`. {arguments.rounds} rounds a "
        f"layer, each followed by {arguments.epochs} epoch of {arguments.pictures:,} "
        f"pictures at P1's learning rate of {RATE:g} (AdamW), one seed; scores from "
        f"{SAMPLES:,} training pictures. P1's networks are wider and were trained for longer, "
        "and its numbers are of "
        "the original pictures; compare differences, not levels.",
        "![Second hidden layer pruned alone](plots/p1-alone-alexnet.svg) "
        "![The same for VGG-16](plots/p1-alone-vgg16.svg)")
    return Result(title="Compression: AE-LIP on AlexNet and VGG-16 (P1)", tables=tuple(tables),
                  checks=tuple(checks), notes=notes)


def _network(name: str, arguments: argparse.Namespace) -> tuple[list[Table], list[Check]]:
    model, setting = trained(name), NETWORKS[name]
    train, test = cifar10("train", arguments.pictures), cifar10("test", arguments.test)
    rates = dict.fromkeys(setting["layers"], _rate(model, setting))
    base = top1(model, *test)
    before = cost_of(model, test[0][:1])
    rows = [["dense", before.parameters, before.macs, 1.0, before.dense_bytes, base, 0.0,
             setting["paper"][0]]]
    found = {}
    for index, method in enumerate(METHODS):
        pruned = copy.deepcopy(model)
        _prune(pruned, method, rates, train, arguments)
        after = cost_of(pruned, test[0][:1])
        left = before.parameters - (after.weights - after.nonzeros)
        found[method] = top1(pruned, *test)
        rows.append([method, left, after.useful_macs, left / before.parameters,
                     after.weight_bytes, found[method], 100 * (found[method] - base),
                     setting["paper"][1 + index]])
        print(f"{name}, {method}: {found[method]:.2%}", file=sys.stderr, flush=True)
    epochs = trained_metadata(name)["epochs"]
    table = Table.of(
        f"{name}, trained for {epochs} epochs; {setting['removed']:.1%} of all parameters removed "
        f"(rate {rates[setting['layers'][0]]:.4f} in {' and '.join(setting['layers'])})",
        {"network": "", "parameters": ",d", "multiply-accumulates": ",d", "share left": ".2%",
         "weight bytes": ",d", "top-1": ".2%", "points": "+.2f", "P1's top-1, %": ".2f"}, rows)
    alone = _alone(name, model, train, test)
    best, second, third = (100 * found[method] for method in METHODS)
    checks = [Check(what=f"{name}: AE-LIP ≥ correlation ≥ magnitude",
                    figure=f"{best:.2f} / {second:.2f} / {third:.2f}", wanted="falling",
                    met=best >= second >= third)]
    return [table, alone], checks


def _rate(model: nn.Module, setting: dict) -> float:
    """Return the rate of the named layers that removes the wanted share of all parameters."""
    every = sum(p.numel() for p in model.parameters())
    chosen = sum(model.get_submodule(name).weight.numel() for name in setting["layers"])
    return setting["removed"] * every / chosen


def _prune(model: nn.Module, method: str, rates: dict[str, float],
           train: tuple[torch.Tensor, torch.Tensor], arguments: argparse.Namespace) -> None:
    def report(record: compress.RoundRecord) -> None:
        print(f"  {method}: round {record.round + 1} of {record.rounds}, density "
              f"{record.density:.2%}", file=sys.stderr, flush=True)

    tune = compress.FineTune(
        inputs=train[0], labels=train[1], epochs=arguments.epochs, learning_rate=RATE,
        weight_decay=1e-4, seed=SEED,
        augment=lambda batch, generator: compress.flip_and_shift(batch, generator, REACH))
    compress.prune(model, method, inputs=train[0][:SAMPLES], rates=rates, finetune=tune,
                   rounds=arguments.rounds, order="forward", seed=SEED, progress=report)


def _alone(name: str, model: nn.Module, train: tuple[torch.Tensor, torch.Tensor],
           test: tuple[torch.Tensor, torch.Tensor]) -> Table:
    """Prune the second hidden layer alone, in one go and without retraining."""
    layer = NETWORKS[name]["layers"][1]
    curves: dict[str, list[float]] = {method: [] for method in METHODS}
    for method in METHODS:
        for rate in ALONE:
            pruned = copy.deepcopy(model)
            compress.prune(pruned, method, inputs=train[0][:SAMPLES], rates={layer: rate},
                           seed=SEED)
            curves[method].append(top1(pruned, *test))
    lines(f"p1-alone-{name}.svg",
          {method: ([100 * r for r in ALONE], [100 * v for v in curve])
           for method, curve in curves.items()},
          f"weights of {layer} removed, %", "top-1, %", f"{name}: {layer} alone, not retrained")
    rows = [[rate, *(curves[method][index] for method in METHODS)]
            for index, rate in enumerate(ALONE)]
    return Table.of(f"{name}: {layer} pruned alone, not retrained",
                    {"removed": ".0%"} | dict.fromkeys(METHODS, ".2%"), rows)


if __name__ == "__main__":
    main(measure, __doc__,
         ("--networks", {"nargs": "+", "choices": list(NETWORKS), "default": list(NETWORKS)}),
         ("--rounds", {"type": int, "default": 2, "help": "a layer (%(default)s)"}),
         ("--epochs", {"type": int, "default": 1, "help": "after each round (%(default)s)"}),
         ("--pictures", {"type": int, "default": 25_000, "help": "for training (%(default)s)"}),
         ("--test", {"type": int, "help": "test pictures; all if not given"}))
