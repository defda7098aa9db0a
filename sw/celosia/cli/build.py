"""``celosia build`` and ``celosia flash``."""

from pathlib import Path
from typing import Annotated, Any

import typer

from celosia import api
from celosia.cli import common


def build(
    program: common.ProgramPath,
    board: Annotated[str | None, typer.Option(
        help="Board or device; None is the one the program was compiled for.")] = None,
    output: Annotated[Path | None, typer.Option(
        "--output", "-o", help="Folder of the results; build/BOARD without it.")] = None,
    seeds: Annotated[int, typer.Option(
        min=1, help="Placements to try. The fastest is kept; a board with more than one gets the "
                    "highest standard clock that it meets.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="nextpnr's first seed.")] = 0,
    clock: Annotated[float | None, typer.Option(
        metavar="MHZ", help="Clock of the array; the target's without it.")] = None,
    allow_timing_failure: Annotated[bool, typer.Option(
        "--allow-timing-failure", help="Keep a design that misses its clock.")] = False,
    json: common.Json = False,
) -> None:
    """Synthesise, place and route the program's array, and pack the bitstream.

    A design that misses its clock is refused, and leaves no bitstream.
    """
    loaded = api.load(program)
    with common.stages() as say:
        result = api.build(
            loaded, board, seeds=seeds, seed=seed, clock_mhz=clock, directory=output,
            allow_timing_failure=allow_timing_failure, progress=say).to_json()
    if json:
        common.emit(result)
        return
    common.show(build_table(board or loaded.target, result))
    if result["bitstream"]:
        print(f"wrote {result['bitstream']}")


def flash(
    bitstream: Annotated[Path, typer.Argument(help="What `celosia build` wrote.")],
    board: Annotated[str, typer.Option(help="Board; see `celosia targets`.")] = "icebreaker",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show the command.")] = False,
    allow_timing_failure: Annotated[bool, typer.Option(
        "--allow-timing-failure", help="Load a design that missed its clock.")] = False,
    json: common.Json = False,
) -> None:
    """Load a bitstream onto a board with openFPGALoader or iceprog."""
    from celosia_boards.flash import FlashError
    from celosia_boards.flash import flash as flash_board
    from celosia_boards.targets import target

    with api.refusals(FlashError):
        command = flash_board(bitstream, target(board), dry_run,
                              allow_timing_failure=allow_timing_failure)
    if json:
        common.emit({"board": board, "bitstream": str(bitstream), "command": command,
                     "dry_run": dry_run})
    else:
        print(("would run: " if dry_run else "ran: ") + " ".join(command))


def build_table(title: str, result: dict[str, Any]) -> Any:
    """Return the table of a build: cells used and available, and the clock."""
    table = common.table(title, "what", "used", "available")
    for name in ("luts", "ffs", "brams", "sprams", "dsps"):
        table.add_row(name.upper().replace("S", "s"), f"{result[name]:,}",
                      f"{result['available'][name]:,}")
    table.add_section()
    table.add_row("clock, MHz", f"{result['clock_mhz']:g}", "")
    for placement in result["placements"]:
        fmax, met = placement["fmax_mhz"], "met" if placement["timing_met"] else "missed"
        table.add_row(f"Fmax, MHz (seed {placement['seed']}, {placement['clock_mhz']:g} {met})",
                      "none" if fmax is None else f"{fmax:.1f}", "")
    return table
