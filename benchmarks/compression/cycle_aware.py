"""Pruning to a budget of cycles: score / cost against the same score alone, at equal cycles.

Magnitude scores throughout. Every series prunes to the same cycles in the same rounds, by the
compiler's exact prediction, with the same retraining; they differ in how they spend the cycles:

- uniform: the same rate in each layer;
- global: one ranking of all layers by |w|;
- share: one ranking by |w| as a share of its layer, cost not looked at;
- row-balanced, tuned: the same count in every row of a layer, the layers' rates the best of 30
  short trials at that budget (load-balance-aware pruning, ESE, arXiv 1612.00694);
- score / cost: single weights ranked by share / cycles (`lockstep=False`);
- score / cost, lockstep: the machine's steps ranked so, `celosia.compress.prune_to_cycles`.

Finished runs are kept under build/compression until all are done; a run that was stopped goes on.
"""

import argparse
import shutil
import statistics
import sys
from pathlib import Path
from typing import Any

import _path  # noqa: F401
import numpy as np
import torch
from _balanced import balanced_masks, tuned_shares
from harness.command import main
from harness.pictures import CIFAR10, cifar10, fashion_mnist, top1, trained
from harness.plots import lines
from harness.result import Check, Result, Table
from torch import nn

from celosia import compress
from celosia.compress.cost import measure as cost_of
from celosia.compress.layers import prunable_layers
from celosia.compress.masks.weights import apply_mask, current_mask
from celosia.compress.training.journal import Journal, fingerprint
from celosia.compress.training.rounds import run_rounds
from celosia.compress.weights.cycles import prune_to_cycles
from celosia.compress.weights.prediction import Predictor
from celosia.compress.weights.schedule import SCHEDULES
from celosia.compress.weights.selection import keep_global, keep_largest
from celosia.models import load_lenet5
from celosia.show import rate
from celosia_boards.targets import target

OURS, SINGLE = "score / cost, lockstep", "score / cost"
BASELINES, TUNED = ("uniform", "global", "share"), "row-balanced, tuned"
NETWORKS: dict[str, dict[str, Any]] = {
    "lenet5": {"title": "LeNet-5 on Fashion-MNIST, iCEBreaker", "target": "icebreaker",
               "make": load_lenet5, "data": fashion_mnist, "budgets": (14_000, 12_000, 10_000),
               "seeds": 3, "series": (*BASELINES, TUNED, SINGLE, OURS),
               "tune": {"epochs": (1, 1, 1, 3), "learning_rate": 2e-3, "batch_size": 128}},
    "resnet8": {"title": f"ResNet-8 on {CIFAR10}, ULX3S 85F", "target": "ulx3s-85f",
                "make": lambda: trained("resnet8"), "data": cifar10,
                "budgets": (150_000, 115_000, 90_000), "seeds": 1,
                "series": (*BASELINES, TUNED, SINGLE, OURS),
                "tune": {"epochs": (1, 1, 1, 2), "learning_rate": 2e-3, "batch_size": 128}},
}
PLACE = Path("build") / "compression"


def measure(arguments: argparse.Namespace) -> Result:
    """Prune every network in every way to every budget."""
    torch.set_num_threads(1)
    tables, checks, notes = [], [], []
    for name in arguments.networks:
        setting = NETWORKS[name]
        train = setting["data"]("train", arguments.pictures)
        test = setting["data"]("test", arguments.test)
        seeds = min(setting["seeds"], arguments.seeds)
        dense, runs = _runs(name, train, test, seeds)
        tables.append(_table(setting, dense, runs))
        checks += _checks(name, runs)
        plot = lines(f"cycle-aware-{name}.svg", _curves(runs), "predicted cycles of one inference",
                     "top-1 accuracy, %", setting["title"])
        notes.append(
            f"{setting['title']}: {len(train[0]):,} training and {len(test[0]):,} test pictures, "
            f"{len(setting['tune']['epochs'])} rounds with {setting['tune']['epochs']} epochs "
            f"after them, {seeds} seed{'s' * (seeds > 1)}"
            f"{'; the spread is the standard deviation over them' * (seeds > 1)}. "
            f"![{setting['title']}](plots/{plot.name})")
    for name in arguments.networks:
        shutil.rmtree(_folder(name))
    return Result(title="Compression: cycle-aware pruning", tables=tuple(tables),
                  checks=tuple(checks), notes=tuple(notes))


def _runs(name: str, train: tuple, test: tuple, seeds: int) -> tuple[dict, list[dict]]:
    """Return the dense network's figures and one record a run, those of a stopped run included."""
    setting = NETWORKS[name]
    model = setting["make"]()
    dense = _figures(model, test, setting["target"])
    choices = {"start": fingerprint(model, train[0][:100], test[0][:100]),
               "pictures": len(train[0]), "test": len(test[0]), "seeds": seeds,
               "budgets": list(setting["budgets"]), "tune": repr(setting["tune"])}
    journal = Journal(_folder(name), choices)
    todo = [(budget, series, seed) for seed in range(seeds) for budget in setting["budgets"]
            for series in setting["series"]]
    for budget, series, seed in todo[len(journal.records):]:
        model = setting["make"]()
        tune = compress.FineTune(inputs=train[0], labels=train[1], seed=seed, **setting["tune"])
        _prune(model, series, budget, setting, train, tune, seed)
        record = {"series": series, "budget": budget, "seed": seed,
                  **_figures(model, test, setting["target"])}
        journal.finish(record, {})
        print(f"{name}, {budget:,} cycles, seed {seed}, {series}: {record['cycles']:,} cycles, "
              f"{record['accuracy']:.2%}", file=sys.stderr, flush=True)
    return dense, journal.records


def _folder(name: str) -> Path:
    return PLACE / f"cycle-aware-{name}"


def _figures(model: nn.Module, test: tuple, target: str) -> dict[str, Any]:
    cost = cost_of(model, test[0][:1])
    return {"cycles": Predictor(test[0][:1], target=target)(model).cycles,
            "accuracy": top1(model, *test), "parameters": cost.nonzero_parameters,
            "density": cost.density, "macs": cost.useful_macs, "bytes": cost.weight_bytes,
            "compression": cost.compression}


def _prune(model: nn.Module, series: str, budget: int, setting: dict[str, Any], train: tuple,
           tune: compress.FineTune, seed: int) -> None:
    """Prune in place, to at most `budget` cycles."""
    rounds, target, x = len(tune.epochs), setting["target"], train[0][:1]
    if series in (OURS, SINGLE):
        prune_to_cycles(model, example_input=x, budget=budget, target=target, finetune=tune,
                        rounds=rounds, seed=seed, lockstep=series == OURS)
        return
    predict = Predictor(x, target=target)
    start = predict(model).cycles
    shares = (tuned_shares(setting["make"], budget, predict, train, setting["tune"], seed)
              if series == TUNED else None)

    def choose(pruned: nn.Module, index: int) -> dict[str, np.ndarray]:
        share = SCHEDULES["cubic"]((index + 1) / rounds)
        goal = round(start + (budget - start) * share)
        if shares is not None:
            return balanced_masks(pruned, shares, predict, goal)
        return _baseline(pruned, series, predict, goal)

    def retrain(pruned: nn.Module, index: int) -> None:
        tune(pruned, index)
        if index == rounds - 1 and predict(pruned).cycles > budget:
            for name, mask in choose(pruned, index).items():
                apply_mask(pruned.get_submodule(name), torch.from_numpy(mask))

    run_rounds(model, rounds, choose, finetune=retrain, seed=seed)


def _baseline(model: nn.Module, series: str, predict: Predictor,
              goal: int) -> dict[str, np.ndarray]:
    """Return the masks of as many weights as fit the target and the goal, found by bisection."""
    alive = {name: current_mask(layer).numpy() for name, layer in prunable_layers(model).items()}
    scores = compress.scores(model, "magnitude")
    if series == "share":
        scores = {name: score / np.linalg.norm(score) for name, score in scores.items()}
    total = sum(mask.size for mask in alive.values())

    def masks(count: int) -> dict[str, np.ndarray]:
        if series == "uniform":
            return {name: keep_largest(scores[name], mask, -(-mask.size * count // total))
                    for name, mask in alive.items()}
        best = {name: keep_largest(scores[name], mask, 1) for name, mask in alive.items()}
        chosen = keep_global(scores, alive, count)
        return {name: chosen[name] | best[name] for name in alive}

    attempt = predict.imported(model)
    low, high = 0, total + 1
    while high - low > 1:
        count = (low + high) // 2
        found = attempt(masks(count))
        within = found.problem is None and found.cycles <= goal
        low, high = (count, high) if within else (low, count)
    return masks(low)


def _cells(runs: list[dict], series: str, budget: int) -> list[dict]:
    return [run for run in runs if run["series"] == series and run["budget"] == budget]


def _table(setting: dict, dense: dict, runs: list[dict]) -> Table:
    names = ("cycles", "parameters", "macs", "density", "bytes", "compression", "accuracy")
    clock = target(setting["target"]).clock_mhz

    def row(what: str, budget: int | None, values: list, spread: float | None) -> list:
        cycles, *others = values
        return [what, budget, cycles, rate(cycles, clock).milliseconds, *others, spread]

    rows = [row("dense", None, [dense[name] for name in names], None)]
    for budget in setting["budgets"]:
        for series in setting["series"]:
            cells = _cells(runs, series, budget)
            means = [statistics.mean(cell[name] for cell in cells) for name in names]
            rows.append(row(series, budget, means, _spread(cells) if len(cells) > 1 else None))
    return Table.of(setting["title"], {
        "magnitude, ranked by": "", "budget": ",d", "cycles": ",.0f",
        f"ms at {clock:g} MHz": ".3f", "parameters left": ",.0f",
        "multiply-accumulates": ",.0f", "density": ".2%",
        "weight bytes": ",.0f", "compression": ".1f", "accuracy": ".2%", "spread": ".2%"}, rows)


def _checks(name: str, runs: list[dict]) -> list[Check]:
    setting, checks = NETWORKS[name], []
    for budget in setting["budgets"]:
        ours, *others = (statistics.mean(cell["accuracy"] for cell in _cells(runs, series, budget))
                         for series in (OURS, *BASELINES))
        checks.append(Check.at_least(
            f"{name}, {budget:,} cycles: points ahead of the best that does not look at cycles",
            100 * (ours - max(others)), 0.0, ".2f"))
        tuned = statistics.mean(cell["accuracy"] for cell in _cells(runs, TUNED, budget))
        checks.append(Check.at_least(
            f"{name}, {budget:,} cycles: points ahead of row-balanced pruning with tuned rates",
            100 * (ours - tuned), -0.5, ".2f"))
    checks.append(Check.at_most(f"{name}: runs above their budget",
                                sum(run["cycles"] > run["budget"] for run in runs), 0, "d"))
    return checks


def _curves(runs: list[dict]) -> dict[str, tuple]:
    curves = {}
    for series in dict.fromkeys(run["series"] for run in runs):
        budgets = sorted({run["budget"] for run in runs})
        cells = [_cells(runs, series, budget) for budget in budgets]
        x = [statistics.mean(run["cycles"] for run in cell) for cell in cells]
        y = [100 * statistics.mean(run["accuracy"] for run in cell) for cell in cells]
        curves[series] = (x, y, [100 * _spread(cell) for cell in cells])
    return curves


def _spread(cells: list[dict]) -> float:
    return statistics.stdev(cell["accuracy"] for cell in cells) if len(cells) > 1 else 0.0


if __name__ == "__main__":
    main(measure, __doc__,
         ("--networks", {"nargs": "+", "choices": tuple(NETWORKS), "default": list(NETWORKS),
                         "help": "which ones (all)"}),
         ("--pictures", {"type": int, "default": 20_000,
                         "help": "training pictures (%(default)s)"}),
         ("--test", {"type": int, "default": 10_000, "help": "test pictures (%(default)s)"}),
         ("--seeds", {"type": int, "default": 3, "help": "at most (%(default)s)"}))
