"""A camera, by way of OpenCV where that is installed."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from threading import Condition, Thread
from typing import TYPE_CHECKING, Any

import numpy as np

from celosia.datasets.pictures import pillow
from celosia.live.shots import Shot, check_pictures, of_picture
from celosia_spec.errors import CelosiaError

if TYPE_CHECKING:
    from celosia.program import Program

__all__ = ["SILENT_S", "Camera"]

SILENT_S = 10.0
"""Seconds without a picture after which a camera is given up."""
_LOOK_S = 0.1
_END_S = 1.0


class Camera:
    """Yields a camera's newest picture again and again; those that came meanwhile are dropped.

    number : of the camera, as OpenCV counts them from 0.

    A thread reads it, so that a camera that hangs blocks nothing. CelosiaError where there is no
    OpenCV or no such camera, or it sends no pictures any more.
    """

    def __init__(self, number: int, program: Program) -> None:
        self._number, self._program = number, program
        check_pictures(f"camera {number}", program)
        self._camera = _opened(number)
        self._news = Condition()
        self._frame: Any = None             # this and the next two change under _news
        self._over = ""                     # why no more come
        self._closing = False
        self._reader = Thread(target=self._read, name=f"celosia camera {number}", daemon=True)
        self._reader.start()

    def __enter__(self) -> Camera:
        return self

    def __exit__(self, *problem: object) -> None:
        with self._news:
            self._closing = True
        self._reader.join(_END_S)           # one that hangs ends with the process

    def __iter__(self) -> Iterator[Shot]:
        count = 0
        while True:
            frame = self._newest()
            picture = pillow().fromarray(np.ascontiguousarray(_checked(frame, self._number)))
            yield of_picture(str(count), f"camera {self._number}", picture, self._program)
            count += 1

    def _newest(self) -> Any:
        """Wait for a picture that was not there before."""
        with self._news:
            waited = 0.0
            while self._frame is None and not self._over and waited < SILENT_S:
                self._news.wait(_LOOK_S)
                waited += _LOOK_S
            frame, self._frame = self._frame, None
            if frame is not None:
                return frame
            why = self._over or f"no picture in {SILENT_S:g} s"
        raise CelosiaError(f"camera {self._number}: {why}; look at its cable, and whether another "
                           f"program has it")

    def _read(self) -> None:
        """Keep the newest picture until the camera is closed or ends."""
        try:
            while not self._closing:
                good, frame = self._camera.read()
                with self._news:
                    if good:
                        self._frame = frame
                    else:
                        self._over = "it sends no more pictures"
                    self._news.notify_all()
                if not good:
                    return
        except Exception as problem:        # whatever OpenCV raises
            with self._news:
                self._over = f"OpenCV gave it up ({str(problem).splitlines()[:1]})"
                self._news.notify_all()
        finally:
            self._camera.release()


def _opened(number: int) -> Any:
    try:
        cv2 = importlib.import_module("cv2")
    except ImportError as problem:
        state = ("is not installed" if isinstance(problem, ModuleNotFoundError)
                 else f"does not load ({problem.msg})")
        raise CelosiaError(f"--camera needs OpenCV (cv2), which {state}; run: pip install "
                           f"opencv-python-headless") from None
    camera = cv2.VideoCapture(number)
    if not camera.isOpened():
        camera.release()
        raise CelosiaError(f"camera {number}: does not open; plug one in, end the program that has "
                           f"it, or give another number, --camera {number + 1}")
    camera.set(cv2.CAP_PROP_BUFFERSIZE, 1)      # else it hands out old ones
    return camera


def _checked(frame: Any, number: int) -> np.ndarray:
    """Return a frame as grey (H, W) or RGB (H, W, 3), uint8."""
    array = np.asarray(frame)
    if array.dtype != np.uint8 or array.size == 0 or array.ndim not in (2, 3) or (
            array.ndim == 3 and array.shape[2] != 3):
        raise CelosiaError(f"camera {number}: pictures of {array.dtype} {array.shape}, not 8-bit "
                           f"grey or colour; set the camera to another format")
    return array if array.ndim == 2 else array[:, :, ::-1]      # OpenCV has blue first
