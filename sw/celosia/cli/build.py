"""``celosia build`` and ``celosia flash``."""

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from celosia import api
from celosia.cli import common
from celosia.cli.progress import stages


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
    fresh: Annotated[bool, typer.Option(
        "--fresh", help="Place anew, also where the cache has the same placement.")] = False,
    json: common.Json = False,
) -> None:
    """Synthesise, place and route the program's array, and pack the bitstream.

    A design that misses its clock is refused, and leaves no bitstream.
    """
    loaded = api.load(program)
    with stages() as say:
        result = api.build(
            loaded, board, seeds=seeds, seed=seed, clock_mhz=clock, directory=output,
            allow_timing_failure=allow_timing_failure, fresh=fresh, progress=say).to_json()
    if json:
        common.emit(result)
        return
    common.show(build_table(board or loaded.target, result))
    if result["bitstream"]:
        print(written(Path(result["bitstream"])))


def flash(
    build: Annotated[Path, typer.Argument(
        metavar="BUILD", help="The folder that `celosia build` wrote, or a bitstream.")],
    board: Annotated[str | None, typer.Option(
        help="Board of a bitstream without the build's report beside it, which names it "
             "otherwise.")] = None,
    persistent: Annotated[bool, typer.Option(
        "--persistent", help="Write the flash, so that the design stays after power-off. iCE40 "
                             "boards and the OrangeCrab always do.")] = False,
    dry_run: Annotated[bool, typer.Option(
        "--dry-run", help="Only check the bitstream and show the command.")] = False,
    allow_timing_failure: Annotated[bool, typer.Option(
        "--allow-timing-failure", help="Load a design that missed its clock.")] = False,
    json: common.Json = False,
) -> None:
    """Load a bitstream onto a board with openFPGALoader or the board's own loader.

    What is no whole bitstream for the board's FPGA is refused.
    """
    from celosia_boards.flash import prepare

    loading = prepare(build, board, persistent=persistent,
                      allow_timing_failure=allow_timing_failure)
    if not dry_run:
        loading.run()
    name = loading.target.name
    if json:
        common.emit({"board": name, "bitstream": str(loading.bitstream),
                     "command": loading.command, "stays": loading.stays, "dry_run": dry_run})
        return
    print(("would run: " if dry_run else "ran: ") + " ".join(loading.command))
    if not dry_run:
        stays = "stays" if loading.stays else "is gone (--persistent keeps it)"
        print(f"{name} holds the array, which {stays} after power-off, and no network yet. Load "
              f"one over its serial port: celosia load PROGRAM.celo --port auto")


def written(bitstream: Path) -> str:
    """Return the line that names a bitstream, and the command that comes next."""
    return (f"wrote {bitstream}; load the board with: celosia flash "
            f"{shlex.quote(str(bitstream.parent))}")


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
    if result["cached"]:
        table.add_row("placed by an earlier build", "cached", "")
    return table
