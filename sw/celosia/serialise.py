"""A program file read back, and compared with what this release makes of the network in it.

All that a program holds follows from its quantised graph and its array. So a file is hostile until
these two are checked (:mod:`celosia_spec.record`) and compiled again, and the file is, section for
section, what `Program.save` writes of the program that came of it.
"""

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from celosia.bands.schedule import stream_schedule
from celosia.bands.steps import steps
from celosia.program import Program, program_of
from celosia_boards.arrays import array_for
from celosia_spec import container
from celosia_spec.errors import CelosiaError, quoted
from celosia_spec.isa.array import Array
from celosia_spec.qgraph import QGraph
from celosia_spec.record import graph_of, network_of
from celosia_spec.steps import Steps

_Sections = tuple[dict[str, Any], dict[str, np.ndarray]]
"""Manifest and arrays of a file."""

_WORDS = 300
"""Longest reason in a refusal: a file may hold names of any length."""


def load(path: str | Path) -> Program:
    """Return the program in ``path``.

    CelosiaError where the file is foreign or damaged, was compiled for an array that its target
    does not carry in this release, or holds anything else than this release makes of its network;
    OSError where it cannot be read.
    """
    manifest, arrays = container.read(path)
    try:
        found = _program(manifest, arrays)
        problem = _difference((manifest, arrays), found.sections())
    except ValidationError as wrong:
        first = wrong.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        problem = f"manifest entry {where or 'as a whole'}: {first['msg']}"
    except KeyError as missing:
        problem = f"{missing} is missing"
    except (CelosiaError, ValueError) as wrong:
        problem = str(wrong)
    if problem:
        raise CelosiaError(f"{path}: not a valid program, {quoted(problem, _WORDS)}; compile the "
                           f"model again")
    return found


def _program(manifest: dict[str, Any], arrays: dict[str, np.ndarray]) -> Program:
    """Return what the compiler makes of the network in a file.

    KeyError where an entry or a section is missing, ValueError where one is not as it must be.
    """
    network = network_of(manifest)
    array = network.array
    if array.hash != network.array_hash:
        raise ValueError(f"it is for another array: its hash is not {array.hash:08x}, that of this "
                         f"release's array of the same parameters")
    _check_array(network.target, array)
    graph = graph_of(network, arrays)
    return program_of(stream_schedule(graph, array, _steps(manifest, graph)), target=network.target,
                      exponents=network.exponents, host=network.host,
                      returns=network.returns, takes=network.takes,
                      preprocessing=network.preprocessing)


def _steps(manifest: dict[str, Any], graph: QGraph) -> Steps | None:
    """Return the steps of time that a network in a file runs in, if it does."""
    if "hop" not in manifest:
        return None
    hop = manifest["hop"]
    if type(hop) is not int:
        raise ValueError("manifest entry hop: it must be a whole number")
    return steps(graph, hop)


def _check_array(target: str, array: Array) -> None:
    """ValueError unless the target carries the array, with these lanes and widths."""
    known = array_for(target, lanes=array.lanes_all, acc_bits=array.acc_bits,
                      weight_bits=array.weight_bits, activation_bits=array.activation_bits)
    for field in fields(array):
        found, wanted = getattr(array, field.name), getattr(known, field.name)
        if found != wanted:
            raise ValueError(f"its array's {field.name} is {found}, that of {target} {wanted}")


def _difference(file: _Sections, wanted: _Sections) -> str:
    """Return what a file has that it should not have, or in another order; empty where nothing."""
    (manifest, arrays), (entries, known) = file, wanted
    made = "is not what this release makes of the network in it"
    for name in sorted(entries.keys() | manifest.keys()):
        if (name not in manifest or name not in entries
                or container.to_json(manifest[name]) != container.to_json(entries[name])):
            return f"manifest entry {name!r} {made}"
    if list(arrays) != list(known):
        return "its sections are not those of its network, in their order"
    for name, array in arrays.items():
        if array.dtype != known[name].dtype or not np.array_equal(array, known[name]):
            return f"section {name!r} {made}"
    return ""
