"""``celosia build`` and ``celosia flash``."""

import shlex
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from celosia import api
from celosia.cli import common
from celosia.cli.progress import stages
from celosia_spec.errors import CelosiaError

if TYPE_CHECKING:
    from celosia_boards.description import Target
    from celosia_boards.flash import Loading


def build(
    program: common.ProgramPath,
    board: Annotated[str | None, typer.Option(
        help="Board or device; the one the program was compiled for without it.")] = None,
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
    program: Annotated[Path | None, typer.Option(
        metavar="P.CELO", help="Write this program to the board's flash first: the array loads it "
                               "from there at power-up, and what main memory has no room for "
                               "during a run.")] = None,
    json: common.Json = False,
) -> None:
    """Load a bitstream onto a board with openFPGALoader or the board's own loader.

    What is no whole bitstream for the board's FPGA is refused.
    """
    from celosia_boards.flash import prepare

    loading = prepare(build, board, persistent=persistent,
                      allow_timing_failure=allow_timing_failure)
    name, commands = loading.target.name, [loading.command]
    with TemporaryDirectory() as folder:
        if program is not None:
            first = _image(program, loading.target, Path(folder), dry_run=dry_run)
            commands.insert(0, first.command)
            if not dry_run:
                first.run()
        if not dry_run:
            loading.run()
    if json:
        common.emit({"board": name, "bitstream": str(loading.file), "command": loading.command,
                     "commands": commands, "stays": loading.stays, "dry_run": dry_run})
        return
    for command in commands:
        print(("would run: " if dry_run else "ran: ") + " ".join(command))
    if not dry_run:
        stays = "stays" if loading.stays else "is gone (--persistent keeps it)"
        print(f"{name} holds the array, which {stays} after power-off, " + (
            "but no program yet. Load one over the serial port: celosia load PROGRAM.celo --port "
            "auto; where compile said that layers are copied from flash, give flash --program "
            "PROGRAM.celo" if program is None else
            f"and {program} in its flash. Run it: celosia run {shlex.quote(str(program))} --input "
            f"FILE --port auto"))


def _image(program: Path, place: "Target", folder: Path, *, dry_run: bool) -> "Loading":
    """Return how to write a program's image to a board's flash; the image is there but for a dry
    run. CelosiaError where the board cannot hold it, or its array reads no flash."""
    from celosia_boards.flash import prepare_image

    loaded = api.load(program)
    api.check_buildable(loaded, place)
    loading = prepare_image(folder / f"{program.stem}.bin", place)
    if not loaded.image:
        raise CelosiaError(f"{program}: its array reads no flash; compile it for {place.name} "
                           f"(--target {place.name})")
    if not dry_run:
        loading.file.write_bytes(loaded.image)
    return loading


def written(bitstream: Path) -> str:
    """Return the line that names a bitstream, and the command that comes next."""
    return (f"wrote {bitstream}; load the board with: celosia flash "
            f"{shlex.quote(str(bitstream.parent))}")


def build_table(title: str, result: dict[str, Any]) -> Any:
    """Return the table of a build: cells used and available, and the clock."""
    table = common.table(title, "what", "used", "available")
    for name in ("luts", "ffs", "brams", "sprams", "dsps"):
        table.add_row(f"{name[:-1].upper()}s", f"{result[name]:,}",
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
