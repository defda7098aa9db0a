"""LeNet-5 on Fashion-MNIST: accuracy against density of AE-LIP, correlation and magnitude.

Everything but the criterion is the same for all: P1's schedule (layer after layer from the first,
ROUNDS rounds each, as many weights in each, retraining after each round), rates, retraining,
and for a seed also the calibration pictures and the order of the training pictures. "Sampled" is
correlation with the original paper's selection. The rates follow one rule: the two large linear
layers, which hold 92 % of the weights, have the rate p, the convolutions and the last layer half
of it, and p is such that the wanted share of all weights is left.

The curves take many runs, so their retraining is short; what AE-LIP reaches with long
retraining is measured at one density and with one seed.

Finished runs are kept under build/compression until all are done; a run that was stopped goes on.
"""

import argparse
import shutil
import sys
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import _path  # noqa: F401
import torch
from harness.command import main
from harness.pictures import fashion_mnist, top1
from harness.plots import lines
from harness.result import Check, Result, Table
from torch import nn
from torch.nn import functional

from celosia import compress
from celosia.compress.cost import measure as cost_of
from celosia.compress.training.journal import fingerprint
from celosia.models import load_lenet5

METHODS: dict[str, dict[str, Any]] = {
    "AE-LIP": {"method": "ae-lip"},
    "correlation": {"method": "correlation"},
    "correlation, sampled": {"method": "correlation", "select": "sun2016"},
    "magnitude": {"method": "magnitude"},
}
ORDER = ("AE-LIP", "correlation", "magnitude")
SHARES = {"conv1": 0.5, "conv2": 0.5, "fc1": 1.0, "fc2": 1.0, "fc3": 0.5}
"""A layer's rate over that of the large linear layers."""

EPOCHS = {0.5: 1, 0.25: 1, 0.125: 2, 0.06: 2}
"""The densities, and the epochs of short retraining after the last round of each."""

WANTED, MOST_LOST, LONG_EPOCHS, LONG_RATE = 0.125, 1.0, 50, 5e-3
"""The density at which AE-LIP may lose so many points, after so many epochs of retraining."""

SAMPLES, ROUNDS, PICTURES = 1000, 2, 3000
"""Calibration pictures; rounds a layer; training pictures after every round but the last."""

RATE, LAST_RATE, BATCH = 5e-3, 1e-2, 128
TEACHER_WEIGHT, TEMPERATURE = 0.7, 3.0
FEWER = {"correlation, sampled": 2}
"""Criteria that run with fewer seeds."""

PLACE = Path("build") / "compression" / "lenet5"

NONE, SHORT, LONG = "none", "short", "long"
"""Kinds of retraining."""

Split = tuple[torch.Tensor, torch.Tensor]


def measure(arguments: argparse.Namespace) -> Result:
    """Run every criterion at every density with every seed, with and without retraining."""
    torch.set_num_threads(1)
    train = fashion_mnist("train", arguments.pictures)
    test = fashion_mnist("test", arguments.test)
    dense = load_lenet5()
    base, before = top1(dense, *test), cost_of(dense, test[0][:1])
    runs = _runs(train, test, arguments.seeds)
    tables = [
        _table(runs, base, before, SHORT, "short retraining"),
        _table(runs, base, before, NONE, "not retrained"),
        _table(runs, base, before, LONG, f"{LONG_EPOCHS} epochs of retraining, one seed"),
        _differences(runs)]
    for kind, name in ((SHORT, "retrained"), (NONE, "not-retrained")):
        lines(f"lenet5-{name}.svg", _curves(runs, kind), "weights left, % of all",
              "top-1 accuracy, %", f"LeNet-5 on Fashion-MNIST, {name.replace('-', ' ')}",
              log_x=True)
    lost = 100 * (base - mean(_select(runs, "AE-LIP", WANTED, LONG)))
    checks = (Check.at_most(f"points that AE-LIP loses at density {WANTED:.1%}, long retraining",
                            lost, MOST_LOST, ".2f"),)
    shutil.rmtree(PLACE)
    return Result(title="Compression: LeNet-5 on Fashion-MNIST", tables=tuple(tables),
                  checks=checks, notes=_notes(train, test, arguments.seeds))


def _runs(train: Split, test: Split, seeds: int) -> list[dict[str, Any]]:
    """Return one record a run, those of a benchmark that was stopped included."""
    start = load_lenet5()
    targets = _targets(start, train)
    choices = {"start": fingerprint(start, train[0][:100], test[0][:100]), "train": len(train[0]),
               "test": len(test[0]), "settings": repr((
                   METHODS, SHARES, EPOCHS, SAMPLES, ROUNDS, PICTURES, RATE, LAST_RATE, BATCH,
                   WANTED, LONG_EPOCHS, LONG_RATE, TEACHER_WEIGHT, TEMPERATURE))}
    journal = compress.Journal(PLACE, choices)
    todo = [(seed, density, label, kind) for seed in range(seeds) for density in EPOCHS
            for label in METHODS if seed < FEWER.get(label, seeds) for kind in (NONE, SHORT)]
    todo.append((0, WANTED, "AE-LIP", LONG))
    for seed, density, label, kind in todo[len(journal.records):]:
        model = load_lenet5()
        _prune(model, METHODS[label], density, train, targets, seed, kind)
        cost = cost_of(model, test[0][:1])
        record = {"label": label, "density": density, "seed": seed, "retraining": kind,
                  "accuracy": top1(model, *test), "parameters": cost.nonzero_parameters,
                  "macs": cost.useful_macs, "bytes": cost.weight_bytes}
        journal.finish(record, {})
        print(f"seed {seed}, density {density}, {label}, retraining {kind}: "
              f"{record['accuracy']:.2%}", file=sys.stderr, flush=True)
    return journal.records[:len(todo)]


def _targets(teacher: nn.Module, train: Split) -> torch.Tensor:
    """Return what the retraining aims at, (N, 20): the dense network's logits, and one-hot labels.
    """
    with torch.no_grad():
        logits = torch.cat([teacher(part) for part in train[0].split(500)])
    return torch.cat([logits, functional.one_hot(train[1], 10).float()], 1)


def _loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Distillation: cross entropy with the labels, and divergence from the dense network."""
    logits, labels = targets.split(10, dim=1)
    distance = functional.kl_div(
        functional.log_softmax(outputs / TEMPERATURE, 1),
        functional.log_softmax(logits / TEMPERATURE, 1), reduction="batchmean", log_target=True)
    return ((1 - TEACHER_WEIGHT) * functional.cross_entropy(outputs, labels)
            + TEACHER_WEIGHT * TEMPERATURE**2 * distance)


def _rates(model: nn.Module, density: float) -> dict[str, float]:
    """Return each layer's rate by the rule of SHARES."""
    sizes = {name: model.get_submodule(name).weight.numel() for name in SHARES}
    removed = (1 - density) * sum(sizes.values())
    rate = removed / sum(share * sizes[name] for name, share in SHARES.items())
    return {name: share * rate for name, share in SHARES.items()}


def _prune(model: nn.Module, settings: dict[str, Any], density: float, train: Split,
           targets: torch.Tensor, seed: int, kind: str) -> None:
    """Prune in place; without retraining in one round a layer."""
    x, labels = train
    chosen = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:SAMPLES]
    last = ROUNDS * len(SHARES) - 1

    def finetune(model: nn.Module, index: int) -> None:
        if index == last and kind == LONG:
            compress.FineTune(
                inputs=x, labels=labels, epochs=LONG_EPOCHS, learning_rate=LONG_RATE,
                batch_size=BATCH, teacher=load_lenet5(), teacher_weight=TEACHER_WEIGHT,
                temperature=TEMPERATURE, augment=compress.flip_and_shift, seed=seed)(model, index)
            return
        part = torch.randperm(len(x), generator=torch.Generator().manual_seed(100 * seed + index))
        part = part if index == last else part[:PICTURES]
        compress.FineTune(
            inputs=x[part], labels=targets[part], loss=_loss, batch_size=BATCH, seed=seed,
            epochs=EPOCHS[density] if index == last else 1,
            learning_rate=LAST_RATE if index == last else RATE)(model, index)

    compress.prune(model, inputs=x[chosen], rates=_rates(model, density), order="forward",
                   rounds=1 if kind == NONE else ROUNDS,
                   finetune=None if kind == NONE else finetune, seed=seed, **settings)


def _select(runs: list[dict], label: str, density: float, kind: str,
            what: str = "accuracy") -> list[float]:
    """Return one figure a seed."""
    return [run[what] for run in runs
            if (run["label"], run["density"], run["retraining"]) == (label, density, kind)]


def _spread(values: list[float]) -> float | None:
    return stdev(values) if len(values) > 1 else None


def _table(runs: list[dict], base: float, before: compress.Cost, kind: str, what: str) -> Table:
    rows: list[list] = [["dense", 1.0, before.parameters, before.macs, before.dense_bytes, 1.0,
                         base, None, 0.0]]
    for density in EPOCHS:
        for label in METHODS:
            found = _select(runs, label, density, kind)
            if not found:
                continue
            parameters, macs, size = (mean(_select(runs, label, density, kind, figure))
                                      for figure in ("parameters", "macs", "bytes"))
            rows.append([label, density, round(parameters), round(macs), round(size),
                         before.dense_bytes / size, mean(found),
                         _spread([100 * value for value in found]), 100 * (mean(found) - base)])
    return Table.of(
        f"LeNet-5, {what}",
        {"criterion": "", "density": ".1%", "parameters": ",d", "multiply-accumulates": ",d",
         "weight bytes": ",d", "compression": ".1f", "top-1": ".2%", "spread, points": ".2f",
         "points": "+.2f"}, rows)


def _differences(runs: list[dict]) -> Table:
    """Compare the criteria seed by seed."""
    rows = []
    for kind in (SHORT, NONE):
        for density in EPOCHS:
            first, *others = (_select(runs, label, density, kind) for label in ORDER)
            means = {label: mean(_select(runs, label, density, kind)) for label in ORDER}
            row: list = [kind, density]
            for other in others:
                gaps = [100 * (a - b) for a, b in zip(first, other, strict=True)]
                row += [mean(gaps), _spread(gaps), sum(gap >= 0 for gap in gaps)]
            rows.append([*row, " > ".join(sorted(ORDER, key=means.__getitem__, reverse=True))])
    return Table.of(
        "AE-LIP's lead, seed by seed",
        {"retraining": "", "density": ".1%", "over correlation, points": "+.2f", "spread": ".2f",
         "seeds not behind": ",d", "over magnitude, points": "+.2f", "spread ": ".2f",
         "seeds not behind ": ",d", "order of the means": ""}, rows)


def _curves(runs: list[dict], kind: str) -> dict[str, tuple]:
    curves = {}
    for label in METHODS:
        found = [_select(runs, label, density, kind) for density in EPOCHS]
        curves[label] = ([100 * density for density in EPOCHS],
                         [100 * mean(values) for values in found],
                         [100 * (_spread(values) or 0) for values in found])
    return curves


def _notes(train: Split, test: Split, seeds: int) -> tuple[str, ...]:
    epochs = ", ".join(f"{count} at {density:.1%}" for density, count in EPOCHS.items())
    rates = ", ".join(f"{_rates(load_lenet5(), density)['fc1']:.1%} at {density:.1%}"
                      for density in EPOCHS)
    return (
        f"Density is of all {44_190:,} weights. Rate of fc1 and fc2: {rates}; conv1, conv2 and fc3 "
        "half of it. "
        f"P1 prunes the linear layers only; these hold {41_640:,} of the weights here.",
        f"Retraining, the same for all criteria: {PICTURES:,} pictures after each of the first "
        f"{ROUNDS * len(SHARES) - 1} rounds, then passes over {len(train[0]):,} ({epochs}); AdamW, "
        f"peak rate {RATE:g} and at last {LAST_RATE:g}, distilling from the dense network. Long "
        f"retraining has {LONG_EPOCHS} epochs at last, peak rate {LONG_RATE:g}, pictures mirrored "
        "and shifted by a pixel.",
        f"Scores from {SAMPLES:,} training pictures; accuracy on {len(test[0]):,} test pictures; "
        f"{seeds} seeds ({min(seeds, FEWER['correlation, sampled'])} for sampled correlation), "
        "which choose the calibration pictures and the order of training; the spread is the "
        "standard deviation over them, figures of cost are means. Magnitude without retraining "
        "does not depend on the seed.",
        "![Retrained](plots/lenet5-retrained.svg) "
        "![Not retrained](plots/lenet5-not-retrained.svg)")


if __name__ == "__main__":
    main(measure, __doc__,
         ("--seeds", {"type": int, "default": 5, "help": "(%(default)s)"}),
         ("--pictures", {"type": int, "help": "for training; all if not given"}),
         ("--test", {"type": int, "help": "test pictures; all if not given"}))
