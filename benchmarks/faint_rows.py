"""What rows of small weights and large biases cost: signal-to-noise ratios of the outputs.

Seeded random networks, half of their weights zero, with batch normalisation whose statistics are
those of the inputs; some of the channels have nearly died (scale 10^-4 of what it was, shift kept).
The same network is quantised with 24-bit accumulators without the rule for faint rows, as the
compiler does it, and with 32 bits without the rule, which is what the format itself gives. No
input calibrates anything: exponents are dynamic. With --given also two trained ones, MLPerf Tiny's
person detector on enlarged pictures of CIFAR-10, and VDSR, which adds its input to its last layer's
sums (CELOSIA_EXPERIMENTS and CELOSIA_CIFAR10, see benchmarks/harness/pictures.py).
"""

import argparse
import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from unittest import mock

import numpy as np
import torch
from harness.command import main
from harness.result import Check, Result, Table
from torch import nn

from celosia.compiler import Compiler
from celosia.graph import Graph
from celosia.models import ResNet
from celosia_sim.golden import run
from celosia_spec.errors import CompileError
from celosia_spec.qgraph import QGraph

TARGET = "ulx3s-85f"
"""Its array takes accumulators of both widths with all of `WIDTHS`."""

SCALE = 1e-4
SHARES = (0.0, 0.1, 0.6)
"""Of the channels that have nearly died."""

WIDTHS = ((8, 8), (9, 8))
"""Mantissas of activations and of weights, bits."""

MOST_LOST = 0.5
"""dB that the rule may lose against 32-bit accumulators, in the mean over the seeds."""

Sample = tuple[nn.Module, torch.Tensor]


@dataclass(frozen=True)
class Found:
    """Signal-to-noise ratios at 24 bits without the rule, as compiled and at 32 bits without it;
    and of the compiled network rows that were raised, all rows, and the accumulator's bits.
    """

    ratios: tuple[float | None, float | None, float | None]
    raised: int
    rows: int
    acc_bits: int


def depthwise(channels: int = 24, blocks: int = 5) -> nn.Module:
    """Return a small MobileNet; input (3, 24, 24), ten outputs."""
    def norm(*layers: nn.Module) -> list[nn.Module]:
        return [*layers, nn.BatchNorm2d(channels), nn.ReLU()]

    layers = norm(nn.Conv2d(3, channels, 3, stride=2, padding=1, bias=False))
    for _ in range(blocks):
        layers += norm(nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False))
        layers += norm(nn.Conv2d(channels, channels, 1, bias=False))
    return nn.Sequential(*layers, nn.AvgPool2d(12), nn.Flatten(), nn.Linear(channels, 10))


def networks(arguments: argparse.Namespace) -> Iterator[tuple[str, list[Sample]]]:
    """Yield names, and under each a network with its inputs for every seed."""
    made: dict[str, tuple[Callable[[], nn.Module], int]] = {
        "depthwise": (depthwise, 24), "ResNet-8": (lambda: ResNet(8, "B"), 32)}
    for name, (make, size) in made.items():
        for share in SHARES:
            yield f"{name}, {share:.0%} of the channels faint", [
                _sample(make, size, share, seed, arguments.images)
                for seed in range(arguments.seeds)]
    if arguments.given:
        from harness.pictures import given_vdsr
        from harness.tiny import person_detector

        yield "MLPerf Tiny's person detector", [person_detector(arguments.pictures)]
        yield "VDSR, a flat picture", [(given_vdsr(), torch.full((1, 1, 24, 24), 0.9))]


def _sample(make: Callable[[], nn.Module], size: int, share: float, seed: int,
            images: int) -> Sample:
    torch.manual_seed(seed)
    network, x = make(), torch.randn(images, 3, size, size)
    norms = [part for part in network.modules() if isinstance(part, nn.BatchNorm2d)]
    with torch.no_grad():
        for weight in (p for p in network.parameters() if p.dim() > 1):
            weight *= torch.rand(weight.shape) < 0.5
        for norm in norms:
            norm.weight.uniform_(0.3, 1.5)
            norm.bias.normal_(0, 0.5)
            norm.momentum = None        # statistics are the mean over all that is seen
        network.train()(x)
        for norm in norms:
            norm.weight[torch.rand(norm.num_features) < share] *= SCALE
    return network.eval(), x


def measure(arguments: argparse.Namespace) -> Result:
    """Quantise every network in three ways at every width."""
    rows, checks = [], []
    for name, samples in networks(arguments):
        for widths in WIDTHS:
            found = [_compare(network, x, *widths) for network, x in samples]
            narrow, compiled, wide = (_mean([f.ratios[way] for f in found]) for way in range(3))
            label = f"{widths[0]} / {widths[1]}"
            rows.append([name, label, narrow, compiled, wide, sum(f.raised for f in found),
                         sum(f.rows for f in found), sum(f.acc_bits == 32 for f in found)])
            assert compiled is not None and wide is not None
            checks.append(Check.at_least(f"dB against 32 bits, {name}, {label}",
                                         round(compiled - wide, 2), -MOST_LOST, ".2f"))
    table = Table.of(
        f"Signal-to-noise ratio of the outputs, dB, mean of {arguments.seeds} random networks",
        {"network": "", "activations / weights": "", "24 bits, no rule": ".2f",
         "as compiled": ".2f", "32 bits, no rule": ".2f", "rows raised": ",d", "of": ",d",
         "networks that take 32 bits": "d"}, rows)
    notes = ("With 24 bits, rows whose sums need more have narrower weights. Single networks "
             "differ by up to a decibel where a few roundings differ.",)
    return Result(title="Faint rows", tables=(table,), checks=tuple(checks), notes=notes)


def _compare(network: nn.Module, x: torch.Tensor, activation_bits: int, weight_bits: int) -> Found:
    compiler = Compiler(target=TARGET, activation_bits=activation_bits, weight_bits=weight_bits)
    graph = compiler.graph(network, x[:1])
    with torch.no_grad():
        wanted = copy.deepcopy(network).double()(x.double()).numpy()
    chosen = compiler.quantised(graph, None)
    with mock.patch("celosia_spec.faint_rows.FAINT_BITS", 99):       # no row is faint
        narrow, wide = (_at_width(compiler, graph, width) for width in (24, 32))
    narrow_db, compiled_db, wide_db = (_ratio(q, x, wanted) for q in (narrow, chosen, wide))
    return Found((narrow_db, compiled_db, wide_db), sum(len(node.raised) for node in chosen.nodes),
                 sum(len(node.sw) for node in chosen.nodes), chosen.acc_bits)


def _at_width(compiler: Compiler, graph: Graph, width: int) -> QGraph | None:
    try:
        return compiler.quantised(graph, None, acc_bits=width)
    except CompileError:
        return None


def _ratio(graph: QGraph | None, x: torch.Tensor, wanted: np.ndarray) -> float | None:
    if graph is None:
        return None
    found, tensor = run(graph, x.numpy(), keep_tensors=False), graph.tensors[graph.output]
    lsb = found.exponents[graph.output] - (tensor.bits - 2)
    values = np.ldexp(found.mantissas[graph.output].astype(float), lsb[:, None, None, None])
    values = values.reshape(wanted.shape)
    return 10 * math.log10(np.square(wanted).sum() / np.square(values - wanted).sum())


def _mean(ratios: list[float | None]) -> float | None:
    known = [ratio for ratio in ratios if ratio is not None]
    return sum(known) / len(known) if len(known) == len(ratios) else None


if __name__ == "__main__":
    main(measure, __doc__,
         ("--seeds", {"type": int, "default": 4, "help": "networks of a kind (%(default)s)"}),
         ("--images", {"type": int, "default": 6, "help": "inputs of each (%(default)s)"}),
         ("--given", {"action": "store_true", "help": "the trained ones, too"}),
         ("--pictures", {"type": int, "default": 100,
                         "help": "that the person detector sees (%(default)s)"}))
