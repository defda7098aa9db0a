"""What a build came to: resources and timing, read from the tools' own reports."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from celosia_boards.description import Target
from celosia_boards.families.family import Resources
from celosia_boards.toolchain import BuildError

__all__ = ["BuildReport", "Placement", "Timing", "circling", "overfull", "parse_timing",
           "read_report", "sha256_of"]

_ROUTED = re.compile(r"^Info:\s+\d+ \|\s+\d+\s+(\d+) \|\s+\d+\s+\d+ \|\s+(\d+)\|", re.MULTILINE)
_CIRCLES = 100
"""Lines of the first router, a thousand connections each, on which all tear up others and as many
are left as before: it goes on so for ever."""
_UTILISATION = re.compile(r"^Info:\s+(\w+):\s+(\d+)/\s*(\d+)\s+\d+%", re.MULTILINE)
_SAME_CLOCK = 0.01


@dataclass(frozen=True, kw_only=True)
class Timing:
    """``fmax_mhz`` of the array's clock after routing (None where no path lies between two of its
    flip-flops), and whether every clock of the design meets its constraint."""

    fmax_mhz: float | None
    met: bool


@dataclass(frozen=True, kw_only=True)
class Placement:
    """What one seed came to; ``fmax_mhz`` and ``timing_met`` as `BuildReport` has them."""

    seed: int
    clock_mhz: float
    fmax_mhz: float | None
    timing_met: bool


@dataclass(frozen=True, kw_only=True)
class BuildReport:
    """Result of one build.

    target, seed : what was built, and nextpnr's seed.
    luts ... sprams : used blocks, as `Resources` counts them; ``available``: what the device has.
    clock_mhz  : the array's clock, MHz: the one that the design is built for and runs at.
    fmax_mhz   : fastest clock, MHz: the router's figure, but at most what the hard blocks stand
                 (`Device.ceiling_mhz`). None for a design without a register-to-register path.
    routed_mhz : the router's figure alone.
    timing_met : every clock meets its constraint, and clock_mhz is within the ceiling.
    placements : every seed that was placed, in order.
    cached     : the placement is one that the cache had, of an earlier build of the same design.
    bitstream  : the file to load; None for a bare device.
    bitstream_sha256 : its digest, in hexadecimal.
    log        : nextpnr's log.
    """

    target: str
    seed: int
    luts: int
    ffs: int
    brams: int
    dsps: int
    sprams: int
    available: Resources
    clock_mhz: float
    fmax_mhz: float | None
    routed_mhz: float | None
    timing_met: bool
    placements: tuple[Placement, ...] = ()
    cached: bool = False
    bitstream: Path | None = None
    bitstream_sha256: str | None = None
    log: Path

    @property
    def placement(self) -> Placement:
        """This build's own line among ``placements``."""
        return Placement(seed=self.seed, clock_mhz=self.clock_mhz, fmax_mhz=self.fmax_mhz,
                         timing_met=self.timing_met)

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain JSON values."""
        values = asdict(self)
        values["bitstream"] = None if self.bitstream is None else str(self.bitstream)
        values["placements"] = list(values["placements"])
        values["log"] = str(self.log)
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "BuildReport":
        """Return the report of which ``values`` is :meth:`to_json`."""
        bitstream = values["bitstream"]
        return cls(**{**values, "available": Resources(**values["available"]),
                      "placements": tuple(Placement(**one) for one in values["placements"]),
                      "log": Path(values["log"]),
                      "bitstream": None if bitstream is None else Path(bitstream)})


def sha256_of(path: Path) -> str:
    """Return the digest of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def overfull(log: str) -> list[str]:
    """Return what nextpnr's log says the design has too much of: "8973 of 5280 ICESTORM_LC"."""
    return [f"{used} of {available} {cell}" for cell, used, available in _UTILISATION.findall(log)
            if int(used) > int(available)]


def circling(log: str) -> str | None:
    """Return why to give nextpnr up, where its log says that its first router goes in circles."""
    lines = _ROUTED.findall(log)[-_CIRCLES:]
    if len(lines) < _CIRCLES or len(set(lines)) > 1:
        return None
    return (f"the router goes in circles, {int(lines[0][1]):,} connections are left; another seed "
            f"may find routes (--seed, --seeds)")


def parse_timing(report: Mapping[str, Any], clock_mhz: float) -> Timing:
    """Return the timing of the clock whose constraint is ``clock_mhz`` (within 1 %), or of the
    slowest clock where none is."""
    clocks = list(report.get("fmax", {}).values())
    main = [clock for clock in clocks
            if abs(clock["constraint"] / clock_mhz - 1) <= _SAME_CLOCK] or clocks
    return Timing(fmax_mhz=min((round(clock["achieved"], 2) for clock in main), default=None),
                  met=all(clock["achieved"] >= clock["constraint"] for clock in clocks))


def read_report(directory: Path, name: str, target: Target, *, seed: int,
                clock_mhz: float) -> BuildReport:
    """Return the report of the placement whose nextpnr files lie in ``directory``; BuildError where
    they do not say what is used."""
    log = directory / f"{name}.nextpnr.log"
    placed = json.loads((directory / f"{name}.nextpnr.json").read_text(encoding="utf-8"))
    timing = parse_timing(placed, clock_mhz)
    try:
        used = target.family.used(placed, log.read_text(encoding="utf-8", errors="replace"))
    except ValueError as problem:
        raise BuildError(str(problem)) from None
    ceiling, routed = target.device.ceiling_mhz, timing.fmax_mhz
    fmax = routed if routed is None or ceiling is None else min(routed, ceiling)
    return BuildReport(
        target=target.name, seed=seed, **asdict(used),
        available=target.resources, clock_mhz=clock_mhz, fmax_mhz=fmax, routed_mhz=routed,
        timing_met=timing.met and (ceiling is None or clock_mhz <= ceiling), log=log)
