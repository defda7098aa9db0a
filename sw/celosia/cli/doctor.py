"""``celosia doctor``."""

from dataclasses import asdict
from typing import Annotated, Any

import typer

from celosia import __version__
from celosia.cli import common
from celosia.doctor import PLACE, examine_parts, ready
from celosia.doctor_boards import examine_boards
from celosia.doctor_check import OK, Check
from celosia_spec.errors import quoted


def doctor(udev: Annotated[bool, typer.Option(
        "--udev", help="Print the udev rule that lets users open boards, ready to be installed, "
                       "and look for nothing.")] = False,
           json: common.Json = False) -> None:
    """Show what Celosia finds here, what each part is needed for, and how to get what is missing.

    Of each board that is plugged in it says which port is its serial one, whether you may open it,
    and who has it. Exit status 0 where networks can be compiled and run on the golden model,
    whatever else is missing.
    """
    if udev:
        _rule(json)
        return
    parts = examine_parts()
    boards, about = examine_boards()
    checks = [*parts, *about]
    if json:
        common.emit({"ready": ready(checks), "version": __version__, "place": str(PLACE),
                     "checks": [_plain(check) for check in checks],
                     "tools": [_plain(check) for check in parts],
                     "boards": [asdict(board) | {"node": board.node and str(board.node)}
                                for board in boards]})
    else:
        table = common.table(f"celosia {__version__} in {PLACE}", "part", "state", "needed for",
                             "found", words=4)
        for check in checks:
            table.add_row(check.name, check.state if check.state == OK else check.state.upper(),
                          check.needed_for, quoted(check.found))
        common.show(table)
        for way_out in dict.fromkeys(check.way_out for check in checks if check.way_out):
            names = ", ".join(check.name for check in checks if check.way_out == way_out)
            print(f"{names}: {quoted(way_out, 300)}")
    if not ready(checks):
        lacking = ", ".join(check.name for check in checks
                            if check.required and check.state != OK)
        common.refuse(f"networks cannot be compiled and run here: {lacking}; see above")
    if not json:
        print("ready: networks can be compiled here and run on the golden model")


def _plain(check: Check) -> dict[str, Any]:
    return asdict(check) | {"required": check.required}


def _rule(json: bool) -> None:
    """Print the rule, whose comments say how to install it; nothing else, so that it can be piped
    into its place."""
    from celosia_boards import udev

    if json:
        common.emit({"place": udev.PLACE, "rules": udev.rules(), "install": list(udev.INSTALL)})
    else:
        print(udev.rules(), end="")
