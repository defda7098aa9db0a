"""The machine: its exact cycles, those that its compiler counts, and what it computes.

Each network is compiled to a stream for the UP5K's array (decision 16), dense and with the weights
of its convolutions and linear layers pruned by size, depthwise ones left alone. The machine of
words runs one input, and its outputs must be the golden model's. The trained networks are given
(CELOSIA_EXPERIMENTS and CELOSIA_CIFAR10, see benchmarks/harness/pictures.py); of the others the
weights are random. Where main memory is too small for the stream, the last layers are copied from
flash, on four wires. With several clusters the array is that of an ECP5, with as much main memory
as any has; with a target it is that target's, with its flash. Goals are those that the machine was
designed for, with one cluster and with four.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from harness.command import main
from harness.result import Check, Result, Table
from harness.tiny import keyword_spotter, person_detector, wakeword
from torch import nn

from celosia.bands.host import output, prepare
from celosia.bands.program import StreamProgram, stream_program
from celosia.bands.report import clocked
from celosia.cli.progress import progress
from celosia.compiler import Compiler
from celosia.models import FCAutoencoder, LeNet5, LeNet300, ResNet
from celosia.quantise import quantise
from celosia_boards.arrays import array_for
from celosia_sim import golden, stream_machine, stream_memories
from celosia_spec.isa.array import ENTRY_WORDS, MAIN_WORDS_MAX, Array
from celosia_spec.qgraph import QGraph

UP5K = Array(flash=4)
ECP5 = Array(main_words=MAIN_WORDS_MAX, ring=512, controls=1024, taps=1024, tiles=1024, flash=4)
DENSITIES = (1.0, 0.5, 0.2, 0.1)
FOUR = {
    "LeNet-5, padding 0": (7.8, 4.4, 2.4, 1.8), "LeNet-5, padding 2": (11.7, None, None, None),
    "ResNet-8": (211, 110, 49, 29), "streaming wakeword, a window": (16, 9.2, 5.1, 3.9),
    "DS-CNN": (47, 28, 16, 13), "MobileNetV1 x0.25": (192, 160, 59, 51)}
"""Thousands of cycles that a network may take on four clusters at each density, where that is
known."""


@dataclass(frozen=True)
class Sample:
    """A network, one input (1, ...), and the cycles that it may take at each density, thousands."""

    name: str
    network: nn.Module
    x: torch.Tensor
    goals: tuple[float, float, float, float] | None = None


def samples() -> Iterator[Sample]:
    """Yield the networks, each with one input."""
    torch.manual_seed(0)
    yield Sample("LeNet-5, padding 0", LeNet5(), torch.rand(1, 1, 28, 28), (27.7, 15, 7.3, 5.01))
    yield Sample("LeNet-5, padding 2", LeNet5(padding=2), torch.rand(1, 1, 28, 28),
                 (42.2, 22.8, 10.8, 7.08))
    yield Sample("ResNet-8", ResNet(8, "B"), torch.rand(1, 3, 32, 32), (834, 424, 183, 105))
    network, x = wakeword(1)
    yield Sample("streaming wakeword, a window", network, x, (60.6, 34, 18, 13.8))
    network, x = keyword_spotter(1)
    yield Sample("DS-CNN", network, x, (185, 105, 58.3, 49.6))
    network, x = person_detector(1)
    yield Sample("MobileNetV1 x0.25", network, x, (541, 437, 216, 184))
    yield Sample("LeNet-300-100", LeNet300(), torch.rand(1, 1, 28, 28))
    yield Sample("autoencoder", FCAutoencoder(), torch.rand(1, 640))


def prune(network: nn.Module, density: float) -> None:
    """Set all but the largest weights of each dense layer to 0."""
    for layer in network.modules():
        if isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.groups == 1):
            size = layer.weight.detach().abs()
            kept = round(density * size.numel())
            if kept < size.numel():
                least = size.flatten().topk(max(kept, 1)).values[-1]
                layer.weight.data[size < least] = 0


def differing(graph: QGraph, program: StreamProgram, x: np.ndarray) -> int:
    """Return how many mantissas of the output differ from the golden model's."""
    main_memory = np.zeros(program.array.main_words * ENTRY_WORDS, np.int64)
    state = stream_memories.State(program.array, main_memory)
    state.exponents[program.slots[graph.input]] = prepare(program, x, main_memory)
    stream_machine.run(state, program.entries, program.order.lists, stream_memories.Flash(
        state, program.sections, program.order.waiting, late=True))
    found, exponent, _ = output(program, main_memory, state.exponents)
    wanted = golden.run(graph, x[None], keep_tensors=False)
    assert exponent == wanted.exponents[graph.output][0]
    return int((found != wanted.mantissas[graph.output][0]).sum())


def _exact(program: StreamProgram) -> int:
    """Return the exact cycles of a program, what it waits for from flash with them."""
    return clocked(program)[0].cycles


def measure(arguments: argparse.Namespace) -> Result:
    """Compile every network at every density, and run one input of each."""
    rows: list[list[str | float | int | None]] = []
    checks = []
    clusters = arguments.clusters
    if arguments.target:
        array = array_for(arguments.target, lanes=arguments.lanes)
        title = f"{arguments.target}, {array.lanes_all} lanes"
    elif clusters == 1:
        array = replace(UP5K, drain=arguments.drain, fill=arguments.fill)
        title = "16 lanes of a UP5K"
    else:
        array = replace(ECP5, clusters=clusters, fill=2 * ENTRY_WORDS)
        title = f"{array.lanes_all} lanes"
    named = [sample for sample in samples()
             if not arguments.networks or sample.name in arguments.networks]
    with progress("networks") as report:
        for done, sample in enumerate(named):
            goals = {1: sample.goals, 4: FOUR.get(sample.name)}.get(array.clusters) or (None,) * 4
            for density, goal in zip(DENSITIES, goals, strict=True):
                prune(sample.network, density)
                graph = quantise(Compiler().graph(sample.network.eval(), sample.x), unsigned=True,
                                 unsigned_input=bool((sample.x >= 0).all()))
                program = stream_program(graph, array)
                counted = sum(layer.cycles for layer in program.layers) + program.flash.waits
                exact = _exact(program)
                rows.append([sample.name, density, exact / 1000, counted / exact - 1, goal,
                             goal and exact / goal / 1000,
                             program.flash.waits / 1000, len(program.entries) / 128,
                             sum(len(one.words) for one in program.sections[1:]) / 128])
                checks.append(Check.equal(f"{sample.name}, {density:g}: mantissas that differ",
                                            differing(graph, program, sample.x.numpy()[0]), 0))
            if report:
                report(done + 1, len(named))
    table = Table.of(
        title, {
            "network": "", "density": "g", "kcycles": ",.1f", "counted": "+.1%",
            "goal": ",.1f", "of it": ".0%",
            "waits": ",.1f", "stream": ",.0f", "flash": ",.0f"}, rows)
    return Result(title="The machine: its cycles", tables=(table,),
                  checks=tuple(checks), notes=(
                      "Cycles are exact, by the clock model, which the gateware is tested against; "
                      "what the compiler counts otherwise, that chooses how layers run, is the "
                      "difference. "
                      "Waits (thousands, counted) are for what is copied from flash; the "
                      "stream in main memory and what is copied are in KiB. Zeros "
                      "among mantissas are skipped at density 1 too; the goal there has none.",))


if __name__ == "__main__":
    main(measure, __doc__,
         ("--networks", {"nargs": "+", "metavar": "NAME", "help": "of these networks only"}),
         ("--drain", {"type": int, "choices": (1, 2), "default": 2,
                      "help": "lanes whose sums leave a cycle (%(default)s)"}),
         ("--clusters", {"type": int, "choices": (1, 2, 4, 8), "default": 1,
                         "help": "clusters of 16 lanes (%(default)s)"}),
         ("--target", {"help": "with the array of this target"}),
         ("--lanes", {"type": int, "help": "with --target: not those that it carries"}),
         ("--fill", {"type": int, "choices": (2, 4), "default": 4,
                     "help": "with one cluster: elements that are filled a cycle (%(default)s)"}))
