# amaranth: UnusedElaboratable=no
"""Networks with several inputs or outputs on the simulated gateware and on a board: answers are the
golden model's, each by its name."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import celosia
from celosia.board import Board
from celosia.verify import verify
from celosia_sim.virtual import VirtualBoard
from celosia_sim.virtual.line import SimulatedLine


class Heads(nn.Module):
    """Two heads of several kernels on what is returned, too, one that the host ends."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(6)
        self.body, self.a, self.b = nn.Conv2d(2, 6, 3, padding=1), nn.Conv2d(6, 5, 1), \
            nn.Conv2d(6, 3, 3, padding=1)

    def forward(self, x):
        y = F.relu(self.body(x))
        return {"features": y, "where": self.a(y), "what": self.b(y).argmax(1)}


@pytest.fixture(scope="module")
def program(target):
    return celosia.compile(Heads().eval(), (1, 2, 8, 8), target="small")


def test_machines_return_what_the_golden_model_returns(program, target):
    x = np.random.default_rng(1).normal(size=(3, 2, 8, 8)).astype(np.float32)
    wanted = celosia.run(program, x)
    assert list(wanted.answers) == ["features", "where", "what"]
    assert verify(program, x).passed
    with VirtualBoard(target, byte_level=True) as virtual, Board(SimulatedLine(virtual)) as board:
        board.load(program)
        on_board = board.run(x)
    for found in (celosia.run(program, x, "verilator"), on_board):
        for name, answer in wanted.answers.items():
            assert np.array_equal(found.answers[name], answer), name
        assert found.cycles.tolist() == [program.predicted_cycles] * 3


class Sum(nn.Module):
    """A map and a vector, which lie in one map of the machine's."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(6)
        self.a, self.b, self.c = nn.Conv2d(2, 6, 3), nn.Linear(9, 5), nn.Linear(11, 4)

    def forward(self, picture, beside):
        return self.c(torch.cat([F.relu(self.a(picture)).mean((2, 3)), F.relu(self.b(beside))], 1))


def test_machines_take_what_the_golden_model_takes(target):
    rng = np.random.default_rng(1)
    x = {"beside": rng.normal(size=(3, 9)).astype(np.float32),
         "picture": rng.normal(size=(3, 2, 8, 8)).astype(np.float32)}
    program = celosia.compile(Sum().eval(), {"picture": (1, 2, 8, 8), "beside": (1, 9)},
                              target="small")
    wanted = celosia.run(program, x)
    assert verify(program, x).passed
    with VirtualBoard(target, byte_level=True) as virtual, Board(SimulatedLine(virtual)) as board:
        board.load(program)
        assert np.array_equal(board.run(x).answer, wanted.answer)
    assert np.array_equal(celosia.run(program, x, "verilator").answer, wanted.answer)
