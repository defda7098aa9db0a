"""The ``celosia`` script. It imports nothing before it can say that it was interrupted.

Exit status: 0 done, 1 refused with one line on stderr, 2 wrong usage, 70 a fault of Celosia's own,
130 interrupted, 141 nobody reads the output any more.
"""

import os
import sys

from celosia.exits import FAULT, INTERRUPTED, REFUSED, interrupts, unread, words_of


def main() -> None:
    """Run the command line and end the process with its status."""
    try:
        _note_interrupts()
        status = _run()
    except KeyboardInterrupt:
        status = INTERRUPTED
    except BrokenPipeError:
        status = unread()
    except BaseException as error:
        status = INTERRUPTED if interrupts else _ended_by(error)
    if status == INTERRUPTED or (interrupts and status):
        status = INTERRUPTED
        _say("interrupted")
        exec("")    # Python kills itself by the signal if this was the last code in text
    sys.exit(status)


def _note_interrupts() -> None:
    """Note every Ctrl-C, unless the caller has them ignored."""
    import signal

    def note(number: int, frame: object) -> None:
        interrupts.append(number)
        raise KeyboardInterrupt

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, note)


def _run() -> int:
    if sys.stdout is None or sys.stderr is None:        # closed by the caller
        sys.stdout = sys.stdout or open(os.devnull, "w")        # noqa: SIM115, PTH123
        sys.stderr = sys.stderr or open(os.devnull, "w")        # noqa: SIM115, PTH123
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")        # of names that the terminal cannot show
    import gc
    # To look for garbage among all that torch and Amaranth keep takes half of an elaboration.
    gc.set_threshold(100_000, 20, 20)
    from celosia.cli import app

    try:
        app()
        status = 0
    except SystemExit as ending:
        status = ending.code if isinstance(ending.code, int) else int(ending.code is not None)
    sys.stdout.flush()
    return status


def _ended_by(error: BaseException) -> int:
    """Say on one line what ended the command, and return the exit status."""
    from celosia.extras import missing
    from celosia_spec.errors import quoted

    words = quoted(" ".join(words_of(error).split()) or type(error).__name__, 300)
    if isinstance(error, ImportError) and (refusal := missing(error)):
        words = str(refusal)
    elif isinstance(error, MemoryError):
        words = "not enough memory for this; close other programs, or take a smaller network"
    elif not isinstance(error, OSError):
        if os.environ.get("CELOSIA_DEBUG"):
            import traceback
            traceback.print_exception(error)
        _say(f"internal error, please report it with the command and its files: "
             f"{type(error).__name__}: {words} {_place(error)}(CELOSIA_DEBUG=1 shows the trace)")
        return FAULT
    _say(words)
    return REFUSED


def _place(error: BaseException) -> str:
    import traceback
    from pathlib import Path

    frames = traceback.extract_tb(error.__traceback__)
    return f"in {Path(frames[-1].filename).name}:{frames[-1].lineno} " if frames else ""


def _say(words: str) -> None:
    from contextlib import suppress

    with suppress(OSError):     # nobody listens
        print(f"celosia: {words}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
