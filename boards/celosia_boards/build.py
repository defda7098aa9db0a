"""From a design to a bitstream whose clock the placed design meets."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from amaranth.hdl import Elaboratable

from celosia_boards.clock import MARGIN, highest_clock, possible_clock
from celosia_boards.description import Target
from celosia_boards.families import FAMILIES
from celosia_boards.report import BuildReport, read_report, sha256_of
from celosia_boards.stages import CirclingError, Job, OverfullError, platform_of
from celosia_boards.toolchain import BuildError
from celosia_boards.workplace import forget, publish, workplace

__all__ = ["BuildError", "BuildReport", "build", "platform_of", "sweep_seeds"]

Design = Callable[[float], Elaboratable]
"""Makes the top level for an array's clock in MHz."""

Progress = Callable[[str], None]

SPARE = 4
"""Seeds that are tried behind those that were asked for, where no one of these finds routes."""


def build(design: Design, target: Target, directory: str | Path, *, seed: int = 0, seeds: int = 1,
          name: str = "celosia", clock_mhz: float | None = None,
          allow_timing_failure: bool = False, placement: Sequence[str] = (), fresh: bool = False,
          progress: Progress | None = None) -> BuildReport:
    """Build a design for ``target`` and leave the results in ``directory``.

    design    : makes, for a board, a design that requests its pins from the platform; for a bare
                device, a Component, whose ports are placed on any pins.
    seed      : nextpnr's first seed.
    seeds     : how many are placed; the fastest is kept. A board with more than one then gets the
                highest standard clock that this one meets (`celosia_boards.clock`), if it is
                higher: the design is made anew for that clock and placed with the same seed, and
                stays at the lower clock where that does not close. Where the router goes in
                circles on all of them, up to ``SPARE`` further seeds are tried.
    clock_mhz : clock that timing must close at, and that the board runs at; None is the target's.
    allow_timing_failure : keep a design that misses its clock.
    placement : further options of nextpnr, as its command line takes them.
    fresh     : start every tool, whatever is there of earlier builds.
    progress  : called with the name of each stage as it starts, and what each seed came to.

    Files: ``<name>.bin`` or ``.bit`` (boards only), ``<name>.report.json`` (the returned report),
    ``<name>.yosys.log``, ``<name>.nextpnr.log`` and ``.json``. They appear when all is done, each
    in one step, the report last; a failed build leaves the logs, and neither report nor bitstream,
    not even those of an older build. BuildError says what failed: a missed clock is a failure.

    Where ``directory`` holds the results of the same design, options and tools (the bitstream does
    not depend on the program that it will run), they are returned as they are. Where another folder
    got them, what the tools made is in the cache, and none is started (``cached`` of the report).
    CacheError where the cache cannot be used; ``fresh`` leaves it alone.
    """
    directory, say = Path(directory), progress or _silent
    if seeds < 1:
        raise ValueError(f"seeds must be at least 1, not {seeds!r}")
    clock = possible_clock(target, target.clock_mhz if clock_mhz is None else clock_mhz)
    with workplace(directory, name) as work:
        job = Job(target, work, name, tuple(placement), fresh, say)
        job.require()
        say("elaboration")
        job.elaborate(design(clock))
        inputs = job.digest(f"{target.facts()} {seed} {seeds} {clock_mhz} {clock}")
        known = None if fresh else _known(directory, name, inputs)
        if known is not None and (known.timing_met or allow_timing_failure):
            return known
        forget(directory, _stale(name))
        if known is not None:
            raise BuildError(_missed(target, known))
        report = _fastest(job, range(seed, seed + seeds), clock, say, spare=SPARE)
        if report.timing_met and seeds > 1 and clock_mhz is None:
            job, report = _at_higher_clock(job, design, report, say)
        if not (report.timing_met or allow_timing_failure):
            raise BuildError(_missed(target, report))
        return _finish(job, directory, report, inputs, say)


def sweep_seeds(design: Design, target: Target, directory: str | Path, seeds: Sequence[int], *,
                name: str = "celosia", clock_mhz: float | None = None, fresh: bool = False,
                progress: Progress | None = None) -> list[BuildReport]:
    """Synthesise a design once and place it once a seed; return a report for each seed, in order.

    Makes no bitstream, and a missed clock is no error. Seeds on which the router goes in circles
    have no report; where it does on all of them, that is an error. ``<name>.sweep.json`` in
    ``directory`` holds all reports. Arguments and errors as for `build`.
    """
    directory, say = Path(directory), progress or _silent
    clock = possible_clock(target, target.clock_mhz if clock_mhz is None else clock_mhz)
    with workplace(directory, name) as work:
        job = Job(target, work, name, fresh=fresh, say=say)
        job.require()
        say("elaboration")
        job.elaborate(design(clock))
        forget(directory, _stale(name))
        say("synthesis")
        job.synthesise()
        reports, failure = [], None
        for seed in seeds:
            say(f"placement and routing, seed {seed}")
            try:
                report = _place(job, seed, clock)
            except CirclingError as error:
                failure = error
                say(f"seed {seed}: the router goes in circles")
                continue
            say(_words(report))
            reports.append(replace(report, log=directory / report.log.name))
        if failure is not None and not reports:
            raise failure
        text = json.dumps([report.to_json() for report in reports], indent=2) + "\n"
        (work / f"{name}.sweep.json").write_text(text, encoding="utf-8")
        publish(work, directory, (*job.results, f"{name}.sweep.json"))
    return reports


def _silent(stage: str) -> None:
    """Progress that nobody asked for."""


def _stale(name: str) -> list[str]:
    """Names of what must not outlive a failed build."""
    bitstreams = [family.bitstream for family in FAMILIES]
    return [f"{name}.{suffix}" for suffix in ("report.json", "sweep.json", *bitstreams)]


def _place(job: Job, seed: int, clock_mhz: float) -> BuildReport:
    cached = job.place(seed, clock_mhz)
    report = replace(read_report(job.work, job.name, job.target, seed=seed, clock_mhz=clock_mhz),
                     cached=cached)
    if report.luts > report.available.luts:         # nextpnr has the 25F's for the 12F
        raise OverfullError(f"the design needs {report.luts} of {report.available.luts} look-up "
                            f"tables of the {job.target.device.name}; choose fewer lanes or a "
                            f"larger target")
    return report


def _fastest(job: Job, seeds: Sequence[int], clock_mhz: float, say: Progress,
             spare: int = 0) -> BuildReport:
    """Synthesise, place every seed, and leave the files of the fastest.

    A seed that finds no placement or no routes is passed over while another one does. Where the
    router goes in circles on all, so many further seeds are tried, until one finds routes.
    """
    say("synthesis")
    job.synthesise()
    best_folder = job.work / "best"
    best_folder.mkdir()
    best, placements, failure = None, [], None
    following = range(seeds[-1] + 1, seeds[-1] + 1 + spare)
    for seed in (*seeds, *following):
        asked = seed not in following
        if not asked and not (best is None and isinstance(failure, CirclingError)):
            break
        say("placement and routing" + (f", seed {seed}" if len(seeds) > 1 or not asked else ""))
        try:
            report = _place(job, seed, clock_mhz)
        except OverfullError:
            raise
        except BuildError as error:
            failure = error
            say(f"seed {seed}: " + ("the router goes in circles" if isinstance(error, CirclingError)
                                    else "failed"))
            continue
        say(_words(report))
        placements.append(report.placement)
        if best is None or _speed(report) > _speed(best):
            best = report
            job.move_placement(job.work, best_folder)
    if best is None:
        assert failure is not None
        raise failure
    job.move_placement(best_folder, job.work)
    return replace(best, placements=tuple(placements))


def _at_higher_clock(job: Job, design: Design, report: BuildReport,
                     say: Progress) -> tuple[Job, BuildReport]:
    """Return the design made for the highest standard clock that ``report`` meets, if it closes
    there; else what was given."""
    target = job.target
    clock = None if report.fmax_mhz is None else highest_clock(target, report.fmax_mhz)
    if target.platform is None or clock is None or clock <= report.clock_mhz:
        return job, report
    say(f"elaboration, {clock:g} MHz")
    higher = replace(job, work=job.work / "higher")
    higher.work.mkdir()
    higher.elaborate(design(clock))
    try:
        found = _fastest(higher, [report.seed], clock, say)
    except BuildError:
        say(f"{clock:g} MHz: failed, staying at {report.clock_mhz:g} MHz")
        return job, report
    placements = (*report.placements, *found.placements)
    if found.timing_met:
        return higher, replace(found, placements=placements)
    return job, replace(report, placements=placements)


def _finish(job: Job, directory: Path, report: BuildReport, inputs: str,
            say: Progress) -> BuildReport:
    """Pack the bitstream of a board and hand all results over."""
    if job.target.platform is not None:
        say("bitstream")
        made = job.pack(report.seed, report.clock_mhz)
        report = replace(report, bitstream=directory / made.name,
                         bitstream_sha256=sha256_of(made))
    report = replace(report, log=directory / report.log.name)
    text = json.dumps(report.to_json() | {"inputs": inputs}, indent=2) + "\n"
    (job.work / f"{job.name}.report.json").write_text(text, encoding="utf-8")
    publish(job.work, directory, (*job.results, f"{job.name}.report.json"))
    return report


def _known(directory: Path, name: str, inputs: str) -> BuildReport | None:
    """Return the report in ``directory`` if it is of the same inputs and its files are there."""
    try:
        values = json.loads((directory / f"{name}.report.json").read_text(encoding="utf-8"))
        if values.pop("inputs", None) != inputs:
            return None
        report = BuildReport.from_json(values)
        report = replace(report, log=directory / report.log.name)
        if report.bitstream is not None:
            made = directory / report.bitstream.name
            if sha256_of(made) != report.bitstream_sha256:
                return None
            report = replace(report, bitstream=made)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None         # none there, damaged, or another version's: it is made anew
    return report if report.log.exists() else None


def _speed(report: BuildReport) -> float:
    return float("inf") if report.fmax_mhz is None else report.fmax_mhz


def _words(report: BuildReport) -> str:
    fmax = "no path" if report.fmax_mhz is None else f"{report.fmax_mhz:.1f} MHz"
    met = "met" if report.timing_met else "missed"
    known = " (from the cache)" if report.cached else ""
    return f"seed {report.seed}: {fmax}, clock of {report.clock_mhz:g} MHz {met}{known}"


def _missed(target: Target, report: BuildReport) -> str:
    """Say that a clock was missed, and what may be done about it."""
    count = len(report.placements)
    best = f"the best of {count} seeds" if count > 1 else f"seed {report.seed}"
    ways = [f"place more seeds (--seeds {max(5, 2 * count)})"]
    clock = None if report.fmax_mhz is None else highest_clock(target, report.fmax_mhz)
    if clock is not None and clock < report.clock_mhz:
        ways.append(f"build for the clock that it meets with {MARGIN:.0%} to spare "
                    f"(--clock {clock:g})")
    return (f"{target.name}: {best} reaches {_speed(report):.1f} MHz and misses the clock of "
            f"{report.clock_mhz:g} MHz; {', '.join(ways)}, or keep it as it is "
            f"(--allow-timing-failure)")
