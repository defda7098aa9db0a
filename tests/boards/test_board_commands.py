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
from celosia_sim.virtual import Faults, VirtualBoard, Wire, serving
from celosia_spec.isa.memories import Space

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

PROGRAM, INPUTS = "net.celo", "x.npy"


def net() -> nn.Sequential:
    torch.manual_seed(7)
    return nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
                         nn.Linear(256, 6)).eval()


@pytest.fixture(scope="module")
def program() -> Program:
    return celosia.compile(net(), np.zeros((1, 1, 8, 8), np.float32))


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
    assert checked["mismatches"] == 0 and set(checked["tensors"]) == {"input", "0", "4"}
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
    given = ("energy", PROGRAM, "--port", port, "--seconds", "1")
    found = answer(*given, "--idle", "300", "--busy", "312")
    assert found["runs"] > 0 and found["seconds"] >= 1
    assert found["per_second"] == pytest.approx(found["runs"] / found["seconds"])
    assert found["microjoules"] == pytest.approx(12_000 / found["per_second"])
    assert answer(*given)["microjoules"] is None
    assert "microjoules an inference" in invoke(*given).stdout
    assert "go together" in invoke(*given, "--idle", "300", status=1).stderr
    assert "swapped" in invoke(*given, "--idle", "312", "--busy", "300", status=1).stderr


def with_other_signs(program: Program, **weights: slice) -> dict[int, int]:
    """Return what main memory holds instead where some weights have other signs: {address: value}.

    weights : which of a layer's, by its name in the network behind a _.
    """
    other = net()
    with torch.no_grad():
        for name, some in weights.items():
            other[int(name[1:])].weight.view(-1)[some] *= -1
    there = celosia.compile(other, np.zeros((1, 1, 8, 8), np.float32)).program.entries.view("<u2")
    return {int(at): int(there[at])
            for at in np.flatnonzero(program.program.entries.view("<u2") != there)}


def test_a_board_that_computes_wrong_is_refused(folder, program, monkeypatch):
    """Its weights are lost on the way to its memory."""
    from celosia_boards.host.machine import Machine

    kept = Machine.write
    weights = list(with_other_signs(program, _0=slice(None), _4=slice(None)))
    assert weights

    def lossy(self, at, values, progress=None):
        some = (at[:, 0] != Space.MAIN) | ~np.isin(at[:, 1], weights)
        kept(self, at[some], values[some], progress)

    monkeypatch.setattr(Machine, "write", lossy)
    for port in served(program):
        words = invoke("load", PROGRAM, "--port", port, status=1).stderr
        assert "does not compute what it must" in words


@pytest.mark.parametrize("layer", [0, 1])
def test_verify_names_the_first_layer_of_a_board_that_computes_wrong(folder, program, monkeypatch,
                                                                     layer):
    """Some weights have other signs on the board, behind what is read back there."""
    from celosia_boards.host.machine import Machine

    kept = Machine.write
    there = with_other_signs(program, **{["_0", "_4"][layer]: slice(-9, None)})
    assert there

    def other(self, at, values, progress=None):
        values = values.copy()
        for address, value in there.items():
            values[(at[:, 0] == Space.MAIN) & (at[:, 1] == address)] = value
        kept(self, at, values, progress)

    monkeypatch.setattr(Machine, "write", other)
    for port in served(program):
        words = invoke("verify", PROGRAM, "--input", INPUTS, "--port", port, status=1).stderr
        assert f"layer '{['0', '4'][layer]}', image 0, element" in words
        assert "the board does not compute what the golden model does" in words
        assert "does not compute" in invoke("load", PROGRAM, "--port", port, status=1).stderr
        with celosia.connect(port) as board:
            board.load(program, insist=False)
            found = board.simulate(np.load(INPUTS), tensors=True)
    wanted = celosia.run(program, np.load(INPUTS), tensors=True).tensors
    for name, got in (("input", found.tensors["input"][0]), ("0", found.tensors["0"][0]),
                      ("4", found.output)):
        wrong = {"input": False, "0": layer == 0, "4": True}[name]
        assert np.array_equal(got, wanted[name].mantissa) != wrong


def test_cycles_that_are_not_those_predicted_are_refused(folder, program, monkeypatch):
    from celosia_boards.host import work

    kept = work.Work.result

    def longer(self, image, ended, replies):
        good = kept(self, image, ended, replies)
        self.record.cycles[image] += 1
        if not self.exact:
            return good
        return bool(self.record.cycles[image] == self.run.cycles)

    monkeypatch.setattr(work.Work, "result", longer)
    for port in served(program):
        words = invoke("run", PROGRAM, "--input", INPUTS, "--port", port, status=1).stderr
    assert f"counts {program.predicted_cycles + 1:,} cycles for image 0, time after time" in words


@pytest.mark.parametrize("faults", [
    Faults(seed=1, drop=0.002), Faults(seed=2, flip=0.002), Faults(seed=3, duplicate=0.002),
    Faults(seed=4, cut=0.0005), Faults(seed=5, noise=0.002), Faults(seed=6, stall=0.0001),
    Faults(seed=7, reset_after=20_000)], ids=lambda faults: repr(faults)[7:-1])
def test_faults_do_no_harm(folder, program, faults):
    for port in served(program, faults):
        there = answer("run", PROGRAM, "--input", INPUTS, "--port", port)
    assert there["answers"] == answer("run", PROGRAM, "--input", INPUTS)["answers"]


def test_a_board_that_is_reset_all_the_time_is_given_up(folder, program):
    for port in served(program, Faults(reset_after=4_000)):
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
        words = run.communicate(timeout=60)[1]
        assert run.returncode == 130 and words.endswith("interrupted\n")
        assert time.monotonic() - asked < 10
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
