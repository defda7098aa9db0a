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

from celosia.bands import file as bands
from celosia.lower import lower
from celosia.program import CoreProgram, Program
from celosia.read_back import read_back
from celosia_boards.arrays import array_for
from celosia_boards.targets import target as find_target
from celosia_spec import container
from celosia_spec.arrays import AnyArray
from celosia_spec.errors import CelosiaError
from celosia_spec.record import graph_of, network_of, sections


def load(path: str | Path) -> Program:
    """Return the program in ``path``.

    CelosiaError where the file is foreign or damaged, was compiled for an array that its target
    does not carry in this release, or holds anything else than this release makes of its network.
    """
    if container.version_of(path) == container.STREAM_VERSION:
        found = bands.load(path)
        try:
            _check_array(found.target, found.array)
        except ValueError as wrong:
            raise CelosiaError(f"{path}: not a valid program, {wrong}; compile the model "
                               f"again") from None
        return found
    return read_back(path, container.VERSION, _program, sections)


def _program(manifest: dict[str, Any], arrays: dict[str, np.ndarray]) -> CoreProgram:
    """Return what the compiler makes of the network in a file.

    KeyError where an entry or a section is missing, ValueError where one is not as it must be.
    """
    network = network_of(manifest)
    array = network.array
    if array.hash != network.array_hash:
        raise ValueError(f"it is for another array: its hash is not {array.hash:08x}, that of this "
                         f"release's array of the same parameters")
    _check_array(network.target, array)
    program = lower(graph_of(network, arrays), network.array, target=network.target,
                    exponents=network.exponents)
    return replace(program, host=network.host, preprocessing=network.preprocessing)


def _check_array(target: str, array: AnyArray) -> None:
    """ValueError unless the target carries the array, with these lanes and widths."""
    if type(find_target(target).array) is not type(array):
        raise ValueError(f"it is for another machine than that of {target}")
    known = array_for(target, lanes=array.lanes, acc_bits=array.acc_bits,
                      weight_bits=array.weight_bits, activation_bits=array.activation_bits)
    for field in fields(array):
        found, wanted = getattr(array, field.name), getattr(known, field.name)
        if found != wanted:
            raise ValueError(f"its array's {field.name} is {found}, that of {target} {wanted}")
