"""The command line: one module a group of commands, none of which computes anything itself."""

import importlib
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from celosia import __version__, exits
from celosia.cli import common
from celosia.extras import missing
from celosia_spec.errors import CelosiaError

COMMANDS = {
    "targets": ("targets", "List boards and bare devices with their lanes, memories and clocks."),
    "models": ("models", "List the networks that are known by name, with their inputs, sizes and "
                         "weights."),
    "check": ("check", "Tell which targets a model fits and how fast, or all that is in the way "
                       "and what helps."),
    "compile": ("compile", "Compile a model for a target, check that it fits, and show the cycles "
                           "of each layer."),
    "run": ("run", "Run inputs on the golden model, the simulated gateware or a board, and "
                   "show the answers."),
    "verify": ("run", "Compare a backend with the golden model: every stored tensor, every "
                      "output, every cycle."),
    "compare": ("compare", "Set sparse, dense and the bound side by side, layer by layer, on the "
                           "same lanes."),
    "explain": ("explain", "Tell what the machine will do: schedule, memory map, and commands, "
                           "read back out of the words of a program."),
    "build": ("build", "Synthesise, place and route the program's array, and pack the bitstream."),
    "flash": ("build", "Load a bitstream onto a board with openFPGALoader or the board's own "
                       "loader."),
    "load": ("load", "Load a program onto a flashed board, and make sure that the board computes "
                     "with it."),
    "live": ("live", "Run inputs as they come, and show each answer at once, with what it took."),
    "serve-sim": ("serve_sim", "Serve a simulated board behind a serial port, empty as one that "
                               "was just flashed."),
    "energy": ("energy", "Let a board rest and then work, for a meter in its supply; "
                         "docs/boards/energy.md."),
    "prune": ("prune", "Remove a model's least important weights or filters, retraining between "
                       "the rounds."),
    "factorise": ("factorise", "Replace a model's layers by products of thinner ones, and retrain "
                               "those."),
    "tune": ("tune", "Train a model in the numbers of a target, and compile it: for mantissas of "
                     "few bits."),
    "doctor": ("doctor", "Show what Celosia finds here, what each part is needed for, and how to "
                         "get what is missing."),
    "demo": ("demo", "Take LeNet-5 from its checkpoint to an iCEBreaker bitstream, compared bit "
                     "for bit."),
}
"""Command to its module here, and to the first line of its help: a command is imported when it is
run, so that the others need not wait for torch."""

class _Group(TyperGroup):
    """Loads a command when it is run; what the library refuses is one line and exit status 1."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        for name, (_, about) in COMMANDS.items():
            self.add_command(TyperCommand(name, help=about), name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        return name, find(name) if name in COMMANDS else command, rest

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise SystemExit(exits.unread()) from None
        except CelosiaError as problem:
            common.refuse(str(problem), getattr(problem, "code", ()))
        except OSError as problem:
            common.refuse(exits.words_of(problem))
        except ImportError as problem:
            if refusal := missing(problem):
                common.refuse(str(refusal))
            raise
        except KeyboardInterrupt:
            raise SystemExit(exits.INTERRUPTED) from None


def find(name: str) -> Any:
    """Return a command, imported."""
    module = importlib.import_module(f"celosia.cli.{COMMANDS[name][0]}")
    alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    alone.command(name)(getattr(module, name.replace("-", "_")))
    return get_command(alone)


app = typer.Typer(
    name="celosia", cls=_Group, no_args_is_help=True, add_completion=False,
    pretty_exceptions_enable=False, context_settings={"help_option_names": ["-h", "--help"]},
    help="Compile trained networks for small FPGAs, bit for bit. Exit status: 0 done, 1 refused "
         "with a message, 2 wrong usage, 70 a fault of Celosia's own, 130 interrupted.")


def _show_version(asked: bool) -> None:
    if asked:
        print(f"celosia {__version__}")
        raise typer.Exit


@app.callback()
def _root(version: Annotated[bool, typer.Option(
        "--version", is_eager=True, callback=_show_version,
        help="Show Celosia's version and exit.")] = False) -> None:
    pass
