"""The synthesised netlist against the golden model: what yosys made of small arrays, simulated.

An array for each kind of device (iCE40 with SB_MAC16, SPRAM and flash; iCE40 without; ECP5) is
synthesised as bitstreams are. Verilator runs the netlists, with models of the cells.
The network has seeded random weights and uses stride, padding, pooling, ReLU and a linear layer.
Outputs, exponents and saturation flags of each image, every stored tensor, and the cycles are
compared with the golden model and the prediction.
"""

import argparse
from dataclasses import replace

import numpy as np
import torch
from harness.command import main
from harness.netlist import machine_netlist
from harness.networks import MODES
from harness.result import Check, Result, Table

import celosia
from celosia.bands.schedule import stream_schedule
from celosia.bands.session import SimResult, run
from celosia.bands.simulate import simulated
from celosia.cli.progress import progress
from celosia.compiler import Compiler
from celosia.program import program_of
from celosia_boards.devices import HX8K, LFE5U, UP5K
from celosia_sim.golden import GoldenResult, input_saturated
from celosia_sim.golden import run as run_golden
from celosia_spec.isa.array import Array

_SMALL = Array(main_words=512, bank_rows=128, ring=64, controls=64, taps=64, tiles=64)
MACHINES = {
    "UP5K, SB_MAC16, SPRAM, flash": (
        UP5K, replace(_SMALL, main_words=256, drain=1, fill=2, flash=4), "spram"),
    "HX8K": (HX8K, replace(_SMALL, lanes=8, residual=False), "bram"),
    "ECP5-25F": (LFE5U[25], replace(_SMALL, lanes=8, main_words=1024), "bram")}
"""Devices, arrays, and what their main memory is made of. Of 512 words ECP5's would have ports of
36 bits, which the models of its cells lack."""
SEED = 7


def network() -> torch.nn.Module:
    """Return the seeded random network; input (1, 12, 12)."""
    torch.manual_seed(SEED)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.MaxPool2d(2),
        torch.nn.Conv2d(4, 6, 3, stride=2, padding=1), torch.nn.ReLU(),
        torch.nn.Flatten(), torch.nn.Linear(54, 5))
    with torch.no_grad():
        for weight in (parameter for parameter in model.parameters() if parameter.ndim > 1):
            weight *= torch.rand_like(weight) < 0.5
    return model.eval()


def measure(arguments: argparse.Namespace) -> Result:
    """Simulate the netlists in both modes."""
    x = np.random.default_rng(SEED).random((32, 1, 12, 12), np.float32)
    graph = Compiler().graph(network(), x[:1])
    x = x[:arguments.images]
    rows, checks = [], []
    for name, (device, array, main_memory) in MACHINES.items():
        if arguments.device not in (None, device.name):
            continue
        design = machine_netlist(array, device, main_memory=main_memory)
        for mode in MODES:
            quantised = Compiler(exponents=mode).quantised(graph, x if mode == "static" else None)
            found = program_of(stream_schedule(quantised, array), target=name, exponents=mode)
            with progress(f"{name}, {mode}") as report:
                ran = run(found.program, x, simulated(found.program, design=design,
                                                      progress=report),
                          tensors=found.program.places)
            values, mismatches = _compare(found, ran, run_golden(quantised, x),
                                          input_saturated(quantised, x))
            wrong = int((ran.cycles != found.predicted_cycles).sum())
            rows.append([name, array.lanes, mode, len(x), len(ran.tensors), values, mismatches,
                         found.predicted_cycles, int(ran.cycles.min()), int(ran.cycles.max())])
            checks += [Check.equal(f"mismatches, {name}, {mode}", mismatches, 0),
                       Check.equal(f"images with other cycles than predicted, {name}, {mode}",
                                   wrong, 0)]
    table = Table.of(
        "Netlists, on Verilator",
        {"device": "", "lanes": "d", "exponents": "", "images": "d", "stored tensors": "d",
         "values compared": ",d", "mismatches": ",d", "cycles predicted": ",d",
         "cycles simulated, least": ",d", "most": ",d"}, rows)
    return Result(title="Synthesised netlist", tables=(table,), checks=tuple(checks))


def _compare(program: celosia.Program, found: SimResult, golden: GoldenResult,
             clipped: np.ndarray) -> tuple[int, int]:
    """Return how many values were compared, and how many differ.

    clipped : bool (N,), inputs that saturated before the machine saw them.
    """
    output = program.graph.output
    pairs = [(found.output, golden.mantissas[output]), (found.exponent, golden.exponents[output]),
             (found.saturated | clipped, golden.saturated)]
    for name, (mantissa, exponent) in found.tensors.items():
        pairs += [(mantissa, golden.mantissas[name]), (exponent, golden.exponents[name])]
    return (sum(np.size(got) for got, _ in pairs),
            sum(int(np.sum(np.asarray(got) != np.asarray(expected))) for got, expected in pairs))


if __name__ == "__main__":
    main(measure, __doc__,
         ("--images", {"type": int, "default": 3, "help": "simulated (%(default)s)"}),
         ("--device", {"choices": [device.name for device, *_ in MACHINES.values()],
                       "help": "this one alone"}))
