"""`celosia live`: pictures of a folder that is being filled, arrays on standard input, a camera."""

from __future__ import annotations

import io
import itertools
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import celosia
from celosia import Preprocessing
from celosia.board import Loaded
from celosia.cli import app
from celosia.cli import live as command
from celosia.live import camera, folder
from celosia.live.camera import Camera
from celosia.live.folder import Folder
from celosia.live.runner import OnModel, answer, scale_of
from celosia.live.shots import Shot, picture_of
from celosia.live.stream import Stream
from celosia.program import Program
from celosia_boards.targets import target
from celosia_spec.errors import CelosiaError

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

CLOCK = target("icebreaker").clock_mhz
LABELS = ("cat", "dog", "<b>cow</b>")
COLOUR, GREY, VECTOR = (3, 6, 8), (1, 6, 8), (5,)
PIXELS = Preprocessing(scale=1 / 255, labels=LABELS)


def network(shape: tuple[int, ...], *end: nn.Module, classes: int = 3) -> nn.Module:
    torch.manual_seed(4)
    body = [nn.Linear(shape[0], 4), nn.ReLU()] if len(shape) == 1 else [
        nn.Conv2d(shape[0], 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*body, nn.Linear(4, classes), *end).eval()


def compiled(shape: tuple[int, ...], *end: nn.Module, classes: int = 3,
             known: Preprocessing | None = PIXELS) -> Program:
    return celosia.compile(network(shape, *end, classes=classes),
                           np.zeros((1, *shape), np.float32), preprocessing=known)


@pytest.fixture(scope="module")
def colour() -> Program:
    return compiled(COLOUR)


@pytest.fixture(scope="module")
def grey() -> Program:
    return compiled(GREY, nn.Softmax(1))


def picture(seed: int, size: tuple[int, int] = (8, 6)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    return Image.fromarray(pixels)


def png(seed: int) -> bytes:
    file = io.BytesIO()
    picture(seed).save(file, "PNG")
    return file.getvalue()


def whole(path: Path, seed: int) -> None:
    path.write_bytes(png(seed))


class Watched:
    """A folder watched by a thread: what came of it so far, and a wait for more."""

    def __init__(self, path: Path, program: Program, *, newest: bool = False) -> None:
        self.shots: list[Shot] = []
        self.skipped: list[str] = []
        self.ended: str | None = None
        self._stop = False
        self._source = Folder(path, program, self.skipped.append, newest=newest)
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        try:
            for shot in self._source:
                self.shots.append(shot)
                if self._stop:
                    return
        except CelosiaError as problem:
            self.ended = str(problem)

    def __enter__(self) -> Watched:
        self._thread.start()
        return self

    def __exit__(self, *problem: object) -> None:
        self._stop = True

    @property
    def names(self) -> list[str]:
        return [shot.name for shot in self.shots]

    def until(self, holds: Callable[[], bool]) -> None:
        end = time.monotonic() + 10
        while not holds():
            assert time.monotonic() < end, (self.names, self.skipped, self.ended)
            time.sleep(0.005)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks follow each other sooner, and what is no picture is given up sooner."""
    monkeypatch.setattr(folder, "LOOK_S", 0.02)
    monkeypatch.setattr(folder, "GIVE_UP_S", 0.3)


@pytest.mark.usefixtures("quick")
def test_pictures_come_as_they_are_complete_each_once(tmp_path: Path, colour: Program) -> None:
    for age, name in enumerate(("new.png", "old.jpg", "older.PNG")):
        picture(age).save(tmp_path / name, "JPEG" if name.endswith("jpg") else "PNG")
        os.utime(tmp_path / name, (1000 - age, 1000 - age))
    (tmp_path / "notes.txt").write_text("no picture")
    whole(tmp_path / ".hidden.png", 1)
    with Watched(tmp_path, colour) as seen:
        seen.until(lambda: len(seen.shots) == 3)
        assert seen.names == ["older.PNG", "old.jpg", "new.png"]
        whole(tmp_path / "next.part", 7)
        (tmp_path / "next.part").rename(tmp_path / "next.png")
        seen.until(lambda: "next.png" in seen.names)
        (tmp_path / "old.jpg").rename(tmp_path / "moved.jpg")       # it came already
        whole(tmp_path / "new.png", 8)                              # another picture
        seen.until(lambda: len(seen.shots) == 5)
        whole(tmp_path / "last.png", 9)
        seen.until(lambda: "last.png" in seen.names)
    assert seen.names[3:] == ["next.png", "new.png", "last.png"] and not seen.skipped
    wanted = np.asarray(picture(7)).transpose(2, 0, 1)[None]
    assert np.array_equal(seen.shots[3].inputs, PIXELS.inputs(wanted))
    assert np.array_equal(np.asarray(seen.shots[3].picture()), np.asarray(picture(7)))


@pytest.mark.usefixtures("quick")
def test_a_picture_moved_during_a_look_does_not_come_again(tmp_path: Path, colour: Program,
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a look sees neither name: the old one has gone, the new one lies before its place."""
    whole(tmp_path / "old.png", 1)
    looks: list[list[str]] = []
    scandir = os.scandir

    @contextmanager
    def passing(path: Path) -> Iterator[Iterator[os.DirEntry[str]]]:
        with scandir(path) as entries:
            seen = [entry for entry in entries
                    if entry.name != "moved.png" or any("moved.png" in names for names in looks)]
        looks.append([entry.name for entry in tmp_path.iterdir()])
        yield iter(seen)

    with Watched(tmp_path, colour) as seen:
        seen.until(lambda: len(seen.shots) == 1)
        monkeypatch.setattr(os, "scandir", passing)
        (tmp_path / "old.png").rename(tmp_path / "moved.png")
        seen.until(lambda: sum("moved.png" in names for names in looks) >= 6)
        whole(tmp_path / "next.png", 2)
        seen.until(lambda: "next.png" in seen.names)
    assert seen.names == ["old.png", "next.png"]


@pytest.mark.usefixtures("quick")
def test_a_half_written_picture_is_never_taken(tmp_path: Path, colour: Program,
                                               monkeypatch: pytest.MonkeyPatch) -> None:
    """The writer stands still for several looks after every piece."""
    monkeypatch.setattr(folder, "GIVE_UP_S", 5.0)
    data = png(3)
    with Watched(tmp_path, colour) as seen, (tmp_path / "slow.png").open("wb") as file:
        for begin in range(0, len(data), len(data) // 5 + 1):
            assert not seen.shots
            file.write(data[begin:begin + len(data) // 5 + 1])
            file.flush()
            if begin + len(data) // 5 + 1 < len(data):
                time.sleep(0.1)
        seen.until(lambda: bool(seen.shots))
    assert seen.names == ["slow.png"] and not seen.skipped


@pytest.mark.usefixtures("quick")
def test_a_picture_that_changes_while_it_is_read_is_read_again(
        tmp_path: Path, colour: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    read, whole_one = folder.open_picture, iter([True])

    def changing(path: Path):
        found = read(path)
        if next(whole_one, False):
            whole(path, 2)
        return found

    monkeypatch.setattr(folder, "open_picture", changing)
    whole(tmp_path / "a.png", 1)
    with Watched(tmp_path, colour) as seen:
        seen.until(lambda: bool(seen.shots))
    assert np.array_equal(np.asarray(seen.shots[0].picture()), np.asarray(picture(2)))


@pytest.mark.usefixtures("quick")
def test_what_is_no_picture_is_refused_in_a_line_and_the_rest_goes_on(
        tmp_path: Path, colour: Program) -> None:
    (tmp_path / "gif.png").write_bytes(b"GIF89a" + bytes(100))
    (tmp_path / "half.png").write_bytes(png(1)[:-20])
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "device.png").symlink_to("/dev/zero")
    (tmp_path / "loop.png").symlink_to("loop.png")
    picture(1).convert("CMYK").save(tmp_path / "inks.jpg")
    with Watched(tmp_path, colour) as seen:
        seen.until(lambda: len(seen.skipped) == 7)
        whole(tmp_path / "good.png", 1)
        seen.until(lambda: bool(seen.shots))
    assert seen.names == ["good.png"] and len(seen.skipped) == 7
    assert all(line.startswith(str(tmp_path)) and "; " in line and "\n" not in line
               for line in seen.skipped)


@pytest.mark.usefixtures("quick")
def test_newest_passes_over_what_waited(tmp_path: Path, colour: Program) -> None:
    for age in range(4):
        whole(tmp_path / f"{age}.png", age)
        os.utime(tmp_path / f"{age}.png", (1000 - age, 1000 - age))
    (tmp_path / "broken.png").write_bytes(b"\x89PNG")       # newer than all, and hides none
    with Watched(tmp_path, colour, newest=True) as seen:
        seen.until(lambda: bool(seen.skipped))
        whole(tmp_path / "next.png", 9)
        seen.until(lambda: len(seen.shots) == 2)
    assert seen.names == ["0.png", "next.png"]


@pytest.mark.usefixtures("quick")
def test_a_folder_that_is_not_there_or_goes(tmp_path: Path, colour: Program) -> None:
    with pytest.raises(CelosiaError, match="no such folder; make it"):
        Folder(tmp_path / "none", colour, print)
    (tmp_path / "going").mkdir()
    with Watched(tmp_path / "going", colour) as seen:
        (tmp_path / "going").rmdir()
        seen.until(lambda: seen.ended is not None)
    assert "name a folder that stays" in str(seen.ended)


@pytest.mark.parametrize("source", [("--watch", "."), ("--camera", "0")])
def test_a_program_that_takes_no_pictures_is_refused_before_any_comes(
        source: tuple, tmp_path: Path, board: list) -> None:
    compiled(GREY, known=None).save(tmp_path / "plain.celo")
    done = live(tmp_path / "plain.celo", *source, status=1)
    assert "does not say how they become inputs; compile it with --scale" in done.stderr
    assert board == []


def sent(*arrays: np.ndarray) -> io.BytesIO:
    stream = io.BytesIO()
    for array in arrays:
        np.save(stream, array)
    stream.seek(0)
    return stream


def test_arrays_of_every_sound_shape_and_type(grey: Program) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (6, 1, 6, 8), np.uint8)
    inputs = PIXELS.inputs(pixels)
    stream = sent(pixels[0], pixels[1:3], pixels[3, 0], pixels[4:, 0], inputs[0], inputs[1:3],
                  inputs[3].astype(">f8"), np.asfortranarray(inputs[4]), inputs[:0], inputs[5:])
    skipped: list[str] = []
    shots = list(Stream(stream, grey, skipped.append))
    assert [shot.name for shot in shots] == [str(number) for number in range(12)]
    assert np.array_equal(np.concatenate([shot.inputs for shot in shots]),
                          np.concatenate([inputs, inputs]))
    assert all(shot.inputs.dtype == np.float32 for shot in shots) and not skipped
    assert np.array_equal(np.asarray(shots[2].picture()), pixels[2, 0])
    assert np.asarray(shots[8].picture()).max() == 255     # of inputs, black to white


def test_vectors_have_no_picture() -> None:
    program = compiled(VECTOR, known=None)
    x = np.random.default_rng(1).normal(size=(3, *VECTOR)).astype(np.float32)
    shots = list(Stream(sent(x[0], x[1:]), program, print))
    assert np.array_equal(np.concatenate([shot.inputs for shot in shots]), x)
    assert shots[0].picture() is None
    assert picture_of(np.zeros((3, 4, 5))).size == (5, 4)
    assert picture_of(np.zeros((1, 2000, 1000))).size == (160, 320)


def header(shape: str, descr: str = "<f4") -> bytes:
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text


@pytest.mark.parametrize(("content", "words"), [
    (header("(1, 6, 9)"), "shape (1, 6, 9), the network takes (1, 6, 8) or (N, 1, 6, 8)"),
    (header("(4000000000, 4000000000, 6, 8)"), "the network takes"),
    (header("()"), "the network takes"),
    (header("(4000000000, 1, 6, 8)"), "ends after 0 of 192 bytes"),     # one image's memory
    (header("(1, 6, 8)") + bytes(191), "ends after 191 of 192 bytes"),
    (header("(1, 6, 8)", "|O"), "a pickle"),
    (header("(1, 6, 8)", "<c8"), "not a .npy file of numbers"),
    (header("(1, 6, 8)")[:20], "its header is damaged"),
    (b"\x93NUM", "not a .npy file"),
    (b"P5 8 6 255 " + bytes(48), "not a .npy file"),
])
def test_a_stream_that_cannot_be_followed_is_refused(content: bytes, words: str,
                                                     grey: Program) -> None:
    good = np.zeros(GREY, np.float32)
    stream, skipped = io.BytesIO(sent(good).getvalue() + content), []
    shots = iter(Stream(stream, grey, skipped.append))
    assert np.array_equal(next(shots).inputs[0], good)
    with pytest.raises(CelosiaError, match="^standard input, array 1: |^standard input: ") as why:
        next(shots)
    assert words in str(why.value) and not skipped


def test_inputs_in_fortran_order_are_refused(grey: Program) -> None:
    x = np.asfortranarray(np.random.default_rng(1).normal(size=(2, *GREY)))
    with pytest.raises(CelosiaError, match="ascontiguousarray"):
        list(Stream(sent(x), grey, print))


def test_inputs_that_are_none_are_skipped(grey: Program) -> None:
    x = np.zeros((4, *GREY), np.float32)
    x[1, 0, 2, 3] = np.nan
    x[2] = 1e38
    skipped: list[str] = []
    shots = list(Stream(sent(x), grey, skipped.append))
    assert [shot.name for shot in shots] == ["0", "3"]
    assert len(skipped) == 2 and skipped[0].startswith("standard input, input 1: ")
    assert "nan" in skipped[0] and "scale the input down" in skipped[1]


def fake_cv2(frames: Iterator, *, opens: bool = True) -> SimpleNamespace:
    """Return a module that has one camera, which sends ``frames``; None ends it."""
    class Capture:
        released = 0

        def __init__(self, number: int) -> None:
            self.number, self.settings = number, {}
            module.captures.append(self)

        def isOpened(self) -> bool:
            return opens

        def set(self, key: int, value: float) -> None:
            self.settings[key] = value

        def read(self):
            frame = next(frames)
            return frame is not None, frame

        def release(self) -> None:
            self.released += 1

    module = SimpleNamespace(VideoCapture=Capture, CAP_PROP_BUFFERSIZE=38, captures=[])
    return module


def test_a_cameras_pictures(colour: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blue first, of any size, the newest, and released at the end."""
    frame = np.zeros((60, 80, 3), np.uint8)
    frame[:, :, 2] = 255
    slow = (time.sleep(0.001) or frame for _ in itertools.count())
    monkeypatch.setitem(sys.modules, "cv2", fake := fake_cv2(slow))
    with Camera(2, colour) as source:
        shots = list(itertools.islice(source, 3))
    assert [shot.name for shot in shots] == ["0", "1", "2"]
    red = np.zeros((1, *COLOUR), np.uint8)
    red[0, 0] = 255
    assert all(np.array_equal(shot.inputs, PIXELS.inputs(red)) for shot in shots)
    assert shots[0].picture().size == (80, 60)
    capture, = fake.captures
    assert (capture.number, capture.settings, capture.released) == (2, {38: 1}, 1)


@pytest.mark.parametrize(("frames", "words"), [
    ([None], "camera 0: it sends no more pictures; look at its cable"),
    ([np.zeros((4, 4, 4), np.uint8)], r"pictures of uint8 \(4, 4, 4\), not 8-bit"),
    ([np.zeros((4, 4), np.float32)], "pictures of float32"),
    ([], "camera 0: OpenCV gave it up"),
])
def test_cameras_that_fail(frames: list, words: str, colour: Program,
                           monkeypatch: pytest.MonkeyPatch) -> None:
    def then_nothing():
        yield from frames
        time.sleep(0.3)
        raise RuntimeError("lost")

    monkeypatch.setitem(sys.modules, "cv2", fake_cv2(then_nothing()))
    with Camera(0, colour) as source, pytest.raises(CelosiaError, match=words):
        for _ in source:
            pass


def test_a_camera_that_says_nothing(colour: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(camera, "SILENT_S", 0.2)
    gate = threading.Event()
    hanging = (gate.wait(10) and None for _ in itertools.count())
    monkeypatch.setitem(sys.modules, "cv2", fake_cv2(hanging))
    monkeypatch.setattr(camera, "_END_S", 0.05)
    with Camera(0, colour) as source:
        with pytest.raises(CelosiaError, match="no picture in 0.2 s"):
            next(iter(source))
    gate.set()


def test_no_camera_and_no_opencv(colour: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(CelosiaError, match="OpenCV .cv2., which .*pip install opencv-python-head"):
        Camera(0, colour)
    monkeypatch.setitem(sys.modules, "cv2", fake := fake_cv2(iter([]), opens=False))
    with pytest.raises(CelosiaError, match="camera 0: does not open; .*--camera 1"):
        Camera(0, colour)
    assert fake.captures[0].released == 1


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
    found = answer(program, OnModel(program, "golden"), Shot(name="x", inputs=x, picture=print))
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
