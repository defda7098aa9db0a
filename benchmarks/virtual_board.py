"""Images a second of LeNet-5 on the virtual board, through the driver and a pseudo-terminal.

`celosia serve-sim` in a process of its own, bit by bit and byte by byte; this process is the host.
Seconds are real ones, of this machine and whatever else it does.
"""

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from harness.command import main
from harness.networks import inputs, lenet5
from harness.result import Check, Result, Table

import celosia
from celosia.cli.progress import work
from celosia_spec.errors import CelosiaError

LEVELS = {"bit by bit": ((), 30, 3), "byte by byte": (("--byte-level",), 400, 100)}
"""How the board is simulated: options, images, and images a second that are wanted."""


def measure(arguments: argparse.Namespace) -> Result:
    """Serve a board at each level, and run images on it."""
    program = lenet5()
    rows, checks = [], []
    with tempfile.TemporaryDirectory(prefix="celosia-") as name, work() as shown:
        path = Path(name) / "lenet5.celo"
        program.save(path)
        for level, (options, count, wanted) in LEVELS.items():
            shown.stage(level)
            images, _ = inputs(count)
            load, rate = _measured(path, program, options, images)
            rows.append([level, load, len(images), rate])
            checks.append(Check.at_least(f"images a second, {level}", rate, wanted, ".1f"))
    table = Table.of("LeNet-5 on the virtual iCEBreaker, driver and board in a process each", {
        "simulated": "", "load, s": ".2f", "images": ",d", "images/s": ",.1f"}, rows)
    return Result(title="Virtual board", tables=(table,), checks=tuple(checks))


def _measured(path: Path, program: celosia.Program, options: tuple[str, ...],
              images: np.ndarray) -> tuple[float, float]:
    """Return the seconds of a load, and images a second."""
    server = subprocess.Popen(
        [sys.executable, "-m", "celosia", "serve-sim", str(path), "--json", *options],
        stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        with celosia.connect(json.loads(server.stdout.readline())["port"]) as board:
            load = board.load(program).seconds
            start = time.monotonic()
            result = board.run(images)
            rate = len(images) / (time.monotonic() - start)
    finally:
        server.send_signal(signal.SIGINT)
        server.communicate()
    if not np.array_equal(result.mantissa, celosia.run(program, images).mantissa):
        raise CelosiaError("the virtual board's outputs differ from the golden model's")
    return load, rate


if __name__ == "__main__":
    main(measure, __doc__)
