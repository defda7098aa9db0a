"""``celosia energy``."""

import math
import time
from dataclasses import asdict
from typing import Annotated

import typer

from celosia.board import connect
from celosia.cli import common
from celosia.cli.progress import work
from celosia_spec.errors import CelosiaError


def energy(
    program: common.ProgramPath,
    port: common.Port = None,
    baud: common.Baud = None,
    seconds: Annotated[float, typer.Option(
        min=1, max=3600, help="How long the board rests, and how long it works.")] = 30.0,
    idle: Annotated[float | None, typer.Option(
        metavar="MW", min=0, help="What a meter showed while it rested, milliwatts.")] = None,
    busy: Annotated[float | None, typer.Option(
        metavar="MW", min=0, help="What it showed while it worked.")] = None,
    json: common.Json = False,
) -> None:
    """Let a board rest and then work, for a meter in its supply; docs/boards/energy.md.

    With what the meter showed, --idle and --busy, also the energy of an inference.
    """
    if (idle is None) != (busy is None):
        raise CelosiaError("--idle and --busy go together: what the meter showed while the board "
                           "rested, and while it worked")
    if not all(math.isfinite(number) for number in (idle, busy) if number is not None):
        raise CelosiaError("--idle and --busy take milliwatts as a meter shows them, such as 12.5")
    if idle is not None and busy is not None and busy <= idle:
        raise CelosiaError(f"--busy {busy:g} is not more than --idle {idle:g}: were they swapped? "
                           f"A meter must show milliwatts to a tenth, averaged over the time")
    loaded = common.load_program(program)
    with work("loading the board") as shown, connect(
            port, baud=baud, on_notice=common.notice) as board:
        shown.stage("loading the board")
        board.load(loaded)
        shown.stage("the board rests: read the meter")
        time.sleep(seconds)
        shown.stage("the board works: read the meter")
        done = board.repeat(seconds)
    rate = done.runs / done.seconds
    microjoules = None if idle is None or busy is None else 1000 * (busy - idle) / rate
    if json:
        common.emit({"board": loaded.target, "port": board.name, **asdict(done),
                     "per_second": rate, "idle_mw": idle, "busy_mw": busy,
                     "microjoules": microjoules})
        return
    print(common.wrapped(f"{done.runs:,} inferences in {done.seconds:.1f} s, {rate:,.0f} a second; "
                         f"the array worked {done.busy:.0%} of the time"))
    if microjoules is None:
        print(f"(milliwatts at work - milliwatts at rest) x {1000 / rate:.4g} = microjoules an "
              f"inference")
    else:
        print(f"{busy:g} mW - {idle:g} mW at that rate: {microjoules:,.1f} uJ an inference, above "
              f"what the board draws at rest")
