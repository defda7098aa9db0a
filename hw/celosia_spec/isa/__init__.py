"""What the compiler, the gateware and the simulators agree on: array parameters, memories, words
and their fields, error codes. Every width and every field position of the machine stands here and
nowhere else. This module names what the others have; Amaranth and processes are unknown to all.
"""

from celosia_spec.isa.array import FORMAT_VERSION, ArrayConfig, array_hash
from celosia_spec.isa.descriptor import (
    DESCRIPTOR,
    DESCRIPTOR_WORDS,
    PHASE_BITS,
    PREFETCH_WORDS,
    Opcode,
)
from celosia_spec.isa.memories import EXPONENT_SLOTS, MEMORIES, Memory, Space, memory_of
from celosia_spec.isa.numbers import (
    ACCUMULATORS,
    DELTA_BITS,
    ELEMENT_BITS,
    EXPONENT_MAX,
    EXPONENT_MIN,
    MANTISSA_BITS,
    OUTPUT_BITS,
    SIGNIFICAND_BITS,
    UNIT_MARGIN,
)
from celosia_spec.isa.registers import COUNTER_BITS, STATUS, Error, Event, Register
from celosia_spec.isa.words import (
    BATCH,
    BLOCK,
    BLOCK_BITS,
    ROW,
    tap_word,
    weight_word,
    write_word,
)

__all__ = [
    "ACCUMULATORS", "BATCH", "BLOCK", "BLOCK_BITS", "COUNTER_BITS", "DELTA_BITS", "DESCRIPTOR",
    "DESCRIPTOR_WORDS", "ELEMENT_BITS", "EXPONENT_MAX", "EXPONENT_MIN", "EXPONENT_SLOTS",
    "FORMAT_VERSION", "MANTISSA_BITS", "MEMORIES", "OUTPUT_BITS", "PHASE_BITS", "PREFETCH_WORDS",
    "ROW", "SIGNIFICAND_BITS", "STATUS", "UNIT_MARGIN", "ArrayConfig", "Error", "Event", "Memory",
    "Opcode", "Register", "Space", "array_hash", "memory_of", "tap_word", "weight_word",
    "write_word",
]
