"""Which passes for accuracy help a network, measured on inputs that they have not seen."""

import math
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np

from celosia.compiler import Compiler
from celosia.float_values import outputs
from celosia.graph import Graph, verify
from celosia.passes import correct_bias, equalise
from celosia.quantise import check_calibration
from celosia_sim import golden
from celosia_spec.qgraph import QGraph

LEAST_INPUTS = 8
"""Calibration inputs with which a pass can be judged: half of them are kept from it."""

MOST_INPUTS = 64
"""As many are looked at, evenly spread."""

Pass = Callable[[Graph, np.ndarray], Graph]


def more_accurate(graph: Graph, compiler: Compiler, samples: np.ndarray, *,
                  dump_after: str | None = None) -> Graph:
    """Return an optimised graph after the passes that make the outputs of its mantissas more like
    the float outputs, with a remark on each of them.

    samples    : calibration inputs, (N, *input_shape).
    dump_after : as `celosia.passes.optimise` has it.

    A pass is made of either half of the inputs and judged by the other; where it does not help
    both times, the graph stays as it was. One that does is made of all of them.
    """
    check_calibration(samples, graph.input_shape)
    if len(samples) < LEAST_INPUTS:
        return _remark(graph, f"accuracy: {len(samples)} calibration inputs are too few to judge "
                              f"by; give {LEAST_INPUTS} or more")
    samples = samples[::-(-len(samples) // MOST_INPUTS)]
    halves = [_Half(graph, compiler, samples[at::2], samples[1 - at::2]) for at in range(2)]
    found = graph
    for name, step in _passes(compiler).items():
        after = [half.after(step) for half in halves]
        helps = all(new.ratio > old.ratio for new, old in zip(after, halves, strict=True))
        gains = " and ".join(f"{old.ratio:.1f} -> {new.ratio:.1f} dB"
                             for new, old in zip(after, halves, strict=True))
        if helps:
            halves, found = after, verify(step(found, samples))
        found = _remark(found, f"accuracy: {name}, {gains} on either half of {len(samples)} "
                               f"calibration inputs, made of the other"
                               f"{'' if helps else ': not applied'}")
        if dump_after in ("all", name):
            print(f"# after {name}\n{found.dump()}", end="", file=sys.stderr)
    return found


class _Half:
    """A graph that is made of some inputs and judged by others.

    ratio : of its outputs for those, dB.
    """

    def __init__(self, graph: Graph, compiler: Compiler, seen: np.ndarray, held: np.ndarray,
                 wanted: np.ndarray | None = None) -> None:
        self.graph, self.compiler, self.seen, self.held = graph, compiler, seen, held
        self.wanted = outputs(graph, held) if wanted is None else wanted
        self.ratio = output_ratio(compiler.quantised(graph, seen), held, self.wanted)

    def after(self, step: Pass) -> "_Half":
        """Return the same after a pass."""
        return _Half(verify(step(self.graph, self.seen)), self.compiler, self.seen, self.held,
                     self.wanted)


def _passes(compiler: Compiler) -> dict[str, Pass]:
    """Return the passes by their names, in order."""
    def corrected(graph: Graph, x: np.ndarray) -> Graph:
        return correct_bias(graph, compiler.quantised(graph, x), x)

    return {"equalise": equalise, "correct_bias": corrected}


def applied(remarks: Iterable[str]) -> list[str]:
    """Return the passes that `more_accurate` says it has applied."""
    return [remark.removeprefix("accuracy: ").split(",")[0] for remark in remarks
            if remark.startswith("accuracy: ") and "," in remark
            and not remark.endswith("not applied")]


def decibels(signal: float, noise: float) -> float:
    """Return the ratio of two energies, dB; infinite without noise."""
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal else -math.inf


def output_ratio(graph: QGraph, x: np.ndarray, wanted: np.ndarray) -> float:
    """Return the signal-to-noise ratio of the outputs for inputs ``x``, dB; infinite without noise.

    wanted : outputs in float64, (N, C, H, W).
    """
    found, tensor = golden.run(graph, x, keep_tensors=False), graph.tensors[graph.output]
    lsb = tensor.format.lsb(found.exponents[graph.output])
    made = np.ldexp(found.mantissas[graph.output].astype(float), lsb[:, None, None, None])
    signal, noise = np.square(wanted).sum(), np.square(made - wanted).sum()
    return decibels(signal, noise)


def _remark(graph: Graph, remark: str) -> Graph:
    return replace(graph, remarks=(*graph.remarks, remark))
