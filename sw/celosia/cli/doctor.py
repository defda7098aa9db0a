"""``celosia doctor``."""

from dataclasses import asdict

from celosia import __version__
from celosia.cli import common
from celosia.doctor import OK, PLACE, examine, ready
from celosia.errors import quoted


def doctor(json: common.Json = False) -> None:
    """Show what Celosia finds here, what each part is needed for, and how to get what is missing.

    Exit status 0 where networks can be compiled and run on the golden model, whatever else is
    missing.
    """
    checks = examine()
    if json:
        common.emit({"ready": ready(checks), "version": __version__, "place": str(PLACE),
                     "checks": [asdict(check) | {"required": check.required}
                                for check in checks]})
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
