"""The stages from a design to a bitstream: Yosys, nextpnr, packing. Each works in one folder."""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amaranth.back import rtlil
from amaranth.hdl import Elaboratable

from celosia_boards.cache import digest
from celosia_boards.description import Target
from celosia_boards.kept import kept
from celosia_boards.report import circling, overfull
from celosia_boards.synthesis import script, synthesise
from celosia_boards.toolchain import BuildError, find_tool, identity, run_tool

__all__ = ["CirclingError", "Job", "OverfullError", "platform_of"]


class OverfullError(BuildError):
    """The design has more of something than the device: no seed helps."""


class CirclingError(BuildError):
    """The router goes in circles: another seed may find routes."""


def platform_of(target: Target) -> Any:
    """Return a new platform of the target's board; ValueError for a bare device."""
    if target.platform is None:
        raise ValueError(f"target {target.name!r} is a bare device and has no platform")
    module, _, name = target.platform.partition(":")
    return getattr(importlib.import_module(module), name)()


@dataclass(frozen=True)
class Job:
    """One design for one target, called ``name``, in folder ``work``.

    placement : further options of nextpnr.
    fresh     : start every tool, and leave the cache alone; else what a stage made of the same
                inputs with the same tool is taken from there (`celosia_boards.kept`).
    say       : called where another process makes the same just now, and is waited for.
    """

    target: Target
    work: Path
    name: str
    placement: tuple[str, ...] = ()
    fresh: bool = False
    say: Callable[[str], None] = lambda stage: None

    @property
    def tools(self) -> list[str]:
        """Names of the tools that the stages run."""
        packer = [] if self.target.platform is None else [self.target.family.packer]
        return ["yosys", f"nextpnr-{self.target.family.name}", *packer]

    def require(self) -> None:
        """BuildError where a tool is missing, ImportError where the description of the board is."""
        for name in self.tools:
            find_tool(name)
        if self.target.platform is not None:
            platform_of(self.target)

    def elaborate(self, top: Elaboratable) -> None:
        """Leave the design and, for a board, the constraints.

        They are the same from every checkout: the design does not say which source it is of.
        """
        if self.target.platform is None:
            text = rtlil.convert(top, name=self.name, emit_src=False)
            self._file("il").write_text(text, encoding="utf-8")
        else:
            plan = platform_of(self.target).build(top, name=self.name, do_build=False,
                                                  emit_src=False)
            for suffix in ("il", self.target.family.constraints):
                content = plan.files[f"{self.name}.{suffix}"]
                text = content if isinstance(content, str) else content.decode()
                self._file(suffix).write_text(text, encoding="utf-8")

    def digest(self, options: str) -> str:
        """Return a digest of all that a build depends on: the elaborated design, options, tools."""
        return digest(self._synthesis(), self._constraints(), options,
                      *self.target.device.placement, *self.placement, *map(identity, self.tools))

    def synthesise(self) -> None:
        """Leave the netlist, ``<name>.json``."""
        self._stage("synthesis", self._synthesis(), ("json", "yosys.log"), lambda: synthesise(
            self.target.device, self.work, self.name, f"write_json {self.name}.json"))

    def place(self, seed: int, clock_mhz: float) -> bool:
        """Leave the placed design, nextpnr's report and its log; return whether the cache had
        them. CirclingError where the router goes in circles; the cache has that, too."""
        cached = self._stage("placement", self._placed(seed, clock_mhz), self._placement_files,
                             lambda: self._place(seed, clock_mhz))
        if reason := circling(self._said()):
            raise CirclingError(f"nextpnr-{self.target.family.name}: {reason}")
        return cached

    def pack(self, seed: int, clock_mhz: float) -> Path:
        """Return the bitstream made of the placed design, which `place` has left."""
        family = self.target.family
        placed, made = (f"{self.name}.{suffix}" for suffix in (family.placed, family.bitstream))
        key = digest(self._placed(seed, clock_mhz), identity(family.packer),
                     *family.pack(placed, made))
        self._stage("bitstream", key, (family.bitstream,), lambda: run_tool(
            family.packer, family.pack(placed, made), self.work, f"{self.name}.pack.log"))
        return self.work / made

    def _stage(self, stage: str, key: str, suffixes: Sequence[str],
               make: Callable[[], None]) -> bool:
        """Leave what ``make`` makes, or made before; return whether the cache had it."""
        if self.fresh:
            make()
            return False
        files = [f"{self.name}.{suffix}" for suffix in suffixes]
        return kept(f"{stage}-{key}", self.work, files, make, self.say)

    def _synthesis(self) -> str:
        """Return a digest of all that the netlist depends on."""
        return digest(self._file("il").read_text(encoding="utf-8"),
                      script(self.target.device, self.name), identity("yosys"))

    def _constraints(self) -> str:
        """Return the text of the board's constraints, "" of a bare device."""
        if self.target.platform is None:
            return ""
        return self._file(self.target.family.constraints).read_text(encoding="utf-8")

    def _placed(self, seed: int, clock_mhz: float) -> str:
        """Return a digest of all that a placement depends on."""
        return digest(self._synthesis(), self._constraints(), *self._arguments(seed, clock_mhz),
                      identity(f"nextpnr-{self.target.family.name}"))

    def _arguments(self, seed: int, clock_mhz: float) -> list[str]:
        """Return nextpnr's arguments."""
        target, name, family = self.target, self.name, self.target.family
        arguments = [*target.device.placement, *self.placement, "--package", target.package,
                     "--json", f"{name}.json", family.placed_option, f"{name}.{family.placed}",
                     "--report", f"{name}.nextpnr.json", "--seed", str(seed),
                     "--freq", str(clock_mhz), "--timing-allow-fail", "--quiet",
                     "--log", f"{name}.nextpnr.log"]
        if target.speed:
            arguments += ["--speed", str(target.speed)]
        if target.platform is None:
            return [*arguments, f"--{family.constraints}-allow-unconstrained"]
        return [*arguments, f"--{family.constraints}", f"{name}.{family.constraints}"]

    def _place(self, seed: int, clock_mhz: float) -> None:
        try:
            run_tool(f"nextpnr-{self.target.family.name}", self._arguments(seed, clock_mhz),
                     self.work, f"{self.name}.nextpnr.log", circling)
        except BuildError:
            said = self._said()
            if circling(said):      # minutes of work: what they have shown is kept, in the log
                for suffix in self._placement_files[:-1]:
                    self._file(suffix).write_bytes(b"")
                return
            excess = overfull(said)
            if not excess:
                raise
            raise OverfullError(f"the design needs {', '.join(excess)} of the "
                                f"{self.target.device.name}; choose fewer lanes or a larger "
                                f"target") from None

    def _said(self) -> str:
        return self._file("nextpnr.log").read_text(encoding="utf-8", errors="replace")

    def move_placement(self, source: Path, destination: Path) -> None:
        """Move what `place` leaves from one folder to another."""
        for suffix in self._placement_files:
            (source / f"{self.name}.{suffix}").replace(destination / f"{self.name}.{suffix}")

    @property
    def _placement_files(self) -> tuple[str, ...]:
        return self.target.family.placed, "nextpnr.json", "nextpnr.log"

    @property
    def results(self) -> tuple[str, ...]:
        """Names of what a user gets, the logs first."""
        family = self.target.family
        return tuple(f"{self.name}.{suffix}" for suffix in (
            "yosys.log", "nextpnr.log", "nextpnr.json", family.constraints, family.bitstream))

    def _file(self, suffix: str) -> Path:
        return self.work / f"{self.name}.{suffix}"
