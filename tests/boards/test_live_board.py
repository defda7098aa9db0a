"""`celosia live` over the virtual board, byte by byte, with the driver as it is."""

import io
import json

import numpy as np
import pytest
from typer.testing import CliRunner

import celosia
from celosia.board import Board
from celosia.cli import app
from celosia.cli import live as command
from celosia_sim.virtual import VirtualBoard
from celosia_sim.virtual.line import SimulatedLine

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402


def test_answers_of_the_virtual_board(tmp_path, monkeypatch) -> None:
    torch.manual_seed(7)
    net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
                        nn.Linear(64, 6)).eval()
    program = celosia.compile(net, np.zeros((1, 1, 8, 8), np.float32))
    program.save(tmp_path / "net.celo")
    x = np.random.default_rng(3).normal(size=(5, 1, 8, 8)).astype(np.float32)
    stream = io.BytesIO()
    np.save(stream, x[0])
    np.save(stream, x[1:])
    with VirtualBoard(program.target, program.array, byte_level=True) as machine:
        monkeypatch.setattr(command, "connect", lambda port, *, baud, on_notice: Board(
            SimulatedLine(machine), on_notice=on_notice))
        done = CliRunner().invoke(app, ["live", str(tmp_path / "net.celo"), "--stdin", "--json"],
                                  input=stream.getvalue())
    assert (done.exit_code, done.stderr) == (0, "")
    about, *answers = map(json.loads, done.stdout.splitlines())
    assert (about["board"], about["port"]) == ("icebreaker", "the virtual board")
    assert about["bytes"] == 8 * about["frames"] > 0 and about["seconds"] > 0
    wanted = celosia.run(program, x)
    assert [said["class"] for said in answers] == wanted.answer.argmax(axis=1).tolist()
    assert [said["score"] for said in answers] == wanted.answer.max(axis=1).tolist()
    assert {said["cycles"] for said in answers} == {program.predicted_cycles}
    assert all(said["ms_link"] > 0 for said in answers)
