"""From a model to a program for one target: the stages of it, and their settings."""

import operator
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from celosia.calibration import check_calibration, different
from celosia.graph import Graph
from celosia.graph_rules import verify
from celosia.uncollected import uncollected
from celosia_boards.arrays import array_for, widest_accumulators
from celosia_boards.targets import target as find_target
from celosia_spec.epilogue import DYNAMIC, STATIC, check_exponents
from celosia_spec.errors import ArgumentError, FitError, located, refusals
from celosia_spec.isa.array import Array
from celosia_spec.isa.numbers import ACCUMULATORS, MANTISSA_BITS
from celosia_spec.isa.words import WEIGHT_BITS
from celosia_spec.qgraph import QGraph

if TYPE_CHECKING:
    from celosia.bands.schedule import Outcome, StreamSchedule
    from celosia.program import Program
    from celosia.quantise import Begun
    from celosia_spec.preprocessing import Preprocessing
    from celosia_spec.steps import Steps

ACCURACIES = AS_IS, PASSES, BEST = "none", "default", "best"
"""What is done for accuracy: nothing; the passes that calibration inputs show to help; and static
exponents that clip, too, where they help."""

LEAST_INPUTS = 8
"""Different calibration inputs with which a pass can be judged: half of them are kept from it."""

TIME = "time"
"""The one way to run a network in steps."""


@dataclass(frozen=True, kw_only=True)
class Compiler:
    """How to compile, every field as `celosia.compile` has it; and the stages of it: `graph`,
    `quantised`, `schedule`, `program`. Each takes what the one before returned.

    unsigned_input : inputs are never below 0; their mantissas have no sign then.
    clipped        : static exponents are those with least noise, which may clip.
    larger_input   : bits by which each channel of the input is made larger (`input_scales`); ().
    """

    target: str = "icebreaker"
    exponents: str = DYNAMIC
    weight_bits: int = Array.weight_bits
    activation_bits: int = Array.activation_bits
    input_bits: int | None = None
    lanes: int | None = None
    sparse: bool = True
    stream: str | None = None
    hop: int | None = None
    accuracy: str | None = None
    unsigned_input: bool = False
    clipped: bool = False
    larger_input: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Make whole numbers of any kind ints; what is none is refused by `check`."""
        for name in ("weight_bits", "activation_bits", "input_bits", "lanes", "hop"):
            with suppress(TypeError):
                object.__setattr__(self, name, operator.index(getattr(self, name)))

    def check(self, *, calibrated: bool) -> None:
        """Refuse what no network could be compiled with, before any work.

        calibrated : whether there are calibration inputs.

        ArgumentError for a value out of its range, CelosiaError where there is no such target or
        its array cannot be as asked.
        """
        check_exponents(self.exponents)
        for name, widths in (("weight_bits", WEIGHT_BITS), ("activation_bits", MANTISSA_BITS)):
            bits = getattr(self, name)
            if not isinstance(bits, int) or bits not in widths:
                raise ArgumentError(f"{name} must be {widths[0]} to {widths[-1]}, not {bits!r}")
        self.array()
        self.check_input()
        if (refusal := self.input_refusal()) is not None:
            raise ArgumentError(refusal)
        self._check_stream()
        self._check_accuracy(calibrated=calibrated)

    def input_refusal(self) -> str | None:
        """Return why the target can have no such input, None where it can."""
        if not self.low_bits or self.array().residual:
            return None
        return (f"input_bits={self.input_bits} adds the sums of two layers, and the array of "
                f"{self.target} adds no tensors; leave input_bits out, or take another target")

    def check_input(self) -> None:
        """ArgumentError unless the input's bits are in their range."""
        least, most = self.activation_bits, 2 * self.activation_bits - 1
        if self.input_bits is not None and (not isinstance(self.input_bits, int) or not
                                            least <= self.input_bits <= most):
            raise ArgumentError(f"input_bits must be {least} to {most} with activation_bits="
                                f"{least}, not {self.input_bits!r}")

    def _check_stream(self) -> None:
        if self.stream is None:
            if self.hop is not None:
                raise ArgumentError("hop is the lines of a step of time, and there are none: give "
                                    "stream='time', too")
            return
        if self.stream != TIME:
            raise ArgumentError(f"stream must be {TIME!r} or None, not {self.stream!r}")
        if self.exponents != STATIC:
            raise ArgumentError("stream='time' keeps lines from step to step, and dynamic "
                                "exponents are found for each window anew: give "
                                "exponents='static' and calibration inputs")

    def _check_accuracy(self, *, calibrated: bool) -> None:
        if self.accuracy is None:
            return
        if self.accuracy not in ACCURACIES:
            *others, last = map(repr, ACCURACIES)
            raise ArgumentError(f"accuracy must be {', '.join(others)} or {last}, not "
                                f"{self.accuracy!r}")
        if self.accuracy != AS_IS and not calibrated:
            raise ArgumentError(f"accuracy={self.accuracy!r} needs calibration inputs: give "
                                f"calibration an array (N, C, H, W) or (N, F), or use "
                                f"accuracy={AS_IS!r}")

    def passes(self, samples: np.ndarray | None) -> bool:
        """Whether the passes for accuracy run, with these calibration inputs."""
        if samples is None or self.accuracy is not None:
            return samples is not None and self.accuracy != AS_IS
        return len(different(samples)) >= LEAST_INPUTS

    @property
    def low_bits(self) -> int:
        """Of the low part of every number of the input; 0 where it has none."""
        return 0 if self.input_bits is None else self.input_bits - self.activation_bits

    @property
    def arguments(self) -> dict[str, Any]:
        """What `celosia.compile` is to be called with for the same."""
        return {field.name: getattr(self, field.name) for field in fields(self)
                if field.name not in ("unsigned_input", "clipped", "larger_input")}

    def prepared(self, graph: Graph, samples: np.ndarray | None,
                 preprocessing: "Preprocessing | None" = None, *, dump_after: str | None = None,
                 ) -> "Prepared":
        """Return what all that compile an imported graph go on with; errors as of `optimised`.

        samples : calibration inputs (N, *input_shape), or None.   preprocessing, dump_after : as
        `celosia.compile` has them.
        """
        from celosia.input_scales import as_read

        optimised = self.optimised(graph, samples, dump_after=dump_after)
        if samples is not None:
            samples = as_read(optimised, samples)
        return Prepared(graph=optimised, samples=samples,
                        compiler=self.of_inputs(samples, preprocessing, optimised))

    def of_inputs(self, samples: np.ndarray | None, preprocessing: "Preprocessing | None" = None,
                  graph: Graph | None = None) -> "Compiler":
        """Return the settings for inputs like these, or made so: they may be never below 0, and of
        several tensors that an optimised graph takes some may be smaller."""
        from celosia.input_scales import larger_bits

        bits = () if graph is None else larger_bits(graph, samples)
        return replace(self, larger_input=bits, unsigned_input=(
            (preprocessing is not None and preprocessing.unsigned)
            or (samples is not None and bool((samples >= 0).all()))))

    def array(self) -> Array:
        """Return the array before its accumulators are known; CelosiaError where the target cannot
        hold it."""
        with refusals():
            return array_for(find_target(self.target), lanes=self.lanes,
                             weight_bits=self.weight_bits, activation_bits=self.activation_bits)

    def accumulators(self) -> tuple[int, ...]:
        """Return the widths that accumulators may get on the target, narrowest first."""
        widest = widest_accumulators(find_target(self.target), self.array())
        return tuple(width for width in ACCUMULATORS if width <= widest) or ACCUMULATORS[:1]

    def graph(self, model: Any, example_input: Any = None, *,
              dump_after: str | None = None) -> Graph:
        """Return the optimised float graph of a model; it is the same for all settings, but that
        a wide input is read by layers without a pool.

        model, example_input, dump_after : as `celosia.compile` has them.
        """
        return self.optimised(self.imported(model, example_input), dump_after=dump_after)

    def imported(self, model: Any, example_input: Any = None) -> Graph:
        """Return the float graph of a model before any pass."""
        with uncollected():
            from celosia.frontend import import_model

            return import_model(model, example_input)

    def optimised(self, graph: Graph, samples: np.ndarray | None = None, *,
                  like: QGraph | None = None, dump_after: str | None = None) -> Graph:
        """Return an imported graph after all passes; CompileError where one cannot do its work.

        samples : calibration inputs, which tell how large each of several outputs is.
        like    : a graph that has been made of it, whose several outputs are made the same way.
        """
        from celosia.passes import Sizes, as_in, estimated, measured, optimise
        from celosia.passes.leaky_to_linear import slope_remarks
        from celosia.products import products, remarks, scales_in

        sizes: Sizes = estimated
        if like is not None:
            output = like.tensors[like.output]
            sizes = as_in(output.name, output.raised or (0,) * output.shape[0], like.tensors)
            scales = scales_in(graph, like)
        else:
            if samples is not None:
                check_calibration(samples, graph.input_shape)
            if samples is not None and graph.returns:
                sizes = measured(samples)
            with located(graph.sources):
                found = products(graph, samples)
            scales = {name: product.scale for name, product in found.items()}
            graph = replace(graph, remarks=(
                *graph.remarks, *remarks(found, calibrated=samples is not None),
                *slope_remarks(graph, self.weight_bits)))
        return self.separated(optimise(graph, dump_after=dump_after, sizes=sizes, scales=scales))

    def separated(self, graph: Graph) -> Graph:
        """Return an optimised graph as a wide input needs it; CompileError where it cannot be."""
        from celosia.passes import apart

        if not self.low_bits:
            return graph
        with located(graph.sources):
            return verify(apart(graph))

    def begun(self, graph: Graph) -> "Begun":
        """Return what of `quantised` does not depend on the accumulators, to be used again."""
        from celosia.quantise import begin

        return begin(graph, weight_bits=self.weight_bits, sparse=self.sparse,
                     low_bits=self.low_bits, larger_input=self.larger_input)

    def quantised(self, graph: Graph, samples: np.ndarray | None, *,
                  acc_bits: int | None = None, begun: "Begun | None" = None) -> QGraph:
        """Return an optimised graph with its mantissas.

        samples  : calibration inputs.   acc_bits : None takes the narrowest that loses nothing.
        begun    : what `begun` returned of the graph.
        """
        from celosia.quantise import quantise

        return quantise(graph, calibration=samples, exponents=self.exponents, acc_bits=acc_bits,
                        weight_bits=self.weight_bits, activation_bits=self.activation_bits,
                        widest=self.accumulators()[-1], sparse=self.sparse, begun=begun,
                        low_bits=self.low_bits, larger_input=self.larger_input,
                        unsigned_input=self.unsigned_input, clipped=self.clipped)

    def schedule(self, graph: QGraph) -> "StreamSchedule":
        """Return how the array runs a quantised graph, as if it had room for all weights and maps
        (`refusals`); FitError where it can run it in no way."""
        from celosia.bands.schedule import schedule_with_room

        array = self._array_of(graph)
        self._check_stream()
        return schedule_with_room(graph, array, self.steps(graph))

    def steps(self, graph: QGraph) -> "Steps | None":
        """Return a quantised graph in steps of time, if that is asked for; CompileError where it
        cannot be, ArgumentError where ``hop`` cannot."""
        from celosia.bands.steps import steps

        return None if self.stream is None else steps(graph, self.hop)

    def refusals(self, found: "StreamSchedule") -> Iterator[FitError]:
        """Everything of a schedule that the target has no room for."""
        yield from self._too_wide(found.array)
        yield from found.refusals()

    def fitting(self, graph: QGraph) -> "StreamSchedule":
        """Return the schedule; FitError where the target does not take the graph."""
        for refusal in self._too_wide(self._array_of(graph)):
            raise refusal
        found = self.schedule(graph)
        for refusal in found.refusals():
            raise refusal
        return found

    def program(self, graph: QGraph) -> "Program":
        """Return the program; FitError where the target does not take the graph."""
        from celosia.program import program_of

        return program_of(self.fitting(graph), target=self.target, exponents=self.exponents)

    def attempt(self, graph: QGraph) -> "Outcome":
        """Return the schedule, or everything that is in the way."""
        from celosia.bands.schedule import Outcome, attempt

        try:
            array = self._array_of(graph)
        except FitError as refusal:
            return Outcome(schedule=None, refusals=(refusal,), planned=False)
        outcome = attempt(graph, array, self.steps(graph))
        if refusals := tuple(self._too_wide(array)):
            outcome = replace(outcome, schedule=None, refusals=refusals + outcome.refusals)
        return replace(outcome, remarks=graph.remarks)

    def _array_of(self, graph: QGraph) -> Array:
        """Return the array with the accumulators of a graph; FitError where there is none."""
        try:
            return replace(self.array(), acc_bits=graph.acc_bits)
        except ValueError as problem:
            raise self._no_sums(graph.acc_bits, str(problem)) from None

    def _too_wide(self, array: Array) -> Iterator[FitError]:
        """A refusal where an array's accumulators are too wide for the target."""
        if problems := find_target(self.target).check(array):
            yield self._no_sums(array.acc_bits, str(problems[0]))

    def _no_sums(self, bits: int, problem: str) -> FitError:
        return FitError(
            "network", "accumulators", f"its sums need {bits} bits, and on {self.target} {problem}",
            f"quantise it with acc_bits={self.accumulators()[-1]}")


@dataclass(frozen=True, eq=False, kw_only=True)
class Prepared:
    """A network before it is quantised.

    graph    : after all passes.   samples : calibration inputs as the machine reads them, or None.
    compiler : the settings for inputs like these.
    """

    graph: Graph
    samples: np.ndarray | None
    compiler: Compiler


def as_if_calibrated(graph: QGraph) -> QGraph:
    """Return a quantised graph with static exponents, on whose values no place and no cycle
    depends."""
    from celosia.static_exponents import fixed

    return fixed(graph, {name: tensor.exponent.least for name, tensor in graph.tensors.items()})
