"""The commands that talk to a board, at the port of a virtual one."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import celosia
from celosia.cli import app
from celosia.program import Program
from celosia_hw.isa import Space
from celosia_sim.virtual import Faults, VirtualBoard, Wire, serving

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

PROGRAM, INPUTS = "net.celo", "x.npy"


@pytest.fixture(scope="module")
def program() -> Program:
    torch.manual_seed(7)
    net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
                        nn.Linear(64, 6)).eval()
    return celosia.compile(net, np.zeros((1, 1, 8, 8), np.float32), lanes=4)


@pytest.fixture
def folder(program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    program.save(tmp_path / PROGRAM)
    rng = np.random.default_rng(3)
    np.save(tmp_path / INPUTS, rng.normal(size=(6, 1, 8, 8)).astype(np.float32))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CELOSIA_PORT", raising=False)
    return tmp_path


def served(program: Program, faults: Faults | None = None) -> Iterator[str]:
    with VirtualBoard(program.target, program.array, byte_level=True) as board, serving(
            Wire(board, faults)) as server:
        yield server.port


@pytest.fixture
def port(program: Program) -> Iterator[str]:
    yield from served(program)


def invoke(*arguments: str, status: int = 0):
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == status, result.output
    return result


def answer(*arguments: str) -> dict:
    return json.loads(invoke(*arguments, "--json").stdout)


def test_load_run_verify_and_compare(folder, program, port):
    found = answer("load", PROGRAM, "--port", port)
    assert (found["board"], found["port"]) == (program.target, port)
    assert found["bytes"] == 8 * found["frames"] and found["seconds"] > 0
    assert f"for the {program.target}" in invoke("load", PROGRAM, "--port", port).stdout

    golden = answer("run", PROGRAM, "--input", INPUTS)
    there = answer("run", PROGRAM, "--input", INPUTS, "--backend", f"board:{port}")
    assert there["answers"] == golden["answers"]
    assert there["cycles"] == [program.predicted_cycles] * 6 and golden["cycles"] is None

    checked = answer("verify", PROGRAM, "--input", INPUTS, "--port", port)
    assert checked["mismatches"] == 0 and set(checked["tensors"]) == {"0", "4"}
    counted = answer("compare", PROGRAM, "--port", port)
    assert counted["different"] == []
    assert counted["counted"] == counted["simulated"] == program.predicted_cycles
    assert "counted" in invoke("compare", PROGRAM, "--port", port).stdout


def test_the_port_of_the_environment(folder, program, port, monkeypatch):
    monkeypatch.setenv("CELOSIA_PORT", port)
    assert answer("load", PROGRAM)["port"] == port
    assert answer("run", PROGRAM, "--input", INPUTS, "--backend", "board")["cycles"]
    assert answer("run", PROGRAM, "--input", INPUTS)["cycles"] is None      # golden, as ever


def test_the_energy_of_an_inference(folder, port):
    lines = invoke("energy", PROGRAM, "--port", port, "--seconds", "1", "--idle", "300", "--busy",
                   "312", status=1).stderr      # byte by byte, a run is not bridged by padding
    assert "did not end as it must" in lines
    words = invoke("energy", PROGRAM, "--port", port, "--idle", "300", status=1).stderr
    assert "--idle and --busy go together" in words


def test_a_board_that_computes_wrong_is_refused(folder, program, monkeypatch):
    """Its weights are lost on the way to its memory."""
    from celosia_boards.host.machine import Machine

    kept = Machine.write

    def lossy(self, at, values, progress=None):
        some = at[:, 0] != Space.WEIGHTS
        kept(self, at[some], values[some], progress)

    monkeypatch.setattr(Machine, "write", lossy)
    for port in served(program):
        words = invoke("load", PROGRAM, "--port", port, status=1).stderr
        assert "does not compute what it must" in words


def test_verify_names_the_first_layer(folder, program, port, monkeypatch):
    from celosia_sim import golden

    kept = golden.run

    def other(graph, images, **options):
        found = kept(graph, images, **options)
        if options["keep_tensors"]:
            found.mantissas["0"][2, 1, 3, 2] += 1
        return found

    monkeypatch.setattr(golden, "run", other)
    words = invoke("verify", PROGRAM, "--input", INPUTS, "--port", port, status=1).stderr
    assert "layer '0', image 2, element (1, 3, 2)" in words
    assert "the board does not compute" in words


@pytest.mark.parametrize("faults", [
    Faults(seed=1, drop=0.002), Faults(seed=2, flip=0.002), Faults(seed=3, duplicate=0.002),
    Faults(seed=4, cut=0.0005), Faults(seed=5, noise=0.002), Faults(seed=6, stall=0.0001),
    Faults(seed=7, reset_after=20_000)], ids=lambda faults: repr(faults)[7:-1])
def test_faults_do_no_harm(folder, program, faults):
    for port in served(program, faults):
        there = answer("run", PROGRAM, "--input", INPUTS, "--port", port)
    assert there["answers"] == answer("run", PROGRAM, "--input", INPUTS)["answers"]


def test_a_board_that_is_reset_all_the_time_is_given_up(folder, program):
    for port in served(program, Faults(reset_after=9_000)):
        words = invoke("run", PROGRAM, "--input", INPUTS, "--port", port, status=1).stderr
    assert "check its power" in words or "does not compute what it must" in words


def test_ctrl_c_ends_a_run_at_once(folder, program):
    np.save(folder / "many.npy", np.zeros((20_000, 1, 8, 8), np.float32))
    for port in served(program):
        run = subprocess.Popen(
            [sys.executable, "-m", "celosia", "run", PROGRAM, "--input", "many.npy", "--port",
             port], stderr=subprocess.PIPE, text=True, cwd=folder, env=os.environ)
        time.sleep(3)
        asked = time.monotonic()
        run.send_signal(signal.SIGINT)
        words = run.communicate(timeout=10)[1]
        assert run.returncode == 130 and words.endswith("interrupted\n")
        assert time.monotonic() - asked < 2
        invoke("load", PROGRAM, "--port", port)     # the port is free, and the board well


def test_a_killed_host_leaves_the_port_free(folder, program):
    for port in served(program):
        for pause in (0.6, 0.8, 1.0):
            host = subprocess.Popen(
                [sys.executable, "-m", "celosia", "load", PROGRAM, "--port", port], cwd=folder,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(pause)
            host.kill()
            host.wait()
        invoke("load", PROGRAM, "--port", port)
