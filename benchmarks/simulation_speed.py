"""Simulated clock cycles a second of the compiled loop around the verilated machine.

Usage: python benchmarks/simulation_speed.py [PROGRAM.celo] [--images N]

Without a program, the pruned LeNet-5 that comes with the package is compiled for the iCEBreaker
(UP5K, 16 lanes) and runs the shipped test images; a program from a file runs random inputs. Time
is wall-clock time of the loop alone: programs loaded, inputs written and outputs read are in it,
compiling the simulator is not.
"""

import argparse
import time
from pathlib import Path

import numpy as np

import celosia
from celosia_sim import rtl, verilated
from celosia_sim.golden import quantise_input
from celosia_sim.plan import Plan


def lenet5(images: int) -> tuple[celosia.Program, np.ndarray]:
    """Return LeNet-5 for the iCEBreaker and float32 inputs (images, 1, 28, 28)."""
    import torch

    from celosia.datasets import preprocess, shipped_test_images
    from celosia.models import load_lenet5

    x = preprocess(shipped_test_images()[0][:images]).reshape(-1, 1, 28, 28)
    program = celosia.compile(load_lenet5(pruned=True), torch.zeros(1, 1, 28, 28),
                              target="icebreaker")
    return program, x


def from_file(path: Path, images: int) -> tuple[celosia.Program, np.ndarray]:
    """Return a saved program and random float32 inputs in [0, 1)."""
    program = celosia.load(path)
    shape = program.graph.tensors[program.graph.input].user_shape
    return program, np.random.default_rng(1).random((images, *shape), np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description="Simulated clock cycles a second.")
    parser.add_argument("program", nargs="?", type=Path)
    parser.add_argument("--images", type=int, default=100)
    arguments = parser.parse_args()
    program, x = (from_file(arguments.program, arguments.images) if arguments.program else
                  lenet5(arguments.images))
    plan = Plan(program, *quantise_input(program.graph, x), tensors=False)
    start = time.perf_counter()
    library = verilated.library(rtl.core_design(program.array))
    built = time.perf_counter() - start
    with verilated.Machine(library) as machine:
        start = time.perf_counter()
        record = verilated.execute(machine, plan.job, None)
        seconds = time.perf_counter() - start
        edges = machine.edges
    print(f"lanes                     {program.lanes}")
    print(f"images                    {len(x)}")
    print(f"cycles an image           {int(record.cycles[0, 0])}")
    print(f"simulated cycles          {edges}")
    print(f"seconds                   {seconds:.3f} (simulator ready after {built:.1f})")
    print(f"cycles a second           {edges / seconds:.0f}")
    print(f"images a second           {len(x) / seconds:.1f}")


if __name__ == "__main__":
    main()
