"""``celosia run`` and ``celosia verify``."""

import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from celosia import api
from celosia import verify as verification
from celosia.cli import common
from celosia.cli.progress import work
from celosia.files import check_output, replacing

Input = Annotated[Path, typer.Option("--input", help="Inputs, float32 (N, ...) in a .npy file.")]
Backend = Annotated[str, typer.Option(help="golden, verilator or icarus.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Only the first so many inputs.")]


def run(
    program: common.ProgramPath,
    input: Input,
    backend: Backend = api.GOLDEN,
    output: Annotated[Path | None, typer.Option(
        "--output", "-o", help="Results: mantissa, exponent, values, saturated, and of a "
                               "simulation cycles and layer_cycles, in a .npz file.")] = None,
    limit: Limit = None,
    json: common.Json = False,
) -> None:
    """Run inputs on the golden model or on the simulated gateware."""
    api.check_backend(backend)
    if output is not None:
        check_output(output, program, input)
    loaded = api.load(program)
    x = api.as_images(loaded, common.read_array(input))[:limit]
    started = time.perf_counter()
    with work(f"running on {backend}") as shown:
        result = api.run(loaded, x, backend, progress=shown.count, stages=shown.stage)
    seconds = time.perf_counter() - started
    if output is not None:
        arrays = {name: value for name, value in vars(result).items() if value is not None}
        with replacing(output) as file:
            np.savez(file, **arrays)
    if json:
        common.emit({
            "images": len(x), "cycles": None if result.cycles is None else result.cycles.tolist(),
            "predicted_cycles": loaded.predicted_cycles, "saturated": int(result.saturated.sum()),
            "seconds": seconds, "output": None if output is None else str(output)})
        return
    print(f"{len(x)} inputs on {backend} in {seconds:.2f} s, "
          f"{int(result.saturated.sum())} saturated; predicted {loaded.predicted_cycles:,} cycles"
          + ("" if result.cycles is None else f", took {_span(result.cycles)}"))
    if output is not None:
        print(f"wrote {output}")


def verify(
    program: common.ProgramPath,
    input: Input,
    backend: Backend = "verilator",
    limit: Limit = None,
    json: common.Json = False,
) -> None:
    """Compare a backend with the golden model: every stored tensor, every output, every cycle."""
    loaded = api.load(program)
    x = api.as_images(loaded, common.read_array(input))[:limit]
    with work(f"verifying {backend}") as shown:
        found = verification.verify(loaded, x, backend, progress=shown.count, stages=shown.stage)
    first = None if found.first_mismatch is None else asdict(found.first_mismatch)
    if json:
        common.emit({
            "images": found.images, "values": found.values, "tensors": list(found.tensors),
            "mismatches": found.mismatches, "first_mismatch": first,
            "cycles": found.cycles.tolist(), "predicted_cycles": found.predicted_cycles})
    else:
        print(f"{found.images} inputs, {len(found.tensors)} tensors, {found.values:,} values: "
              f"{found.mismatches} mismatches; predicted {found.predicted_cycles:,} cycles, took "
              f"{_span(found.cycles)}")
    if first is not None:
        common.refuse(f"tensor {first['tensor']!r}, image {first['image']}, element "
                      f"{first['element']}: expected {first['expected']}, got {first['got']}; "
                      f"the gateware and the golden model disagree, report it with the program")
    if not found.passed:
        common.refuse(f"{_span(found.cycles)} cycles instead of {found.predicted_cycles:,}; the "
                      f"cycle model is wrong for this program, report it with the program")


def _span(cycles: np.ndarray) -> str:
    low, high = int(cycles.min()), int(cycles.max())
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
