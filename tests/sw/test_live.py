"""`celosia live`: what it says of each input, on a board and without one, and what it refuses."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from torch import nn
from typer.testing import CliRunner

import celosia
from celosia import Preprocessing
from celosia.backends import GoldenModel
from celosia.board import Loaded
from celosia.cli import app
from celosia.cli import live as command
from celosia.live.runner import OnModel, answer, scale_of
from celosia.live.shots import Shot
from celosia.program import Program
from celosia_boards.targets import target
from live_programs import GREY, LABELS, PIXELS, VECTOR, compiled, sent, whole

CLOCK = target("icebreaker").clock_mhz


@pytest.fixture(scope="module")
def grey() -> Program:
    return compiled(GREY, nn.Softmax(1))


@pytest.mark.parametrize("source", [("--watch", "."), ("--camera", "0")])
def test_a_program_that_takes_no_pictures_is_refused_before_any_comes(
        source: tuple, tmp_path: Path, board: list) -> None:
    compiled(GREY, known=None).save(tmp_path / "plain.celo")
    done = live(tmp_path / "plain.celo", *source, status=1)
    assert "does not say how they become inputs; compile it with --scale" in done.stderr
    assert board == []


@pytest.mark.parametrize(("end", "classes", "kind"), [
    ((), 3, "logits"), ((nn.Softmax(1),), 3, "softmax"), ((nn.LogSoftmax(1),), 3, "log_softmax"),
    ((nn.Sigmoid(),), 3, "sigmoid"), ((nn.Tanh(),), 3, "tanh"), ((nn.Sigmoid(),), 1, "sigmoid"),
    ((), 1, "value")])
def test_scores_and_shares(end: tuple, classes: int, kind: str) -> None:
    """Against the network's own answer, which the golden model gives."""
    known = Preprocessing(labels=LABELS[:2 if classes == 1 and end else classes])
    program = compiled(VECTOR, *end, classes=classes,
                       known=known if kind != "value" else None)
    x = np.random.default_rng(2).normal(size=(1, *VECTOR)).astype(np.float32)
    result = celosia.run(program, x)
    value = result.answer[0]
    shot = Shot(name="x", inputs=x, picture=print)
    found = answer(program, OnModel(program, GoldenModel()), shot)
    said = found.as_json()
    assert said["cycles"] is None and said["ms_link"] is None
    assert said["ms_board"] == program.predicted_cycles / (1e3 * CLOCK)
    if kind == "value":
        assert (said["class"], said["label"], said["share"]) == (None, None, None)
        assert said["score"] == value[0]
    elif classes == 1:
        yes = int(value[0] > 0.5)
        assert (said["class"], said["label"], said["score"]) == (yes, LABELS[yes], value[0])
        assert np.allclose(found.shares, [1 - value[0], value[0]])
    else:
        best = int(value.argmax())
        assert (said["class"], said["label"], said["score"]) == (best, LABELS[best], value[best])
        wanted = {"logits": np.exp(value) / np.exp(value).sum(), "softmax": value,
                  "log_softmax": np.exp(value), "sigmoid": value, "tanh": None}[kind]
        assert (found.shares is None) == (wanted is None)
        assert wanted is None or np.allclose(found.shares, wanted)
        assert said["share"] == (None if wanted is None else found.shares[best])


class FakeBoard:
    """Answers as the golden model does, with the cycles that a machine would count."""

    name = "/dev/ttyFAKE"

    def __enter__(self) -> FakeBoard:
        return self

    def __exit__(self, *problem: object) -> None:
        self.open = False

    def load(self, program: Program, *, progress=None) -> Loaded:
        self.program, self.open = program, True
        return Loaded(bytes=800, frames=100, seconds=0.25)

    def run(self, x: np.ndarray) -> celosia.RunResult:
        assert self.open
        result = celosia.run(self.program, x)
        time.sleep(0.02)
        return replace(result, cycles=np.full(len(x), self.program.predicted_cycles))


@pytest.fixture
def board(monkeypatch: pytest.MonkeyPatch) -> list:
    """Every port has a fake board; a list of (port, baud) that were asked for."""
    asked: list = []

    def connect(port: str | None, *, baud: int | None, on_notice: object) -> FakeBoard:
        asked.append((port, baud))
        return FakeBoard()

    monkeypatch.setattr(command, "connect", connect)
    return asked


def live(program: Path, *arguments: object, status: int = 0, stdin: bytes = b""):
    result = CliRunner().invoke(app, ["live", str(program), *map(str, arguments)], input=stdin)
    assert result.exit_code == status, result.output
    return result


def test_a_map_that_was_enlarged_and_flattened_has_logits() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ConvTranspose2d(4, 1, 2, 2), nn.Flatten())
    output, = celosia.compile(model, (1, *GREY)).outputs
    assert [layer.operator for layer in output.host] == ["pixel_shuffle", "reshape"]
    assert scale_of(output).kind == "logits"


@pytest.fixture
def saved(tmp_path: Path, grey: Program) -> Path:
    grey.save(tmp_path / "net.celo")
    return tmp_path / "net.celo"


def test_json_lines(saved: Path, grey: Program, board: list) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (3, *GREY), np.uint8)
    done = live(saved, "--stdin", "--port", "/dev/ttyUSB1", "--baud", 115200, "--json",
                stdin=sent(pixels[0], pixels[1:]).getvalue())
    about, *answers = map(json.loads, done.stdout.splitlines())
    assert board == [("/dev/ttyUSB1", 115200)] and done.stderr == ""
    assert about == {
        "board": "icebreaker", "port": "/dev/ttyFAKE", "backend": "board", "bytes": 800,
        "frames": 100, "seconds": 0.25, "predicted_cycles": grey.predicted_cycles,
        "clock_mhz": CLOCK, "scores": "softmax", "page": None}
    wanted = celosia.run(grey, PIXELS.inputs(pixels))
    for number, (said, value) in enumerate(zip(answers, wanted.answer, strict=True)):
        assert said.pop("ms_link") >= 15
        assert said == {
            "input": str(number), "class": value.argmax(), "label": LABELS[value.argmax()],
            "score": value.max(), "share": value.max(), "cycles": grey.predicted_cycles,
            "ms_board": grey.predicted_cycles / CLOCK / 1e3,
            "saturated": bool(wanted.saturated[number])}


def test_a_line_each(saved: Path, tmp_path: Path, board: list) -> None:
    (tmp_path / "in").mkdir()
    whole(tmp_path / "in" / "a\x1b[2J.png", 1)
    done = live(saved, "--watch", tmp_path / "in", "--limit", 1)
    heading, line, summary = done.stdout.splitlines()
    assert heading.startswith("icebreaker at /dev/ttyFAKE, 800 bytes loaded in 0.25 s; per cent: ")
    assert heading.endswith("the network's own softmax")
    assert line.startswith(r"a\x1b[2J.png  ") and "% " in line
    assert line.split("  ")[1] in LABELS
    assert " ms on the board  " in line and line.endswith(" ms on the link")
    assert summary.startswith("1 input in ")
    assert board == [(None, None)]


@pytest.mark.parametrize("backend", ["golden", "verilator"])
def test_without_a_board(backend: str, saved: Path, grey: Program) -> None:
    stdin = sent(np.zeros(GREY, np.uint8)).getvalue()
    done = live(saved, "--stdin", "--backend", backend, stdin=stdin)
    assert "no board" in done.stdout and "on the link" not in done.stdout
    assert (" ms predicted for the board" in done.stdout) == (backend == "golden")
    about, said = map(json.loads, live(saved, "--stdin", "--backend", backend, "--json",
                                       stdin=stdin).stdout.splitlines())
    assert (about["board"], about["backend"]) == (None, backend)
    assert said["cycles"] == (None if backend == "golden" else grey.predicted_cycles)
    assert said["ms_link"] is None


def test_the_rest_of_a_stream_goes_on_after_an_input_that_is_none(saved: Path) -> None:
    x = np.zeros((2, *GREY), np.float32)
    x[0, 0, 0, 0] = np.inf
    done = live(saved, "--stdin", "--backend", "golden", stdin=sent(x).getvalue())
    assert done.stderr.count("\n") == 1 and done.stderr.endswith("; skipped\n")
    assert "\n1  " in done.stdout


@pytest.mark.parametrize(("arguments", "words"), [
    ((), "give one of --watch FOLDER, --stdin and --camera 0"),
    (("--stdin", "--listen", "0.0.0.0:8000"), "listen on 127.0.0.1:8000, and look at it from"),
    (("--stdin", "--camera", "0"), "give one of"),
    (("--stdin", "--newest"), "--newest goes with --watch"),
    (("--watch", "/nowhere"), "/nowhere: no such folder"),
    (("--stdin", "--backend", "golden", "--port", "auto"), "--port goes with"),
])
def test_refusals(arguments: tuple, words: str, saved: Path, board: list) -> None:
    done = live(saved, *arguments, status=1)
    assert done.stdout == "" and done.stderr.count("\n") == 1 and words in done.stderr
    assert board == []


def test_networks_that_answer_with_maps_are_refused(tmp_path: Path, board: list) -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1)).eval()
    program = celosia.compile(model, np.zeros((1, *GREY), np.float32), target="ulx3s-85f")
    program.save(tmp_path / "map.celo")
    done = live(tmp_path / "map.celo", "--stdin", status=1)
    assert "answers with a map of the shape (2, 6, 8)" in done.stderr and board == []
