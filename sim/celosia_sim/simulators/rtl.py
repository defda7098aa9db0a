"""Verilog of the machine, as the simulators read it."""

import functools
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import celosia_hw
from celosia_boards.cache import Stages, cached, digest, unseen
from celosia_boards.description import Flash
from celosia_spec import isa
from celosia_spec.isa.array import Array
from celosia_spec.isa.fabric import GENERIC, Fabric

__all__ = ["Design", "design_of", "hosted_machine", "machine_design", "verilog_of"]

TOP = "core"
"""Name of the top module, whatever it is."""


@dataclass(frozen=True, kw_only=True)
class Design:
    """Verilog of the machine on its host bus, or of what is around it.

    text    : Verilog; the top module is called ``core``.
    defines : macros for it.   brief : it is large and runs shortly, so that compilers do not
    optimise it.
    """

    text: str
    defines: tuple[tuple[str, str], ...] = ()
    brief: bool = False

    @property
    def key(self) -> str:
        """Hash over everything above."""
        return digest(self.text, str(self.brief),
                      *(f"{name}={value}" for name, value in self.defines))


@functools.cache
def _sources_key() -> str:
    """Hash over the gateware's source text and what turns it into Verilog."""
    roots = [Path(package.__path__[0]) for package in (celosia_hw, isa)]
    files = [(f"{root.name}/{path.relative_to(root)}", path.read_text())
             for root in roots for path in sorted(root.rglob("*.py"))]
    return digest(version("amaranth"), Path(__file__).read_text(),
                  *(f"{name}\n{text}" for name, text in files))


_EQUAL_WORDS = re.compile(
    r"^  initial begin\n    (\\\S+ |\w+)\[0\] = (\S+);\n((?:    \1\[\d+\] = \2;\n)+)  end$", re.M)
"""What Yosys writes for a memory that begins with the same value in all its words."""


def _loop(words: re.Match[str]) -> str:
    name, value, others = words.groups()
    return (f"  initial begin : \\init.{words.start()} \n    integer i;\n"
            f"    for (i = 0; i <= {others.count(chr(10))}; i = i + 1) {name}[i] = {value};\n  end")


def verilog_of(component: Any, name: str) -> str:
    """Return the Verilog of ``component``; its top module is called ``name``.

    A memory's equal words are set in a loop: as statements, which Yosys writes, they were nine
    tenths of a core's text, and half of Verilator's work.
    """
    from amaranth.back import verilog

    text = verilog.convert(component, name=name, emit_src=False, strip_internal_attrs=True)
    return _EQUAL_WORDS.sub(_loop, text)


FLASH, FLASH_HZ = Flash(part="W25Q32JV-IQ", base=1 << 20, script=(b"\xab",)), 48e6
"""What an array with flash reads where there is no board, and its clock then."""


def machine_design(array: Array, stages: Stages = unseen, flash: Flash | None = FLASH,
                   clock_hz: float = FLASH_HZ) -> Design:
    """Return the machine's Verilog, on its host bus and without a reset, from the cache where the
    gateware's sources have not changed.

    stages : called as it is made.   flash, clock_hz : what arrays with flash read, and the clock.
    ValueError where such an array has none.
    """
    read = array.flash and flash and (flash.base, flash.script, clock_hz)
    if read is None:
        raise ValueError("the array has flash, and the board has none for it; give it flash=0")
    return design_of(lambda: hosted_machine(array, flash, clock_hz), "machine",
                     repr((sorted(asdict(array).items()), read)), stages=stages)


def hosted_machine(array: Array, flash: Flash | None = FLASH, clock_hz: float = FLASH_HZ, *,
                   fabric: Fabric = GENERIC, main_memory: str = "bram") -> Any:
    """Return what `machine_design` is of.   fabric, main_memory : as `Machine` has them."""
    from celosia_hw.flash.reader import FlashReader
    from celosia_hw.hosted_machine import HostedMachine
    from celosia_sim.simulators.unreset import Unreset

    reader = FlashReader(array, clock_hz=clock_hz, base=flash.base,
                         script=flash.script) if array.flash and flash else None
    return Unreset(HostedMachine(array, fabric=fabric, main_memory=main_memory, reader=reader))


def design_of(make: Callable[[], Any], *key: str, stages: Stages = unseen) -> Design:
    """Return the Verilog of a component of ``celosia_hw``, from the cache where it can.

    make : returns the component.   key : what tells it from all others.
    """
    def build(folder: Path) -> None:
        stages("elaborating the gateware", 0, 0)
        (folder / "core.v").write_text(verilog_of(make(), TOP))

    name = digest(_sources_key(), *key)
    return Design(text=(cached(f"verilog-{name}", build, stages) / "core.v").read_text())
