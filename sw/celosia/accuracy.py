"""Which passes for accuracy help a network, measured on inputs that they have not seen."""

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from celosia.beside_float import decibels, energies, ratios
from celosia.calibration import check_calibration, different, spread
from celosia.compiler import BEST, LEAST_INPUTS, Compiler
from celosia.float_values import outputs
from celosia.graph import Graph
from celosia.graph_rules import verify
from celosia.graph_text import dump
from celosia.passes import correct_bias, equalise
from celosia.show import count
from celosia_sim import golden
from celosia_spec.epilogue import STATIC
from celosia_spec.errors import CelosiaError, CompileError, FitError
from celosia_spec.qgraph import QGraph

MOST_INPUTS = 32
"""As many are looked at, evenly spread."""

Pass = Callable[[Graph, np.ndarray], Graph]

CLIPPING = "clipping exponents"

HALF = 10 * math.log10(2)
"""What makes half of the noise lets signal to noise be so much higher if it is alone, dB."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Improved:
    """A graph whose mantissas make outputs more like the float ones.

    compiler : to go on with.
    applied  : names of the passes that were.
    noise    : of every stored tensor, signal to noise before and after, dB; none where there were
               too few inputs to judge by.
    """

    graph: Graph
    compiler: Compiler
    applied: tuple[str, ...]
    noise: dict[str, tuple[float, float]]


def more_accurate(graph: Graph, compiler: Compiler, samples: np.ndarray, *,
                  dump_after: str | None = None) -> Improved:
    """Return an optimised graph after the passes that make the outputs of its mantissas more like
    the float outputs, with a remark on each of them.

    samples    : calibration inputs, (N, *input_shape).
    dump_after : as `celosia.passes.optimise` has it.

    A pass is made of either half of the different inputs and judged by the other; where it does not
    help both times, or needs wider accumulators, the graph stays as it was. One that does is made
    of all of them. With accuracy "best", static exponents that clip are chosen in the same way.
    """
    check_calibration(samples, graph.input_shape)
    samples = different(samples)
    if (told := too_few(samples)) is not None:
        return Improved(graph=_remark(graph, told), compiler=compiler, applied=(), noise={})
    samples = spread(samples, MOST_INPUTS)
    try:
        halves = [_Half(graph, compiler, samples[at::2], samples[1 - at::2]) for at in range(2)]
    except FitError as refusal:
        told = f"accuracy: cannot be judged, {refusal.node}: {refusal.problem}"
        return Improved(graph=_remark(graph, told), compiler=compiler, applied=(), noise={})
    before, found, applied = _energies(halves), graph, []
    for name, step in _passes(compiler).items():
        try:
            after = [half.after(step) for half in halves]
            made = verify(step(found, samples))
            compiler.quantised(made, samples)
        except CompileError as refusal:
            found = _remark(found, f"accuracy: {name}, {refusal.problem}: not applied")
            continue
        helps, told = _judged(name, halves, after, len(samples))
        if helps:
            halves, found = after, made
            applied.append(name)
        found = _remark(found, told)
        if dump_after in ("all", name):
            print(f"# after {name}\n{dump(found)}", end="", file=sys.stderr)
    if compiler.accuracy == BEST and compiler.exponents == STATIC:
        after = [half.clipped() for half in halves]
        helps, told = _judged(CLIPPING, halves, after, len(samples))
        if helps:
            halves, compiler = after, replace(compiler, clipped=True)
            applied.append(CLIPPING)
        found = _remark(found, told)
    if wider := _wider(halves, len(samples)):
        found = _remark(found, wider)
    ratios_after = ratios(_energies(halves))
    return Improved(graph=found, compiler=compiler, applied=tuple(applied), noise={
        name: (ratio, ratios_after[name]) for name, ratio in ratios(before).items()})


def too_few(samples: np.ndarray) -> str | None:
    """Return what is said where passes cannot be judged by calibration inputs, None where they
    can."""
    if (found := len(different(samples))) >= LEAST_INPUTS:
        return None
    return (f"accuracy: cannot be judged by {count(found, 'different calibration input')}; give "
            f"{LEAST_INPUTS} different ones")


class _Half:
    """A graph that is made of some inputs and judged by others.

    exact : the graph that computes what the network does.
    ratio : of its outputs for those, dB.
    """

    def __init__(self, graph: Graph, compiler: Compiler, seen: np.ndarray, held: np.ndarray,
                 exact: Graph | None = None, wanted: np.ndarray | None = None) -> None:
        self.graph, self.compiler, self.seen, self.held = graph, compiler, seen, held
        self.exact = graph if exact is None else exact
        self.wanted = outputs(graph, held) if wanted is None else wanted
        self.quantised = compiler.quantised(graph, seen)
        self.ratio = worst_ratio(graph, values_of(self.quantised, held), self.wanted)

    def after(self, step: Pass) -> "_Half":
        """Return the same after a pass."""
        graph = verify(step(self.graph, self.seen))
        return _Half(graph, self.compiler, self.seen, self.held, self.exact, self.wanted)

    @property
    def input_ratio(self) -> float:
        """Of the outputs if nothing but the input were rounded, dB."""
        tensor = self.quantised.tensors[self.quantised.input]
        m, exponents = golden.quantise_input(self.quantised, self.held)
        return worst_ratio(self.exact, outputs(self.exact, tensor.values(m, exponents)),
                           self.wanted)

    def wide(self, compiler: Compiler) -> "_Half":
        """Return the same with a wide input; CompileError where there can be none."""
        return _Half(compiler.separated(self.graph), compiler, self.seen, self.held, self.exact,
                     self.wanted)

    def clipped(self) -> "_Half":
        """Return the same with static exponents that clip."""
        return _Half(self.graph, replace(self.compiler, clipped=True), self.seen, self.held,
                     self.exact, self.wanted)


def _wider(halves: list[_Half], inputs: int) -> str | None:
    """Return what is said of a wide input where the input's rounding makes most of the noise that
    is left, and more bits of it help."""
    compiler = halves[0].compiler
    wide = replace(compiler, input_bits=2 * compiler.activation_bits - 1)
    if compiler.low_bits or any(half.input_ratio > half.ratio + HALF for half in halves):
        return None
    try:
        wide.check(calibrated=True)
        after = [half.wide(wide) for half in halves]
    except CelosiaError:
        return None
    if not all(new.ratio > old.ratio for new, old in zip(after, halves, strict=True)):
        return None
    return (f"accuracy: the input's rounding costs most; with input_bits={wide.input_bits}, which "
            f"computes the first layer twice, {_gains(halves, after)} on either half of {inputs} "
            f"calibration inputs")


def _gains(before: list[_Half], after: list[_Half]) -> str:
    return " and ".join(f"{old.ratio:.1f} -> {new.ratio:.1f} dB"
                        for new, old in zip(after, before, strict=True))


def _judged(name: str, before: list[_Half], after: list[_Half], inputs: int) -> tuple[bool, str]:
    """Return whether a change helps in both halves, and what is said of it."""
    helps = all(new.ratio > old.ratio and new.quantised.acc_bits <= old.quantised.acc_bits
                for new, old in zip(after, before, strict=True))
    return helps, (f"accuracy: {name}, {_gains(before, after)} on either half of {inputs} "
                   f"calibration inputs, made of the other{'' if helps else ': not applied'}")


def _energies(halves: list[_Half]) -> dict[str, np.ndarray]:
    """Return signal and noise of every tensor, over the inputs by which the halves are judged."""
    one, other = (energies(half.exact, half.quantised, half.held) for half in halves)
    return {name: sums + other[name] for name, sums in one.items()}


def _passes(compiler: Compiler) -> dict[str, Pass]:
    """Return the passes by their names, in order."""
    def corrected(graph: Graph, x: np.ndarray) -> Graph:
        return correct_bias(graph, compiler.quantised(graph, x), x)

    return {"equalise": equalise, "correct_bias": corrected}


def worst_ratio(graph: Graph, made: np.ndarray, wanted: np.ndarray) -> float:
    """Return the signal-to-noise ratio of outputs, float64 (N, C, H, W), dB: of several that the
    network returns, that of the worst."""
    made, wanted = (graph.returned(values) for values in (made, wanted))
    return min(decibels_of(output.part(made), output.part(wanted)) for output in graph.outputs)


def output_ratio(graph: QGraph, x: np.ndarray, wanted: np.ndarray) -> float:
    """Return the signal-to-noise ratio of the outputs for inputs ``x``, dB; infinite without noise.

    wanted : outputs in float64, (N, C, H, W).
    """
    return decibels_of(values_of(graph, x), wanted)


def values_of(graph: QGraph, x: np.ndarray) -> np.ndarray:
    """Return the outputs for inputs ``x``, float64 (N, C, H, W)."""
    found, tensor = golden.run(graph, x, keep_tensors=False), graph.tensors[graph.output]
    lsb = tensor.format.lsb(found.exponents[graph.output])
    values: np.ndarray = np.ldexp(found.mantissas[graph.output].astype(float),
                                  lsb[:, None, None, None])
    return values


def decibels_of(made: np.ndarray, wanted: np.ndarray) -> float:
    """Return the signal-to-noise ratio of numbers, dB; infinite where they are those wanted."""
    return decibels(float(np.square(wanted).sum()), float(np.square(made - wanted).sum()))


def _remark(graph: Graph, remark: str) -> Graph:
    return replace(graph, remarks=(*graph.remarks, remark))
