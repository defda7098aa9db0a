"""Whether a device can hold an array: counted, before any work.

Plain Python: importing it loads neither Amaranth nor a board description.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

from celosia_boards.families.family import Device
from celosia_hw.blocks import MULTIPLIER_BITS, SPRAM_BITS, SPRAM_ROWS
from celosia_spec.arrays import AnyArray
from celosia_spec.isa import DELTA_BITS, Space, weight_word
from celosia_spec.isa.memories import MEMORIES, Blocks
from celosia_spec.stream import memories
from celosia_spec.stream.array import Array
from celosia_spec.stream.words import WEIGHT

__all__ = ["Problem", "block_memories", "problems"]

_IN_WORDS = ("lanes", "weight_bits", "activation_bits", "acc_bits")
"""Parameters that a refusal tells in words; of the others it gives name and value."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that keeps an array from a target.

    parameter : name of the array's parameter that asks for too much, or "weight_memory".
    text      : what is wrong, with numbers: "32 lanes need 16 of its 8 multiplier blocks".
    """

    parameter: str
    text: str

    def __str__(self) -> str:
        return self.text


def block_memories(array: AnyArray, weight_memory: str,
                   mac: str = "generic") -> list[Blocks | memories.Blocks]:
    """Return the memories of an array that are built of block memories.

    weight_memory : kind of `celosia_hw.memory.weight_memory.WeightMemory`; of the second machine
    that of its main memory.   mac : kind of its multipliers.
    """
    if isinstance(array, Array):
        main = [memories.main_blocks(array)] if weight_memory == "bram" else []
        return [*memories.blocks(array, mac), *main]
    built = [memory.blocks(array) for memory in MEMORIES if memory.blocks is not None
             and (memory.space is not Space.WEIGHTS or weight_memory == "bram")]
    return [memory for memory in built if memory.depth]


def problems(device: Device, weight_memory: str, array: AnyArray) -> list[Problem]:
    """Return why ``device`` cannot hold ``array``, a reason each; nothing where it can.

    Multipliers: how many, and how wide. SPRAM: blocks, depth, and the width of a weight word.
    Block memories: how many. Look-up tables are not counted here: only placement knows them.
    """
    found = list(_multipliers(device, array))
    if weight_memory not in device.sources:
        found.append(Problem(parameter="weight_memory", text=(
            f"its weights lie in {' or '.join(device.sources)}, not in {weight_memory}")))
    elif weight_memory == "spram":
        found += _spram(device, array)

    def blocks(of: AnyArray) -> int:
        return sum(memory.count * device.family.blocks(memory.depth, memory.width)
                   for memory in block_memories(of, weight_memory, device.multiplier))

    if blocks(array) > device.resources.brams:
        name = _culprit(device, array, blocks)
        who = (f"{array.lanes} lanes with {array.weight_bits}-bit weights, "
               f"{array.activation_bits}-bit activations and {array.acc_bits}-bit accumulators need"
               if name in _IN_WORDS else f"with {name}={getattr(array, name)} its array needs")
        found.append(Problem(parameter=name, text=(
            f"{who} {blocks(array)} of its {device.resources.brams} block RAMs")))
    return found


def _multipliers(device: Device, array: AnyArray) -> Iterator[Problem]:
    widest = MULTIPLIER_BITS[device.multiplier]
    if isinstance(array, Array) and array.weight_bits > WEIGHT["mantissa"].bits:
        yield Problem(parameter="weight_bits", text=(
            f"weight_bits can be at most {WEIGHT['mantissa'].bits} in its stream, not "
            f"{array.weight_bits}"))
    for name in ("weight_bits", "activation_bits"):
        bits = getattr(array, name)
        if bits > widest:
            yield Problem(parameter=name, text=(
                f"{name} can be at most {widest} in its multipliers, not {bits}"))
    served = device.family.multipliers.get(device.multiplier)
    if served and -(-array.lanes // served) > device.resources.dsps:
        yield Problem(parameter="lanes", text=(
            f"{array.lanes} lanes need {-(-array.lanes // served)} of its {device.resources.dsps} "
            f"multiplier blocks"))


def _spram(device: Device, array: AnyArray) -> Iterator[Problem]:
    if isinstance(array, Array):
        if array.main_words > SPRAM_ROWS:
            yield Problem(parameter="main_words", text=(
                f"main_words can be at most {SPRAM_ROWS} in its SPRAM, not {array.main_words}"))
        return
    if array.groups_max > device.resources.sprams:
        name = _culprit(device, array, lambda of: of.groups_max)
        who = f"{array.lanes} lanes" + (f" with {name}={array.quad}" if name == "quad" else "")
        yield Problem(parameter=name, text=(
            f"{who} need {array.groups_max} of its {device.resources.sprams} SPRAM blocks"))
    if array.weight_rows > SPRAM_ROWS:
        yield Problem(parameter="weight_rows", text=(
            f"weight_rows can be at most {SPRAM_ROWS} in its SPRAM, not {array.weight_rows}"))
    if SPRAM_BITS < weight_word(array).bits <= MULTIPLIER_BITS[device.multiplier] + DELTA_BITS:
        yield Problem(parameter="weight_bits", text=(
            f"weight_bits can be at most {SPRAM_BITS - DELTA_BITS} in its SPRAM, not "
            f"{array.weight_bits}"))


def _culprit(device: Device, array: Any, need: Callable[[Any], int]) -> str:
    """Return the parameter without whose change from the device's own array least is needed; the
    lanes where none differs."""
    own = device.array

    def saved(name: str) -> int:
        try:
            return need(array) - need(replace(array, **{name: getattr(own, name)}))
        except ValueError:              # parameters that only go together
            return 0

    changed = [field.name for field in fields(array) if type(array) is type(own)
               and getattr(array, field.name) != getattr(own, field.name)]
    return max(changed, key=saved, default="lanes")
