"""Whether a network fits, on every target at once, and all that is in the way where it does not."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from celosia.bands.flash import MemoryShort
from celosia.bands.occupancy import WIDTH, MainMemory
from celosia.bands.report import main_memory, spent
from celosia.calibration import calibration_array, known_early
from celosia.compiler import Compiler
from celosia.extras import names_extra
from celosia.fit_search import Key, Machine, Progress, Search, gone, key
from celosia.graph import Graph
from celosia.range_exponents import check_static
from celosia.show import figure, rate, speed
from celosia_boards.arrays import ArrayRefused, array_for
from celosia_boards.targets import target as find_target
from celosia_boards.targets import targets as all_targets
from celosia_spec.errors import CompileError, FitError, quoted, refusals

if TYPE_CHECKING:
    import numpy as np

    from celosia_spec.preprocessing import Preprocessing


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is in a network's way on a target.

    layer, operator : as `celosia.CompileError` names them; the layer is "network" where it is all.
    problem   : what is wrong.   source : the user's line, or None.
    what, unit, needed, available : numbers, where it is a matter of size; else None.
    at_least  : whether more may be needed than ``needed``.
    remedy    : the smallest change that makes it go away, or None where no trial did.
    tried     : whether the remedy has been tried on this network.
    """

    layer: str
    operator: str
    problem: str
    source: str | None = None
    what: str | None = None
    needed: float | None = None
    available: float | None = None
    unit: str | None = None
    at_least: bool = False
    remedy: str | None = None
    tried: bool = False

    @property
    def units(self) -> str:
        """The unit behind a number, where ``what`` does not name it already."""
        return "" if not self.unit or self.unit in (self.what or "") else f" {self.unit}"

    def __str__(self) -> str:
        where = "" if self.layer == "network" else f"{self.layer} ({self.operator}): "
        text = self.problem
        if self.needed is not None and self.available is not None:
            alike = _number(self.needed) == _number(self.available)
            text = (f"{self.what}: {'more than ' if alike else 'at least ' * self.at_least}"
                    f"{_number(self.needed)}"
                    f"{self.units}, room for {_number(self.available)}")
        return f"{where}{text}" + (f" [{self.source}]" if self.source else "")


@dataclass(frozen=True, kw_only=True)
class LayerCheck:
    """A layer's cycles, exact.

    spent : on what they go, or for what they wait, by `celosia_sim.clock.machine_clock.SPENT`.
    """

    name: str
    cycles: int
    spent: dict[str, int]

    def __str__(self) -> str:
        """As in "conv1: 6,410 cycles, steps 92.4%, fill 2.7%"."""
        parts = (f"{what} {cycles / self.cycles:.1%}" for what, cycles in self.spent.items()
                 if cycles)
        return f"{self.name}: {self.cycles:,} cycles, {', '.join(parts)}"


@dataclass(frozen=True, kw_only=True)
class TargetCheck:
    """What becomes of a network on one target.

    lanes     : of its array, None where it cannot have those asked for.
    cycles, milliseconds, per_second : of one inference at ``clock_mhz``, its loading not counted;
                None where it does not fit.
    problems  : everything in the way.
    remedies  : changes with each of which it has been compiled, this target's own first. Where
                operators are in the way, of the network without them.
    rest_fits : whether only operators are in the way.
    remarks   : what was done with the model and its example, and what the width of the
                accumulators costs, where it fits; mostly nothing.
    layers, memory : of one target alone: what each layer waits for, and who lies where in main
                memory meanwhile; printed, that is a picture. Where main memory is too small, how it
                would be taken if it were not. Else () and None.
    """

    target: str
    lanes: int | None
    clock_mhz: float
    fits: bool
    cycles: int | None = None
    milliseconds: float | None = None
    per_second: float | None = None
    problems: tuple[Problem, ...] = ()
    remedies: tuple[str, ...] = ()
    rest_fits: bool = False
    remarks: tuple[str, ...] = ()
    layers: tuple[LayerCheck, ...] = ()
    memory: MainMemory | None = None


@dataclass(frozen=True, kw_only=True)
class Report:
    """One `TargetCheck` a target.   sized : whether sizes behind refused operators are known."""

    targets: tuple[TargetCheck, ...]
    sized: bool = True

    @property
    def fits(self) -> bool:
        """Whether the network fits one of the targets."""
        return any(entry.fits for entry in self.targets)

    def __str__(self) -> str:
        """A line a target; of one alone what its layers wait for, and who lies in main memory; and
        below it what is in the way."""
        lines = []
        for entry in self.targets:
            lines += [f"{entry.target}: " + (speed(entry.cycles, entry.clock_mhz) if entry.cycles
                                             else "does not fit"), *map(str, entry.layers)]
            lines += [] if entry.memory is None else entry.memory.lines(WIDTH)
        return "\n".join([*lines, *self.details()])

    def details(self) -> Iterator[str]:
        """Say what is in the way and what helps; what several targets share is said once."""
        shared = [problem for problem in self.targets[0].problems
                  if len(self.targets) > 1
                  and all(problem in entry.problems for entry in self.targets)]
        if shared:
            yield "on every target"
            yield from _told(shared, ())
        alike: dict[tuple[str, ...], list[str]] = {}
        for entry in self.targets:
            own = tuple(problem for problem in entry.problems if problem not in shared)
            lines = (*_told(own, entry.remedies), *_ways(entry),
                     *(f"  {remark}" for remark in entry.remarks))
            alike.setdefault(lines, []).append(entry.target)
        for lines, names in alike.items():
            if lines:
                yield ", ".join(names)
                yield from lines
        if not self.sized:
            yield "what lies behind these operators is not measured"


def _told(problems: Sequence[Problem], whole: Sequence[str]) -> Iterator[str]:
    """Problems, with what helps unless that is among the changes that solve all of them.

    Layers that have the same in their way, and are helped by the same, stand together.
    """
    groups: dict[tuple[object, ...], list[Problem]] = {}
    for problem in problems:
        own = ((problem.operator, problem.problem, problem.source) if problem.needed is None
               else (problem.what, problem.unit, problem.available))
        groups.setdefault((*own, problem.remedy, problem.tried), []).append(problem)
    for alike in groups.values():
        first, text = alike[0], str(alike[0])
        if len(alike) > 1 and first.needed is None:
            text = str(replace(first, layer=", ".join(problem.layer for problem in alike)))
        elif len(alike) > 1:
            layers = ", ".join(f"{problem.layer} ({_number(problem.needed or 0)})"
                               for problem in alike)
            text = f"{first.what}, room for {_number(first.available or 0)}{first.units}: {layers}"
        yield f"  {text}"
        if first.remedy and first.remedy not in whole:
            yield f"    {'helps' if first.tried else 'way out'}: {first.remedy}"


def _ways(entry: TargetCheck) -> Iterator[str]:
    if entry.remedies:
        operators = any(problem.remedy and not problem.tried for problem in entry.problems)
        yield (f"  {'without these operators ' * operators}it fits if you "
               f"{' or '.join(entry.remedies)}")
    if entry.rest_fits:
        yield "  it fits without these operators"
    if not entry.fits and not entry.remedies and any(problem.tried for problem in entry.problems):
        yield "  none of these changes is enough by itself; make layers smaller, or pool earlier"


def _plain(text: str) -> str:
    """Return a text with nothing in it that a terminal obeys, as long as it is."""
    return quoted(text, sys.maxsize)


def _number(number: float) -> str:
    return f"{number:,.0f}" if number == int(number) else figure(number)


@names_extra
def check(model: Any, example_input: Any = None, targets: Sequence[str] | str | None = None, *,
          calibration: Any = None, exponents: str = Compiler.exponents,
          weight_bits: int = Compiler.weight_bits, activation_bits: int = Compiler.activation_bits,
          input_bits: int | None = None, lanes: int | None = None,
          sparse: bool = True, accuracy: str | None = None,
          preprocessing: Preprocessing | None = None,
          progress: Progress | None = None) -> Report:
    """Tell for each target whether a network fits, and everything in the way where it does not.

    targets  : names, or None for all of them.
    progress : called with what is done now, how many targets it is done for, and of how many.

    The rest is as `celosia.compile` has it.

    The network is imported once, and compiled for each target and with each change that is named.
    Of one target the report also tells what each layer waits for, and who lies in main memory.

    Sizes that are too large, and operators that do not compile, are no errors here but what is
    reported. CelosiaError for unknown targets, for settings that cannot be, and for what is no
    network at all.
    """
    asked: Any = [targets] if isinstance(targets, str) else targets or all_targets()
    names = list(asked) if isinstance(asked, Iterable) else [asked]
    settings = Compiler(exponents=exponents, weight_bits=weight_bits, sparse=sparse,
                        activation_bits=activation_bits, input_bits=input_bits, lanes=lanes,
                        accuracy=accuracy)
    refused = refused_arrays(names, settings, calibrated=calibration is not None)
    samples = (calibration_array(calibration, preprocessing=preprocessing)
               if known_early(calibration) else None)

    from celosia.frontend.survey import survey

    told = progress or (lambda name, done, of: None)
    told("importing the network", 0, 0)
    found = survey(model, example_input)
    if found.graph is not None and (samples is None or found.graph.takes):
        samples = calibration_array(calibration, found.graph.takes, found.graph.input_shape,
                                    preprocessing)
    refusals, graph = list(found.refusals), None
    if found.graph is not None:
        try:
            prepared = settings.prepared(found.graph, samples, preprocessing)
            graph, samples, settings = prepared.graph, prepared.samples, prepared.compiler
        except CompileError as refusal:     # of a pass, which stops at the first
            refusals.append(refusal)
    if graph is not None:
        check_static(graph, exponents, calibrated=samples is not None)
    if graph is not None and samples is not None and settings.passes(samples):
        graph, settings = _more_accurate(graph, settings, samples, refused)
    search = Search(graph, samples, found.layers)
    possible = [name for name, reason in refused.items() if reason is None]
    machines = {}
    for done, name in enumerate(possible):
        told(f"compiling for {name}", done, len(possible))
        machines[name] = search.machine(replace(settings, target=name))
    search.find_changes(told)
    other = None
    if not any(machine.outcome.schedule for machine in machines.values()) and machines:
        other = search.elsewhere(next(iter(machines.values())).settings, names)
    operators = tuple(_problem(refusal, refusal.remedy, tried=False) for refusal in refusals)
    entries = tuple(
        _impossible(name, reason) if reason is not None
        else _checked(name, machines, operators, graph, other) for name, reason in refused.items())
    if len(entries) == len(machines) == 1:
        (entry,), (machine,) = entries, machines.values()
        fewer = _fewer_lanes(search, machine, entry) if entry.fits and lanes is None else ()
        entries = (replace(entry, remarks=(*entry.remarks, *fewer), layers=_layers(machine),
                           memory=_memory(machine)),)
    return Report(sized=graph is not None, targets=entries)


def _layers(machine: Machine) -> tuple[LayerCheck, ...]:
    """Return what each layer of a network that fits waits for."""
    schedule = machine.outcome.schedule
    return () if schedule is None else tuple(
        LayerCheck(name=_plain(layer.name), cycles=layer.predicted_cycles,
                   spent=spent(layer, schedule.array.lanes_all)) for layer in schedule.layers)


def _memory(machine: Machine) -> MainMemory | None:
    """Return who lies where in main memory, or would, where there is too little of it."""
    if machine.outcome.schedule is not None:
        found = main_memory(machine.outcome.schedule.stream)
    else:
        short = [refusal.memory for refusal in machine.outcome.refusals
                 if isinstance(refusal, MemoryShort)]
        if not short or short[0] is None:
            return None
        found = short[0]
    pieces = tuple(replace(piece, name=_plain(piece.name)) for piece in found.pieces)
    return replace(found, layers=tuple(map(_plain, found.layers)), pieces=pieces,
                   copied={_plain(name): size for name, size in found.copied.items()})


def _more_accurate(graph: Graph, settings: Compiler, samples: np.ndarray,
                   refused: Mapping[str, str | None]) -> tuple[Graph, Compiler]:
    """Return the graph and the settings after what is done for accuracy: the same for all targets,
    measured on the first that can have the array."""
    from celosia.accuracy import more_accurate

    first = next((name for name, reason in refused.items() if reason is None), None)
    if first is None:
        return graph, settings
    try:
        with refusals():
            improved = more_accurate(graph, replace(settings, target=first), samples)
    except CompileError:            # which the targets report
        return graph, settings
    return improved.graph, replace(improved.compiler, target=settings.target)


def refused_arrays(names: Sequence[str], settings: Compiler, *,
                   calibrated: bool) -> dict[str, str | None]:
    """Return for each target why it cannot have the array asked for, None where it can.

    CelosiaError for an unknown target, and for settings that no array can have.
    """
    found: dict[str, str | None] = {}
    for name in names or all_targets():
        own = replace(settings, target=name)
        try:
            array_for(name, settings.lanes, weight_bits=settings.weight_bits,
                      activation_bits=settings.activation_bits)
        except ArrayRefused as reason:
            replace(own, lanes=None, weight_bits=4, activation_bits=4, input_bits=None).check(
                calibrated=calibrated)
            found[name] = str(reason)
        except ValueError:
            own.check(calibrated=calibrated)        # says what is wrong
            raise
        else:
            own.check_input()
            found[name] = own.input_refusal()
            replace(own, input_bits=None if found[name] else own.input_bits).check(
                calibrated=calibrated)
    return found


def _impossible(name: str, reason: str) -> TargetCheck:
    """Return the result for a target that cannot have the array asked for."""
    problem, _, remedy = reason.partition("; ")
    return TargetCheck(target=name, lanes=None, clock_mhz=find_target(name).clock_mhz, fits=False,
                       problems=(Problem(layer="network", operator="array",
                                         problem=problem, remedy=remedy),))


def _checked(name: str, machines: dict[str, Machine], operators: tuple[Problem, ...],
             graph: Graph | None, other: str | None) -> TargetCheck:
    """Return what became of the network on a target; other : a way out on one not asked for."""
    machine, clock = machines[name], find_target(name).clock_mhz
    schedule = machine.outcome.schedule
    lanes = machine.settings.array().lanes_all
    if schedule is not None and not operators:
        found = rate(schedule.predicted_cycles, clock)
        return TargetCheck(target=name, lanes=lanes, clock_mhz=clock, fits=True,
                           cycles=schedule.predicted_cycles,
                           remarks=tuple(map(_plain, machines[name].outcome.remarks)),
                           **found._asdict())
    sources = {} if graph is None else graph.sources
    problems = tuple(_problem(
        refusal if refusal.source else refusal.at(sources.get(refusal.node)),
        machine.single.get(key(refusal)) or _elsewhere(key(refusal), machines), tried=True)
        for refusal in machine.outcome.refusals)
    fitting = [other for other, found in machines.items() if found.outcome.schedule is not None]
    ways = (machine.whole, f"compile it for {_board(fitting)}" if fitting else other)
    return TargetCheck(
        target=name, lanes=lanes, clock_mhz=clock, fits=False, problems=operators + problems,
        rest_fits=schedule is not None, remedies=tuple(way for way in ways if way and problems))


def _fewer_lanes(search: Search, machine: Machine, entry: TargetCheck) -> Iterator[str]:
    """Say how fast the network is with one cluster where it is faster than several that wait for
    what they copy from flash: its control words leave more of main memory for weights."""
    array, found = machine.settings.array(), machine.outcome.schedule
    if array.clusters == 1 or found is None or not found.stream.flash.waits:
        return
    own = replace(machine.settings, lanes=array.lanes)
    schedule = search.machine(own).outcome.schedule
    if schedule and entry.cycles and schedule.predicted_cycles < entry.cycles:
        yield (f"{own.lanes} lanes take {schedule.predicted_cycles:,} cycles: --lanes "
               f"{own.lanes}, in Python lanes={own.lanes}")


def _board(names: Sequence[str]) -> str:
    """Return the first name of a board, or of a device where none of them is a board."""
    return min(names, key=lambda name: find_target(name).platform is None)


def _elsewhere(one: Key, machines: dict[str, Machine]) -> str | None:
    """Return the target on which this is not in the way, in words; None where it is on all."""
    names = [name for name, machine in machines.items() if gone(one, machine.outcome)]
    return f"compile it for {_board(names)}" if names else None


def _problem(refusal: CompileError, remedy: str | None, *, tried: bool) -> Problem:
    found = Problem(layer="network" if refusal.operator == "memory" else _plain(refusal.node),
                    operator=_plain(refusal.operator), problem=_plain(refusal.problem),
                    source=None if refusal.source is None else quoted(refusal.source),
                    remedy=None if remedy is None else _plain(remedy),
                    tried=tried and remedy is not None)
    need = refusal.need if isinstance(refusal, FitError) else None
    return found if need is None else replace(
        found, what=need.what, unit=need.unit, needed=need.needed, available=need.available,
        at_least=need.least)
