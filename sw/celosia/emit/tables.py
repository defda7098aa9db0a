"""A layer's words in program memory and in the row table."""

import math
from dataclasses import dataclass
from typing import assert_never

import numpy as np

from celosia.schedule.schedule import LayerSchedule, Schedule
from celosia_spec.epilogue import Activation, Clamp, Identity, Relu, highest
from celosia_spec.isa import BATCH, DESCRIPTOR, OUTPUT_BITS, ROW, ArrayConfig, Opcode
from celosia_spec.qgraph import static_exponent


@dataclass(frozen=True, kw_only=True)
class Bases:
    """Where a layer's words begin: batch words in program memory, rows, port rows of weights."""

    lengths: int
    rows: int
    weights: int

    def behind(self, layer: LayerSchedule, array: ArrayConfig) -> "Bases":
        """Return where those of the next layer begin."""
        return Bases(lengths=self.lengths + len(layer.steps), rows=self.rows + len(layer.rows),
                     weights=self.weights + layer.port_words // array.groups_max)


def descriptor(schedule: Schedule, layer: LayerSchedule, bases: Bases) -> list[int]:
    """Return a layer's descriptor."""
    node, reads, graph = layer.node, layer.reads, schedule.graph
    memory, rule, window = schedule.memory, graph.tensors[node.output].exponent, reads.window
    fixed = static_exponent(graph.tensors, node.output)
    return DESCRIPTOR.pack(
        opcode=Opcode.LINEAR, static=fixed is not None, keep=rule.keeps is not None,
        wide=node.output == graph.output, direct=layer.direct, jump=reads.jump,
        input_slot=memory.slots[node.input], output_slot=memory.slots[node.output],
        last_batch=len(layer.steps) - 1, last_tile=reads.tiles - 1,
        last_phase=window.phases - 1, last_position=window.positions - 1,
        line=window.shape[1] if reads.jump else window.positions,
        tap_base=layer.taps, tap_step=layer.tap_step, write_base=layer.put,
        write_step=layer.writes.step, weight_base=bases.weights, length_base=bases.lengths,
        row_base=bases.rows, in_base=memory.banks[node.input].base,
        in_channels=reads.order.channels, least_exponent=rule.least,
        clear_base=memory.banks[node.output].base if layer.clears else 0,
        clear_rows=layer.work.clear_rows, log2_groups=layer.groups.bit_length() - 1,
        **{"exponent": fixed or 0} | _activation(node.epilogue.activation, fixed, rule.least,
                                                 graph.activation_bits),
        **_residual(schedule, layer), **_reader(layer))


def _activation(activation: Activation, fixed: int | None, least: int,
                bits: int) -> dict[str, int]:
    """What the output stage does with every sum, and with every mantissa.

    fixed, least : the output's static exponent or None, and its smallest.
    bits         : of the activations.
    """
    match activation:
        case Identity():
            return {}
        case Relu():
            return {"relu": 1}
        case Clamp(low=low, high=high):
            top, relu = highest(activation, least), {"relu": int(low == 0)}
            if fixed is not None and fixed < top:       # the bound is above every mantissa
                return relu
            return relu | {"clamp": 1, "exponent": top,
                           "bound": round(math.ldexp(high, bits - 2 - top))}
        case _:
            assert_never(activation)


def _residual(schedule: Schedule, layer: LayerSchedule) -> dict[str, int]:
    """What is added, and where the output waits to be added."""
    add, output, places = layer.node.epilogue.add, layer.node.output, schedule.memory.residuals
    fields: dict[str, int] = {}
    if add is not None:
        fields |= {"residual_read": 1, "residual_slot": schedule.memory.slots[add],
                   "residual_from": places[add].base}
    if output in places:
        fields |= {"residual_write": 1, "residual_to": places[output].base}
    return fields


def _reader(layer: LayerSchedule) -> dict[str, int]:
    """What the machine must know of the output's map."""
    reader = layer.reader
    if reader is None:
        return {}
    return {"log2_out_groups": reader.groups.bit_length() - 1,
            "write_carry": reader.order.channels,
            "plane_rows": reader.plane_distance // reader.size * reader.order.channels,
            "deinterleave": reader.plane_distance > 0}


def batch_words(layer: LayerSchedule) -> np.ndarray:
    """Return a layer's batch words."""
    steps = layer.steps
    words: np.ndarray = BATCH.pack(steps=steps,
                                   wait=np.maximum(layer.work.pass_cycles - steps, 0))
    return words


def row_words(layer: LayerSchedule) -> np.ndarray:
    """Row-table words in batch order. Bias mantissas are brought to full width: same value."""
    node, rows = layer.node, layer.rows[layer.rows >= 0]
    bias, sb, sw = node.bias[rows], node.sb[rows], node.sw[rows]
    shift = OUTPUT_BITS - 1 - np.frexp(np.abs(bias).astype(np.float64))[1]
    words = np.zeros(len(layer.rows), np.int64)
    words[layer.rows >= 0] = ROW.pack(bias=bias << np.where(bias == 0, 0, shift), sw=sw,
                                      sb=np.where(bias == 0, 0, sb - shift - sw))
    return words
