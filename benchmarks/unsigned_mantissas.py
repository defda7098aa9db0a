"""What mantissas without a sign gain: signal-to-noise ratios of trained networks' outputs.

MLPerf Tiny's trained networks against themselves in float64, with dynamic exponents
and no calibration: with a sign everywhere, without one behind every ReLU, and without one in the
input too, where the network's inputs are never below 0. The networks and their inputs are given
(CELOSIA_EXPERIMENTS and CELOSIA_CIFAR10, see benchmarks/harness/pictures.py); for keyword spotting
there are none, and made ones stand in.
"""

import argparse
import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from harness.command import main
from harness.result import Check, Result, Table
from harness.tiny import keyword_spotter, person_detector, wakeword
from torch import nn

from celosia.compiler import Compiler
from celosia.quantise import quantise
from celosia_sim.golden import run
from celosia_spec.qgraph import QGraph

WIDTHS = ((8, 8), (9, 8), (8, 6), (6, 6))
"""Mantissas of activations and of weights, bits."""

SCATTER = 1.5
"""dB by which outputs of one network differ where a few roundings differ."""

GAINS = {"person detector": 4.0}
"""dB that a network must gain at 8 / 8; all others must not lose more than the scatter."""


@dataclass(frozen=True)
class Sample:
    """A trained network and its inputs, (N, ...), in words."""

    name: str
    network: nn.Module
    x: torch.Tensor
    inputs: str


def samples(images: int) -> Iterator[Sample]:
    """Yield the networks with up to so many inputs each."""
    network, x = keyword_spotter(images)
    yield Sample("keyword spotting", network, x, "made")
    network, x = person_detector(images)
    yield Sample("person detector", network, x, "CIFAR-10 (JPEG copy), enlarged")
    network, x = wakeword(images)
    yield Sample("streaming wakeword", network, x, "recorded")


def measure(arguments: argparse.Namespace) -> Result:
    """Quantise every network in three ways at every width."""
    rows, checks = [], []
    for sample in samples(arguments.images):
        graph = Compiler().graph(sample.network, sample.x[:1])
        with torch.no_grad():
            wanted = copy.deepcopy(sample.network).double()(sample.x.double()).numpy()
        for activation_bits, weight_bits in WIDTHS:
            found: list[float | None] = []
            for unsigned, unsigned_input in ((False, False), (True, False), (True, True)):
                if unsigned_input and bool((sample.x < 0).any()):
                    found.append(None)
                    continue
                quantised = quantise(graph, activation_bits=activation_bits,
                                     weight_bits=weight_bits, unsigned=unsigned,
                                     unsigned_input=unsigned_input)
                found.append(_ratio(quantised, sample.x, wanted))
            label = f"{activation_bits} / {weight_bits}"
            rows.append([sample.name, f"{len(sample.x)}, {sample.inputs}", label, *found])
            signed, behind, all_of_them = found
            assert signed is not None and behind is not None
            gained = (behind if all_of_them is None else all_of_them) - signed
            least = GAINS.get(sample.name, -SCATTER) if label == "8 / 8" else -SCATTER
            checks.append(Check.at_least(f"dB gained, {sample.name}, {label}", round(gained, 2),
                                         least, ".2f"))
    table = Table.of(
        "Signal-to-noise ratio of the outputs, dB",
        {"network": "", "inputs": "", "activations / weights": "", "with a sign": ".2f",
         "none behind ReLU": ".2f", "nor in the input": ".2f"}, rows)
    notes = ("A dash: inputs are below 0, too. In the person detector all tensors but the average "
             "and the output have no sign: 8 bits there are bit for bit what 9 are with one. "
             f"Single networks differ by up to {SCATTER:g} dB where a few roundings differ.",)
    return Result(title="Mantissas without a sign", tables=(table,), checks=tuple(checks),
                  notes=notes)


def _ratio(graph: QGraph, x: torch.Tensor, wanted: np.ndarray) -> float:
    found, tensor = run(graph, x.numpy(), keep_tensors=False), graph.tensors[graph.output]
    lsb = tensor.format.lsb(found.exponents[graph.output])
    values = np.ldexp(found.mantissas[graph.output].astype(float), lsb[:, None, None, None])
    noise = values.reshape(wanted.shape) - wanted
    return 10 * math.log10(np.square(wanted).sum() / np.square(noise).sum())


if __name__ == "__main__":
    main(measure, __doc__,
         ("--images", {"type": int, "default": 100, "help": "inputs of each (%(default)s)"}))
