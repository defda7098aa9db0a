"""Where the host finds every tensor: host-bus addresses."""

import numpy as np

from celosia.schedule.memory_map import makers
from celosia.schedule.schedule import LayerSchedule, Schedule
from celosia_spec.isa import ArrayConfig, Space
from celosia_spec.program import Place


def tensor_places(schedule: Schedule) -> dict[str, Place]:
    """Return where the host finds every tensor."""
    graph, array = schedule.graph, schedule.array
    made, by_input = makers(graph), {layer.node.input: layer for layer in schedule.layers}
    places = {}
    for name, tensor in graph.tensors.items():
        if name in by_input:
            addresses = by_input[name].reads.addresses(tensor, schedule.memory.banks[name].base)
            places[name] = Place(space=Space.BANKS, addresses=addresses, written=made[name])
            continue
        layer = schedule.layers[made[name]]
        if name == graph.output:
            space, beat = Space.STORE, _walked_beats(layer)
        else:
            base = schedule.memory.residuals[name].base
            space, beat = Space.RESIDUAL, base + _store_beats(layer, array)
        inside = np.arange(layer.reads.window.positions) % layer.reads.size
        addresses = (beat * array.beat + inside % array.beat).reshape(1, *tensor.shape)
        places[name] = Place(space=space, addresses=addresses, written=made[name])
    return places


def _row_places(layer: LayerSchedule) -> tuple[np.ndarray, np.ndarray]:
    """Batch and group of every row, int64 (rows, 1)."""
    place = np.empty(layer.node.matrix.shape[0], np.int64)
    place[layer.rows[layer.rows >= 0]] = np.flatnonzero(layer.rows >= 0)
    return (place // layer.groups)[:, None], (place % layer.groups)[:, None]


def _store_beats(layer: LayerSchedule, array: ArrayConfig) -> np.ndarray:
    """Beat of every row's positions in the accumulator and residual stores, int64 (rows, n)."""
    batch, group = _row_places(layer)
    n, size = np.arange(layer.reads.window.positions), layer.reads.size
    beats: np.ndarray = ((batch * layer.reads.tiles + n // size) * array.pass_beats
                         + group * (size // array.beat) + n % size // array.beat)
    return beats


def _walked_beats(layer: LayerSchedule) -> np.ndarray:
    """Number of every row's beats in the order of the normalising walk, int64 (rows, n): 16-bit
    results stand in the store that way, without the beats that hold no position."""
    batch, group = _row_places(layer)
    reads = layer.reads
    n, size, beat = np.arange(reads.window.positions), reads.size, reads.array.beat
    left = np.minimum(reads.window.positions - np.arange(reads.tiles) * size, size)
    per_tile = -(-left // beat)
    start = np.concatenate([[0], np.cumsum(per_tile)]) * layer.groups
    tile = n // size
    beats: np.ndarray = (batch * start[-1] + start[tile] + group * per_tile[tile]
                         + n % size // beat)
    return beats
