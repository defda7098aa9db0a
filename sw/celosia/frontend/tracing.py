"""torch.export as if it were a function: from any thread, without a word, with any names.

torch.export keeps what it works on in module variables, logs and prints what it does not like, and
writes the names of parameters into Python source that it then runs.
"""

import gc
import io
import keyword
import logging
import re
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any, TextIO

import torch
import torch._export.utils as export_utils
from torch._subclasses import fake_tensor
from torch.export import ExportedProgram, exported_program
from torch.export.graph_signature import ExportGraphSignature

_ONE_AT_A_TIME = threading.RLock()
_CONSTANT = 4096
"""Most elements of a constant whose values are known while a model is traced."""
_PART = re.compile(r"[A-Za-z0-9_]+", re.ASCII)


@contextmanager
def tracing(*, own_code: bool = False) -> Iterator[None]:
    """Let one thread at a time trace models; its warnings, logs and prints on stderr are dropped.

    Those of other threads are not. No garbage is looked for meanwhile: what torch loads and makes
    stays, and to look at it again and again takes a quarter of the time.

    own_code : the model is a module of the user's, which may look at its constants: torch runs what
    is computed of them for real. Of a program that may come from a file it runs nothing.
    """
    limit = _CONSTANT if own_code else -1
    with (_ONE_AT_A_TIME, warnings.catch_warnings(), torch.no_grad(), _unheard(),
          _known_constants(limit), _uncollected()):
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _uncollected() -> Iterator[None]:
    """Let objects be made without a look for unreachable ones among all others."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


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
                if name.split(".")[0] == "torch" for handler in logging.getLogger(name).handlers}

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


_WHOLE = (torch.ops.aten.hardsigmoid.default, torch.ops.aten.log_sigmoid.default)
"""Operators that stay in one piece: at a network's end the host computes them."""


@lru_cache(maxsize=1)
def _table(composite: tuple[str, ...]) -> tuple[dict[Any, Any], dict[Any, Any]]:
    """Return what torch shall decompose otherwise than its dispatcher does, and what before that.

    composite : the operators that are registered as made of others, which both depend on.
    What operators there are is asked once, not once for each of their namespaces. An operator that
    decomposes as the dispatcher does it anyway is left to that: torch would give each of 500 such
    kernels for 15 backends, and take them back.
    """
    ask = export_utils._materialize_cpp_cia_ops
    ask()
    export_utils._materialize_cpp_cia_ops = lambda: None
    try:
        table = torch.export.default_decompositions()
        for whole in _WHOLE:
            table.pop(whole)
        first, rest = exported_program._split_decomp_table_to_cia_and_python_decomp(
            table.materialize())
    finally:
        export_utils._materialize_cpp_cia_ops = ask
    return {operator: kernel for operator, kernel in first.items()
            if not (isinstance(kernel, partial)
                    and kernel.keywords.get("kernel") is operator)}, rest


@contextmanager
def _lean() -> Iterator[None]:
    """Let torch decompose a program in half the time, to the same operators: the tables of what it
    decomposes are made once."""
    split = exported_program._split_decomp_table_to_cia_and_python_decomp
    first, rest = _table(tuple(
        torch._C._dispatch_get_registrations_for_dispatch_key("CompositeImplicitAutograd")))
    exported_program._split_decomp_table_to_cia_and_python_decomp = lambda _: (first, dict(rest))
    try:
        yield
    finally:
        exported_program._split_decomp_table_to_cia_and_python_decomp = split


def decomposed(program: ExportedProgram) -> ExportedProgram:
    """Return the program in core ATen operators, its parameters called as before.

    Meanwhile those have plain names: torch writes them into source code, where a keyword is a
    syntax error and a quote ends a string.
    """
    names = {name: f"celosia_{k}" for k, name in enumerate(_targets(program)) if not is_plain(name)}
    with _lean():
        if not names:
            return program.run_decompositions({})
        back = {plain: name for name, plain in names.items()}
        return _renamed(_renamed(program, names).run_decompositions({}), back)


def with_plain_names(program: ExportedProgram) -> ExportedProgram:
    """Return the program with such names as `ExportedProgram.module` can write into source."""
    return _renamed(program, {name: f"celosia_{k}" for k, name in enumerate(_targets(program))
                              if not is_plain(name)})


def _targets(program: ExportedProgram) -> list[str]:
    specs = [*program.graph_signature.input_specs, *program.graph_signature.output_specs]
    return list(dict.fromkeys(spec.target for spec in specs if isinstance(spec.target, str)))


def is_plain(name: str) -> bool:
    """Whether torch can write a name into source code."""
    return all(_PART.fullmatch(part) and not keyword.iskeyword(part) for part in name.split("."))


def _renamed(program: ExportedProgram, names: Mapping[str, str]) -> ExportedProgram:
    """Return the program with other names for its parameters, buffers and constants."""
    def keys(tensors: Mapping[str, Any]) -> dict[str, Any]:
        return {names.get(name, name): tensor for name, tensor in tensors.items()}

    signature = program.graph_signature
    inputs, outputs = ([replace(spec, target=names.get(spec.target, spec.target)) for spec in specs]
                       for specs in (signature.input_specs, signature.output_specs))
    return ExportedProgram(
        root=program.graph_module, graph=program.graph,
        graph_signature=ExportGraphSignature(input_specs=inputs, output_specs=outputs),
        state_dict=keys(program.state_dict), range_constraints=program.range_constraints,
        module_call_graph=program.module_call_graph, example_inputs=program.example_inputs,
        constants=keys(program.constants), verifiers=program.verifiers)
