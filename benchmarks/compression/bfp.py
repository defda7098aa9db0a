"""Block floating point (P3): mantissa widths, block partitions, roundings and the error model.

The given ResNet-20 and ResNet-56, batch normalisation folded, weights and inputs of every layer in
block floating point, not retrained. Each finished configuration is kept in build/compression/bfp,
so that a run that was stopped goes on.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import _path  # noqa: F401
import torch
from harness.command import main
from harness.pictures import CIFAR10, cifar10, given_resnet
from harness.plots import lines
from harness.result import Check, Result, Table
from torch import nn

from celosia.compress.cost import measure as cost_of
from celosia.compress.fusion.fold import fold_batchnorm
from celosia.compress.precision.emulate import emulate
from celosia.compress.precision.nsr import nsr
from celosia.compress.precision.partition import PARTITIONS
from celosia.compress.training.finetune import FineTune, flip_and_shift
from celosia.compress.training.journal import Journal

KEPT = Path("build") / "compression" / "bfp"
WIDTHS = (9, 8, 7, 6, 5, 4)
COMPARED = (8, 6, 5, 4)
"""Widths at which the four partitions are compared."""

ROUNDINGS = ("nearest-even", "zero", "up", "down")
ROUNDED = (8, 6)
MOST_LOST = 0.12
"""Points that P3 reports as the largest loss at eight bits."""

SPARED = {"first": slice(1, None), "last": slice(None, -1), "inner": slice(1, -1)}
"""Layers that are formatted where the first, the last or both stay float."""

FINE = 12
"""Width of the operand that is not the one looked at: sixteen times finer than eight bits."""

BATCH = 50

TUNING_RATE = 0.01
"""Peak learning rate where ResNet-20 is trained on."""


def measure(arguments: argparse.Namespace) -> Result:
    """Run every configuration that is not kept yet, and make the tables."""
    torch.set_num_threads(1)
    x, labels = cifar10("test", arguments.pictures)
    tables, checks, runners = [], [], []
    for depth in arguments.depths:
        subset = min(arguments.subset // (1 if depth == 20 else 2), len(x))
        runner = _Runner(depth, x, labels, subset)
        for key, options in _configurations(depth):
            runner.run(key, options)
        tables += [_widths(runner), _partitions(runner), _operands(runner)]
        checks.append(_check(runner))
        runners.append(runner)
    if arguments.epochs:
        tuned = _Runner(20, x, labels, 0, arguments.epochs)
        for key, options in _configurations(20, widths_only=True):
            tuned.run(key, options)
        tables.append(_widths(tuned, f", trained on for {arguments.epochs} epochs"))
        checks.append(_check(tuned, ", trained on"))
    tables.append(_model(x[:arguments.nsr]))
    _plots(runners)
    notes = (
        f"{CIFAR10}, the first {len(x):,} test pictures, or as many of them as a table says; "
        "networks with the given weights, trained on the original pictures. 6-11 is the "
        "accelerator's partition. Here bias, shortcuts and the average pool stay float; "
        "the accelerator's own figures are those of the golden model. \"Changed\" counts the "
        "pictures whose answer is not the float network's; their square root, in points under "
        "\"chance\", is at least the standard deviation of the difference where changes hit "
        "right and wrong answers alike.",
        f"Both networks lose ten points on this copy before any rounding, so many pictures lie "
        f"near a border. One table shows ResNet-20 after {arguments.epochs} more epochs on the "
        f"copy's training pictures (SGD, peak rate {TUNING_RATE:g}).",
        "![Accuracy against width](plots/bfp-width.svg) "
        "![Partitions, ResNet-20](plots/bfp-partitions-20.svg) "
        "![Partitions, ResNet-56](plots/bfp-partitions-56.svg) "
        "![Predicted and measured noise](plots/bfp-nsr.svg)")
    return Result(title="Compression: block floating point (P3)", tables=tuple(tables),
                  checks=tuple(checks), notes=notes)


def _configurations(depth: int,
                    widths_only: bool = False) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield name and settings of each run; "part" runs on the subset only."""
    yield "float", {}
    for bits in WIDTHS:
        yield f"rows {bits}", _both(bits)
    if widths_only:
        return
    for partition in PARTITIONS:
        if partition != "rows":
            for bits in COMPARED:
                yield f"{partition} {bits}", _both(bits, partition=partition, part=True)
    for rounding in ROUNDINGS[1:]:
        for bits in ROUNDED:
            yield f"{rounding} {bits}", _both(bits, rounding=rounding, part=depth != 20)
    for bits in ROUNDED:
        part = {"part": depth != 20}
        yield f"weights {bits}", {"weight_bits": bits, "activation_bits": FINE} | part
        yield f"inputs {bits}", {"weight_bits": FINE, "activation_bits": bits} | part
        for kind in SPARED:
            yield f"{kind} {bits}", _both(bits, spared=kind) | part


def _both(bits: int, **options: Any) -> dict[str, Any]:
    return {"weight_bits": bits, "activation_bits": bits} | options


class _Runner:
    """Runs one network's configurations, each once, and keeps what they gave."""

    def __init__(self, depth: int, x: torch.Tensor, labels: torch.Tensor, subset: int,
                 epochs: int = 0) -> None:
        self.depth, self.x, self.labels, self.subset = depth, x, labels, subset
        self.model = given_resnet(depth)
        choices = {"depth": depth, "pictures": len(x), "subset": subset}
        name = f"resnet{depth}-{len(x)}"
        if epochs:
            choices, name = choices | {"epochs": epochs}, f"{name}-{epochs}-epochs"
        self.journal = Journal(KEPT / name, choices)
        self.kept = {record["key"]: record for record in self.journal.records}
        self.tensors = self.journal.restore() or {}
        if epochs and "model" not in self.kept:
            self._retrain(epochs)
        elif epochs:
            self.model.load_state_dict({name.removeprefix("model."): tensor for name, tensor
                                        in self.tensors.items() if name != "float"})
        fold_batchnorm(self.model)

    def _retrain(self, epochs: int) -> None:
        train, labels = cifar10("train")
        FineTune(inputs=train, labels=labels, epochs=epochs, learning_rate=TUNING_RATE,
                 optimizer="sgd", weight_decay=5e-4,
                 augment=lambda batch, generator: flip_and_shift(batch, generator, 4),
                 on_epoch=lambda _, epoch, loss: print(f"epoch {epoch}: loss {loss:.3f}",
                                                       file=sys.stderr, flush=True))(self.model, 0)
        self.tensors |= {f"model.{name}": tensor
                         for name, tensor in self.model.state_dict().items()}
        self.journal.finish({"key": "model"}, self.tensors)

    def run(self, key: str, options: dict[str, Any]) -> None:
        """Count right answers and changed answers, of all pictures and of the subset."""
        if key not in self.kept:
            x = self.x[:self.subset] if options.pop("part", False) else self.x
            answers = _answers(self._network(options), x)
            reference = self.tensors.setdefault("float", answers)
            record = {"key": key}
            for name, count in (("all", len(x)), ("part", self.subset)):
                right = answers[:count] == self.labels[:count]
                changed = answers[:count] != reference[:count]
                record |= {f"{name} pictures": count, f"{name} right": int(right.sum()),
                           f"{name} changed": int(changed.sum())}
            self.journal.finish(record, self.tensors)
            self.kept[key] = record
            print(f"ResNet-{self.depth}, {key}: {record['all right'] / len(x):.2%} of {len(x):,}",
                  file=sys.stderr, flush=True)

    def compare(self, key: str, which: str = "all") -> tuple[float, float, int, float]:
        """Return top-1, points against float, changed answers and the points of chance.

        which : "all" or "part" of the pictures.
        """
        one, base = self.kept[key], self.kept["float"]
        count = one[f"{which} pictures"]
        if count != base[f"{which} pictures"]:
            raise ValueError(f"{key} ran on {count} pictures, the float network on more")
        gain = one[f"{which} right"] - base[f"{which} right"]
        changed = one[f"{which} changed"]
        return (one[f"{which} right"] / count, 100 * gain / count, changed,
                100 * changed**0.5 / count)

    def _network(self, options: dict[str, Any]) -> nn.Module:
        if not options:
            return self.model
        if "spared" in options:
            names = [name for name, layer in self.model.named_modules()
                     if isinstance(layer, nn.Conv2d | nn.Linear)]
            options["layers"] = names[SPARED[options.pop("spared")]]
        return emulate(self.model, **options)


def _answers(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return torch.cat([model(part).argmax(1) for part in x.split(BATCH)])


def _check(runner: _Runner, remark: str = "") -> Check:
    return Check.at_most(f"ResNet-{runner.depth}{remark}: points lost at 8 bits, 6-11",
                         round(0 - runner.compare("rows 8")[1], 6), MOST_LOST, ".2f")


def _widths(runner: _Runner, remark: str = "") -> Table:
    cost = cost_of(runner.model, runner.x[:1])
    rows = [["float32", *runner.compare("float"), cost.dense_bytes, 1.0]]
    for bits in WIDTHS:
        size = cost_of(runner.model, runner.x[:1], weight_bits=bits).weight_bytes
        rows.append([f"{bits}", *runner.compare(f"rows {bits}"), size, cost.dense_bytes / size])
    return Table.of(
        f"ResNet-{runner.depth}{remark}: mantissa width of weights and inputs, partition 6-11, "
        f"{len(runner.x):,} pictures; {cost.parameters:,} parameters, {cost.macs:,} "
        f"multiply-accumulates, density {cost.nonzeros / cost.weights:.0%}",
        {"mantissa bits": "", "top-1": ".2%", "points": "+.2f", "changed": ",d", "chance": ".2f",
         "weight bytes": ",d", "smaller by": ".2f"}, rows)


def _partitions(runner: _Runner) -> Table:
    rows = []
    for name, partition in PARTITIONS.items():
        points = [runner.compare(f"{name} {bits}", "part")[1] for bits in COMPARED]
        rows.append(["rows" if partition.weight_rows else "whole",
                     "columns" if partition.input_columns else "whole", partition.equation,
                     *points])
    return Table.of(
        f"ResNet-{runner.depth}: partitions, {runner.subset:,} pictures, points against float "
        f"({runner.compare('float', 'part')[0]:.2%})",
        {"blocks of weights": "", "blocks of inputs": "", "P3": ""} |
        {f"{bits} bits": "+.2f" for bits in COMPARED}, rows)


def _operands(runner: _Runner) -> Table:
    which = "all" if runner.depth == 20 else "part"
    kinds = {"rounding nearest-even": "rows"} | {f"rounding {name}": name
                                                 for name in ROUNDINGS[1:]}
    kinds |= {f"weights alone, inputs {FINE} bits": "weights",
              f"inputs alone, weights {FINE} bits": "inputs",
              "first layer float": "first", "last layer float": "last",
              "first and last layer float": "inner"}
    return Table.of(
        f"ResNet-{runner.depth}: roundings and operands, partition 6-11, "
        f"{runner.kept['zero 8']['all pictures']:,} pictures, points against float",
        {"what": ""} | {f"{bits} bits": "+.2f" for bits in ROUNDED},
        [[what, *(runner.compare(f"{key} {bits}", which)[1] for bits in ROUNDED)]
         for what, key in kinds.items()])


def _model(x: torch.Tensor) -> Table:
    """Compare the error model with what is measured, layer by layer; draw it."""
    report = nsr(given_resnet(20), x, bits=8)
    rows = []
    for name, layer in report.layers.items():
        stages = (layer.weight, layer.formatted, layer.input, layer.output)
        rows.append([name, *(value for stage in stages
                             for value in (stage.predicted_db, stage.measured_db))])
    numbers = list(range(1, len(rows) + 1))
    titles = ("weights", "own formatting", "inputs", "outputs")
    lines("bfp-nsr.svg",
          {f"{title}, {kind}": (numbers, [row[1 + 2 * index + offset] for row in rows])
           for index, title in ((0, "weights"), (1, "own formatting"), (3, "outputs"))
           for offset, kind in ((0, "predicted"), (1, "measured"))},
          "layer", "signal to noise, dB", "ResNet-20, 8 bits, 6-11: noise by layer")
    return Table.of(
        f"ResNet-20, 8 bits, partition 6-11: signal to noise in dB, predicted and measured, "
        f"{len(x):,} pictures",
        {"layer": ""} | {f"{title}, {kind}": ".1f" for title in titles
                         for kind in ("predicted", "measured")}, rows)


def _plots(runners: list[_Runner]) -> None:
    series = {}
    for runner in runners:
        series[f"ResNet-{runner.depth}"] = (
            WIDTHS, [100 * runner.compare(f"rows {bits}")[0] for bits in WIDTHS])
        series[f"ResNet-{runner.depth}, float"] = (
            WIDTHS, [100 * runner.compare("float")[0]] * len(WIDTHS))
    lines("bfp-width.svg", series, "mantissa bits, weights and inputs", "top-1, %",
          f"Partition 6-11, {CIFAR10}")
    for runner in runners:
        curves = {name: [100 * runner.compare(f"{name} {bits}", "part")[0] for bits in COMPARED]
                  for name in PARTITIONS}
        lines(f"bfp-partitions-{runner.depth}.svg",
              {f"{PARTITIONS[name].equation}, {name}": (COMPARED, curve)
               for name, curve in curves.items()},
              "mantissa bits, weights and inputs", "top-1, %",
              f"ResNet-{runner.depth}, {runner.subset:,} pictures")


if __name__ == "__main__":
    main(measure, __doc__,
         ("--depths", {"nargs": "+", "type": int, "default": [20, 56], "choices": [20, 56]}),
         ("--pictures", {"type": int, "default": 10_000, "help": "test pictures (%(default)s)"}),
         ("--subset", {"type": int, "default": 2_000,
                       "help": "of them for the other partitions; half for ResNet-56 "
                               "(%(default)s)"}),
         ("--epochs", {"type": int, "default": 2,
                       "help": "to train ResNet-20 on for a further table; 0 leaves it out "
                               "(%(default)s)"}),
         ("--nsr", {"type": int, "default": 500, "help": "for the error model (%(default)s)"}))
