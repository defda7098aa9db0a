"""Loading a bitstream into a board."""

import json
import shutil
import subprocess
from pathlib import Path

from celosia_boards.report import BuildReport, sha256_of
from celosia_boards.targets import Target

__all__ = ["FlashError", "flash"]


class FlashError(Exception):
    """The bitstream was not loaded; the message says why and what to do."""


def _commands(bitstream: Path, target: Target, persistent: bool) -> list[list[str]]:
    """Commands that load ``bitstream``, best first."""
    if target.loader is None:
        raise FlashError(f"target {target.name!r} is a bare device; choose a board")
    loader = ["openFPGALoader", "-b", target.loader]
    if target.family == "ice40":  # loads into the flash in any case
        return [[*loader, str(bitstream)], ["iceprog", str(bitstream)]]
    return [[*loader, *(["--write-flash"] if persistent else []), str(bitstream)]]


def flash(bitstream: str | Path, target: Target, dry_run: bool = False, *,
          persistent: bool = False, allow_timing_failure: bool = False) -> list[str]:
    """Load ``bitstream`` into the board and return the command that did it.

    dry_run    : only return the command, of the first tool that is installed or, where none is,
                 of the preferred one.
    persistent : ECP5 boards: write the flash, so that the design stays after power-off. iCE40
                 boards always write it.
    allow_timing_failure : load a design that missed its clock.

    FlashError where the file, the board's pins or the tool is missing, the tool fails, or the
    build's report beside the bitstream says that it is another board's, or that it missed its
    clock. A bitstream without such a report is loaded as it is.
    """
    bitstream = Path(bitstream)
    commands = _commands(bitstream, target, persistent)
    report = _report_of(bitstream)
    if report is not None and report.target != target.name:
        raise FlashError(f"{bitstream} was built for {report.target}; name that board, or build it "
                         f"for {target.name}")
    if report is not None and not (report.timing_met or allow_timing_failure):
        raise FlashError(f"{bitstream} missed its clock of {report.clock_mhz:g} MHz; build it for "
                         f"a clock that it meets, or load it with --allow-timing-failure")
    installed = [command for command in commands if shutil.which(command[0])]
    if dry_run:
        return (installed or commands)[0]
    if not bitstream.is_file():
        raise FlashError(f"no bitstream {bitstream}; build one first: celosia build")
    if not installed:
        tools = " or ".join(command[0] for command in commands)
        packages = {"openFPGALoader": "openfpgaloader", "iceprog": "fpga-icestorm"}
        hints = ", ".join(f"apt install {packages[command[0]]}" for command in commands)
        raise FlashError(f"loading {target.name} needs {tools}, and none is on PATH; "
                         f"install one ({hints}) or run the command elsewhere: "
                         f"{' '.join(commands[0])}")
    done = subprocess.run(installed[0], check=False)
    if done.returncode:
        raise FlashError(f"{' '.join(installed[0])}: failed with status {done.returncode}; "
                         f"is the board connected, and may you open its USB device?")
    return installed[0]


def _report_of(bitstream: Path) -> BuildReport | None:
    """Return the build's report if one lies beside the bitstream and is of these very bytes."""
    try:
        values = json.loads(bitstream.with_suffix(".report.json").read_text(encoding="utf-8"))
        report = BuildReport.from_json({name: value for name, value in values.items()
                                        if name != "inputs"})
        return report if sha256_of(bitstream) == report.bitstream_sha256 else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
