"""The command line: one module a group of commands, none of which computes anything itself."""

from typing import Any

import typer
from typer.core import TyperGroup

from celosia.cli import build, common, compare, compile, factorise, prune, run, targets
from celosia.errors import CelosiaError


class _Group(TyperGroup):
    """Turns what the library refuses into one line on stderr and exit status 1."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (CelosiaError, OSError) as problem:
            common.refuse(str(problem))


app = typer.Typer(
    name="celosia", cls=_Group, no_args_is_help=True, add_completion=False,
    pretty_exceptions_enable=False,
    help="Compile trained networks for small FPGAs, bit for bit. Exit status: 0 done, 1 refused "
         "with a message, 2 wrong usage.")
for command in (targets.targets, compile.compile, run.run, run.verify, compare.compare,
                build.build, build.flash, prune.prune, factorise.factorise):
    app.command()(command)


def main() -> None:
    """Entry point of the ``celosia`` script."""
    app()
