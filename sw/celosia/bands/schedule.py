"""How an array runs a graph, or what is in the way."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from celosia.bands.flash import DENSEST
from celosia.bands.program import StreamProgram, refusals, stream_program
from celosia.bands.report import clocked, report
from celosia.graph import Conv
from celosia_sim.clock.machine_clock import Cycles
from celosia_spec.block import bfp
from celosia_spec.errors import CompileError, FitError, Need, Scarce
from celosia_spec.isa.array import MAIN_WORDS_MAX, Array, kib
from celosia_spec.program import Layer
from celosia_spec.qgraph import QGraph
from celosia_spec.steps import Steps, stored_name


@dataclass(frozen=True, eq=False, kw_only=True)
class StreamSchedule:
    """How an array runs a network.

    array  : what it is for.   stream : the program.
    short  : says that the array's main memory is too small for it; the stream is that of one with
             more of it.
    """

    array: Array
    stream: StreamProgram
    short: FitError | None = None

    @cached_property
    def _clocked(self) -> list[Cycles]:
        return clocked(self.stream)

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """What users are told of each layer; of a network in steps, in the step of a period that
        takes the most cycles."""
        return report(self.stream, max(self._clocked, key=lambda found: found.cycles))

    def __str__(self) -> str:
        """A line a layer: how it runs, where what it reads and writes lies in main memory (first
        word, and how many), units of it that come from flash, and its exact cycles."""
        stream, copied = self.stream, self.stream.copied_layers
        tensors = stream.graph.tensors

        def region(name: str) -> str:
            place = stream.places[stored_name(tensors, name)]
            return f"{name}@{place.word}+{place.words}"
        rows = []
        for at, (layer, told) in enumerate(zip(stream.layers, self.layers, strict=True)):
            node, parts = layer.node, layer.parts
            units = sum(section.units for section in copied.get(at, ()))
            read = [*map(region, node.inputs),
                    *([f"+ {region(node.epilogue.add)}"] if node.epilogue.add else [])]
            counts = {"groups": layer.groups, "parts": len(parts), "bands": len(layer.bands),
                      "tiles": sum(part.tiles for part in parts),
                      "batches": sum(len(part.dense) for part in parts),
                      "steps": sum(int(part.steps.sum()) for part in parts)}
            rows.append((
                node.name, *(f"{count} {what}" for what, count in counts.items()),
                *([f"{layer.sets} x {layer.splits} clusters"] if self.array.clusters > 1 else []),
                f"{' '.join(read)} -> {region(node.output)}",
                *([f"{units} units from flash"] if copied else []),
                f"{told.predicted_cycles} cycles"))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)

    @property
    def step_cycles(self) -> tuple[int, ...]:
        """Cycles of each step of a period, exact; of a network in one go, one number."""
        return tuple(found.cycles for found in self._clocked)

    @property
    def predicted_cycles(self) -> int:
        """Cycles of one inference, exact."""
        return sum(layer.predicted_cycles for layer in self.layers)

    @property
    def macs(self) -> int:
        """Products of one inference with a weight that is not 0."""
        return sum(layer.macs for layer in self.layers)

    def refusals(self) -> Iterator[FitError]:
        """Everything of it that the array has no room for."""
        if self.short is not None:
            yield self.short


@dataclass(frozen=True, eq=False)
class Outcome:
    """schedule : where the graph fits, else None.   refusals : everything in the way.

    planned : whether the memory that all tables take is known.   remarks : of the quantised graph.
    """

    schedule: StreamSchedule | None
    refusals: tuple[CompileError, ...]
    planned: bool = True
    remarks: tuple[str, ...] = ()


def stream_schedule(graph: QGraph, array: Array, steps: Steps | None = None) -> StreamSchedule:
    """Return how the array runs a graph, or its ``steps``; errors as of `stream_program`."""
    return StreamSchedule(array=array, stream=stream_program(graph, array, steps))


def schedule_with_room(graph: QGraph, array: Array, steps: Steps | None = None) -> StreamSchedule:
    """Return what `stream_schedule` does, as if main memory were as large as any array has; other
    errors as of `stream_program`."""
    try:
        return stream_schedule(graph, array, steps)
    except FitError as refusal:
        if refusal.need is None or refusal.need.what != Scarce.MAIN_MEMORY:
            raise
        roomy = replace(array, main_words=MAIN_WORDS_MAX)
        try:
            return StreamSchedule(array=array, stream=stream_program(graph, roomy, steps),
                                  short=refusal)
        except CompileError:
            raise refusal from None


def attempt_weights(layers: Sequence[Conv], array: Array, target: str) -> Outcome:
    """Return what is in the way of layers of which only the weights are known."""
    words = sum(int(np.count_nonzero(bfp(layer.weight.reshape(len(layer.weight), -1),
                                         array.weight_bits, axis=0)[0])) for layer in layers)
    entries = -(-words // DENSEST)
    if array.flash or entries <= array.main_words:
        return Outcome(None, (), planned=False)
    return Outcome(None, (FitError(
        target, "memory", f"its weights take at least {entries} words of main memory, the array "
        f"has {array.main_words}", "prune more",
        need=Need(Scarce.MAIN_MEMORY, kib(entries), kib(array.main_words), "KiB",
                  least=True)),),
        planned=False)


def attempt(graph: QGraph, array: Array, steps: Steps | None = None) -> Outcome:
    """Return the schedule, or everything that is in the way. Where all layers have a way, and main
    memory is too small, it is known by how much; else only what it has to hold at least."""
    try:
        return Outcome(stream_schedule(graph, array, steps), ())
    except CompileError as first:
        if isinstance(first, FitError) and first.need and first.need.what == Scarce.MAIN_MEMORY:
            return Outcome(None, (first,))
        found = list(refusals(graph if steps is None else steps.graph, array))
        if first.problem not in {refusal.problem for refusal in found}:
            found.insert(0, first)
        return Outcome(None, tuple(found), planned=False)
