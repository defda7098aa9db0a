"""Training in the machine's number format: ResNets with mantissas of few bits.

The given network is first trained on for some steps in float; then for as many more once in float
and in each format. All are compared in the format, and the second in float. The machine's figures
are the golden model's.
"""

import argparse
import copy
import math
import sys
from collections.abc import Sequence

import _path  # noqa: F401
import torch
from harness.command import main
from harness.pictures import CIFAR10, cifar10, given_resnet, top1
from harness.result import Check, Result, Table
from torch import nn

from celosia.compress import FineTune, in_format

TARGET = "ulx3s-85f"
RATE, BATCH = 3e-4, 50
WITHIN = {5: 0.5, 4: 3.0}
"""Points that a width may stay behind the float network trained as long, in its best format."""

DYNAMIC, STATIC = "dynamic", "static"
NAMES = {DYNAMIC: "dynamic", STATIC: "static, clipped"}
CALIBRATION = 32
"""Training pictures that static exponents are found with."""


def measure(arguments: argparse.Namespace) -> Result:
    """Train and compare, width by width."""
    torch.set_num_threads(1)
    name = f"ResNet-{arguments.depth}"
    train, test = cifar10("train", arguments.train), cifar10("test", arguments.pictures)
    begun = given_resnet(arguments.depth)
    given = top1(begun, *test)
    _trained("float", begun, arguments, train)
    long = _trained("float, on", copy.deepcopy(begun), arguments, train, round=1)
    reference = top1(long, *test)
    rows, checks = [], []
    for bits, exponents in map(_format, arguments.formats):
        rounded = [top1(_in_format(net, bits, exponents, train), *test) for net in (begun, long)]
        net = _in_format(begun, bits, exponents, train)
        _trained(f"{bits} bits, {NAMES[exponents]}", net, arguments, train, round=1, teacher=begun)
        found = top1(net, *test)
        rows.append((bits, NAMES[exponents], *(100 * share for share in (*rounded, found)),
                     100 * (reference - found)))
    for bits in sorted({row[0] for row in rows} & WITHIN.keys(), reverse=True):
        checks.append(Check.at_most(
            f"{name}, {bits} bits: points behind float trained as long",
            min(row[-1] for row in rows if row[0] == bits), WITHIN[bits], ".1f"))
    chance = 100 * math.sqrt(reference * (1 - reference) / len(test[0]))
    return Result(
        title=f"Compression: training in the format, {name}",
        tables=(Table.of(
            f"{name}, {len(test[0]):,} test pictures, right, %",
            {"mantissa bits": "d", "exponents": "", "float training, rounded": ".1f",
             "as long in float, rounded": ".1f", "as long in the format": ".1f",
             "points behind float": ".1f"}, rows),),
        checks=tuple(checks), notes=(
            f"{CIFAR10}; weights and stored tensors of the same width, `compress.in_format` on "
            f"{TARGET}, clipped with clip=True. {arguments.steps} steps of {BATCH} of "
            f"{len(train[0]):,} training pictures in float (Adam, peak {RATE:g}), then as many in "
            f"float or in the format, there with the float network as teacher. Float: "
            f"{given:.1%} as given, {reference:.1%} trained as long as the last column. One "
            f"standard deviation of such a share is {chance:.1f} points.",))


def _format(text: str) -> tuple[int, str]:
    """Return what "5/dynamic" means."""
    bits, exponents = text.split("/")
    if exponents not in NAMES:
        raise SystemExit(f"--formats {text}: exponents are one of {', '.join(NAMES)}")
    return int(bits), exponents


def _in_format(net: nn.Module, bits: int, exponents: str,
               train: Sequence[torch.Tensor]) -> nn.Module:
    more = {} if exponents == DYNAMIC else {
        "exponents": STATIC, "calibration": train[0][:CALIBRATION], "clip": True}
    return in_format(net, train[0][:1], target=TARGET, weight_bits=bits, activation_bits=bits,
                     **more)


def _trained(what: str, net: nn.Module, arguments: argparse.Namespace,
             train: Sequence[torch.Tensor], round: int = 0,
             teacher: nn.Module | None = None) -> nn.Module:
    """Train a network in place, in eval mode as far as normalisation goes, and return it."""
    left = arguments.steps
    for part in range(math.ceil(left * BATCH / len(train[0]))):
        count = min(left * BATCH - part * len(train[0]), len(train[0]))
        order = torch.randperm(len(train[0]), generator=torch.Generator().manual_seed(
            1000 * round + part))[:count]
        FineTune(inputs=train[0][order], labels=train[1][order], learning_rate=RATE,
                 batch_size=BATCH, weight_decay=0.0, seed=part, teacher=teacher,
                 on_epoch=lambda _, epoch, loss: print(f"{what}: loss {loss:.3f}", file=sys.stderr,
                                                       flush=True))(net, round)
    return net.eval()


if __name__ == "__main__":
    main(measure, __doc__,
         ("--depth", {"type": int, "choices": (20, 56), "default": 20,
                      "help": "of the ResNet (%(default)s)"}),
         ("--formats", {"nargs": "+", "metavar": "BITS/EXPONENTS",
                        "default": [f"{bits}/{name}" for bits in (5, 4) for name in NAMES],
                        "help": "mantissa bits, dynamic or static (%(default)s)"}),
         ("--steps", {"type": int, "default": 150, "help": "of training (%(default)s)"}),
         ("--train", {"type": int, "default": 5_000, "help": "training pictures (%(default)s)"}),
         ("--pictures", {"type": int, "default": 10_000, "help": "test pictures (%(default)s)"}))
