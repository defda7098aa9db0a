"""What running a network takes and gives: inputs checked, results in the user's shapes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from celosia_spec.errors import CelosiaError
from celosia_spec.host_layers import compute
from celosia_spec.inputs import as_array

if TYPE_CHECKING:
    from celosia.bands.session import SimResult
    from celosia.program import Program

Progress = Callable[[int, int], None]
"""Called with the number of inputs done and the number of all."""

Notice = Callable[[str], None]

Stages = Callable[[str, int, int], None]
"""Called as a simulator is built for an array, which the first time takes minutes: the stage, how
many of its steps are begun, and how many it has (0 of 0 where they are not known)."""


@dataclass(frozen=True, eq=False, kw_only=True)
class RunResult:
    """Outputs of N inputs. The output's value is ``mantissa * 2 ** (exponent - (bits - 2))``.

    mantissa : int32 (N, ...), as the array computes it.   exponent : int32 (N,).
    values   : float64 (N, ...), exact.
    answer   : what the network returns: the values, or what the host's layers (`Program.host`)
               make of them, float64, behind an argmax int64.
    saturated: bool (N,), True where a rounding or the input was clipped.
    cycles   : int64 (N,), from start to done; None from the golden model.
    layer_cycles : int64 (N, layers), as predicted, where their sums are ``cycles``; else None.
    """

    mantissa: np.ndarray
    exponent: np.ndarray
    values: np.ndarray
    answer: np.ndarray
    saturated: np.ndarray
    cycles: np.ndarray | None
    layer_cycles: np.ndarray | None


def joined(parts: Sequence[RunResult]) -> RunResult:
    """Return results as one."""
    def of(name: str) -> np.ndarray:
        return np.concatenate([getattr(part, name) for part in parts])

    first = parts[0]
    return RunResult(
        mantissa=of("mantissa"), exponent=of("exponent"), values=of("values"), answer=of("answer"),
        saturated=of("saturated"), cycles=None if first.cycles is None else of("cycles"),
        layer_cycles=None if any(part.layer_cycles is None for part in parts) else of(
            "layer_cycles"))


def as_images(program: Program, x: Any) -> np.ndarray:
    """Return the inputs as float32 (N, ...), checked against the network's input shape."""
    tensor = program.graph.tensors[program.graph.input]
    array = as_array(x)
    wanted = "(N, " + ", ".join(str(size) for size in tensor.user_shape) + ")"
    if array.shape[1:] != tuple(tensor.user_shape) or array.ndim == 0:
        raise CelosiaError(f"input: shape {array.shape}, the network takes {wanted}; "
                           f"reshape it, one input is N = 1")
    if len(array) == 0:
        raise CelosiaError(f"input: no inputs in it, the network takes {wanted} with N > 0")
    known = program.preprocessing
    pixels = str(getattr(x, "dtype", "")).endswith("uint8")     # of NumPy or torch
    if pixels and known is not None and known.scale is not None:
        raise CelosiaError("input: uint8 are pixels, and the program says how they become inputs; "
                           "give program.preprocessing.inputs(pixels), or numbers of another type")
    return array


def result_of(program: Program, simulation: SimResult) -> RunResult:
    """Return what users get of a run on the machine, simulated or on a board."""
    return from_parts(program, simulation.output, simulation.exponent, simulation.saturated,
                      simulation.cycles)


def from_parts(program: Program, mantissa: np.ndarray, exponent: np.ndarray,
               saturated: np.ndarray, cycles: np.ndarray | None) -> RunResult:
    """Return the result of output mantissas, int (N, C, H, W), and what came with them."""
    tensor = program.graph.tensors[program.graph.output]
    mantissa = mantissa.reshape(len(mantissa), *tensor.user_shape).astype(np.int32)
    lsb = tensor.format.lsb(exponent).reshape(-1, *[1] * (mantissa.ndim - 1))
    values = np.ldexp(mantissa.astype(np.float64), lsb)
    layers = np.array([layer.predicted_cycles for layer in program.layers])
    exact = cycles is not None and (cycles == layers.sum()).all()
    return RunResult(mantissa=mantissa, exponent=exponent.astype(np.int32), values=values,
                     answer=compute(program.host, values), saturated=saturated,
                     cycles=cycles,
                     layer_cycles=np.tile(layers, (len(mantissa), 1)) if exact else None)
