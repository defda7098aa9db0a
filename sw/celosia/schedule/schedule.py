"""The whole decision how an array runs a graph, and no word of it: what `celosia.emit` encodes."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from celosia.schedule.input_map import InputMap
from celosia.schedule.memory_map import MemoryMap, Region
from celosia.schedule.memory_use import exceeded
from celosia.schedule.output_map import OutputMap
from celosia.schedule.steps import port_words
from celosia_spec.errors import FitError
from celosia_spec.isa import DESCRIPTOR_WORDS, ArrayConfig, Space
from celosia_spec.isa.cycles import Work
from celosia_spec.qgraph import QGraph, QNode

_HEAD: tuple[str, ...] = (
    "layer", "groups", "tiles", "batches", "steps", "reads", "writes", "cycles")


@dataclass(frozen=True, eq=False, kw_only=True)
class LayerSchedule:
    """How one node is run.

    groups : row groups.   reads : its input in the banks.   rows : in batch order, -1 for none.
    steps  : int64 (batches,), of each batch, as long as the machine needs them.
    reader : how the banks hold the output for the node that reads it; None where none does.
    writes : how results get there.   direct : they do so while sums drain.
    clears : whether the output's rows in the banks are cleared first.
    taps, tap_step, put : first tap-table entry, entries of a pool-window position, and first
             write-table entry.
    work   : what the machine has to do, for the cycle model.   cycles : what that takes.
    """

    node: QNode
    reads: InputMap
    rows: np.ndarray
    steps: np.ndarray
    reader: InputMap | None
    writes: OutputMap
    direct: bool
    clears: bool
    taps: int
    tap_step: int
    put: int
    work: Work
    cycles: int

    @property
    def groups(self) -> int:
        return self.reads.groups

    @property
    def port_words(self) -> int:
        """Words of weight memory."""
        return port_words(self.steps, self.groups, self.reads.array)


@dataclass(frozen=True, eq=False, kw_only=True)
class Schedule:
    """How an array runs a graph; printed, it is a table with a line a layer.

    graph  : with the copies that the array needs.   layers : one a node, in their order.
    memory : where tensors lie.
    taps   : int64 (n, 2), tap-table entries: bank row, rotation.
    writes : int64 (n, 4), write-table entries, as `OutputMap` has them.
    """

    graph: QGraph
    array: ArrayConfig
    layers: tuple[LayerSchedule, ...]
    memory: MemoryMap
    taps: np.ndarray
    writes: np.ndarray

    def refusals(self, target: str) -> Iterator[FitError]:
        """A refusal for each memory of weights or tables that does not hold them, which names the
        target; a schedule without any can be emitted."""
        return exceeded(self.words, self.array, target)

    @property
    def predicted_cycles(self) -> int:
        """Cycles of one inference, exact."""
        return sum(layer.cycles for layer in self.layers)

    @property
    def macs(self) -> int:
        """Products of one inference with a weight that is not 0."""
        return sum(layer.work.useful_macs for layer in self.layers)

    @cached_property
    def words(self) -> dict[Space, int]:
        """Words of each memory of weights and tables."""
        return {
            Space.PROGRAM: sum(DESCRIPTOR_WORDS + len(layer.steps) for layer in self.layers),
            Space.WEIGHTS: sum(layer.port_words for layer in self.layers),
            Space.ROWS: sum(len(layer.rows) for layer in self.layers),
            Space.TAPS: len(self.taps), Space.WRITES: len(self.writes)}

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        """A line a layer; then the residual store, and the words of each memory. 80 columns where
        no number is of unusual size."""
        rows = [_HEAD, *(self._row(layer) for layer in self.layers)]
        widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
        for row in rows:
            yield "  ".join(cell.ljust(width) if k in (0, 5, 6) else cell.rjust(width)
                            for k, (cell, width) in enumerate(zip(row, widths, strict=True)))
        for region in self.memory.residuals.values():
            yield (f"residual store {_place(region)}: {region.name}, for "
                   f"{self.layers[region.last].node.name}")
        yield ", ".join(f"{space.name.lower()} {words:,}" for space, words in self.words.items())

    def _row(self, layer: LayerSchedule) -> tuple[str, ...]:
        banks = self.memory.banks
        to = banks.get(layer.node.output)
        writes = "store" if to is None else _place(to) + " cleared" * layer.clears
        return (_short(layer.node.name), str(layer.groups), str(layer.reads.tiles),
                str(len(layer.steps)), _lengths(layer.steps),
                _place(banks[layer.node.input]), writes, f"{layer.cycles:,}")


def _place(region: Region) -> str:
    """First unit and number of units."""
    return f"{region.base}+{region.size}"


def _lengths(steps: np.ndarray) -> str:
    """Steps of the shortest and of the longest batch."""
    least, most = int(steps.min()), int(steps.max())
    return str(most) if least == most else f"{least}-{most}"


def _short(name: str, width: int = 20) -> str:
    """A name without its middle where it is long."""
    return name if len(name) <= width else f"{name[:width // 2 - 1]}..{name[1 - width // 2:]}"
