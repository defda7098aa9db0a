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
from celosia_spec.isa.array import ENTRY_WORDS
from celosia_spec.isa.memories import Space

PERIOD = 10
"""Clock period, nanoseconds."""


async def reset(dut: Any) -> None:
    """Start the clock, all inputs at rest, and wait as long as a reset would take."""
    for name in ("mem_space", "mem_address", "mem_write", "mem_wdata", "mem_read", "start",
                 "start_list", "abort", "mem_keep", "mem_kept"):
        dut[name].value = 0
    await Timer(PERIOD, "ns")       # initial values settle before the first edge
    Clock(dut.clk, PERIOD, unit="ns").start()
    for _ in range(RESET_CYCLES):
        await RisingEdge(dut.clk)


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
    """Write uint32 ``values`` (n,) to spaces and addresses ``at`` (n, 2), one in two cycles, and
    wait until the last one has taken effect."""
    spaces = _Spaces(dut)
    for (space, address), value in zip(at.tolist(), values.tolist(), strict=True):
        await spaces.set(space)
        dut.mem_write.value = 1
        dut.mem_address.value = address
        dut.mem_wdata.value = value
        await RisingEdge(dut.clk)
        dut.mem_write.value = 0
        await RisingEdge(dut.clk)
    for _ in range(WRITE_CYCLES):
        await RisingEdge(dut.clk)


async def read(dut: Any, at: np.ndarray) -> list[int]:
    """Return the values; fewer than ``len(at)`` where a read got no answer."""
    values: list[int] = []
    spaces = _Spaces(dut)
    for space, last in at.tolist():
        await spaces.set(space)
        value = None
        # Elements of a word of main memory are read in their order: the machine takes it apart.
        before = last % ENTRY_WORDS if space == Space.MAIN else 0
        for address in range(last - before, last + 1):
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


async def _ended(dut: Any) -> None:
    """Return, in the read-only phase, at the edge that raises ``done``, or that ends a run with an
    error code."""
    while True:
        await First(RisingEdge(dut.done), FallingEdge(dut.busy))
        await ReadOnly()
        if dut.done.value or (int(dut.error.value) and not dut.busy.value):
            return


async def run(dut: Any, at: int, max_cycles: int) -> tuple[bool, int, int, int]:
    """Run the list of chunks that begins in a word of main memory.

    Return: finished, cycles, saturated, error.
    """
    dut.start_list.value = at
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
    await RisingEdge(dut.clk)
    return finished, (end - start) // PERIOD, saturated, error


async def image(dut: Any, job: Job, index: int, record: Record) -> None:
    """Run image ``index`` of ``job`` and fill its place in ``record``; Stopped where it fails."""
    await write(dut, job.input_at, job.input_values[index])
    finished, cycles, saturated, error = await run(dut, int(job.start), int(job.max_cycles))
    if not finished:
        raise Stopped(Failure.TIMEOUT, index, error)
    if error:
        raise Stopped(Failure.ERROR, index, error)
    values = await read(dut, job.read_at)
    if len(values) < len(job.read_at):
        raise Stopped(Failure.NO_ANSWER, index, error)
    record.cycles[index], record.saturated[index] = cycles, saturated
    record.reads[index] = values


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
    try:
        for index in range(job.images):
            await image(dut, job, index, record)
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
