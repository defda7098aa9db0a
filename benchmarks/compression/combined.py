"""P3's experiment (6.4.3): masks on VGG-16's convolutions, correlation on its hidden linear layers.

80 % of the convolutions' multiply-accumulates go by filters that a mask layer chooses, and most
weights of the two hidden linear layers by neuron correlation; then the network is fine-tuned as a
whole. VGG-16 is that of `make bench-compression-train`. A run that was stopped goes on.
"""

import argparse
import copy
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import _path  # noqa: F401
import numpy as np
import torch
from _tuning import SEED, Pictures, tuner
from harness.command import main
from harness.pictures import CIFAR10, TRAINED, cifar10, top1, trained, trained_metadata
from harness.plots import lines
from harness.result import Check, Result, Table
from torch import nn

from celosia.compress import FineTune
from celosia.compress.combined import CombinedReport, prune_combined
from celosia.compress.cost import Cost
from celosia.compress.cost import measure as cost_of
from celosia.compress.criteria.scoring import filter_scores

CONV_MACS = 0.80
LINEAR_RATE = 0.83
STRENGTH = 0.002
"""With it the L1 term alone would move a mask by about 0.8 in the mask training. A stronger term
over a shorter way shrinks all masks alike: behind each layer follows a batch normalisation that
undoes a common factor, so it is the many steps that tell the filters apart."""

PARAMETERS_LEFT, COMPUTE_LEFT = 0.1839, 0.20
"""What P3 reaches: share of the parameters, and share of the compute at most."""

MASK, RECOVER, JOINT, ROUNDS = 4, 6, 4, 2
"""Epochs: of the mask training, after the filters are gone, and in each round on the linear
layers."""

MASK_RATE, TUNE_RATE, DECAY, SAMPLES = 0.05, 0.03, 5e-4, 2000


def measure(arguments: argparse.Namespace) -> Result:
    """Prune VGG-16 and count what is left."""
    torch.set_num_threads(1)
    train, test = cifar10("train", arguments.pictures), cifar10("test", arguments.test)
    model, example = trained("vgg16"), test[0][:1]
    folder = TRAINED / "combined" / f"{len(train[0])}"
    before, accuracy = cost_of(model, example), top1(model, *test)
    pruned = copy.deepcopy(model)
    report = _prune(pruned, train, test, folder)
    after, found = cost_of(pruned, example), top1(pruned, *test)
    rows = [["trained", *_figures(before, before), accuracy, 0.0],
            ["masks and correlation", *_figures(after, before), found, 100 * (found - accuracy)]]
    table = Table.of(f"VGG-16 (quarter width, {trained_metadata('vgg16')['epochs']} epochs) on "
                     f"{CIFAR10}", {
        "network": "", "parameters": ",d", "left": ".2%", "multiply-accumulates": ",d",
        "compute left": ".2%", "speed-up in theory": ".2f", "density": ".2%",
        "weight bytes": ",d", "as float32": ",d", "top-1": ".2%", "points": "+.2f"}, rows)
    checks = (
        Check.at_most("parameters left", after.nonzero_parameters / before.parameters,
                      PARAMETERS_LEFT, ".2%"),
        Check.at_most("compute left", after.useful_macs / before.macs, COMPUTE_LEFT, ".2%"))
    notes = (
        f"{len(train[0]):,} training and {len(test[0]):,} test pictures. {MASK} epochs with masks "
        f"(strength {STRENGTH:g}), {RECOVER} after the filters are gone, {ROUNDS} rounds of "
        f"{JOINT} on the linear layers at a rate of {LINEAR_RATE}; SGD, peak rates {MASK_RATE:g} "
        f"and {TUNE_RATE:g}, masks ranked within their layer, one seed. Speed-up in theory: dense "
        "multiply-accumulates / those with a weight that is not zero. P3 (VGG-16 at full width, "
        "ImageNet): 18.39 % of the parameters, 5.02 times in theory, accuracy basically "
        "unchanged.",
        "Weights and filters that are gone do not count as parameters. "
        "![Trained masks](plots/combined-masks.svg)")
    return Result(title="Compression: masks and correlation together (P3)",
                  tables=(table, _layers(report, pruned)), checks=checks, notes=notes)


def _figures(cost: Cost, dense: Cost) -> list[float]:
    """Return the cells from parameters to weight bytes."""
    return [cost.nonzero_parameters, cost.nonzero_parameters / dense.parameters, cost.useful_macs,
            cost.useful_macs / dense.macs, dense.macs / cost.useful_macs, cost.density,
            cost.weight_bytes, cost.dense_bytes]


def _layers(report: CombinedReport, model: nn.Module) -> Table:
    """Return what each layer has left."""
    rows = [[name, layer.filters, len(layer.kept), len(layer.kept) / layer.filters]
            for name, layer in report.filters.layers.items()]
    rows += [[name, layer.weights, layer.kept, layer.density]
             for name, layer in report.weights.layers.items()
             if isinstance(model.get_submodule(name), nn.Linear)]
    return Table.of("What the layers have left: filters of convolutions, weights of linear layers",
                    {"layer": "", "before": ",d", "after": ",d", "left": ".1%"}, rows)


@dataclass(frozen=True, kw_only=True)
class _Told:
    """Fine-tuning that calls ``on_start(network)`` and ``on_end(network)`` around each round."""

    tune: FineTune
    on_start: Callable[[nn.Module], None]
    on_end: Callable[[nn.Module], None]

    def __call__(self, network: nn.Module, round: int) -> None:
        self.on_start(network)
        self.tune(network, round)
        self.on_end(network)


def _prune(model: nn.Module, train: Pictures, test: Pictures, folder: Path) -> CombinedReport:
    """Prune the model in place; the accuracy before and after each stage goes to stderr."""
    def told(what: str, tune: FineTune) -> _Told:
        def tell(when: str) -> Callable[[nn.Module], None]:
            return lambda network: print(f"{what}: {top1(network, *test):.2%} {when}",
                                         file=sys.stderr, flush=True)

        return _Told(tune=tune, on_start=tell("before"), on_end=tell("after"))

    def train_masks(**hook: object) -> _Told:
        stage = told("masks", tuner("masks", train, MASK, DECAY, MASK_RATE, **hook))
        return _Told(tune=stage.tune, on_start=stage.on_start, on_end=_draw)

    return prune_combined(
        model, test[0][:1], inputs=train[0][:SAMPLES], rates=LINEAR_RATE, train=train_masks,
        strength=STRENGTH, conv_macs=CONV_MACS, rounds=ROUNDS, seed=SEED, checkpoint=folder,
        filter_options={"scope": "layer"},
        recover=told("filters gone", tuner("filters gone", train, RECOVER, DECAY, TUNE_RATE)),
        finetune=told("joint", tuner("joint", train, JOINT, DECAY, TUNE_RATE)))


def _draw(network: nn.Module) -> None:
    """Draw the sorted masks of each layer against their rank."""
    scores = filter_scores(network, "mask")
    lines("combined-masks.svg",
          {name: (np.linspace(0, 100, len(values)), np.sort(values))
           for name, values in scores.items()},
          "filters of the layer, %", "|m|", "VGG-16: masks after training")


if __name__ == "__main__":
    main(measure, __doc__,
         ("--pictures", {"type": int, "help": "for training; all if not given"}),
         ("--test", {"type": int, "help": "test pictures; all if not given"}))
