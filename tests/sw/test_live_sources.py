"""Where `celosia live` takes its inputs from: pictures of a folder that is being filled, arrays on
standard input, a camera."""

from __future__ import annotations

import io
import itertools
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from torch import nn

from celosia.live import camera, folder
from celosia.live.camera import Camera
from celosia.live.folder import Folder
from celosia.live.shots import Shot, picture_of
from celosia.live.stream import Stream
from celosia.program import Program
from celosia_spec.errors import CelosiaError
from live_programs import COLOUR, GREY, PIXELS, VECTOR, compiled, picture, png, sent, whole


@pytest.fixture(scope="module")
def colour() -> Program:
    return compiled(COLOUR)


@pytest.fixture(scope="module")
def grey() -> Program:
    return compiled(GREY, nn.Softmax(1))


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
    (header("(1, 6, 9)"), "an array of the shape (1, 6, 9), the network takes (N, 1, 6, 8)"),
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
