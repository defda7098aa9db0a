"""From a quantised graph to a schedule."""

from collections.abc import Mapping

import numpy as np

from celosia.schedule.candidates import Candidate, Candidates
from celosia.schedule.check import check_graph, check_size
from celosia.schedule.copies import expand_copies
from celosia.schedule.input_map import InputMap
from celosia.schedule.memory_map import MemoryMap, SharedTable, readers
from celosia.schedule.output_map import OutputMap
from celosia.schedule.row_groups import row_groups
from celosia.schedule.schedule import LayerSchedule, Schedule
from celosia_spec.errors import FitError
from celosia_spec.isa import BATCH, ArrayConfig
from celosia_spec.isa.cycles import Work, layer_cycles, walk_wait
from celosia_spec.isa.timing import MIN_PASS, Timing
from celosia_spec.qgraph import QGraph


def schedule(graph: QGraph, array: ArrayConfig) -> Schedule:
    """Decide how ``array`` runs ``graph``; FitError names the layer that does not fit.

    Every layer is run in the fastest way; where the banks cannot hold the copies of its input that
    this needs, or the memories the weights and tables, in the way that gives the least time away.
    Where weights or tables fit in no way, as if their memories had no end (`Schedule.refusals`).
    """
    check_graph(graph, array)
    expanded = expand_copies(graph)
    check_size(expanded, array)
    candidates = Candidates(expanded, array)
    fastest = _schedule(expanded, array, *row_groups(candidates))
    if _holds(fastest):
        return fastest
    try:
        compact = _schedule(expanded, array, *row_groups(candidates, compact=True))
    except FitError:
        return fastest
    return compact if _holds(compact) else fastest


def _holds(found: Schedule) -> bool:
    """Whether weights and tables fit their memories."""
    return next(found.refusals(""), None) is None


def _schedule(graph: QGraph, array: ArrayConfig, chosen: Mapping[str, Candidate],
              memory: MemoryMap) -> Schedule:
    taps, writes = SharedTable(), SharedTable()
    by_input, layers = readers(graph), list[LayerSchedule]()
    for node in graph.nodes:
        found, reader = chosen[node.name], by_input.get(node.output)
        layers.append(_layer(
            graph, array, found, chosen[reader.name].reads if reader else None, memory, taps,
            writes, walk_before=layers[-1].work.walk_cycles if layers else 0))
    return Schedule(graph=graph, array=array, layers=tuple(layers), memory=memory,
                    taps=taps.entries, writes=writes.entries)


def _layer(graph: QGraph, array: ArrayConfig, found: Candidate, reader: InputMap | None,
           memory: MemoryMap, taps: SharedTable, writes: SharedTable, *,
           walk_before: int) -> LayerSchedule:
    """Return a node's part; its entries go into the tables.

    walk_before : cycles of the normalising walk of the layer before.
    """
    node = found.node
    to = memory.banks.get(node.output)
    put = OutputMap.of(found, reader, to.base if to else None, array)
    shortest = max(MIN_PASS, array.pass_beats, put.longest if found.direct else 0)
    # A pass can wait so long for the drain of the one before; what is missing becomes steps.
    steps = np.maximum(found.steps, shortest - BATCH["wait"].most)
    clears = (reader is not None and to is not None and to.shared
              and reader.has_zeros(graph.tensors[node.output]))
    positions = found.window.positions * found.window.phases
    weights = int(np.count_nonzero(node.matrix.data))
    words = int(steps.sum()) * found.groups
    work = Work(
        lengths=steps, tiles=found.reads.tiles, phases=found.window.phases, pass_cycles=shortest,
        drain_cycles=put.last if found.direct else array.pass_beats,
        walk_cycles=0 if found.direct else put.walk,
        clear_rows=reader.rows_needed if clears and reader else 0,
        prefetched=min(walk_wait(walk_before), Timing.of(array).prefetch),
        useful_macs=weights * positions, padding_macs=(words - weights) * positions)
    entries = found.reads.taps()
    return LayerSchedule(
        node=node, reads=found.reads, rows=found.rows, steps=steps, reader=reader, writes=put,
        direct=found.direct, clears=clears, tap_step=entries.shape[1],
        taps=taps.place(entries.reshape(-1, entries.shape[-1])), put=writes.place(put.entries),
        work=work, cycles=layer_cycles(work, array, last=node is graph.nodes[-1]))
