"""Maps as a picture: a row for each input, a tile for each channel."""

from pathlib import Path

import numpy as np

from celosia.datasets.pictures import pillow
from celosia_spec.errors import CelosiaError
from celosia_spec.files import replacing
from celosia_spec.host_layers import HostLayer
from celosia_spec.outputs import Output

__all__ = ["check_picture", "shown_range", "write_picture"]

ROWS, COLUMNS = 16, 16
"""Most inputs and channels that are drawn."""
_GAP = 128
_RANGES = {"softmax": (0.0, 1.0), "sigmoid": (0.0, 1.0), "hardsigmoid": (0.0, 1.0),
           "tanh": (-1.0, 1.0)}


def check_picture(path: Path, output: Output) -> None:
    """CelosiaError unless an output is a map and Pillow is there to draw it."""
    pillow()
    shape = output.answer_shape
    if len(shape) not in (2, 3):
        raise CelosiaError(f"{path}: the network's answer has the shape {shape} and is no map; "
                           f"name a .npz file")


def shown_range(output: Output, answer: np.ndarray) -> tuple[float, float]:
    """Return the numbers that are drawn black and white: those that the last layer can give,
    class 0 and the last, or the least and the largest there are."""
    steps = [layer for layer in output.host if layer.operator != "reshape"]
    last: HostLayer | None = steps[-1] if steps else None
    if last is not None and last.operator == "argmax":
        return 0.0, float(max(output.scoring.classes - 1, 1))
    if last is not None and last.operator in _RANGES:
        return _RANGES[last.operator]
    return float(answer.min()), float(answer.max())


def write_picture(path: Path, answer: np.ndarray, low: float, high: float) -> None:
    """Write maps (N, C, H, W) or (N, H, W) as a grey PNG file.

    One pixel an element, ``low`` black and ``high`` white; a line of grey between tiles. The first
    `ROWS` inputs and `COLUMNS` channels are drawn. CelosiaError where it cannot be written.
    """
    maps = answer.reshape(len(answer), -1, *answer.shape[-2:])[:ROWS, :COLUMNS]
    grey = np.clip((maps - low) / max(high - low, np.finfo(float).tiny), 0, 1)
    tiles = np.pad(np.rint(grey * 255).astype(np.uint8), ((0, 0), (0, 0), (0, 1), (0, 1)),
                   constant_values=_GAP)
    rows, columns, height, width = tiles.shape
    sheet = tiles.transpose(0, 2, 1, 3).reshape(rows * height, columns * width)[:-1, :-1]
    with replacing(path) as file:
        pillow().fromarray(sheet).save(file, format="PNG")
