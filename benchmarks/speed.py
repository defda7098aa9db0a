"""How fast the tools are: compiling LeNet-5, the golden model, the simulated machine.

Compiling is timed in a fresh process, so that the first torch.export and all imports are in it, and
again without them; the simulators' compilation is told apart from simulating.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from harness.command import main
from harness.networks import inputs, lenet5
from harness.result import Check, Result, Table

import celosia
from celosia.bands.schedule import stream_schedule
from celosia.bands.simulate import flash_of, job_of
from celosia.bands.simulate import verilated as machine_of
from celosia.models import ResNet
from celosia_boards.cache import unseen
from celosia_sim.simulators import rtl, verilated
from celosia_sim.simulators.tools import OPTIMISATION

TARGET, RESNET_TARGET = "icebreaker", "ulx3s-85f"
COMPILE_SECONDS, GOLDEN_IMAGES, SIMULATED_CYCLES = 5.0, 200.0, 1.5e6
"""Most seconds that compiling takes, imports not counted; least images and cycles a second."""

RESNET_IMAGES, RESNET_SECOND = 64, 50.0
"""Images of ResNet-20 that the golden model computes, and how many it must in a second."""

_FRESH = """
import json, time
start = time.perf_counter()
import numpy as np, torch, celosia
from celosia.models import load_lenet5
model = load_lenet5(pruned=True)
seconds = {"imports": time.perf_counter() - start}
for name in ("first", "second"):
    start = time.perf_counter()
    celosia.compile(model, np.zeros((1, 1, 28, 28), np.float32), target=TARGET)
    seconds[name] = time.perf_counter() - start
print(json.dumps(seconds))
"""


def measure(arguments: argparse.Namespace) -> Result:
    """Time compiling, the golden model and the compiled loop."""
    compiling = _compiling()
    x, _ = inputs(arguments.images)
    program = lenet5(TARGET)
    golden = len(x) / _seconds(lambda: celosia.run(program, x))
    resnet = _resnet20()
    simulated = _simulation(program, x)
    table = Table.of(f"LeNet-5, {TARGET}, {program.lanes} lanes", {
        "what": "", "figure": ",.2f", "unit": ""}, [
        ["imports (torch is most of it), fresh process", compiling["imports"], "s"],
        ["first compile in a process, torch.export's warm-up included", compiling["first"], "s"],
        ["every further compile", compiling["second"], "s"],
        ["of that, planning and writing the stream", _planning(program), "s"],
        [f"golden model, {len(x):,} images", golden, "images/s"],
        [f"golden model, ResNet-20, random weights, {RESNET_IMAGES} images", resnet, "images/s"],
        [f"simulator ready (Verilog, Verilator, C++ with {OPTIMISATION}; nearly 0 from the cache)",
         simulated["ready"], "s"],
        [f"simulated cycles, {len(x):,} images, loading and reading included",
         simulated["cycles"], "cycles/s"],
        ["simulated images", simulated["images"], "images/s"]])
    return Result(title="Speed of the tools", tables=(table,), checks=(
        Check.at_most("seconds of the first compile", compiling["first"], COMPILE_SECONDS, ".2f"),
        Check.at_least("golden images a second", golden, GOLDEN_IMAGES, ",.0f"),
        Check.at_least("golden images of ResNet-20 a second", resnet, RESNET_SECOND, ",.0f"),
        Check.at_least("simulated cycles a second", simulated["cycles"], SIMULATED_CYCLES, ",.0f"),
    ))


def _seconds(work) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _compiling() -> dict[str, float]:
    """Return seconds of "imports", "first" and "second" compile of a fresh process."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "fresh.py"
        script.write_text(f"TARGET = {TARGET!r}\n{_FRESH}", encoding="utf-8")
        done = subprocess.run([sys.executable, str(script)], check=True, capture_output=True,
                              text=True)
    return json.loads(done.stdout)


def _resnet20() -> float:
    """Return the images of ResNet-20 that the golden model computes in a second."""
    torch.manual_seed(0)
    x = torch.rand(RESNET_IMAGES, 3, 32, 32).numpy()
    program = celosia.compile(ResNet(20), x[:1], target=RESNET_TARGET)
    return len(x) / _seconds(lambda: celosia.run(program, x))


def _planning(program: celosia.Program) -> float:
    return _seconds(lambda: stream_schedule(program.graph, program.array))


def _simulation(program: celosia.Program, x: np.ndarray) -> dict[str, float]:
    """Return seconds until the simulator is ready, cycles and images a second of the loop."""
    job, flash = job_of(program.program, x), flash_of(program.program)
    design = rtl.machine_design(program.array)
    start = time.perf_counter()
    verilated.library(design)
    ready = time.perf_counter() - start
    with machine_of(design, flash, unseen) as machine:
        begun = machine.edges
        seconds = _seconds(lambda: verilated.execute(machine, replace(job, setup=job.setup[:0]),
                                                     None))
        return {"ready": ready, "cycles": (machine.edges - begun) / seconds,
                "images": len(x) / seconds}


if __name__ == "__main__":
    main(measure, __doc__,
         ("--images", {"type": int, "default": 1000, "help": "inputs of the two models "
                                                             "(%(default)s)"}))
