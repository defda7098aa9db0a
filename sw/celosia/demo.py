"""LeNet-5 from its checkpoint to a bitstream for the iCEBreaker, compared bit for bit.

Checkpoints and 1,000 test images come with the package; where all of Fashion-MNIST is installed,
its 10,000 test images are used.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from celosia import api, backends, results
from celosia.datasets import load_fashion_mnist, preprocess
from celosia.evaluate import accuracy
from celosia.verify import Verification, verify
from celosia_spec.files import check_folder

if TYPE_CHECKING:
    import torch

    from celosia.program import Program
    from celosia_boards.build import BuildReport

__all__ = ["BOARD", "FOLDER", "Demonstration", "demonstrate"]

BOARD = "icebreaker"
FOLDER = Path("build") / "demo"
IMAGES = 100
"""Images whose every stored tensor is compared on the simulated gateware."""
CALIBRATION = 500
"""Images that fix the block exponents: training images where the full data set is installed, else
the last of the shipped test images."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Demonstration:
    """What the demo found.

    program      : the pruned network, after it has been through its file, ``path``.
    images       : test images that accuracy was measured on.
    accuracy_dense, accuracy_pruned, accuracy_accelerator : shares from 0 to 1; of the networks in
                   float32, and of the golden model of the pruned one.
    verification : of the simulated gateware against the golden model.
    build        : of the bitstream; None where none was asked for.
    """

    program: Program
    path: Path
    images: int
    accuracy_dense: float
    accuracy_pruned: float
    accuracy_accelerator: float
    verification: Verification
    build: BuildReport | None

    @property
    def faults(self) -> list[str]:
        """What is not as it must be, one line each: a value, a cycle count, the clock."""
        found, faults = self.verification, []
        if not found.passed:
            faults.append(f"the simulated gateware differs from the golden model: first mismatch "
                          f"{found.first_mismatch}, cycles {sorted(set(found.cycles.tolist()))} "
                          f"where {found.predicted_cycles} were predicted")
        if self.build is not None and not self.build.timing_met:
            faults.append("the clock is not met")
        return faults

    def to_json(self) -> dict[str, Any]:
        """Return all figures as plain JSON values."""
        found = self.verification
        first = found.first_mismatch
        return {
            "board": BOARD, "lanes": self.program.lanes, "program": str(self.path),
            "images": self.images, "accuracy_dense": self.accuracy_dense,
            "accuracy_pruned": self.accuracy_pruned,
            "accuracy_accelerator": self.accuracy_accelerator,
            "predicted_cycles": found.predicted_cycles, "images_simulated": found.images,
            "values_compared": found.values, "mismatches": found.mismatches,
            "first_mismatch": None if first is None else asdict(first),
            "cycles": sorted(set(found.cycles.tolist())), "faults": self.faults,
            "build": None if self.build is None else self.build.to_json()}


def demonstrate(folder: str | Path = FOLDER, *, place: bool = True,
                stages: results.Stages | None = None) -> Demonstration:
    """Compile, simulate and build LeNet-5; leave ``lenet5.celo`` and the bitstream in ``folder``.

    place  : whether to make the bitstream; most of the minutes go there.
    stages : called as each stage begins, and as its steps are done.

    CelosiaError where a tool is missing or ``folder`` cannot be written; what is not as it must be
    stands in the result.
    """
    from celosia.models import load_lenet5

    say = stages or _unheard
    folder = check_folder(folder, "lenet5.celo")
    images, labels = load_fashion_mnist("test")
    x = preprocess(images)
    pruned = load_lenet5(pruned=True)
    say("compiling the network", 0, 0)
    program, path = _compiled(pruned, x, folder)
    found = verify(program, x[:IMAGES], "verilator", stages=say,
                   progress=lambda done, of: say("simulating the gateware", done, of))
    golden = backends.run(program, x, progress=lambda done, of: say("golden model", done, of))
    built = None
    if place:
        built = api.build(program, BOARD, directory=folder,
                          progress=lambda stage: say(stage, 0, 0))
    return Demonstration(
        program=program, path=path, images=len(x), verification=found, build=built,
        accuracy_dense=_measured(load_lenet5(), x, labels),
        accuracy_pruned=_measured(pruned, x, labels),
        accuracy_accelerator=accuracy(golden.mantissa, labels))


def _unheard(stage: str, done: int, of: int) -> None:
    pass


def _compiled(model: torch.nn.Module, x: np.ndarray, folder: Path) -> tuple[Program, Path]:
    """Return the program, after it has been through its file, and that file."""
    from celosia.models import LENET5_PREPROCESSING

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "lenet5.celo"
    api.compile(model, x[:1], target=BOARD, exponents="static",
                calibration=_calibration(x), preprocessing=LENET5_PREPROCESSING).save(path)
    return api.load(path), path


def _calibration(x: np.ndarray) -> np.ndarray:
    try:
        return preprocess(load_fashion_mnist("train")[0][:CALIBRATION])
    except FileNotFoundError:
        return x[-CALIBRATION:]


def _measured(model: torch.nn.Module, x: np.ndarray, labels: np.ndarray) -> float:
    import torch

    with torch.no_grad():
        return accuracy(model.eval()(torch.from_numpy(x)), labels)
