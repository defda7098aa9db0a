"""One block of the gateware, verilated: set its inputs, read its outputs, let cycles pass."""

import ctypes
import functools
import os
import platform
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from celosia_boards.cache import cached, digest
from celosia_sim.simulators.runtime import CFLAGS, runtime
from celosia_sim.simulators.tools import (
    compiler_version,
    run_tool,
    verilator_environment,
    verilator_version,
)

__all__ = ["Block", "headers"]

_DRIVER = Path(__file__).parent / "block_driver.cpp"

# Blocks are small and their tests short: the compiler's time counts, not the simulation's. Where
# functions are long, that of Verilator and g++ grows with their square.
_VERILATOR_FLAGS = (
    "--cc", "--output-split", "0", "--output-split-cfuncs", "1000", "--x-assign", "unique",
    "--x-initial", "unique", "--no-timing", "-Wno-fatal", "-Wno-lint", "-Wno-style",
    "--top-module", "block", "--prefix", "Vblock", "-Mdir", "obj", "-CFLAGS", CFLAGS)
_MAKE = ("make", "-C", "obj", "-f", "Vblock.mk")
_OPTIMISE = "OPT_FAST=-O1"
_INCLUDES = "#include <cstdint>\n#include <cstring>\n#include <memory>\n#include <verilated.h>\n"

_MEMBER = re.compile(r"^\s*VL_(IN|OUT)\d*W?\(&(\w+),", re.M)


def _key(*parts: str) -> str:
    return digest(*parts, verilator_version(), compiler_version(), platform.machine(),
                  " ".join((*_VERILATOR_FLAGS, *_MAKE, _OPTIMISE)))


@functools.cache
def _environment(path: str) -> dict[str, str]:
    """Return the environment for Verilator and make, which is looked for once in a PATH."""
    return verilator_environment()


def _verilate(folder: Path, text: str, *arguments: str) -> dict[str, str]:
    """Leave the C++ of Verilog ``text`` in ``folder``/obj; return the environment for make."""
    (folder / "block.v").write_text(text)
    env = _environment(os.environ.get("PATH", ""))
    run_tool("verilator", ["verilator_bin", *_VERILATOR_FLAGS, *arguments, "block.v"], cwd=folder,
             env=env)
    return env


@functools.cache
def headers() -> Path:
    """Return the folder of ``block.h``, precompiled: what every block includes is two thirds of
    the compiler's work on it."""
    def build(folder: Path) -> None:
        env = _verilate(folder, "module block; endmodule\n")
        (folder / "obj" / "block.h").write_text(_INCLUDES)
        run_tool("g++", [*_MAKE, _OPTIMISE, "block.h.fast.gch"], cwd=folder, env=env)
        (folder / "obj" / "block.h.fast.gch").rename(folder / "block.h.gch")
        (folder / "obj" / "block.h").rename(folder / "block.h")
        shutil.rmtree(folder / "obj")

    return cached(f"block-headers-{_key(_INCLUDES)}", build)


def _name(member: str) -> str:
    """Return the port's name in Verilog; Verilator marks words of C++ and double underscores."""
    return member.removeprefix("__SYM__").replace("___05F", "__")


def _library(text: str, sources: Sequence[Path]) -> Path:
    """Return the folder of the compiled block: ``block.so``, and the ``ports`` in their order."""
    ours = runtime()

    def build(folder: Path) -> None:
        env = _verilate(folder, text, "--exe", str(_DRIVER), *map(str, sources))
        ports = _MEMBER.findall((folder / "obj" / "Vblock.h").read_text())
        (folder / "obj" / "Vblock__ALL.cpp").write_text("".join(
            f'#include "{path.name}"\n' for path in sorted((folder / "obj").glob("*.cpp"))))
        macro = " ".join(f"P({member})" for _, member in ports)
        (folder / "obj" / "ports.h").write_text(
            f"#define PORTS(P) {macro}\n" + "#define CLOCKED\n" * (("IN", "clk") in ports))
        run_tool("g++", [*_MAKE, f"{_OPTIMISE} -include {headers() / 'block.h'}",
                         "block_driver.o"], cwd=folder, env=env)
        run_tool("g++", ["g++", "-shared", "-o", "block.so", "obj/block_driver.o", str(ours),
                         "-lpthread"], cwd=folder, env=env)
        (folder / "ports").write_text("".join(f"{direction} {_name(member)}\n"
                                              for direction, member in ports))
        shutil.rmtree(folder / "obj")

    key = _key(text, _DRIVER.read_text(), *(path.read_text() for path in sources))
    return cached(f"block-{key}", build)


class Block:
    """A verilated block; its inputs are 0 until they are set.

    text    : Verilog whose top module is called ``block``; the clock is ``clk``, if there is one.
    sources : further Verilog files it needs (cell models).
    prefix  : what the names of its ports begin with in ``text``, and not here. Verilator's model
              has names of its own (``final``, ``eval``) that a port must not have.

    A register or memory without initial values starts at a random one (a memory at one for all its
    words), the same in every run, so that a result which depends on it is not right by chance.
    SimulationError where Verilator or the compiler is missing or fails. A context manager: leaving
    it frees the block.
    """

    def __init__(self, text: str, sources: Sequence[Path] = (), prefix: str = "") -> None:
        folder = _library(text, sources)
        self._calls = ctypes.CDLL(str(folder / "block.so"))
        self._calls.celosia_block_open.restype = ctypes.c_void_p
        self._calls.celosia_block_port.restype = ctypes.c_void_p
        self._handle = ctypes.c_void_p(self._calls.celosia_block_open())
        self._ports, self._index = {}, {}
        for index, line in enumerate((folder / "ports").read_text().splitlines()):
            direction, name = line.split()
            name = name.removeprefix(prefix)
            self._ports[name], self._index[name] = self._port(index), index
            if direction == "IN":
                self.set(name, 0)
        self.settle()

    def _port(self, index: int) -> Any:
        size = ctypes.c_int32()
        place = self._calls.celosia_block_port(self._handle, index, ctypes.byref(size))
        return (ctypes.c_ubyte * size.value).from_address(place)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._ports.clear()
        self._calls.celosia_block_close(self._handle)

    def set(self, name: str, value: int) -> None:
        """Set input ``name`` to ``value``, not negative and not wider than the port."""
        port = self._ports[name]
        port[:] = value.to_bytes(len(port), "little")

    def settle(self) -> None:
        """Let the outputs follow the inputs that were set."""
        self._calls.celosia_block_settle(self._handle)

    def get(self, name: str) -> int:
        """Return the bits of port ``name``, as they were when the block last settled."""
        return int.from_bytes(self._ports[name], "little")

    def tick(self, cycles: int = 1) -> None:
        """Let ``cycles`` clock cycles pass, with the inputs as they are."""
        self._calls.celosia_block_tick(self._handle, ctypes.c_int64(cycles))

    def stream(self, inputs: Mapping[str, np.ndarray],
               outputs: Sequence[str]) -> dict[str, np.ndarray]:
        """Let a cycle pass for each value of ``inputs``; return the outputs of these cycles.

        inputs  : for each port a row of as many values, not negative and not wider than the port.
        outputs : names of ports; an output is read before the edge that ends its cycle.
        Ports have 64 bits at most. Inputs that are not named stay as they are.
        """
        given = np.array(list(inputs.values()), dtype=np.uint64)
        assert all(len(self._ports[name]) <= 8 for name in (*inputs, *outputs))
        found = np.zeros((len(outputs), given.shape[1]), dtype=np.uint64)
        places = [(ctypes.c_int32 * len(names))(*(self._index[name] for name in names))
                  for names in (inputs, outputs)]
        self._calls.celosia_block_stream(
            self._handle, ctypes.c_int64(given.shape[1]),
            len(inputs), places[0], given.ctypes.data_as(ctypes.c_void_p),
            len(outputs), places[1], found.ctypes.data_as(ctypes.c_void_p))
        return dict(zip(outputs, found, strict=True))
