"""The machine: its exact cycles, those that its compiler counts, and what it computes.

Each network is compiled to a stream for the arrays of some targets, dense and with the weights of
its convolutions and linear layers pruned by size, depthwise ones left alone. The machine of
words runs one input, and its outputs must be the golden model's. The trained networks are given
(CELOSIA_EXPERIMENTS and CELOSIA_CIFAR10, see benchmarks/harness/pictures.py); of the others the
weights are random. Where main memory is too small for the stream, the last layers are copied from
flash. Goals are those that the machine was designed for, with 16 lanes and with 64. With
--clusters, --drain or --fill the array is one of decision 16, which no target carries.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TypeAlias

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
from celosia_spec.errors import FitError
from celosia_spec.isa.array import ENTRY_WORDS, MAIN_WORDS_MAX, Array
from celosia_spec.qgraph import QGraph

UP5K = Array(flash=4)
ECP5 = Array(main_words=MAIN_WORDS_MAX, ring=512, controls=1024, taps=1024, tiles=1024, flash=4)
DENSITIES = (1.0, 0.5, 0.2, 0.1)
TARGETS = "icebreaker", "ulx3s-25f", "ulx3s-85f"
Goals: TypeAlias = tuple[float | None, float | None, float | None, float | None]
NO_GOALS: Goals = (None,) * 4
GOALS: dict[str, dict[int, Goals]] = {
    "LeNet-5, padding 0": {16: (27.7, 15, 7.3, 5.0), 64: (7.8, 4.4, 2.4, 1.8)},
    "LeNet-5, padding 2": {16: (42.2, None, None, None), 64: (11.7, None, None, None)},
    "ResNet-8": {16: (834, 424, 183, 105), 64: (211, 110, 49, 29)},
    "streaming wakeword, a window": {16: (61, 34, 18, 14), 64: (16, 9.2, 5.1, 3.9)},
    "DS-CNN": {16: (185, 105, 58, 50), 64: (47, 28, 16, 13)},
    "MobileNetV1 x0.25": {16: (281, 437, 216, 184), 64: (76, 160, 59, 51)},
    "autoencoder": {16: (328, 311, 18, 11), 64: (93, 76, 5.3, 3.3)},
    "ResNet-20": {16: (2710, 1380, 569, 308), 64: (681, 357, 154, 86)},
    "ResNet-56": {16: (8360, None, None, 916), 64: (2320, None, None, 257)}}
"""Thousands of cycles that a network may take at each density, by lanes."""


@dataclass(frozen=True)
class Sample:
    """A network and one input (1, ...)."""

    name: str
    network: nn.Module
    x: torch.Tensor


def samples() -> Iterator[Sample]:
    """Yield the networks, each with one input."""
    torch.manual_seed(0)
    yield Sample("LeNet-5, padding 0", LeNet5(), torch.rand(1, 1, 28, 28))
    yield Sample("LeNet-5, padding 2", LeNet5(padding=2), torch.rand(1, 1, 28, 28))
    yield Sample("ResNet-8", ResNet(8, "B"), torch.rand(1, 3, 32, 32))
    network, x = wakeword(1)
    yield Sample("streaming wakeword, a window", network, x)
    network, x = keyword_spotter(1)
    yield Sample("DS-CNN", network, x)
    network, x = person_detector(1)
    yield Sample("MobileNetV1 x0.25", network, x)
    yield Sample("LeNet-300-100", LeNet300(), torch.rand(1, 1, 28, 28))
    yield Sample("autoencoder", FCAutoencoder(), torch.rand(1, 640))
    yield Sample("ResNet-20", ResNet(20), torch.rand(1, 3, 32, 32))
    yield Sample("ResNet-56", ResNet(56), torch.rand(1, 3, 32, 32))


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
    """Compile every network at every density for each array, and run one input of each."""
    tables, checks = [], []
    arrays = dict(_arrays(arguments))
    with progress("networks") as report:
        for done, (title, array) in enumerate(arrays.items()):
            named = [sample for sample in samples()
                     if not arguments.networks or sample.name in arguments.networks]
            rows: list[list[str | float | int | None]] = []
            wrong = 0
            for at, sample in enumerate(named):
                goals = GOALS.get(sample.name, {}).get(array.lanes_all, NO_GOALS)
                for density, goal in zip(DENSITIES, goals, strict=True):
                    prune(sample.network, density)
                    figures, differ = _measured(sample, array, goal)
                    rows.append([sample.name, density, *figures])
                    wrong += differ
                    if goal is not None and figures[0] is not None:
                        checks.append(Check.at_most(
                            f"kcycles of {sample.name}, density {density:g}, {title}",
                            figures[0], goal, ",.1f"))
                if report:
                    report(done * len(named) + at + 1, len(arrays) * len(named))
            checks.append(Check.equal(f"mantissas that differ, {title}", wrong, 0))
            tables.append(Table.of(
                title, {"network": "", "density": "g", "kcycles": ",.1f", "counted": "+.1%",
                        "goal": ",.1f", "of it": ".0%", "waits": ",.1f", "stream": ",.0f",
                        "flash": ",.0f"}, rows))
    return Result(title="Cycles of the networks that it was designed for", tables=tuple(tables),
                  checks=tuple(checks), notes=(
                      "Cycles are exact, by the clock model, which the gateware is tested against; "
                      "what the compiler counts otherwise, that chooses how layers run, is the "
                      "difference. Waits (thousands, counted) are for what is copied from flash; "
                      "the stream in main memory and what is copied are in KiB. DS-CNN, "
                      "MobileNetV1 and the wakeword network are trained, the others have random "
                      "weights. Zeros among mantissas are skipped at density 1 too. The outputs "
                      "of each row on the machine of words are the golden model's.",))


def _arrays(arguments: argparse.Namespace) -> Iterator[tuple[str, Array]]:
    if arguments.clusters is None and arguments.drain is None and arguments.fill is None:
        for name in arguments.targets:
            array = array_for(name, lanes=arguments.lanes)
            yield f"{name}, {array.lanes_all} lanes", array
    elif (arguments.clusters or 1) == 1:
        yield "16 lanes of a UP5K", replace(UP5K, drain=arguments.drain or 2,
                                            fill=arguments.fill or 4)
    else:
        array = replace(ECP5, clusters=arguments.clusters, fill=2 * ENTRY_WORDS)
        yield f"{array.lanes_all} lanes", array


def _measured(sample: Sample, array: Array, goal: float | None
              ) -> tuple[tuple[float | None, ...], int]:
    """Return the figures of a row, empty where the network does not fit; and how many mantissas
    differ."""
    graph = quantise(Compiler().graph(sample.network.eval(), sample.x), unsigned=True,
                     unsigned_input=bool((sample.x >= 0).all()))
    try:
        program = stream_program(graph, array)
    except FitError:
        return (None, None, goal, None, None, None, None), 0
    counted = sum(layer.cycles for layer in program.layers) + program.flash.waits
    exact = _exact(program)
    figures = (exact / 1000, counted / exact - 1, goal, goal and exact / goal / 1000,
               program.flash.waits / 1000, len(program.entries) / 128,
               sum(len(one.words) for one in program.sections[1:]) / 128)
    return figures, differing(graph, program, sample.x.numpy()[0])


if __name__ == "__main__":
    main(measure, __doc__,
         ("--networks", {"nargs": "+", "metavar": "NAME", "help": "of these networks only"}),
         ("--targets", {"nargs": "+", "default": TARGETS,
                        "help": "with the arrays of these targets (%(default)s)"}),
         ("--lanes", {"type": int, "help": "of the targets: not those that they carry"}),
         ("--drain", {"type": int, "choices": (1, 2),
                      "help": "of no target: lanes whose sums leave a cycle"}),
         ("--clusters", {"type": int, "choices": (1, 2, 4, 8),
                         "help": "of no target: clusters of 16 lanes"}),
         ("--fill", {"type": int, "choices": (2, 4, 8),
                     "help": "of no target, with one cluster: elements that are filled a cycle"}))
