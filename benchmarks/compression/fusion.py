"""Layer fusion, then pruning (P0), on LeNet-5 and Fashion-MNIST.

The two max-pools go and their strides move into the convolutions, which are made anew: one after
the other with training in between, and for comparison both at once with as many epochs in all.
Then magnitude pruning, beside the same pruning of the network as it was.
"""

import argparse
import copy
import statistics
import sys
from pathlib import Path

import _path  # noqa: F401
import numpy as np
import torch
from harness.command import main
from harness.pictures import fashion_mnist, top1
from harness.result import Check, Result, Table
from torch import fx, nn

import celosia
from celosia.compress import FineTune, flip_and_shift, make_permanent, prune
from celosia.compress.cost import measure as cost_of
from celosia.compress.fusion.fuse import fuse
from celosia.models import load_lenet5

KEPT = Path("build") / "compression" / "fusion"
TARGET = "icebreaker"
RATES = {"conv1": 0.40, "conv2": 0.60, "fc1": 0.89, "fc2": 0.80, "fc3": 0.55}
"""Those of examples/lenet5/prune.py."""

LAYERWISE = (2, 2, 6)
"""Epochs after the first and the second layer made anew, and at the end."""

PRUNING = (1, 1, 1, 4)
"""Epochs after each round of pruning."""

RATE, BATCH = 1e-3, 128

Pictures = tuple[torch.Tensor, torch.Tensor]


def measure(arguments: argparse.Namespace) -> Result:
    """Fuse by both orders for every seed, prune, and count."""
    torch.set_num_threads(1)
    train, test = fashion_mnist("train", arguments.pictures), fashion_mnist("test")
    seeds = range(arguments.seeds)
    dense = load_lenet5().eval()
    at_once = (0, 0, sum(LAYERWISE))
    fused = {name: [_fused(dense, epochs, train, seed) for seed in seeds]
             for name, epochs in (("layer by layer", LAYERWISE), ("both at once", at_once))}
    rows = [_row("as trained", [dense], test)]
    rows += [_row(f"fused, {name}", networks, test) for name, networks in fused.items()]
    pruned = [_pruned(dense, train, seed) for seed in seeds]
    then = [_pruned(network, train, seed)
            for seed, network in zip(seeds, fused["layer by layer"], strict=True)]
    rows += [_row("pruned", pruned, test), _row("fused layer by layer, then pruned", then, test)]
    table = Table.of(
        f"LeNet-5 on {len(test[1]):,} test pictures of Fashion-MNIST, mean of {len(seeds)} seeds "
        f"and their standard deviation",
        {"network": "", "top-1": ".2%", "±": ".2%", "parameters": ",d",
         "multiply-accumulates": ",d", "density": ".2%", "weight bytes": ",d",
         "dense float32 bytes": ",d", f"predicted cycles, {TARGET}": ",d"}, rows)
    cycles = {row[0]: row[-1] for row in rows}
    checks = [Check.at_most("cycles of fused, then pruned, over those of pruned alone",
                            cycles["fused layer by layer, then pruned"] / cycles["pruned"],
                            1.0, ".3f")]
    notes = (
        f"{len(train[1]):,} training pictures, mirrored and shifted; AdamW, peak rate {RATE:g}, "
        f"ten times that for the layer just made anew. Layer by layer: {LAYERWISE} epochs; both "
        f"at once: {at_once[-1]}, all layers at the plain rate. Pruning: by magnitude, rates of "
        f"examples/lenet5/prune.py, {PRUNING} epochs, in both cases without a teacher. "
        "P0 gives no figures to compare with.",)
    return Result(title="Compression: layer fusion, then pruning (P0)", tables=(table,),
                  checks=tuple(checks), notes=notes)


def _tune(train: Pictures, epochs: tuple[int, ...], seed: int) -> FineTune:
    return FineTune(inputs=train[0], labels=train[1], epochs=epochs, learning_rate=RATE,
                    batch_size=BATCH, weight_decay=1e-3, augment=flip_and_shift, seed=seed)


def _fused(model: nn.Module, epochs: tuple[int, ...], train: Pictures, seed: int) -> fx.GraphModule:
    """Return the fused network; a run that was stopped goes on after its last finished round."""
    name = f"{'-'.join(map(str, epochs))}-{len(train[1])}-{seed}"
    report = fuse(model, train[0][:1], finetune=_tune(train, epochs, seed), seed=seed,
                  checkpoint=KEPT / name)
    print(f"fused, epochs {epochs}, seed {seed}", file=sys.stderr, flush=True)
    return report.model.eval()


def _pruned(model: nn.Module, train: Pictures, seed: int) -> nn.Module:
    pruned = copy.deepcopy(model)
    prune(pruned, "magnitude", rates=RATES, finetune=_tune(train, PRUNING, seed),
          rounds=len(PRUNING), seed=seed)
    make_permanent(pruned)
    print(f"pruned {type(model).__name__}, seed {seed}", file=sys.stderr, flush=True)
    return pruned.eval()


def _row(name: str, networks: list[nn.Module], test: Pictures) -> list[str | float | None]:
    """Return a row of the table; what is counted is that of the first network."""
    found = [top1(network, *test) for network in networks]
    cost = cost_of(networks[0], test[0][:1])
    program = celosia.compile(networks[0], np.zeros((1, 1, 28, 28), np.float32), target=TARGET)
    spread = statistics.stdev(found) if len(found) > 1 else None
    return [name, statistics.mean(found), spread, cost.parameters, cost.useful_macs,
            cost.nonzeros / cost.weights, cost.weight_bytes, cost.dense_bytes,
            program.predicted_cycles]


if __name__ == "__main__":
    main(measure, __doc__,
         ("--pictures", {"type": int, "help": "for training; all if not given"}),
         ("--seeds", {"type": int, "default": 3, "help": "runs of each (%(default)s)"}))
