"""cocotb bench: carries out one job on a machine and saves its record.

The job comes from the .npz file that ``CELOSIA_JOB`` names; the record goes to ``record.npz`` in
the same folder, or ``stopped.npy`` where the machine did not finish. ``progress`` there holds the
number of finished images. A machine that reads flash has at its pins what ``flash.npz`` there says,
and ``flash_error`` tells where it did what the chip does not allow.
"""

import os
from pathlib import Path
from typing import Any

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import (
    FallingEdge,
    First,
    ReadOnly,
    RisingEdge,
    SimTimeoutError,
    Timer,
    with_timeout,
)
from cocotb.utils import get_sim_time

from celosia_boards.host.job import (
    READ_LATENCY_MAX,
    RESET_CYCLES,
    WRITE_CYCLES,
    Failure,
    Job,
    Record,
    Stopped,
)
from celosia_sim.flash.wired import Contents, Driven, Wired
from celosia_spec.stream.memories import Space

PERIOD = 10
"""Clock period, nanoseconds."""


async def reset(dut: Any) -> None:
    """Start the clock and hold reset, of a machine that has one, all inputs at rest."""
    for name in ("mem_space", "mem_address", "mem_write", "mem_wdata", "mem_read", "start",
                 "start_first", "start_last", "abort"):
        dut[name].value = 0
    for name in ("mem_keep", "mem_kept"):       # of the second machine
        if hasattr(dut, name):
            dut[name].value = 0
    resets = hasattr(dut, "rst")
    if resets:
        dut.rst.value = 1
    await Timer(PERIOD, "ns")       # initial values settle before the first edge
    Clock(dut.clk, PERIOD, unit="ns").start()
    for _ in range(RESET_CYCLES):
        await RisingEdge(dut.clk)
    if resets:
        dut.rst.value = 0


async def attend(dut: Any, chip: Wired) -> None:
    """Be the chip at the machine's pins, from the clock's first edge on."""
    while True:
        await RisingEdge(dut.clk)           # values seen here are those before the edge
        pins = Driven(*(int(signal.value) for signal in (
            dut.flash_cs, dut.flash_clock, dut.flash_copi, dut.flash_drive)))
        still = not pins.selected and pins == chip.driven
        chip.cycle(pins)
        dut.flash_i.value = chip.levels
        if still:
            since = get_sim_time("ns")
            await dut.flash_cs.value_change
            chip.pass_over(int(get_sim_time("ns") - since) // PERIOD)


class _Spaces:
    """Sets the space of accesses, a cycle before the first one."""

    def __init__(self, dut: Any) -> None:
        self._dut, self._now = dut, -1

    async def set(self, number: int) -> None:
        if number != self._now:
            self._now = self._dut.mem_space.value = number
            await RisingEdge(self._dut.clk)


async def write(dut: Any, at: np.ndarray, values: np.ndarray) -> None:
    """Write uint32 ``values`` (n,) to spaces and addresses ``at`` (n, 2), one a cycle, and wait
    until the last one has taken effect."""
    spaces = _Spaces(dut)
    for (space, address), value in zip(at.tolist(), values.tolist(), strict=True):
        dut.mem_write.value = 0
        await spaces.set(space)
        dut.mem_write.value = 1
        dut.mem_address.value = address
        dut.mem_wdata.value = value
        await RisingEdge(dut.clk)
    dut.mem_write.value = 0
    for _ in range(WRITE_CYCLES):
        await RisingEdge(dut.clk)


async def read(dut: Any, at: np.ndarray) -> list[int]:
    """Return the values; fewer than ``len(at)`` where a read got no answer."""
    values: list[int] = []
    spaces = _Spaces(dut)
    # The second machine takes words of main memory apart: their elements are read in their order.
    apart = hasattr(dut, "mem_keep")
    for space, last in at.tolist():
        await spaces.set(space)
        value = None
        for address in range(last & ~3 if apart and space == Space.MAIN else last, last + 1):
            value = await _read(dut, address)
        if value is None:
            break
        values.append(value)
    return values


async def _read(dut: Any, address: int) -> int | None:
    dut.mem_address.value = address
    dut.mem_read.value = 1
    await RisingEdge(dut.clk)
    dut.mem_read.value = 0
    for _ in range(READ_LATENCY_MAX + 1):
        await RisingEdge(dut.clk)  # values seen here are those before the edge
        if dut.mem_rvalid.value:
            return int(dut.mem_rdata.value.to_unsigned())
    return None


class LayerWatch:
    """Counts the cycles of each value of ``layer`` without work in every cycle; a machine that has
    no such port is always at layer 0."""

    def __init__(self, dut: Any) -> None:
        self._signal: Any = getattr(dut, "layer", None)
        self._changes: list[tuple[int, int]] = []
        if self._signal is not None:
            cocotb.start_soon(self._watch())

    async def _watch(self) -> None:
        while True:
            await self._signal.value_change
            self._changes.append((int(get_sim_time("ns")), int(self._signal.value)))

    def restart(self) -> None:
        """Forget all changes; call it in the cycle before ``start``'s."""
        self._changes = [(0, 0 if self._signal is None else int(self._signal.value))]

    def counts(self, start: int, end: int) -> np.ndarray:
        """Return int64 (256,): cycles of each value from time ``start`` to ``end``, ns."""
        total = np.zeros(256, np.int64)
        ends = [time for time, _ in self._changes[1:]] + [end]
        for (since, value), until in zip(self._changes, ends, strict=True):
            total[value] += max(min(until, end) - max(since, start), 0) // PERIOD
        return total


async def _ended(dut: Any) -> None:
    """Return, in the read-only phase, at the edge that raises ``done``, or that ends a run with an
    error code."""
    while True:
        await First(RisingEdge(dut.done), FallingEdge(dut.busy))
        await ReadOnly()
        if dut.done.value or (int(dut.error.value) and not dut.busy.value):
            return


async def run(dut: Any, watch: LayerWatch, first: int, last: int,
              max_cycles: int) -> tuple[bool, int, np.ndarray, int, int, int]:
    """Run descriptors ``first`` to ``last``.

    Return: finished, cycles, cycles of each layer (256,), saturated, error, its descriptor.
    """
    watch.restart()
    dut.start_first.value, dut.start_last.value = first, last
    dut.start.value = 1
    await RisingEdge(dut.clk)
    dut.start.value = 0
    start = int(get_sim_time("ns"))
    try:
        await with_timeout(_ended(dut), max_cycles * PERIOD + PERIOD // 2, "ns")
        finished = True
    except SimTimeoutError:
        await ReadOnly()
        finished = False
    end = int(get_sim_time("ns"))
    saturated, error = int(dut.saturated.value), int(dut.error.value)
    descriptor = int(dut.error_descriptor.value) if hasattr(dut, "error_descriptor") else 0
    await RisingEdge(dut.clk)
    cycles = (end - start) // PERIOD
    return finished, cycles, watch.counts(start, end), saturated, error, descriptor


async def image(dut: Any, watch: LayerWatch, job: Job, index: int, record: Record) -> None:
    """Run image ``index`` of ``job`` and fill its place in ``record``; Stopped where it fails."""
    begin = 0
    for number, (first, last, load) in enumerate(job.runs.tolist()):
        if load:
            await write(dut, job.input_at, job.input_values[index])
        finished, cycles, layers, saturated, error, descriptor = await run(
            dut, watch, first, last, int(job.max_cycles))
        fault = (index, number, error, descriptor)
        if not finished:
            raise Stopped(Failure.TIMEOUT, *fault)
        if error:
            raise Stopped(Failure.ERROR, *fault)
        end = int(job.read_ends[number])
        values = await read(dut, job.read_at[begin:end])
        if len(values) < end - begin:
            raise Stopped(Failure.NO_ANSWER, *fault)
        record.cycles[index, number] = cycles
        record.saturated[index, number] = saturated
        record.reads[index, begin:end] = values
        if number == 0:
            record.layer_cycles[index] = layers[:int(job.descriptors)]
        begin = end


@cocotb.test()
async def program(dut: Any) -> None:
    """Carry out the job."""
    path = Path(os.environ["CELOSIA_JOB"])
    job = Job.load(path)
    record = Record.empty(job)
    chip = None
    if hasattr(dut, "flash_cs"):
        dut.flash_i.value = 0
        chip = Wired(Contents.load(path.parent / "flash.npz"))
        cocotb.start_soon(attend(dut, chip))
    await reset(dut)
    if chip is not None and dut.checking.value:
        await FallingEdge(dut.checking)
        await RisingEdge(dut.clk)
    if _faulty(chip, path):
        return
    await write(dut, job.setup[:, :2], job.setup[:, 2])
    watch = LayerWatch(dut)
    try:
        for index in range(job.images):
            await image(dut, watch, job, index, record)
            (path.parent / "progress").write_text(str(index + 1))
    except Stopped as stopped:
        stopped.save(path.parent / "stopped.npy")
    else:
        record.save(path.parent / "record.npz")
    _faulty(chip, path)


def _faulty(chip: Wired | None, path: Path) -> bool:
    """Tell whether the machine did what its flash does not allow, and leave what it was."""
    if chip is None or not chip.chip.errors:
        return False
    (path.parent / "flash_error").write_text(chip.chip.errors[0])
    return True
