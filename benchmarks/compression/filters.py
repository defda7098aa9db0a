"""P2's experiment: filters removed by standard deviation and by L1 norm, ResNet-56 and VGG-16.

ResNet-56 starts from its given weights and is first fine-tuned on the pictures at hand; then at
least 30 % of its multiply-accumulates are removed, in one go and at the same rate in each layer,
and it is fine-tuned again. The unpruned network gets the same second fine-tuning. VGG-16 of
`make bench-compression-train` gets the widths of Li et al.'s configuration A. The published
configurations of VGG-16 and ResNet-110 are counted exactly. A run that was stopped goes on.
"""

import argparse
import copy
import sys
from collections.abc import Callable

import _path  # noqa: F401
import torch
from _tuning import BATCH, RATE, Pictures, trained_on, tuner
from harness.command import main
from harness.pictures import CIFAR10, TRAINED, cifar10, given_resnet, top1, trained
from harness.result import Cell, Check, Result, Table
from torch import nn

from celosia.compress.cost import Cost
from celosia.compress.cost import measure as cost_of
from celosia.compress.filters.prune import FilterRound, prune_filters
from celosia.models import VGG16, VGG16_PRUNED_A, ResNet

METHODS = ("std", "l1")
LEAST = 0.30
"""Fraction of ResNet-56's multiply-accumulates to remove."""

DECAY = {"ResNet-56": 1e-4, "VGG-16": 5e-4}
EPOCHS = {"ResNet-56": 1, "VGG-16": 3}
"""Of the fine-tuning after pruning."""

RESNET110 = {"A": ((0.5, 0, 0), (36,)), "B": ((0.5, 0.4, 0.3), (36, 38, 74))}
"""Li et al.'s configurations: rates of the three stages, layers left alone (they count from 1)."""

PUBLISHED = {
    "VGG-16 A": (206_279_680, 5_396_522), "ResNet-110 A": (212_779_648, 1_688_522),
    "ResNet-110 B": (155_124_352, 1_168_424),
}
"""Multiply-accumulates and parameters that follow from the published widths."""

COLUMNS = {"network": "", "multiply-accumulates": ",d", "removed": ".1%", "parameters": ",d",
           "left": ".1%", "density": ".1%", "weight bytes": ",d", "as float32": ",d",
           "not retrained": ".2%", "retrained": ".2%", "points": "+.2f"}


def measure(arguments: argparse.Namespace) -> Result:
    """Count the published configurations and prune the two networks."""
    torch.set_num_threads(1)
    tables, checks = _published()
    train, test = cifar10("train", arguments.pictures), cifar10("test", arguments.test)
    for name in arguments.networks:
        table, check = _network(name, train, test)
        tables.append(table)
        checks.append(check)
    notes = (
        f"{CIFAR10}; {len(train[0]):,} training and {len(test[0]):,} test pictures. ResNet-56: "
        f"given weights, then 1 epoch, then pruned and {EPOCHS['ResNet-56']} epoch more; the "
        f"unpruned network has had the same epochs. VGG-16: quarter width, {EPOCHS['VGG-16']} "
        f"epochs after pruning. SGD with a peak rate of {RATE:g} and batches of {BATCH}, one seed; "
        "P2 and Li et al. fine-tune for 20 to 40 epochs. Points are against the unpruned network "
        "after the same epochs. Weight bytes are those of this project's format.",)
    return Result(title="Compression: filter pruning (P2)", tables=tuple(tables),
                  checks=tuple(checks), notes=notes)


def _published() -> tuple[list[Table], list[Check]]:
    """Count the configurations of Li et al. after removing the filters from whole networks."""
    x = torch.zeros(1, 3, 32, 32)
    rows, checks = [], []
    for name, network, rates in (
        ("VGG-16 A", VGG16(), _vgg_a()), *((f"ResNet-110 {key}", ResNet(110), _resnet110(*value))
                                          for key, value in RESNET110.items())):
        report = prune_filters(network, x, "std", rate=rates)
        rows.append([name, report.before.macs, report.after.macs, report.macs_removed,
                     report.before.parameters, report.after.parameters,
                     report.parameters_removed])
        macs, parameters = PUBLISHED[name]
        checks += [Check.equal(f"{name}: multiply-accumulates", report.after.macs, macs),
                   Check.equal(f"{name}: parameters", report.after.parameters, parameters)]
    table = Table.of("Published configurations, counted (arXiv 1608.08710 prints −34.2 % and "
                     "−64.0 %, −15.9 % and −2.3 %, −38.6 % and −32.4 %)",
                     {"network": "", "multiply-accumulates": ",d", "pruned": ",d",
                      "removed": ".1%", "parameters": ",d", "left": ",d", "gone": ".1%"}, rows)
    return [table], checks


def _vgg_a() -> dict[str, float]:
    """Return the rates that give VGG-16 the widths of configuration A."""
    convs = [name for name, layer in VGG16().named_modules() if isinstance(layer, nn.Conv2d)]
    widths = zip(convs, VGG16_PRUNED_A, strict=True)
    return {name: 1 - width / VGG16().get_submodule(name).out_channels for name, width in widths}


def _resnet110(rates: tuple[float, float, float], skip: tuple[int, ...]) -> dict[str, float]:
    """Return {first convolution of a block: rate}; block b (from 0) holds layers 2 b + 2 and on."""
    return {f"layer{stage + 1}.{block}.conv1": rates[stage] for stage in range(3)
            for block in range(18) if 2 * (18 * stage + block) + 2 not in skip}


def _network(name: str, train: Pictures, test: Pictures) -> tuple[Table, Check]:
    """Prune one network with both methods; return its table and the check of what was removed."""
    folder = TRAINED / "filters" / f"{name}-{len(train[0])}"
    if name == "ResNet-56":
        given = given_resnet(56)
        start = trained_on(copy.deepcopy(given), folder / "start",
                           tuner(name, train, 1, DECAY[name]))
        target, least = {"macs": LEAST}, LEAST
    else:
        start = given = trained("vgg16")
        target, least = {"rate": _vgg_a()}, 0.34
    tune = tuner(name, train, EPOCHS[name], DECAY[name])
    example = test[0][:1]
    before = cost_of(start, example)
    reference = trained_on(copy.deepcopy(start), folder / "reference", tune)
    base = top1(reference, *test)
    size = _size(before, before)
    rows: list[list[Cell]] = [] if given is start else [
        ["as given", *size, top1(given, *test), None, None]]
    rows.append(["unpruned", *size, top1(start, *test), base, 0.0])
    removed: list[float] = []
    _say(name, "unpruned", *rows[-1][8:10])
    for method in METHODS:
        bare = copy.deepcopy(start)
        prune_filters(bare, example, method, **target)
        model = copy.deepcopy(start)
        report = prune_filters(model, example, method, **target, finetune=tune,
                               checkpoint=folder / method, progress=_progress(name, method))
        removed.append(1 - report.after.conv_macs / report.before.conv_macs)
        after, found = cost_of(model, example), top1(model, *test)
        rows.append([method, *_size(after, before), top1(bare, *test), found,
                     100 * (found - base)])
        _say(name, method, *rows[-1][8:10])
    check = Check.at_least(f"{name}: multiply-accumulates of the convolutions removed",
                           min(removed), least, ".2%")
    return Table.of(f"{name} on {CIFAR10}", COLUMNS, rows), check


def _size(cost: Cost, dense: Cost) -> list[Cell]:
    """Return the cells from multiply-accumulates to float32 bytes."""
    return [cost.macs, 1 - cost.macs / dense.macs, cost.parameters,
            cost.parameters / dense.parameters, cost.density, cost.weight_bytes, cost.dense_bytes]


def _progress(name: str, method: str) -> Callable[[FilterRound], None]:
    def report(record: FilterRound) -> None:
        print(f"{name}, {method}: {record.macs:,} multiply-accumulates, {record.parameters:,} "
              "parameters", file=sys.stderr, flush=True)

    return report


def _say(name: str, what: str, before: float, after: float) -> None:
    print(f"{name}, {what}: {before:.2%}, retrained {after:.2%}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(measure, __doc__,
         ("--networks", {"nargs": "+", "choices": list(DECAY), "default": list(DECAY)}),
         ("--pictures", {"type": int, "help": "for training; all if not given"}),
         ("--test", {"type": int, "help": "test pictures; all if not given"}))
