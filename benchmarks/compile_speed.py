"""What it costs to compile networks of all sizes: processor time and memory, from a cold process.

Each network is compiled, or refused, by `celosia.compile` in a process of its own, so that all
imports and torch.export's warm-up are in its figures; making the model and its random weights is
not. The largest are too large for every target: compiling them ends in a refusal, for which other
settings are tried.

Processor time is of all threads, user and system; the least of several runs counts, since other
processes on the machine only add to it.
"""

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from harness.command import main
from harness.result import Check, Result, Table

from celosia.cli.progress import progress

GIB = 1 << 30


@dataclass(frozen=True, kw_only=True)
class Net:
    """A network to be compiled.

    words   : what it is.   make : a Python expression of it.   shape : of its input, (C, H, W).
    target  : what it is compiled for.   density : share of the weights that are not 0.
    seconds, memory : most processor seconds and bytes, or None.
    """

    words: str
    make: str
    shape: tuple[int, ...] = (3, 32, 32)
    target: str = "ulx3s-85f"
    density: float = 1.0
    seconds: float | None = None
    memory: float | None = None


NETS = (
    Net(words="LeNet-5, pruned", make="load_lenet5(pruned=True)", shape=(1, 28, 28),
        target="icebreaker", seconds=3.0),
    Net(words="ResNet-20, option B", make="ResNet(20, 'B')"),
    Net(words="ResNet-110, option B", make="ResNet(110, 'B')", seconds=15.0),
    Net(words="VGG-16, 20 % of 33.6 M weights", make="VGG16(hidden=(4096, 4096))", density=0.2,
        seconds=40.0, memory=4 * GIB),
    Net(words="AlexNet, dense", make="AlexNet()", seconds=20.0, memory=2 * GIB),
)

CHILD = """
import json, resource, sys, time
make, shape, target, density = json.loads(sys.argv[1])
import numpy as np
import torch
import celosia, celosia.frontend
from celosia.models import *

imports = time.process_time()
torch.manual_seed(1)
model = eval(make).eval()
with torch.no_grad():
    for weight in model.parameters():
        if density < 1 and weight.dim() > 1:
            weight *= torch.rand_like(weight) < density
weights = sum(weight.numel() for weight in model.parameters() if weight.dim() > 1)
start, export, own = time.process_time(), 0.0, celosia.frontend.import_model

def timed(*arguments):
    global export
    start = time.process_time()
    graph = own(*arguments)
    export = time.process_time() - start
    return graph

celosia.frontend.import_model, example = timed, np.zeros((1, *shape), np.float32)
try:
    found = celosia.compile(model, example, target=target)
    outcome = f"{found.predicted_cycles:,} cycles"
except celosia.CompileError as refusal:
    outcome = f"refused: {refusal}"
print(json.dumps({
    "imports": imports, "export": export, "rest": time.process_time() - start - export,
    "outcome": outcome, "weights": weights,
    "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))
"""


def measure(arguments: argparse.Namespace) -> Result:
    """Compile every network in fresh processes."""
    rows, checks, notes = [], [], []
    nets = [net for net in NETS if (arguments.only or "") in net.words]
    with progress("networks") as report:
        for done, net in enumerate(nets):
            if report:
                report(done, len(nets))
            found = _least(net, arguments.runs)
            rows.append([net.words, net.target, found["weights"], found["imports"],
                         found["export"], found["rest"], found["all"], found["memory"] / GIB])
            notes.append(f"{net.words}: {found['outcome']}.")
            if net.seconds is not None:
                checks.append(Check.at_most(f"processor seconds, {net.words}", found["all"],
                                            net.seconds, ".1f"))
            if net.memory is not None:
                checks.append(Check.at_most(f"GiB, {net.words}", found["memory"] / GIB,
                                            net.memory / GIB, ".2f"))
    table = Table.of("Processor seconds of a cold process", {
        "network": "", "target": "", "weights": ",d", "imports (torch)": ".1f",
        "torch.export and import": ".1f", "all after it": ".1f", "in all": ".1f",
        "peak memory, GiB": ".2f"}, rows)
    return Result(title="Compiling", tables=(table,), checks=tuple(checks), notes=tuple(notes))


def _least(net: Net, runs: int) -> dict[str, Any]:
    """Return processor seconds of the stages and of all, the outcome, and bytes, of the run that
    took the least."""
    settings = json.dumps([net.make, net.shape, net.target, net.density])
    found = []
    for _ in range(runs):
        done = subprocess.run([sys.executable, "-W", "ignore", "-c", CHILD, settings], check=True,
                              stdout=subprocess.PIPE, text=True)
        one = json.loads(done.stdout.splitlines()[-1])
        found.append(one | {"all": one["imports"] + one["export"] + one["rest"]})
    return min(found, key=lambda one: one["all"])


if __name__ == "__main__":
    main(measure, __doc__,
         ("--only", {"help": "the networks whose name holds this word"}),
         ("--runs", {"type": int, "default": 3, "help": "of each, of which the least counts "
                                                        "(%(default)s)"}))
