"""``celosia live``."""

import json as text
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from celosia import backends
from celosia.board import connect
from celosia.cli import common
from celosia.cli.progress import work
from celosia.program import Program
from celosia.show import clock_of, figure
from celosia_spec.errors import CelosiaError, quoted
from celosia_spec.outputs import Output

if TYPE_CHECKING:
    from celosia.live.runner import Answer, Runner
    from celosia.live.shots import Refused, Source
    from celosia.live.web import Newest

_LISTEN = "127.0.0.1:8000"

JsonLines = Annotated[bool, typer.Option(
    "--json", help="JSON lines on stdout, nothing else: one object of what answers, then one for "
                   "each input.")]


def live(
    program: common.ProgramPath,
    watch: Annotated[Path | None, typer.Option(
        metavar="FOLDER", help="Run each picture, PNG or JPEG, that is in the folder or comes into "
                               "it, once it is complete.")] = None,
    stdin: Annotated[bool, typer.Option(
        "--stdin", help="Run the .npy arrays that come on standard input, one behind the other: "
                        "an input each, or N of them.")] = False,
    camera: Annotated[int | None, typer.Option(
        metavar="N", min=0, help="Run the pictures of a camera, 0 for the first; needs OpenCV "
                                 "(cv2).")] = None,
    newest: Annotated[bool, typer.Option(
        "--newest", help="Of pictures that wait in the folder, run only the newest.")] = False,
    port: common.Port = None,
    baud: common.Baud = None,
    backend: Annotated[str | None, typer.Option(
        help="board:PORT; or golden or verilator, which need no board.")] = None,
    of: Annotated[str | None, typer.Option(
        "--of", metavar="NAME", help="Of a network with several outputs: which is shown.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="End after so many answers.")] = None,
    web: Annotated[bool, typer.Option(
        "--web", help="Also show the newest answer on a page for a browser on this "
                      "machine.")] = False,
    listen: Annotated[str | None, typer.Option(
        metavar="HOST:PORT", help="Where that page is, on this machine only; 127.0.0.1:8000 "
                                  "without it.")] = None,
    json: JsonLines = False,
) -> None:
    """Run inputs as they come, and show each answer at once, with what it took.

    A board gets the program first: celosia live PROGRAM.celo --watch FOLDER --port auto

    Without --limit it ends with Ctrl-C, of --stdin with the stream.
    """
    from celosia.live.runner import answer, check_answers
    from celosia.live.web import Page, address

    backend = common.backend_of(backend, port, backends.BOARD)
    _check_source(watch, stdin, camera, newest)
    place = address(listen or _LISTEN)
    loaded = common.load_program(program)
    shown = loaded.output(of)
    check_answers(shown)
    newest_answer = _newest(loaded, shown)
    with ExitStack() as held:
        def skipped(why: str) -> None:
            newest_answer.skip()
            common.notice(f"{why}; skipped")

        source = held.enter_context(_source(loaded, watch, stdin, camera, newest, skipped))
        url = None
        if web or listen is not None:
            url = held.enter_context(Page(newest_answer, *place)).url
        runner, about = held.enter_context(_runner(loaded, shown, backend, baud))
        newest_answer.about = runner.name
        _say(about | {"page": url} if json else _heading(shown, runner, about), json)
        if url is not None and not json:
            _say(f"page for a browser: {url}", json)
        started, done = time.monotonic(), 0
        for shot in source:
            found = answer(loaded, runner, shot, of)
            newest_answer.show(found, shot)
            _say(found.as_json() if json else _line(found), json)
            done += 1
            if done == limit:
                break
        if not json:
            seconds = max(time.monotonic() - started, 1e-9)
            print(f"{done:,} input{'s' * (done != 1)} in {seconds:.2f} s"
                  + (f", {figure(done / seconds)} a second" if done else ""))


def _check_source(watch: Path | None, stdin: bool, camera: int | None, newest: bool) -> None:
    """CelosiaError unless exactly one source is named."""
    if (watch is not None) + stdin + (camera is not None) != 1:
        raise CelosiaError("where inputs come from: give one of --watch FOLDER, --stdin and "
                           "--camera 0")
    if newest and watch is None:
        raise CelosiaError("--newest goes with --watch; a camera's newest picture is always taken, "
                           "and arrays on standard input all are")


def _source(program: Program, watch: Path | None, stdin: bool, camera: int | None,
            newest: bool, skipped: "Refused") -> "Source":
    if watch is not None:
        from celosia.live.folder import Folder

        return Folder(watch, program, skipped, newest=newest)
    if stdin:
        from celosia.live.stream import Stream

        return Stream(sys.stdin.buffer, program, skipped)
    from celosia.live.camera import Camera

    assert camera is not None
    return Camera(camera, program)


def _newest(program: Program, output: Output) -> "Newest":
    from celosia.answers import labels_of
    from celosia.live.runner import scale_of
    from celosia.live.web import Newest

    return Newest(scale_of(output), tuple(labels_of(program, output)))


@contextmanager
def _runner(program: Program, output: Output, backend: str,
            baud: int | None) -> "Iterator[tuple[Runner, dict[str, Any]]]":
    """Yield what answers, and the first line of the JSON."""
    from celosia.live.runner import OnBoard, OnModel, prepare, scale_of

    about = {"board": None, "port": None, "backend": backend.partition(":")[0], "bytes": None,
             "frames": None, "seconds": None, "predicted_cycles": program.predicted_cycles,
             "clock_mhz": clock_of(program), "scores": scale_of(output).kind}
    named = backends.named(backend)
    if not isinstance(named, backends.BoardAt):
        with work() as shown:
            model = OnModel(program, named, shown.stage, common.notice)
            prepare(program, model)
        yield model, about
        return
    with connect(named.port, baud=baud, on_notice=common.notice) as board:
        with work("loading the board") as shown:
            done = board.load(program, progress=shown.count)
        about |= {"board": program.target, "port": board.name, **asdict(done)}
        runner = OnBoard(board)
        prepare(program, runner)
        yield runner, about


def _say(what: dict[str, Any] | str, json: bool) -> None:
    """Print one line, at once."""
    print(text.dumps(what, allow_nan=False) if json else what, flush=True)


def _heading(output: Output, runner: "Runner", about: dict[str, Any]) -> str:
    from celosia.live.runner import scale_of

    loaded = (f", {about['bytes']:,} bytes loaded in {about['seconds']:.2f} s"
              if about["bytes"] is not None else "")
    scores = scale_of(output).about
    return f"{runner.name}{loaded}" + (f"; per cent: {scores}" if scores else "")


def _line(found: "Answer") -> str:
    """Return an answer as one line."""
    parts = [quoted(found.input)]
    if found.number is not None:
        parts.append(found.label or f"class {found.number}")
    parts.append(f"{found.score:.4g}" if found.share is None else f"{found.share:.1%}")
    counted = "on the board" if found.cycles is not None else "predicted for the board"
    parts.append(f"{figure(found.ms_board)} ms {counted}")
    if found.ms_link is not None:
        parts.append(f"{found.ms_link:.3g} ms on the link")
    return "  ".join(parts) + "  saturated" * found.saturated
