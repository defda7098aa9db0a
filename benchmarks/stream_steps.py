"""Streams of time: the cycles of a step beside those of a window in one go.

MLPerf Tiny's streaming wakeword, trained, with static exponents, for the arrays of some targets,
dense and pruned as in `stream_cycles`; its recorded windows stand behind each other as a stream.
Each step's result on the machine of words must be the golden model's for the window that ends with
it. Its columns come every 32 ms, and the clock is the target's. Goals are those that the machine
was designed for.
"""

import argparse

import numpy as np
import torch
from harness.command import main
from harness.result import Check, Result, Table
from harness.tiny import wakeword
from stream_cycles import DENSITIES, TARGETS, prune
from torch import nn

from celosia.bands.host import output, prepare
from celosia.bands.program import StreamProgram, stream_program
from celosia.bands.report import clocked
from celosia.bands.steps import steps
from celosia.cli.progress import progress
from celosia.compiler import Compiler
from celosia.quantise import quantise
from celosia_boards.targets import target
from celosia_sim import golden, stream_machine, stream_memories
from celosia_spec.isa.array import ENTRY_WORDS
from celosia_spec.qgraph import QGraph

COLUMN_MS = 32
_16 = 13.9, 9.0, 5.5, 4.3
GOALS = {"icebreaker": _16, "ulx3s-25f": _16, "ulx3s-85f": (3.9, None, None, None)}
"""Thousands of cycles that a step of one column may take at each density, by targets."""
HOPS = (1, 2, 4)
TAKEN = 40
"""Columns that each stream goes on for, behind its first window."""


def differing(graph: QGraph, program: StreamProgram, x: np.ndarray) -> int:
    """Return how many mantissas of all steps of a stream (C, columns, 1) differ from those of the
    windows that end with them."""
    found, height = program.steps, graph.tensors[graph.input].shape[1]
    assert found is not None
    main_memory = np.random.default_rng(1).integers(0, 1 << 16, (
        program.array.main_words * ENTRY_WORDS))
    state, wrong = stream_memories.State(program.array, main_memory), 0
    for step, end in enumerate(range(found.hop, x.shape[1] + 1, found.hop)):
        order = program.orders[step % found.period]
        state.exponents[program.slots[graph.input]] = prepare(
            program, x[:, end - found.hop:end], main_memory, step)
        stream_machine.run(state, program.entries, order.lists, stream_memories.Flash(
            state, program.sections, order.waiting, late=True))
        if end >= height:
            wanted = golden.run(graph, x[None, :, end - height:end], keep_tensors=False)
            mantissas, exponent, _ = output(program, main_memory, state.exponents)
            assert exponent == wanted.exponents[graph.output][0]
            wrong += int((mantissas != wanted.mantissas[graph.output][0]).sum())
    return wrong


def measure(arguments: argparse.Namespace) -> Result:
    """Compile windows and steps at every density, and take the steps of a stream of each."""
    tables, checks = [], []
    with progress("densities") as report:
        for number, name in enumerate(arguments.targets):
            rows, wrong = [], 0
            goals = GOALS.get(name, (None,) * len(DENSITIES))
            network, x = wakeword(45)
            for done, (density, goal) in enumerate(zip(DENSITIES, goals, strict=True)):
                prune(network, density)
                found, differ = _steps(name, network, x)
                rows += [[density, *row] for row in found]
                wrong += differ
                if goal is not None:
                    checks.append(Check.at_most(
                        f"kcycles of a step of one column, density {density:g}, {name}",
                        found[0][3], goal, ".1f"))
                if report:
                    report(number * len(DENSITIES) + done + 1,
                           len(arguments.targets) * len(DENSITIES))
            checks.append(Check.equal(f"mantissas that differ, {name}", wrong, 0))
            of = target(name)
            tables.append(Table.of(
                f"Streaming wakeword, {name}, {of.array.lanes_all} lanes at {of.clock_mhz:g} MHz", {
                    "density": "g", "columns a step": "", "steps of a period": "",
                    "kcycles, least": ".1f", "most": ".1f", "a column": ".1f", "a window": ".1f",
                    "times fewer": ".1f", "ms a step": ".3f", "times real time": ",.0f",
                    "stream": ".0f"}, rows))
    return Result(title="Streams of time: cycles of a step", tables=tuple(tables),
                  checks=tuple(checks),
                  notes=("Cycles are exact, by the clock model. A step takes so many new columns; "
                         "without steps each of them would take a window in one go, so that many "
                         "times fewer cycles pass. Real time is a column in "
                         f"{COLUMN_MS} ms. The stream in main memory is in KiB, with the lists of "
                         f"all steps of a period.",))


def _steps(name: str, network: nn.Module, x: torch.Tensor
           ) -> tuple[list[list[float | int]], int]:
    """Return the figures of steps of each hop, and how many mantissas differ."""
    of, windows = target(name), x.numpy()
    stream = np.concatenate(list(windows), axis=1)[:, :windows.shape[2] + TAKEN]
    graph = quantise(Compiler().graph(network.eval(), x[:1]), acc_bits=24, unsigned=True,
                     unsigned_input=True, exponents="static", calibration=windows)
    whole = clocked(stream_program(graph, of.array))[0].cycles
    rows: list[list[float | int]] = []
    wrong = 0
    for hop in HOPS:
        program = stream_program(graph, of.array, steps(graph, hop))
        cycles = [found.cycles for found in clocked(program)]
        ms = max(cycles) / of.clock_mhz / 1000
        rows.append([hop, len(cycles), min(cycles) / 1000, max(cycles) / 1000,
                     max(cycles) / hop / 1000, whole / 1000, whole / max(cycles) * hop, ms,
                     hop * COLUMN_MS / ms, len(program.entries) / 128])
        wrong += differing(graph, program, stream)
    return rows, wrong


if __name__ == "__main__":
    main(measure, __doc__,
         ("--targets", {"nargs": "+", "default": TARGETS,
                        "help": "on these targets (%(default)s)"}))
