"""``celosia load``."""

from dataclasses import asdict

from celosia.board import connect
from celosia.cli import common
from celosia.cli.progress import work


def load(
    program: common.ProgramPath,
    port: common.Port = None,
    baud: common.Baud = None,
    json: common.Json = False,
) -> None:
    """Load a program onto a flashed board, and make sure that the board computes with it.

    It stays there until another is loaded, or the power is off.
    """
    loaded = common.load_program(program)
    with work("loading the board") as shown, connect(
            port, baud=baud, on_notice=common.notice) as board:
        done = board.load(loaded, progress=shown.count)
    if json:
        common.emit({"board": loaded.target, "port": board.name, **asdict(done)})
        return
    print(common.wrapped(f"loaded {done.bytes:,} bytes for the {loaded.target} onto the board at "
                         f"{board.name} in {done.seconds:.2f} s; it computes what the golden model "
                         f"does"))
