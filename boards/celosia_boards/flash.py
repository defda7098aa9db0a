"""Loading a bitstream into a board."""

import json
import math
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

from celosia_boards.bitstream import BitstreamError, device_of
from celosia_boards.description import Target
from celosia_boards.loaders import Loader, LoaderError, check_starts, loader_of, ways
from celosia_boards.report import sha256_of
from celosia_boards.targets import UnknownTarget, target
from celosia_spec.errors import CelosiaError

__all__ = ["FlashError", "Loading", "prepare", "prepare_image"]

_REPORT = ".report.json"
_MAX_REPORT = 1 << 20
_STDERR = 2         # what the loader says is no result


class FlashError(CelosiaError):
    """The bitstream was not loaded; the message says why and what to do."""


@dataclass(frozen=True, kw_only=True)
class Loading:
    """A bitstream, or a program's image, that may go onto a board.

    file    : which is loaded.
    loader  : what loads it; None where none is installed.
    command : its command, or the preferred one's.
    stays   : whether the design is still there after the power was off.
    """

    file: Path
    target: Target
    loader: Loader | None
    command: list[str]
    stays: bool

    def run(self) -> None:
        """Load the board; FlashError where the loader is missing, does not start, or fails."""
        words = shlex.join(self.command)
        if self.loader is None:
            commands = self.target.loaders
            names = " or ".join(command.program for command in commands)
            raise FlashError(f"loading {self.target.name} needs {names}, and there is none; "
                             f"{ways(commands)}; or run elsewhere: {words}")
        try:
            check_starts(self.loader)
        except LoaderError as problem:
            raise FlashError(str(problem)) from None
        done = subprocess.run(self.command, stdout=_STDERR, check=False)
        if done.returncode:
            raise FlashError(f"{words}: failed with status {done.returncode}; is the board "
                             f"connected, and may you open its USB device? celosia doctor shows "
                             f"what it sees")


def prepare(path: str | Path, board: str | None = None, *, persistent: bool = False,
            allow_timing_failure: bool = False) -> Loading:
    """Return how to load what a build left; nothing is loaded yet.

    path       : the folder of a build, or a bitstream.
    board      : name of the board; None takes that of the build's report, in the folder or beside
                 the bitstream.
    persistent : write the flash, so that the design stays after power-off, instead of the FPGA's
                 own memory. iCE40 boards and those loaded by DFU: it is written in any case.
    allow_timing_failure : load a design that missed its clock.

    FlashError where there is no such file, it is no whole bitstream for the board's device, the
    report says that it is another board's or missed its clock, or nothing tells the board.
    """
    path = Path(path)
    report: _Built | None
    if path.is_dir():
        report = _read(_only_report(path))
        if report.bitstream is None:
            raise FlashError(f"{path} was built for {report.target}, a bare device without a "
                             f"bitstream; build for a board (celosia targets)")
        bitstream = path / report.bitstream
    else:
        bitstream, report = path, _report_beside(path)
    if str(bitstream).startswith("-"):
        bitstream = Path.cwd() / bitstream      # a loader would take it for an option
    name = report.target if board is None and report is not None else board
    try:
        if board is not None:
            target(board)
        device = device_of(bitstream)
        if name is None:
            raise FlashError(f"no build's report lies beside {bitstream}; name its board: --board")
        place = target(name)
    except (BitstreamError, UnknownTarget) as problem:
        raise FlashError(str(problem)) from None
    if not place.loaders:
        raise FlashError(f"target {place.name!r} is a bare device; choose a board")
    if report is not None:
        _check_report(bitstream, report, place, allow_timing_failure)
    if device != place.device.name:
        raise FlashError(f"{bitstream} is a bitstream for the {device.upper()}, and the FPGA of "
                         f"{place.name} is a {place.device.name.upper()}; build it for that board")
    loader, told = loader_of(place.loaders)
    more = (told.persistent or ()) if persistent else ()
    program = told.program if loader is None else loader.path
    return Loading(file=bitstream, target=place, loader=loader,
                   command=[program, *told.options, *more, str(bitstream)],
                   stays=persistent or told.persistent is None)


def prepare_image(path: Path, place: Target) -> Loading:
    """Return how to write a program's image to where the board's machine looks for it, behind the
    bitstream; nothing is written yet, and the file need not be there.

    FlashError where the board has no flash that a machine reads, or its loader cannot do it.
    """
    if place.flash is None:
        raise FlashError(f"{place.name}: no machine reads a flash there; load the program over the "
                         f"serial line: celosia load PROGRAM.celo --port auto")
    loader, told = loader_of(place.loaders)
    if told.at is None:
        raise FlashError(f"{told.program} writes no file to an address of {place.name}'s flash; "
                         f"{ways(tuple(other for other in place.loaders if other.at))}")
    program = told.program if loader is None else loader.path
    return Loading(file=path, target=place, loader=loader, stays=True,
                   command=[program, *told.options, *told.at, str(place.flash.base), str(path)])


@dataclass(frozen=True)
class _Built:
    """What the report of a build says: ``bitstream`` is the name of a file beside it, or None."""

    target: str
    bitstream: str | None
    sha256: str | None
    clock_mhz: float
    timing_met: bool


def _check_report(bitstream: Path, report: _Built, place: Target, allow: bool) -> None:
    if report.sha256 != sha256_of(bitstream):
        raise FlashError(f"{bitstream} is not the file that the build's report is of; build it "
                         f"again")
    if report.target != place.name:
        raise FlashError(f"{bitstream} was built for {report.target}; name that board, or build it "
                         f"for {place.name}")
    if not (report.timing_met or allow):
        raise FlashError(f"{bitstream} missed its clock of {report.clock_mhz:g} MHz; build it for "
                         f"a clock that it meets, or load it with --allow-timing-failure")


def _only_report(folder: Path) -> Path:
    """Return the one report in a folder."""
    found = sorted(folder.glob(f"*{_REPORT}"))
    if not found:
        raise FlashError(f"{folder} holds no build's report; build into it first (celosia build "
                         f"-o {folder}), or name a bitstream and its --board")
    if len(found) > 1:
        raise FlashError(f"{folder} holds the reports of {len(found)} builds; name a bitstream")
    return found[0]


def _report_beside(bitstream: Path) -> _Built | None:
    """Return the report of a bitstream's build, if there is one and it is of these very bytes."""
    path = bitstream.with_suffix(_REPORT)
    try:
        report = _read(path)
        return report if report.sha256 == sha256_of(bitstream) else None
    except (FlashError, OSError):
        return None


def _read(path: Path) -> _Built:
    """Return what a report says; FlashError unless it is a sound one."""
    try:
        if not path.is_file() or path.stat().st_size > _MAX_REPORT:
            raise ValueError
        values = json.loads(path.read_text(encoding="utf-8"))
        built = _Built(values["target"], values["bitstream"], values["bitstream_sha256"],
                       values["clock_mhz"], values["timing_met"])
        sound = (isinstance(built.target, str) and isinstance(built.timing_met, bool)
                 and isinstance(built.clock_mhz, int | float)
                 and not isinstance(built.clock_mhz, bool) and math.isfinite(built.clock_mhz)
                 and all(isinstance(one, str | None) for one in (built.bitstream, built.sha256)))
        if not sound:
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        raise FlashError(f"{path} is no sound report of a build; build again, or name the "
                         f"bitstream and its --board") from None
    name = None if built.bitstream is None else Path(built.bitstream).name
    return _Built(built.target, name, built.sha256, built.clock_mhz, built.timing_met)
