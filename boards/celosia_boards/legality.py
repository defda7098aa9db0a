"""Whether a device can hold an array: counted, before any work.

Plain Python: importing it loads neither Amaranth nor a board description.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace

from celosia_boards.families.family import Device
from celosia_hw.blocks import MULTIPLIER_BITS, SPRAM_ROWS
from celosia_spec.isa.array import Array
from celosia_spec.isa.fabric import GENERIC, Fabric
from celosia_spec.isa.memories import Blocks, blocks, lut_banks, main_blocks
from celosia_spec.isa.words import WEIGHT

__all__ = ["Problem", "block_memories", "problems"]

_IN_WORDS = ("lanes", "clusters", "weight_bits", "activation_bits", "acc_bits")
"""Parameters that a refusal tells in words; of the others it gives name and value."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that keeps an array from a target.

    parameter : name of the array's parameter that asks for too much, or "main_memory".
    text      : what is wrong, with numbers: "32 lanes need 16 of its 8 multiplier blocks".
    """

    parameter: str
    text: str

    def __str__(self) -> str:
        return self.text


def block_memories(array: Array, main_memory: str, fabric: Fabric = GENERIC) -> list[Blocks]:
    """Return the memories of an array that are built of block memories.

    main_memory : kind of `celosia_hw.memory.main_memory.MainMemory`.
    """
    return [*blocks(array, fabric), *([main_blocks(array)] if main_memory == "bram" else [])]


def problems(device: Device, main_memory: str, array: Array) -> list[Problem]:
    """Return why ``device`` cannot hold ``array``, a reason each; nothing where it can.

    Multipliers: how many, and how wide. SPRAM: its depth. Block memories: how many. Look-up tables:
    that banks take no more than half; how many all takes only placement knows.
    """
    found = [*_multipliers(device, array), *_luts(device, array)]
    if main_memory not in device.sources:
        found.append(Problem(parameter="main_memory", text=(
            f"its main memory is {' or '.join(device.sources)}, not {main_memory}")))
    elif main_memory == "spram" and array.main_words > SPRAM_ROWS:
        found.append(Problem(parameter="main_words", text=(
            f"main_words can be at most {SPRAM_ROWS} in its SPRAM, not {array.main_words}")))
    if main_memory == "spram" and array.two_ports:
        several = array.clusters > 1
        who = f"{array.clusters} clusters need" if several else f"fill={array.fill} needs"
        found.append(Problem(parameter="clusters" if several else "fill", text=(
            f"its SPRAM has one port, and {who} two")))

    def count(of: Array) -> int:
        return sum(memory.count * device.family.blocks(memory.depth, memory.width)
                   for memory in block_memories(of, main_memory, device.fabric))

    if count(array) > device.resources.brams:
        name = _culprit(device, array, count)
        who = (f"{array.lanes_all} lanes with {array.weight_bits}-bit weights, "
               f"{array.activation_bits}-bit activations and {array.acc_bits}-bit accumulators need"
               if name in _IN_WORDS else f"with {name}={getattr(array, name)} its array needs")
        found.append(Problem(parameter=name, text=(
            f"{who} {count(array)} of its {device.resources.brams} block RAMs")))
    return found


def _multipliers(device: Device, array: Array) -> Iterator[Problem]:
    widest = MULTIPLIER_BITS[device.fabric.multiplier]
    if array.weight_bits > WEIGHT["mantissa"].bits:
        yield Problem(parameter="weight_bits", text=(
            f"weight_bits can be at most {WEIGHT['mantissa'].bits} in its stream, not "
            f"{array.weight_bits}"))
    for name in ("weight_bits", "activation_bits"):
        bits = getattr(array, name)
        if bits > widest:
            yield Problem(parameter=name, text=(
                f"{name} can be at most {widest} in its multipliers, not {bits}"))
    served = device.fabric.served
    if served and (needed := -(-array.lanes_all // served)) > device.resources.dsps:
        yield Problem(parameter="lanes", text=(
            f"{array.lanes_all} lanes need {needed} of its {device.resources.dsps} multiplier "
            f"blocks"))


def _luts(device: Device, array: Array) -> Iterator[Problem]:
    banks = lut_banks(array, device.fabric)
    if not banks.count or device.fabric.lut_memory is None:
        return
    least = device.fabric.lut_memory
    needed = (banks.count * -(-banks.depth // least.words) * -(-banks.width // least.bits)
              * least.luts)
    if 2 * needed > device.resources.luts:
        yield Problem(parameter="lanes", text=(
            f"{array.lanes_all} lanes need {needed:,} of its {device.resources.luts:,} look-up "
            f"tables for their banks alone"))


def _culprit(device: Device, array: Array, need: Callable[[Array], int]) -> str:
    """Return the parameter without whose change from the device's own array least is needed; the
    lanes where none differs."""
    own = device.array

    def saved(name: str) -> int:
        try:
            return need(array) - need(replace(array, **{name: getattr(own, name)}))
        except ValueError:              # parameters that only go together
            return 0

    changed = [field.name for field in fields(array)
               if getattr(array, field.name) != getattr(own, field.name)]
    return max(changed, key=saved, default="lanes")
