"""Whole streams on the second machine's gateware, verilated."""

from dataclasses import dataclass

import numpy as np

from blocks.players import verilog_of
from blocks.verilated_block import Block
from celosia_hw.machine import Machine
from celosia_spec.isa import EXPONENT_MIN
from celosia_spec.stream.array import ENTRY_WORDS, Array


@dataclass(frozen=True, kw_only=True, eq=False)
class Ran:
    """What a run left.

    main : int64 elements of main memory.   exponents : of every slot.   cycles : from `start` until
    ``busy`` fell.   late, saturated : flags.
    """

    main: np.ndarray
    exponents: np.ndarray
    cycles: int
    late: bool
    saturated: bool


def machine(array: Array) -> Block:
    """Return the verilated machine of an array."""
    return Block(verilog_of(Machine(array)))


def run(block: Block, array: Array, main: np.ndarray, exponents: np.ndarray, start: int,
        most: int) -> Ran:
    """Write elements of main memory and exponents, run the stream whose list begins in word
    ``start``, and read all back. AssertionError where it takes more than ``most`` cycles."""
    words, place = np.arange(array.main_words), np.arange(len(main))
    block.stream({"host__request": np.ones_like(main), "host__address": place // ENTRY_WORDS,
                  "host__enable": 1 << place % ENTRY_WORDS, "host__data": main}, [])
    block.set("host__request", 0)
    slots = np.arange(len(exponents))
    block.stream({"host_write": np.ones_like(slots), "host_slot": slots,
                  "host_exponent": exponents - EXPONENT_MIN}, [])
    block.set("host_write", 0)
    block.set("list", start)
    block.set("start", 1)
    block.tick()
    block.set("start", 0)
    cycles = 0
    while True:
        busy = block.stream({"start": np.zeros(1000, int)}, ["busy"])["busy"]
        if not busy.all():
            cycles += int(busy.argmin())
            break
        cycles += len(busy)
        assert cycles < most, f"{cycles} cycles"
    found = [block.get("late"), block.get("saturated")]
    block.set("host__request", 1)
    block.set("host__enable", 0)
    read = block.stream({"host__address": np.append(words, 0)}, ["data"])["data"][1:]
    block.set("host__request", 0)
    kept = block.stream({"host_slot": np.append(slots, 0)}, ["stored"])["stored"][1:]
    elements = (read[:, None] >> np.arange(0, 64, 16, dtype=np.uint64)) & np.uint64(0xFFFF)
    return Ran(main=elements.ravel().astype(np.int64), cycles=cycles, late=bool(found[0]),
               exponents=kept.astype(np.int64) + EXPONENT_MIN, saturated=bool(found[1]))
