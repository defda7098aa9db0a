# amaranth: UnusedElaboratable=no
"""What tests let Amaranth do sooner: the same text as Amaranth's own, the same complaints."""

import pytest
from amaranth._toolchain.yosys import YosysError, _BuiltinYosys
from amaranth.back import rtlil
from amaranth.back.rtlil import ModuleEmitter
from amaranth.hdl import Module, signed, unsigned
from amaranth.lib.memory import Memory

from blocks.quick_amaranth import SLOW, quicken
from celosia_hw.machine import Machine
from celosia_spec.isa.array import Array

DESIGNS = {
    "signed words": lambda: Memory(shape=signed(5), depth=9, init=[-3, 7, -16, 0, 1]),
    "one bit": lambda: Memory(shape=unsigned(1), depth=1, init=[1]),
    "no words": lambda: Memory(shape=unsigned(4), depth=0, init=[]),
    "no bits": lambda: Memory(shape=unsigned(0), depth=4, init=[]),
    "machine": lambda: Machine(Array(main_words=256)),
}


def _read(design):
    if not isinstance(design, Memory):
        return rtlil.convert(design, emit_src=False)
    top, port = Module(), design.read_port()
    top.submodules.memory = design
    return rtlil.convert(top, ports=[port.addr, port.en, port.data], emit_src=False)


@pytest.mark.parametrize("design", DESIGNS)
def test_memories_begin_with_the_same_words(monkeypatch, design):
    quicken()
    text = _read(DESIGNS[design]())
    monkeypatch.setattr(ModuleEmitter, "emit_memory", SLOW["emit_memory"])
    assert _read(DESIGNS[design]()) == text


@pytest.mark.parametrize("script", ["read_rtlil <<end\nmodule \\top\nend\nend\nwrite_verilog",
                                    "no_such_command", "log -stderr é; log ü", ""])
def test_yosys_says_the_same(script):
    quicken()

    def said(run):
        try:
            return run(["-q", "-"], script, ignore_warnings=True)
        except YosysError as error:
            return str(error)

    assert said(_BuiltinYosys.run) == said(SLOW["run"])
