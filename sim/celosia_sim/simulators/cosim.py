"""cocotb around the machine, in Icarus: the bench ``celosia_sim.benches.program``."""

import contextlib
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from celosia_boards.cache import Stages, cached, digest, unseen
from celosia_boards.host.job import Job, Record, Stopped
from celosia_boards.processes import started
from celosia_sim.flash import Contents, flash_error
from celosia_sim.simulators.rtl import TOP, Design
from celosia_sim.simulators.tools import icarus_version, shared_python
from celosia_spec.errors import SimulationError

__all__ = ["execute", "icarus_text", "versions"]

_BENCH = "celosia_sim.benches.program"
_POLL_SECONDS = 0.5


def versions() -> str:
    """Return what runs a simulation: cocotb, and Icarus.

    SimulationError where something is missing; it says how to get it.
    """
    try:
        key = f"cocotb {version('cocotb')}"
    except PackageNotFoundError:
        raise SimulationError(
            'cocotb is not installed; run: pip install "celosia[sim]"') from None
    import cocotb_tools.config

    key += f" {cocotb_tools.config.libs_dir} {icarus_version()}"
    shared_python()
    return key


def _environment() -> dict[str, str]:
    """Return the environment in which the bench finds us."""
    env = dict(os.environ)
    for name in ("WAVES", "GUI", "PYTEST_CURRENT_TEST"):
        env.pop(name, None)
    return env | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def _last_words(log: Path) -> str:
    """Return the first line of ``log`` that names an error, else its last line."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines()
             if line.strip()] if log.is_file() else []
    return next((line for line in lines if "error" in line.lower()),
                lines[-1] if lines else "it printed nothing")


def _call(method: str, folder: Path, log: Path,
          watch: Callable[[], None] | None = None, **arguments: Any) -> None:
    """Let cocotb's runner do ``method`` in a process of its own; call ``watch`` meanwhile."""
    call = folder / "call.json"
    call.write_text(json.dumps({"method": method, "arguments": {
        **arguments, "log_file": str(log)}}))
    with started([sys.executable, "-m", "celosia_sim.simulators.cocotb_call", str(call)],
                 env=_environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                 stderr=subprocess.DEVNULL) as process:
        done = False
        while not done:
            with contextlib.suppress(subprocess.TimeoutExpired):
                output, _ = process.communicate(timeout=_POLL_SECONDS)
                done = True
            if watch is not None:
                watch()
    call.unlink()
    if process.returncode:
        raise SimulationError(f"icarus under cocotb failed ({output.strip()}): "
                              f"{_last_words(log)}")


_TRIGGER = re.compile(r"^( *reg )(\\\$auto\$verilog_backend\S+) += 0;$", re.M)
"""Yosys' signal that is meant to start every ``always @*`` block."""

_PART = re.compile(r"^  assign (\\\S+ |\w+)\[(\d+)(?::(\d+))?\] = ([^-+*/&|^~!=<>?()]+);\n", re.M)
"""A part of a wire that is other signals' bits, side by side."""


def _joined(module: str) -> str:
    """Assign wires whole that Yosys assigns part by part: Icarus would resolve the whole of such a
    wire, bit by bit, whenever one of its parts changes."""
    parts: dict[str, dict[int, tuple[int, str]]] = {}
    for name, top, bottom, bits in _PART.findall(module):
        parts.setdefault(name, {})[int(top)] = int(bottom or top), bits
    whole = {}
    for name, found in parts.items():
        below = [bottom - 1 for bottom, _ in found.values()]
        if (f"  wire [{max(found)}:0] {name};\n" in module
                and found.keys() == {*below, max(found)} - {-1}):
            whole[name] = ", ".join(bits for _, (_, bits) in sorted(found.items(), reverse=True))

    def once(part: re.Match[str]) -> str:
        name = part[1]
        if name not in whole:
            return part[0]
        bits = whole[name]
        whole[name] = ""
        return f"  assign {name} = {{ {bits} }};\n" if bits else ""

    return _PART.sub(once, module)


def icarus_text(text: str) -> str:
    """Let Icarus evaluate every combinational block at time 0, and no wire bit by bit.

    ``always @*`` waits for a change, and an initial value is none for Icarus: where the inputs of
    a block keep their initial values, its outputs would stay X. A change at time 0 starts it.
    """
    modules = re.split(r"^(?=module )", text, flags=re.M)
    return _TRIGGER.sub(r"\1\2 ; initial \2 <= 0;", "".join(map(_joined, modules)))


def _build(design: Design, stages: Stages) -> Path:
    """Return the folder of the compiled simulation of ``design``."""
    text = icarus_text(design.text)

    def build(folder: Path) -> None:
        source = folder / "core.v"
        source.write_text(text)
        stages("compiling for icarus", 0, 0)
        _call("build", folder, folder / "build.log",
              sources=[str(source)], hdl_toplevel=TOP,
              build_dir=str(folder), defines=dict(design.defines), timescale=("1ns", "1ps"),
              always=True)

    key = digest(design.key, text, versions(), platform.machine())
    return cached(f"icarus-{key}", build, stages)


def _counted(counter: Path, images: int,
             progress: Callable[[int, int], None] | None) -> Callable[[], None]:
    """Return a function that reports what ``counter`` says where it has grown."""
    reported = 0

    def watch() -> None:
        nonlocal reported
        text = counter.read_text() if counter.is_file() else ""
        if progress is not None and text.isdigit() and int(text) > reported:
            reported = int(text)
            progress(reported, images)

    return watch


def execute(design: Design, job: Job, progress: Callable[[int, int], None] | None,
            stages: Stages = unseen, flash: Contents | None = None) -> Record:
    """Carry out ``job`` on ``design`` under cocotb.

    flash : at the pins of a machine that reads one.
    Stopped where the machine does not finish, SimulationError where the simulator fails, or the
    machine does what its flash does not allow.
    """
    versions()
    with tempfile.TemporaryDirectory(prefix="celosia-") as name:
        folder = Path(name)
        job.save(folder / "job.npz")
        if flash is not None:
            flash.save(folder / "flash.npz")
        build, log = _build(design, stages), folder / "run.log"
        _call("test", folder, log, _counted(folder / "progress", job.images, progress),
              test_module=_BENCH, hdl_toplevel=TOP, hdl_toplevel_lang="verilog",
              build_dir=str(build), test_dir=str(folder), results_xml=str(folder / "results.xml"),
              extra_env={"CELOSIA_JOB": str(folder / "job.npz")})
        if (folder / "flash_error").is_file():
            raise flash_error((folder / "flash_error").read_text())
        if (folder / "stopped.npy").is_file():
            raise Stopped.load(folder / "stopped.npy")
        if not (folder / "record.npz").is_file():
            raise SimulationError("the bench under icarus left no record: "
                                  f"{_last_words(log)}")
        return Record.load(folder / "record.npz")
