"""``celosia serve-sim``."""

import shlex
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from celosia import api
from celosia.cli import common
from celosia.cli.progress import work
from celosia_spec.errors import refusals

if TYPE_CHECKING:
    from celosia_boards.targets import Target
    from celosia_sim.virtual import Status

_RATE = "of all bytes, 0 to 1, both ways"


def serve_sim(
    program: common.ProgramPath,
    board: Annotated[str | None, typer.Option(
        help="Board or device; without it the one the program was compiled for.")] = None,
    byte_level: Annotated[bool, typer.Option(
        "--byte-level", help="Bytes straight to the host port, without a serial line: the fast "
                             "form.")] = False,
    listen: Annotated[str | None, typer.Option(
        metavar="127.0.0.1:PORT", help="A socket on loopback instead of a pseudo-terminal; port 0 "
                                       "takes a free one.")] = None,
    link: Annotated[Path | None, typer.Option(
        metavar="PATH", help="A symbolic link to the pseudo-terminal, removed at the end.")] = None,
    drop: Annotated[float, typer.Option(help=f"Bytes lost, {_RATE}.")] = 0.0,
    flip: Annotated[float, typer.Option(help=f"Bytes with one wrong bit, {_RATE}.")] = 0.0,
    duplicate: Annotated[float, typer.Option(help=f"Bytes that come twice, {_RATE}.")] = 0.0,
    cut: Annotated[float, typer.Option(
        help=f"Bytes at which a run of 1 to 64 is lost, {_RATE}.")] = 0.0,
    noise: Annotated[float, typer.Option(
        help=f"Random bytes put between, {_RATE}.")] = 0.0,
    baud_error: Annotated[float, typer.Option(
        metavar="PERCENT", help="How much longer the host's bits are than the board's; not with "
                                "--byte-level.")] = 0.0,
    reset_after: Annotated[int, typer.Option(
        metavar="BYTES", help="The board is configured anew after so many bytes to it, again and "
                              "again; 0 is never.")] = 0,
    stall: Annotated[float, typer.Option(
        help="Bytes to the board at which its side stops for 20 to 200 ms, 0 to 1.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Fixes which bytes the faults hit.")] = 0,
    json: common.Json = False,
) -> None:
    """Serve a simulated board behind a serial port, empty as one that was just flashed.

    Drivers and commands use its port as a real board's. Ctrl-C ends it.
    """
    from celosia_boards.targets import target as find_target

    loaded, begun = common.load_program(program), time.monotonic()
    with refusals():
        place = find_target(board or loaded.target)
        api.check_buildable(loaded, place)

    from celosia_sim.virtual import Faults, Pty, Server, Socket, VirtualBoard, Wire

    with ExitStack() as stack:
        with refusals():
            faults = Faults(seed=seed, drop=drop, flip=flip, duplicate=duplicate, cut=cut,
                            noise=noise, stall=stall, reset_after=reset_after)
            if listen is not None and link is not None:
                raise ValueError("--link: it leads to a pseudo-terminal; leave --listen out")
            listener = None if listen is None else Socket(listen)       # refused before any work
            with work("building the simulator") as shown:
                machine = stack.enter_context(VirtualBoard(
                    place, loaded.array, byte_level=byte_level, baud_error=baud_error,
                    image=loaded.image, stages=shown.stage))
            end = listener or Pty(link)
        server = Server(Wire(machine, faults), end, _shown(place, stack))
        stack.callback(server.close)
        ready = {"port": server.port, "board": place.name, "clock_mhz": machine.clock_hz / 1e6,
                 "baud": machine.baud, "byte_level": byte_level, "bytes": 0,
                 "seconds": time.monotonic() - begun}
        if json:
            common.emit(ready)
        else:
            _greet(program, place, ready)
        sys.stdout.flush()
        with _ended_by_signals(server.stop):
            server.serve()
        status = server.status()
    if not json:
        print(_summary(status))


def _greet(program: Path, place: "Target", ready: dict[str, Any]) -> None:
    """Print the port first, then what to type next."""
    file, port = shlex.quote(str(program)), ready["port"]
    form = "byte by byte," if ready["byte_level"] else f"bit by bit at {ready['baud']:,} baud and"
    print(f"port: {port}")
    print(common.wrapped(f"{place.title}, simulated {form} {ready['clock_mhz']:g} MHz. It "
                         f"holds no program yet; in another terminal:"))
    print(f"    celosia run {file} --input FILE --port {shlex.quote(port)}")
    print("Ctrl-C ends it.")


def _summary(status: "Status") -> str:
    damage = [f"{count:,} x {kind}" for kind, count in status.damage.items() if count]
    resets = [f"{status.resets:,} resets"] * bool(status.resets)
    return ", ".join([_counts(status), *resets, *damage])


def _counts(status: "Status") -> str:
    return (f"{status.seconds:.3f} s simulated, {status.bytes_in:,} bytes in, "
            f"{status.bytes_out:,} out, {status.starts:,} runs")


def _shown(place: "Target", stack: ExitStack) -> "Callable[[Status], None]":
    """Return what shows the board's LEDs: live on a terminal, elsewhere a line a change."""
    from celosia_sim.virtual.leds import leds

    if sys.stderr.isatty():
        stack.callback(lambda: print(file=sys.stderr))

        def live(status: "Status") -> None:
            lamps = "  ".join(f"{'●' if on else '○'} {name}" for name, on in
                              leds(place, status.seen))
            line = (f"{lamps}   {status.seconds:.3f} s, {status.bytes_in:,} bytes in, "
                    f"{status.bytes_out:,} out, {status.starts:,} runs")
            width = shutil.get_terminal_size().columns - 1
            print(f"\r\x1b[2K{line[:width]}", end="", file=sys.stderr, flush=True)
        return live

    known: dict[str, Any] = {"client": False, "resets": 0, "error": False}

    def lines(status: "Status") -> None:
        now = {"client": status.client, "resets": status.resets,
               "error": known["error"] or status.seen.error}
        words = {"client": "a client is here" if status.client else "the client is gone",
                 "resets": f"reset {status.resets}", "error": "the machine reports an error"}
        for name, word in words.items():
            if now[name] != known[name]:
                print(f"{word}: {_counts(status)}", file=sys.stderr, flush=True)
        known.update(now)
    return lines


@contextmanager
def _ended_by_signals(stop: "Callable[[], None]") -> "Iterator[None]":
    """Let Ctrl-C and SIGTERM end the block as it ends by itself."""
    before = {number: signal.signal(number, lambda *_: stop())
              for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
