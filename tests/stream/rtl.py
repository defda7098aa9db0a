"""Whole streams on the machine's gateware, verilated."""

from dataclasses import dataclass

import numpy as np
from harness import cells

from blocks.players import verilog_of
from blocks.verilated_block import Block
from celosia_boards.families.ice40 import ICE40, ULTRA_PLUS_FABRIC
from celosia_hw.machine import Machine
from celosia_spec.isa.array import ENTRY_WORDS, Array
from celosia_spec.isa.entries import elements_of
from celosia_spec.isa.fabric import GENERIC, Fabric
from celosia_spec.isa.numbers import EXPONENT_MIN

MACHINES = {
    "16": (Array(main_words=4096, clamp=True), GENERIC),
    # Where one lane leaves a cycle, sums can be inside multiplier blocks.
    "16, one lane, two elements": (Array(main_words=4096, clamp=True, bank_rows=128, drain=1,
                                         fill=2), ULTRA_PLUS_FABRIC),
    "8 without residual": (Array(lanes=8, main_words=4096, bank_rows=256, ring=64, clamp=True,
                                 residual=False), GENERIC),
    "8, codes of 5 bits, sums of 32": (Array(
        lanes=8, main_words=4096, bank_rows=128, controls=128, taps=128, clamp=True, fill=2,
        acc_bits=32, activation_bits=5), GENERIC),
    "16, eight elements": (Array(main_words=4096, bank_rows=256, clamp=True, fill=8), GENERIC),
    "four clusters of 8": (Array(lanes=8, main_words=4096, bank_rows=256, ring=64, clamp=True,
                                 clusters=4, fill=8), GENERIC)}
"""Arrays, and what they are built of."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Ran:
    """What a run left.

    main : int64 elements of main memory.   exponents : of every slot.   cycles : from `start` until
    ``busy`` fell.   saturated : a mantissa was clipped.
    """

    main: np.ndarray
    exponents: np.ndarray
    cycles: int
    saturated: bool


def machine(array: Array, fabric: Fabric = GENERIC) -> Block:
    """Return the verilated machine of an array without flash."""
    return Block(verilog_of(Machine(array, fabric=fabric)),
                 [cells.models(ICE40)] * (fabric == ULTRA_PLUS_FABRIC))


def _write(block: Block, places: np.ndarray, elements: np.ndarray) -> None:
    """Write elements of main memory."""
    block.stream({"host__request": np.ones_like(places), "host__address": places // ENTRY_WORDS,
                  "host__enable": 1 << places % ENTRY_WORDS, "host__data": elements}, [])
    block.set("host__request", 0)


def _read(block: Block, array: Array) -> np.ndarray:
    """Return all elements of main memory, int64; of several clusters a word comes a cycle later."""
    block.set("host__request", 1)
    block.set("host__enable", 0)
    late = 1 + (array.clusters > 1)
    words = np.append(np.arange(array.main_words), [0] * late)
    read = block.stream({"host__address": words}, ["data"])["data"][late:]
    block.set("host__request", 0)
    return elements_of(read).ravel()


def run(block: Block, array: Array, main: np.ndarray, exponents: np.ndarray, start: int,
        most: int) -> Ran:
    """Write elements of main memory and exponents, run the stream whose list begins in word
    ``start``, and read all back. AssertionError where it takes more than ``most`` cycles."""
    _write(block, np.arange(len(main)), main)
    slots = np.arange(len(exponents))
    block.stream({"slots__write": np.ones_like(slots), "slots__slot": slots,
                  "slots__exponent": exponents - EXPONENT_MIN}, [])
    block.set("slots__write", 0)
    block.set("run__list", start)
    block.set("run__start", 1)
    block.tick()
    block.set("run__start", 0)
    cycles = 0
    while True:
        busy = block.stream({"run__start": np.zeros(1000, int)}, ["busy"])["busy"]
        if not busy.all():
            cycles += int(busy.argmin())
            break
        cycles += len(busy)
        assert cycles < most, f"{cycles} cycles"
    saturated = bool(block.get("saturated"))
    elements = _read(block, array)
    kept = block.stream({"slots__slot": np.append(slots, 0)}, ["stored"])["stored"][1:]
    return Ran(main=elements, cycles=cycles, saturated=saturated,
               exponents=kept.astype(np.int64) + EXPONENT_MIN)
