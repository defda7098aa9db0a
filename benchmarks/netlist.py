"""The synthesised netlist against the golden model: what yosys made of small arrays, simulated.

An array of the first machine (4 lanes, SB_MAC16 multipliers, block-RAM weights) and one of the
second for each kind of device (SB_MAC16, SPRAM and flash; iCE40 without; ECP5) are synthesised as
bitstreams are. Icarus runs the first one's netlist, Verilator the others, with models of the cells.
The network has seeded random weights and uses stride, padding, pooling, ReLU and a linear layer.
Outputs, exponents and saturation flags of each image, every stored tensor, and the cycles are
compared with the golden model and the prediction.
"""

import argparse
from dataclasses import replace

import numpy as np
import torch
from harness.command import main
from harness.networks import MODES
from harness.result import Check, Result, Table

import celosia
from celosia.bands.file import stream_file
from celosia.bands.schedule import stream_schedule
from celosia.bands.session import run
from celosia.bands.simulate import simulated
from celosia.cli.progress import progress
from celosia.compiler import Compiler
from celosia.graph import Graph
from celosia.lower import lower
from celosia_boards.devices import HX8K, LFE5U, UP5K
from celosia_sim.golden import GoldenResult, input_saturated, quantise_input
from celosia_sim.golden import run as run_golden
from celosia_sim.simulate import SimResult, simulate
from celosia_sim.simulators.netlist import core_netlist, machine_netlist
from celosia_spec.isa import ArrayConfig
from celosia_spec.stream.array import Array

ARRAY = ArrayConfig(lanes=4, quad=2, beat=2, weight_rows=256, bank_rows=256, table_rows=64,
                    taps=64, writes=64, store_beats=128, index_bits=12, count_bits=11)
_SMALL = Array(main_words=512, bank_rows=128, ring=64, controls=64, taps=64, tiles=64)
STREAMS = {
    "UP5K, SB_MAC16, SPRAM, flash": (
        UP5K, replace(_SMALL, main_words=256, drain=1, fill=2, flash=4), "spram"),
    "HX8K": (HX8K, replace(_SMALL, lanes=8, residual=False), "bram"),
    "ECP5-25F": (LFE5U[25], replace(_SMALL, lanes=8), "bram")}
"""Devices, arrays of the second machine, and what their main memory is made of."""
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
    """Simulate the netlist in both modes."""
    x = np.random.default_rng(SEED).random((32, 1, 12, 12), np.float32)
    graph = Compiler().graph(network(), x[:1])
    x, rows, checks = x[:arguments.images], [], []
    for mode in MODES:
        quantised = Compiler(exponents=mode).quantised(graph, x if mode == "static" else None)
        program = lower(quantised, ARRAY, target="netlist", exponents=mode)
        with progress(f"netlist, {mode}") as report:
            found = simulate(program, *quantise_input(quantised, x), simulator="icarus",
                             tensors=True, progress=report, design=core_netlist(ARRAY, UP5K))
        values, mismatches = _compare(program, found, run_golden(quantised, x),
                                      input_saturated(quantised, x))
        wrong = int((found.cycles != program.predicted_cycles).sum())
        rows.append([mode, len(x), len(found.tensors), values, mismatches,
                     program.predicted_cycles, int(found.cycles.min()), int(found.cycles.max())])
        checks += [Check.equal(f"mismatches, {mode}", mismatches, 0),
                   Check.equal(f"images with other cycles than predicted, {mode}", wrong, 0)]
    table = Table.of(
        f"iCE40 netlist, {ARRAY.lanes} lanes, on Icarus",
        {"exponents": "", "images": "d", "stored tensors": "d", "values compared": ",d",
         "mismatches": ",d", "cycles predicted": ",d", "cycles simulated, least": ",d",
         "most": ",d"}, rows)
    second, more = _second(arguments, graph, x)
    return Result(title="Synthesised netlist", tables=(table, second),
                  checks=(*checks, *more))


def _second(arguments: argparse.Namespace, graph: Graph,
            x: np.ndarray) -> tuple[Table, list[Check]]:
    """Simulate the netlists of the second machine."""
    rows, checks = [], []
    for name, (device, array, main_memory) in STREAMS.items():
        if arguments.device not in (None, device.name):
            continue
        design = machine_netlist(array, device, main_memory=main_memory)
        for mode in MODES:
            quantised = Compiler(exponents=mode).quantised(graph, x if mode == "static" else None)
            found = stream_file(stream_schedule(quantised, array), target=name, exponents=mode)
            with progress(f"{name}, {mode}") as report:
                ran = run(found.program, x, simulated(found.program, design=design,
                                                      progress=report), tensors=True)
            values, mismatches = _compare(found, ran, run_golden(quantised, x),
                                          input_saturated(quantised, x))
            wrong = int((ran.cycles != found.predicted_cycles).sum())
            rows.append([name, array.lanes, mode, len(x), len(ran.tensors), values, mismatches,
                         found.predicted_cycles, int(ran.cycles.min()), int(ran.cycles.max())])
            checks += [Check.equal(f"mismatches, {name}, {mode}", mismatches, 0),
                       Check.equal(f"images with other cycles than predicted, {name}, {mode}",
                                   wrong, 0)]
    return Table.of(
        "The second machine's netlists, on Verilator",
        {"device": "", "lanes": "d", "exponents": "", "images": "d", "stored tensors": "d",
         "values compared": ",d", "mismatches": ",d", "cycles predicted": ",d",
         "cycles simulated, least": ",d", "most": ",d"}, rows), checks


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
         ("--device", {"choices": [device.name for device, *_ in STREAMS.values()],
                       "help": "of the second machine, this one alone"}))
