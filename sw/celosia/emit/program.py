"""From a schedule to a program: its memory images, where tensors lie, its report."""

import numpy as np

from celosia.emit.layer_report import layer_of
from celosia.emit.places import tensor_places
from celosia.emit.tables import Bases, batch_words, descriptor, row_words
from celosia.emit.weight_stream import encode, port_rows
from celosia.program import CoreProgram
from celosia.schedule.schedule import LayerSchedule, Schedule
from celosia_spec.isa import DESCRIPTOR_WORDS, ArrayConfig, Space, tap_word, write_word


def emit(schedule: Schedule, *, target: str, exponents: str) -> CoreProgram:
    """Return the program of a schedule whose weights and tables fit (`Schedule.refusals`).

    Every weight stream is encoded once.
    """
    graph, array, layers = schedule.graph, schedule.array, schedule.layers
    batches, rows, weights = ([] for _ in range(3))
    descriptors: list[int] = []
    bases = Bases(lengths=DESCRIPTOR_WORDS * len(layers), rows=0, weights=0)
    for layer in layers:
        descriptors += descriptor(schedule, layer, bases)
        batches.append(batch_words(layer))
        rows.append(row_words(layer))
        weights.append(_weights(layer, array))
        bases = bases.behind(layer, array)
    images = {
        Space.PROGRAM: np.concatenate([np.array(descriptors), *batches]),
        Space.WEIGHTS: np.concatenate(weights), Space.ROWS: np.concatenate(rows),
        Space.TAPS: tap_word(array).pack(row=schedule.taps[:, 0], rotation=schedule.taps[:, 1]),
        Space.WRITES: _write_words(schedule.writes, array)}
    return CoreProgram(
        target=target, array=array, exponents=exponents, graph=graph,
        images={space: words.astype(np.uint32) for space, words in images.items()},
        descriptors=len(layers), slots=dict(schedule.memory.slots),
        places=tensor_places(schedule),
        layers=tuple(layer_of(layer, array, last=layer is layers[-1]) for layer in layers))


def _weights(layer: LayerSchedule, array: ArrayConfig) -> np.ndarray:
    """Return a layer's words in the weight memory."""
    node = layer.node
    words = encode(node.matrix, layer.reads.columns(node.matrix.shape[1]), layer.rows, layer.steps,
                   layer.groups, array)
    return port_rows(words, layer.groups, array)


def _write_words(entries: np.ndarray, array: ArrayConfig) -> np.ndarray:
    """Return the write table; it is empty where a network has one layer."""
    last, count, bank, row = entries.reshape(-1, 4).T
    words: np.ndarray = write_word(array).pack(last=last, count=count, bank=bank, row=row)
    return words
