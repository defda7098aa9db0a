"""cocotb around the core, in Icarus or Verilator: the bench ``celosia_sim.benches.program``."""

import contextlib
import os
import platform
import re
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from celosia_sim.cache import cached, digest
from celosia_sim.errors import SimulationError
from celosia_sim.job import Job, Record, Stopped
from celosia_sim.rtl import TOP, Design
from celosia_sim.tools import (
    compiler_version,
    icarus_version,
    verilator_environment,
    verilator_version,
)

__all__ = ["execute", "icarus_text"]

_BENCH = "celosia_sim.benches.program"
_POLL_SECONDS = 0.5
_BUILD_ARGS = {"icarus": (), "verilator": ("-Wno-fatal", "-Wno-lint", "-Wno-style", "-O3",
                                           "--x-assign", "fast", "--x-initial", "fast")}


def _cocotb_key(simulator: str) -> str:
    try:
        key = f"cocotb {version('cocotb')}"
    except PackageNotFoundError:
        raise SimulationError(
            "cocotb is not installed; install it with: pip install cocotb") from None
    import cocotb_tools.config  # the verilated program holds the path of cocotb's libraries
    key += f" {cocotb_tools.config.libs_dir}"
    if simulator == "icarus":
        return f"{key} {icarus_version()}"
    return f"{key} {verilator_version()} {compiler_version()}"


@contextlib.contextmanager
def _environment(simulator: str) -> Iterator[None]:
    """Let cocotb's runner, which takes its environment from this process, find the simulator."""
    before = dict(os.environ)
    wanted = verilator_environment() if simulator == "verilator" else before
    os.environ.clear()
    os.environ.update(wanted)
    for name in ("WAVES", "GUI"):
        os.environ.pop(name, None)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _last_words(log: Path) -> str:
    """Return the first line of ``log`` that names an error, else its last line."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines()
             if line.strip()] if log.is_file() else []
    return next((line for line in lines if "error" in line.lower()),
                lines[-1] if lines else "it printed nothing")


def _call(simulator: str, log: Path, method: Callable[..., Any], **arguments: Any) -> None:
    try:
        method(log_file=log, **arguments)
    except (RuntimeError, SystemExit) as error:
        raise SimulationError(f"{simulator} under cocotb failed ({error}): "
                              f"{_last_words(log)}") from error


_TRIGGER = re.compile(r"^( *reg )(\\\$auto\$verilog_backend\S+) += 0;$", re.M)
"""Yosys' signal that is meant to start every ``always @*`` block."""


def icarus_text(text: str) -> str:
    """Let Icarus evaluate every combinational block at time 0.

    ``always @*`` waits for a change, and an initial value is none for Icarus: where the inputs of
    a block keep their initial values, its outputs would stay X. A change at time 0 starts it.
    """
    return _TRIGGER.sub(r"\1\2 ; initial \2 <= 0;", text)


def _build(design: Design, simulator: str) -> Path:
    """Return the folder of the compiled simulation of ``design``."""
    from cocotb_tools.runner import get_runner

    text = icarus_text(design.text) if simulator == "icarus" else design.text

    def build(folder: Path) -> None:
        source = folder / "core.v"
        source.write_text(text)
        _call(simulator, folder / "build.log", get_runner(simulator).build,
              sources=[*design.libraries, source], hdl_toplevel=TOP, build_dir=folder,
              defines=dict(design.defines), build_args=list(_BUILD_ARGS[simulator]),
              timescale=("1ns", "1ps"), always=True)

    key = digest(design.key, text, _cocotb_key(simulator), platform.machine(),
                 " ".join(_BUILD_ARGS[simulator]))
    return cached(f"{simulator}-{key}", build)


def _bench(simulator: str, build: Path, folder: Path) -> None:
    from cocotb_tools.runner import get_runner
    _call(simulator, folder / "run.log", get_runner(simulator).test, test_module=_BENCH,
          hdl_toplevel=TOP, hdl_toplevel_lang="verilog", build_dir=build, test_dir=folder,
          results_xml=str(folder / "results.xml"),
          extra_env={"CELOSIA_JOB": str(folder / "job.npz")})


def _watched(work: Callable[[], None], images: int, counter: Path,
             progress: Callable[[int, int], None] | None) -> None:
    """Do ``work`` in a thread and report what ``counter`` says meanwhile."""
    reported = 0
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(work)
        while True:
            try:
                finished = future.result(timeout=_POLL_SECONDS) or True
            except NotYet:
                finished = False
            text = counter.read_text() if counter.is_file() else ""
            if progress is not None and text.isdigit() and int(text) > reported:
                reported = int(text)
                progress(reported, images)
            if finished:
                return


def execute(design: Design, job: Job, simulator: str,
            progress: Callable[[int, int], None] | None) -> Record:
    """Carry out ``job`` on ``design`` under cocotb.

    simulator : "icarus" or "verilator".
    Stopped where the machine does not finish, SimulationError where the simulator fails.
    """
    _cocotb_key(simulator)
    with tempfile.TemporaryDirectory(prefix="celosia-") as name, _environment(simulator):
        folder = Path(name)
        job.save(folder / "job.npz")
        build = _build(design, simulator)
        _watched(lambda: _bench(simulator, build, folder), job.images, folder / "progress",
                 progress)
        if (folder / "stopped.npy").is_file():
            raise Stopped.load(folder / "stopped.npy")
        if not (folder / "record.npz").is_file():
            raise SimulationError(f"the bench under {simulator} left no record: "
                                  f"{_last_words(folder / 'run.log')}")
        return Record.load(folder / "record.npz")
