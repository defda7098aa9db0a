"""What all tests share: who plays the vectors of a block, what a test needs that README's set-up
does not bring, and which processes a test has left behind."""

import contextlib
import gc
import os
import signal
import sys
import uuid
from pathlib import Path

import pytest

from blocks.players import PLAYERS
from blocks.quick_amaranth import quicken
from celosia_sim.simulators.cosim import versions
from celosia_spec.errors import SimulationError

LONG = ("stream/test_random.py", "boards/test_driver_lines.py", "boards/test_driver.py",
        "stream/test_parts.py", "boards/test_build.py", "sw/test_cycle_aware.py",
        "sw/test_products.py", "stream/test_simulate.py", "sw/test_check.py",
        "boards/test_board_commands.py", "sim/test_compressed.py", "sw/test_tutorial.py",
        "hw/test_bit_port.py", "stream/test_words.py", "stream/test_pages.py",
        "formal/test_rings.py", "sw/test_cli_filters.py", "sw/test_entry.py",
        "stream/test_users.py", "sw/test_vectors_to_maps.py", "stream/test_kinds.py",
        "stream/test_hosted.py", "sw/test_zoo.py", "sim/test_lenet5.py", "boards/test_arrays.py",
        "sw/test_frontend.py", "sim/test_backends.py", "sw/test_pooling.py")
"""Files that take long, whatever the number of their tests: two workers begin with them, so that
neither is left alone with one at the end."""


def pytest_configure(config):
    """Let files be given to workers in the order below, not by their numbers of tests; and let
    garbage be looked for seldom: among all that torch and Amaranth keep, that takes more than
    half the time in which Amaranth elaborates a core. Amaranth is quickened. What tests compute
    with, the workers that are started later and all that they start, takes one thread: where
    threads are more than cores, OpenMP's wait for each other at full speed, and small networks
    train at a twentieth of it. Ctrl-C and a closed terminal end processes, as tests expect it,
    where a shell started this in the background, or nohup, and lets it ignore them."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    config.option.loadscopereorder = False
    quicken()
    gc.set_threshold(100_000, 20, 20)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_addoption(parser):
    parser.addoption("--update", action="store_true",
                     help="write what tests/fingerprints finds (with -n0)")
    parser.addoption("--networks", type=int, default=0, metavar="COUNT",
                     help="run so many random networks in tests/stream/test_random.py, each time "
                          "others")


@pytest.fixture
def update(request) -> bool:
    """Whether stored fingerprints and texts are to be written anew."""
    return request.config.getoption("--update")


VERILOG = [name for name in PLAYERS if name != "pysim"]


@pytest.fixture(params=PLAYERS)
def player(request):
    """Return ``play(dut, vectors)`` of the simulator called ``request.param``: each in turn."""
    return PLAYERS[request.param]


@pytest.fixture(params=VERILOG)
def verilog_player(request):
    """Return the same of the simulators that read generated Verilog; cell models may follow."""
    return PLAYERS[request.param]


@pytest.fixture
def still_running(monkeypatch):
    """Return a function that lists the commands which this test started and which still run.

    A mark in their environment tells them, as /proc shows it; a zombie has none.
    """
    mark = f"CELOSIA_TEST_{uuid.uuid4().hex}"
    monkeypatch.setenv(mark, "1")

    def commands():
        found = []
        for environ in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):      # another user's, or gone meanwhile
                if mark.encode() in environ.read_bytes():
                    found.append((environ.parent / "cmdline").read_bytes().replace(b"\0", b" "))
        return found

    return commands


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Put LONG files first; mark what is played in Icarus, so that ``-m icarus`` finds it."""
    place = {(Path(__file__).parent / path).resolve(strict=True): k
             for k, path in enumerate(LONG)}
    items.sort(key=lambda item: place.get(item.path, len(LONG)))
    for item in items:
        params = item.callspec.params if hasattr(item, "callspec") else {}
        if "icarus" in (params.get("player"), params.get("verilog_player")):
            item.add_marker("icarus")


def pytest_collection_finish():
    """What was imported stays: garbage is not looked for among it. And torch.manual_seed writes
    down the whole call stack for every kind of device that is not there, and keeps it for ever."""
    gc.collect()
    gc.freeze()
    if torch := sys.modules.get("torch"):
        for devices in (torch.cuda, torch.mtia, torch.xpu):
            if not devices.is_available():
                devices.manual_seed_all = lambda seed: None


def pytest_runtest_setup(item):
    """Skip a test that needs Icarus under cocotb, which README's set-up does not bring; the
    reason says what is missing and how to get it."""
    if item.get_closest_marker("icarus"):
        try:
            versions()
        except SimulationError as missing:
            pytest.skip(str(missing))
