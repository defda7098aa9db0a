"""The networks that are known by name: what each takes on boards, or why it does not fit.

Every network of `celosia.zoo`, but for the largest ResNets and those of kind B above the smallest,
with dynamic exponents at 8 bits. MLPerf Tiny's have its trained weights, which are given
(CELOSIA_EXPERIMENTS, see benchmarks/harness/pictures.py), LeNet-5 those of the package, and all
others random ones. Where a network does not fit, it is tried with a half and with a fifth of the
weights of each row, the largest. Nothing is simulated: predictions are exact.
"""

import argparse
from collections.abc import Iterator

import torch
from harness.command import main
from harness.result import Cell, Result, Table
from harness.tiny import GIVEN, trained
from torch import nn

from celosia.bands.schedule import StreamSchedule
from celosia.cli.progress import progress
from celosia.compiler import Compiler
from celosia.graph import Graph
from celosia.show import rate
from celosia.zoo import NETWORKS
from celosia_boards.targets import target
from celosia_spec.errors import CompileError
from celosia_spec.qgraph import QGraph

BOARDS = (("icebreaker", 16), ("hx8k-b-evn", 8), ("ulx3s-25f", 16), ("ulx3s-85f", 64))
"""Target and lanes."""

LEFT_OUT = ("resnet-20-b", "resnet-56-b", "resnet-110", "resnet-110-b")
"""Minutes more, for what the others show."""

DENSE, HALF, FIFTH = 1.0, 0.5, 0.2
KIB = 128
"""Words of 8 bytes."""

COLUMNS = {"network": "", "weights kept": ".0%", "cycles": ",d", "ms": ",.2f", "a second": ",.1f",
           "in memory, KiB": ",.1f", "in flash, KiB": ",.1f"}


def measure(arguments: argparse.Namespace) -> Result:
    """Compile every network for every board."""
    names = arguments.networks or [name for name in NETWORKS if name not in LEFT_OUT]
    rows: dict[tuple[str, int], list[list[Cell]]] = {board: [] for board in BOARDS}
    refused: dict[tuple[str, str], list[str]] = {}
    with progress("networks") as report:
        for done, name in enumerate(names):
            for board, (found, density) in outcomes(name):
                if isinstance(found, CompileError):
                    told = str(found).partition("; ")[0]
                    refused.setdefault((name, told), []).append(_called(board))
                    rows[board].append([name, *[None] * (len(COLUMNS) - 1)])
                else:
                    rows[board].append([name, density, *figures(found, board[0])])
            if report:
                report(done + 1, len(names))
    tables = [Table.of(_called(board), COLUMNS, own) for board, own in rows.items()]
    tables.append(Table.of("What does not fit", {"network": "", "boards": "", "why": ""}, [
        [name, ", ".join(boards), told] for (name, told), boards in refused.items()]))
    return Result(title="Zoo", tables=tuple(tables), notes=(
        "Of ds-cnn, mobilenet-v1 and wakeword the weights are MLPerf Tiny's trained ones, of "
        "lenet5 and lenet5-pruned those of the package; all others are random, and cycles are "
        "those of a network without zeros among its weights: trained ones may take fewer. Memory "
        "holds the stream (weights, heads and commands), all of it or what is resident; flash what "
        "is copied from there in each inference. Clocks are the targets'.",))


def outcomes(name: str) -> Iterator[tuple[tuple[str, int],
                                          tuple[StreamSchedule | CompileError, float]]]:
    """Yield for each board the schedule and the share of weights with which it fits, the largest;
    or why it does not fit even with the least."""
    quantised = Quantised(name)
    for board in BOARDS:
        compiler = Compiler(target=board[0], lanes=board[1])
        found: dict[float, StreamSchedule | CompileError] = {}
        for density in (DENSE, FIFTH, HALF):
            try:
                found[density] = compiler.fitting(quantised(compiler, density))
            except CompileError as refusal:
                found[density] = refusal
            if isinstance(found[density], StreamSchedule) == (density == DENSE):
                break
        fits = [density for density, one in found.items() if isinstance(one, StreamSchedule)]
        density = max(fits, default=FIFTH)
        yield board, (found[density], density)


class Quantised:
    """A network with its mantissas, for accumulators of a target and with a share of its weights,
    each made once."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.graphs: dict[float, Graph] = {}
        self.made: dict[tuple[float, tuple[int, ...]], QGraph] = {}

    def __call__(self, compiler: Compiler, density: float) -> QGraph:
        """Return it for a target."""
        key = density, compiler.accumulators()
        if key not in self.made:
            self.made[key] = compiler.quantised(self._graph(compiler, density), None)
        return self.made[key]

    def _graph(self, compiler: Compiler, density: float) -> Graph:
        if density not in self.graphs:
            entry = NETWORKS[self.name]
            network = trained(self.name) if self.name in GIVEN else entry.make()
            prune(network, density)
            self.graphs[density] = compiler.graph(network, (1, *entry.shape))
        return self.graphs[density]


def figures(found: StreamSchedule, name: str) -> list[Cell]:
    """Return cycles, milliseconds and inferences a second, and where weights lie."""
    cycles, stream = found.predicted_cycles, found.stream
    speed = rate(cycles, target(name).clock_mhz)
    return [cycles, speed.milliseconds, speed.per_second, len(stream.entries) / KIB,
            sum(len(one.words) for one in stream.sections[1:]) / KIB]


def prune(network: nn.Module, density: float) -> None:
    """Keep the largest weights of each row, such a share; of depthwise layers all."""
    layers = (nn.Linear, nn.Conv1d, nn.Conv2d)
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, layers) and getattr(layer, "groups", 1) == 1 and density < 1:
                size = layer.weight.abs().flatten(1)
                kept = max(round(density * size.shape[1]), 1)
                least = size.topk(kept, dim=1).values[:, -1:]
                layer.weight *= (size >= least).view_as(layer.weight)


def _called(board: tuple[str, int]) -> str:
    return f"{board[0]}, {board[1]} lanes"


if __name__ == "__main__":
    main(measure, __doc__,
         ("--networks", {"nargs": "+", "choices": list(NETWORKS), "metavar": "NAME",
                         "help": "of these networks only"}))
