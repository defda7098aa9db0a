"""torch.export as if it were a function: from any thread, and without a word.

torch.export keeps what it works on in module variables, and logs and prints what it does not like.
"""

import io
import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from typing import Any, TextIO

import torch
from torch._subclasses import fake_tensor

from celosia.uncollected import uncollected

_ONE_AT_A_TIME = threading.RLock()
_CONSTANT = 4096
"""Most elements of a constant whose values are known while a model is traced."""
_TRACES = "torch.__trace"
"""Of a logger that prints nothing: its handler writes to files where the user asked for such, else
takes itself off at the first record. Until it has, torch puts every record together."""


@contextmanager
def tracing(*, own_code: bool = False) -> Iterator[None]:
    """Let one thread at a time trace models; its warnings, logs and prints on stderr are dropped.

    Those of other threads are not. No garbage is looked for meanwhile.

    own_code : the model is a module of the user's, which may look at its constants: torch runs what
    is computed of them for real. Of a program that may come from a file it runs nothing.
    """
    limit = _CONSTANT if own_code else -1
    with (_ONE_AT_A_TIME, warnings.catch_warnings(), torch.no_grad(), _unheard(),
          _known_constants(limit), uncollected()):
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _known_constants(elements: int) -> Iterator[None]:
    """Let a model look at constants of so many elements while it is traced, as torchvision's
    Normalize checks that no deviation is 0; torch itself knows the values of single numbers."""
    before = fake_tensor.CONSTANT_NUMEL_LIMIT
    fake_tensor.CONSTANT_NUMEL_LIMIT = elements
    try:
        yield
    finally:
        fake_tensor.CONSTANT_NUMEL_LIMIT = before


@contextmanager
def _unheard() -> Iterator[None]:
    """Drop what this thread logs by torch's loggers or prints on stderr."""
    thread = threading.get_ident()
    handlers = {handler for name in list(logging.root.manager.loggerDict)
                if name.split(".")[0] == "torch" and name != _TRACES
                for handler in logging.getLogger(name).handlers}

    def others(record: logging.LogRecord) -> bool:
        return record.thread != thread

    stderr = _Others(sys.stderr, thread)
    for handler in handlers:
        handler.addFilter(others)
    try:
        with redirect_stderr(stderr):
            yield
    finally:
        stderr.thread = None        # a logger made meanwhile may keep it
        for handler in handlers:
            handler.removeFilter(others)


class _Others(io.TextIOBase):
    """A stream that takes what threads other than one write to it.

    In all else it is as the stream in it: rich asks a stream whether it stands for another one, and
    a bar that did not see through this one would write into itself without end.
    """

    def __init__(self, stream: TextIO, thread: int | None) -> None:
        self.stream, self.thread = stream, thread

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        return len(text) if threading.get_ident() == self.thread else self.stream.write(text)

    def flush(self) -> None:
        self.stream.flush()

    def isatty(self) -> bool:
        return self.stream.isatty()
