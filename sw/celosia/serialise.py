"""A program file read back, and compared with what this release makes of the network in it.

All that a program holds follows from its quantised graph and its array, so a file is read by
checking these two (:mod:`celosia_spec.record`), lowering the graph again, and comparing: a file is
a program if it is, section for section, what `Program.save` writes for the program that it stands
for.
"""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from celosia.lower import lower
from celosia.program import Program
from celosia_boards.arrays import array_for
from celosia_spec import container
from celosia_spec.errors import CelosiaError, quoted
from celosia_spec.record import Network, graph_of, network_of, sections

_WORDS = 300
"""Longest reason in a refusal: a file may hold names of any length."""


def load(path: str | Path) -> Program:
    """Return the program in ``path``.

    CelosiaError where the file is foreign or damaged, was compiled for an array that its target
    does not carry in this release, or holds anything else than this release makes of its network.
    """
    manifest, arrays = container.read(path)
    try:
        program = _program(manifest, arrays)
    except ValidationError as problem:
        first = problem.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise _refused(path, f"manifest entry {where or 'as a whole'}: {first['msg']}") from None
    except KeyError as problem:
        raise _refused(path, f"{problem} is missing") from None
    except (CelosiaError, ValueError) as problem:
        raise _refused(path, str(problem)) from None
    _compare(path, program, manifest, arrays)
    return program


def _program(manifest: dict[str, Any], arrays: dict[str, np.ndarray]) -> Program:
    """Return what the compiler makes of the network in a file.

    KeyError where an entry or a section is missing, ValueError where one is not as it must be.
    """
    network = network_of(manifest)
    _check_array(network)
    program = lower(graph_of(network, arrays), network.array, target=network.target,
                    exponents=network.exponents)
    return replace(program, host=network.host, preprocessing=network.preprocessing)


def _check_array(network: Network) -> None:
    """ValueError unless the target carries the array, with these lanes and widths."""
    array = network.array
    if array.hash != network.array_hash:
        raise ValueError(f"it is for another array: its hash is not {array.hash:08x}, that of this "
                         f"release's array of the same parameters")
    known = array_for(network.target, lanes=array.lanes, acc_bits=array.acc_bits,
                      weight_bits=array.weight_bits, activation_bits=array.activation_bits)
    for field in fields(array):
        found, wanted = getattr(array, field.name), getattr(known, field.name)
        if found != wanted:
            raise ValueError(f"its array's {field.name} is {found}, that of {network.target} "
                             f"{wanted}")


def _compare(path: str | Path, program: Program, manifest: dict[str, Any],
             arrays: dict[str, np.ndarray]) -> None:
    """CelosiaError unless the file's sections are those of ``program``, in the same order."""
    wanted, known = sections(program)
    for name in sorted(wanted.keys() | manifest.keys()):
        if (name not in manifest or name not in wanted
                or container.to_json(manifest[name]) != container.to_json(wanted[name])):
            raise _differs(path, f"manifest entry {name!r}")
    if list(arrays) != list(known):
        raise _refused(path, "its sections are not those of its network, in their order")
    for name, array in arrays.items():
        if array.dtype != known[name].dtype or not np.array_equal(array, known[name]):
            raise _differs(path, f"section {name!r}")


def _differs(path: str | Path, what: str) -> CelosiaError:
    return _refused(path, f"{what} is not what this release makes of the network in it")


def _refused(path: str | Path, problem: str) -> CelosiaError:
    return CelosiaError(f"{path}: not a valid program, {quoted(problem, _WORDS)}; compile the "
                        f"model again")
