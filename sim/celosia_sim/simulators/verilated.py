"""The verilated core behind a compiled loop: the fast way to run whole programs."""

import ctypes
import platform
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Self

import numpy as np

from celosia_boards.cache import Stages, cached, digest, unseen
from celosia_boards.host.job import (
    READ_LATENCY_MAX,
    RESET_CYCLES,
    WRITE_CYCLES,
    Failure,
    Job,
    Record,
    Stopped,
)
from celosia_sim.flash import Beside
from celosia_sim.flash.beside import PINS
from celosia_sim.simulators.rtl import TOP, Design
from celosia_sim.simulators.runtime import CFLAGS, runtime
from celosia_sim.simulators.tools import (
    compiler_version,
    run_tool,
    verilator_environment,
    verilator_version,
)
from celosia_spec.isa.array import ENTRY_WORDS
from celosia_spec.isa.memories import Space

__all__ = ["VerilatedCore", "execute", "library"]

SLICE = 50_000
"""Cycles between two chances for Python to see Ctrl-C: less than a second."""

_DRIVER = Path(__file__).parent / "driver.cpp"
_CONSTANTS = MappingProxyType({"MAIN": Space.MAIN, "ENTRY_WORDS": ENTRY_WORDS})

_VERILATOR_FLAGS = (
    "--cc", "--exe", "-O3", "--output-split", "0", "--x-assign", "fast", "--x-initial", "fast",
    "--noassert", "--no-timing", "-Wno-fatal", "-Wno-lint", "-Wno-style", "--top-module", TOP,
    "--prefix", "Vcore", "-Mdir", "obj", "-CFLAGS", CFLAGS)

_MODEL, _DRIVEN = "Vcore__ALL.cpp", "driven.cpp"
"""All that Verilator writes, and the file that holds it and the driver: most of the compiler's time
on each goes into the headers of both."""


def library(design: Design, stages: Stages = unseen, driver: Path = _DRIVER,
            headers: Sequence[Path] = (),
            constants: Mapping[str, int] = _CONSTANTS) -> Path:
    """Return the shared library of ``design``, compiled unless the cache holds it.

    stages  : called as it is compiled, which may take minutes.
    driver  : the C++ around it, whose exports the library has.   headers : what that includes,
    beside what belongs to flash chips.   constants : that both know, by their names.
    SimulationError where Verilator or the compiler is missing or fails.
    """
    known = "".join(f"constexpr int {name} = {value};\n" for name, value in constants.items())

    def build(folder: Path) -> None:
        (folder / "core.v").write_text(design.text)
        shutil.copy(driver, folder / "driver.cpp")
        for header in (PINS, *headers):
            shutil.copy(header, folder)
        env = verilator_environment()
        if design.brief and "MAKEFLAGS" in env:
            env["MAKEFLAGS"] += " OPT_FAST=-O0"
        macros = [f"-D{name}={value}" for name, value in design.defines]
        stages("translating to C++ (Verilator)", 0, 0)
        (folder / _DRIVEN).write_text(f'#include "{_MODEL}"\n{known}#include "driver.cpp"\n')
        run_tool("verilator", ["verilator", *_VERILATOR_FLAGS, *macros, "core.v", _DRIVEN],
                 cwd=folder, env=env)
        stages("compiling the simulator", 0, 0)
        run_tool("g++", ["make", "-C", "obj", "-f", "Vcore.mk", _MODEL, "driven.o"], cwd=folder,
                 env=env)
        run_tool("g++", ["g++", "-shared", "-o", "core.so", "obj/driven.o", str(runtime()),
                         "-lpthread"], cwd=folder, env=env)
        shutil.rmtree(folder / "obj")

    key = digest(design.key, known, *(path.read_text() for path in (driver, PINS, *headers)),
                 verilator_version(), compiler_version(), platform.machine(),
                 " ".join(_VERILATOR_FLAGS))
    return cached(f"verilated-{key}", build, stages) / "core.so"


class _Outcome(ctypes.Structure):
    _fields_ = (("cycles", ctypes.c_int64), ("finished", ctypes.c_int32),
                ("saturated", ctypes.c_int32), ("error", ctypes.c_int32))


def _pointer(array: np.ndarray) -> ctypes.c_void_p:
    assert array.flags.c_contiguous
    return ctypes.c_void_p(array.ctypes.data)


class VerilatedCore:
    """One simulated machine, out of reset. A context manager: leaving it frees the machine.

    flash : the chip at its pins; only of an array with flash. Then the machine has read it when
            this returns. SimulationError where it does what the chip does not allow.

    ``edges`` is the number of clock cycles simulated so far, bus accesses included.
    """

    def __init__(self, path: Path, flash: Beside | None = None) -> None:
        self._flash = flash
        self._calls = calls = ctypes.CDLL(str(path))
        calls.celosia_open.restype = ctypes.c_void_p
        calls.celosia_edges.restype = calls.celosia_read.restype = ctypes.c_int64
        self._handle = ctypes.c_void_p(calls.celosia_open(
            ctypes.c_int64(RESET_CYCLES), flash.pointer if flash else None))
        while calls.celosia_boot(self._handle, ctypes.c_int64(SLICE)):
            pass
        self._check()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._calls.celosia_close(self._handle)

    @property
    def edges(self) -> int:
        return int(self._calls.celosia_edges(self._handle))

    def write(self, at: np.ndarray, values: np.ndarray) -> None:
        """Write uint32 ``values`` (n,) to spaces and addresses ``at``, uint32 (n, 2)."""
        self._calls.celosia_write(self._handle, ctypes.c_int64(len(at)), _pointer(at),
                                  _pointer(values), ctypes.c_int64(WRITE_CYCLES))

    def read(self, at: np.ndarray) -> np.ndarray:
        """Return uint32 values; fewer than ``len(at)`` where a read got no answer."""
        values = np.zeros(len(at), np.uint32)
        answered = self._calls.celosia_read(self._handle, ctypes.c_int64(len(at)), _pointer(at),
                                            _pointer(values), ctypes.c_int64(READ_LATENCY_MAX))
        return values[:answered]

    def run(self, at: int, max_cycles: int) -> _Outcome:
        """Run the list of chunks that begins in a word of main memory; return the outcome."""
        outcome = _Outcome()
        self._calls.celosia_start(self._handle, at)
        while not outcome.finished and outcome.cycles < max_cycles:
            cycles = min(max_cycles - outcome.cycles, SLICE)
            self._calls.celosia_run(self._handle, ctypes.c_int64(cycles),
                                    ctypes.byref(outcome))
        self._check()
        return outcome

    def _check(self) -> None:
        if self._flash is not None:
            self._flash.check()


def _image(machine: VerilatedCore, job: Job, image: int, record: Record) -> None:
    machine.write(job.input_at, np.ascontiguousarray(job.input_values[image]))
    outcome = machine.run(int(job.start), int(job.max_cycles))
    if not outcome.finished:
        raise Stopped(Failure.TIMEOUT, image, outcome.error)
    if outcome.error:
        raise Stopped(Failure.ERROR, image, outcome.error)
    values = machine.read(job.read_at)
    if len(values) < len(job.read_at):
        raise Stopped(Failure.NO_ANSWER, image, outcome.error)
    record.cycles[image] = outcome.cycles
    record.saturated[image] = outcome.saturated
    record.reads[image] = values


def execute(machine: VerilatedCore, job: Job,
            progress: Callable[[int, int], None] | None) -> Record:
    """Carry out ``job`` on a fresh ``machine``; Stopped where the machine does not finish."""
    record = Record.empty(job)
    machine.write(np.ascontiguousarray(job.setup[:, :2]), np.ascontiguousarray(job.setup[:, 2]))
    for image in range(job.images):
        _image(machine, job, image, record)
        if progress is not None:
            progress(image + 1, job.images)
    return record
