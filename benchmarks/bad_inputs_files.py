"""Archives and data sets that are damaged, or made by somebody hostile, as command lines.

``cases(folder, count, seed)`` writes one file after the other into a folder and yields the command
line that reads it. Commands run in that folder. Half of the files are damaged at random; the rest
say of themselves what is not so, ask for all memory, or hold code that makes a file ``ran``.
"""

import gzip
import io
import json
import pickle
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import safetensors.numpy
import torch
from bad_inputs_archives import (
    HUGE,
    RAN,
    Payload,
    Rng,
    damaged,
    directory_changed,
    model_file,
    pickled,
    same_entries,
    sound_model,
    zipped,
)
from bad_inputs_constants import computing
from bad_inputs_onnx import onnx_file, sound_onnx

import celosia

__all__ = ["RAN", "Case", "cases"]

_COMPUTING = 0.25
"""Share of the models that are sound archives and compute what must be refused."""
_MODULE = "bad_files_networks"
_NETWORKS = '''
import torch

def small():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 4))

def grey():
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 10))

def colour():
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3072, 10))
'''


class Case(NamedTuple):
    """A command line of the celosia program, to be run in the folder.

    kind   : row of the table that counts it.   arguments : without the program's name.
    accept : True must be accepted, False must be refused with exit status 1, None may be either:
             the damage may lie where it means nothing, or make another sound file.
    """

    kind: str
    arguments: list[str]
    accept: bool | None


def cases(folder: Path, count: int, seed: int) -> Iterator[Case]:
    """Yield `count` command lines, the same for the same seed; each finds its file in place."""
    good = _Good(folder)
    kinds: list[tuple[str, float, Callable[[_Good, Path, Rng], tuple[list[str], bool | None]]]] = [
        ("models (.pt2)", 0.34, _model), ("models (.onnx)", 0.2, _onnx),
        ("arrays (.npy)", 0.16, _array),
        ("data sets (.npz)", 0.14, _archive), ("IDX, plain and gzipped", 0.12, _idx),
        ("CIFAR-10 batches", 0.04, _cifar), ("pictures", 0.12, _picture),
        ("weights (.safetensors)", 0.08, _weights)]
    shares = np.array([share for _, share, _ in kinds])
    for number in range(count):
        rng = np.random.default_rng((seed, number))
        kind, _, make = kinds[rng.choice(len(kinds), p=shares / shares.sum())]
        place = folder / f"case{number}"
        place.mkdir()
        arguments, accept = make(good, place, rng)
        yield Case(kind, arguments, accept)


class _Good:
    """Sound files of every kind, and the networks that read them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / f"{_MODULE}.py").write_text(_NETWORKS)
        model, self.model = sound_model()
        self.onnx = sound_onnx()
        celosia.compile(model, torch.zeros(1, 1, 8, 8), target="icebreaker").save(
            folder / "bad_files.celo")
        rng = np.random.default_rng(0)
        self.x = rng.normal(size=(3, 1, 8, 8)).astype(np.float32)
        self.images = rng.integers(0, 256, (24, 8, 8), np.uint8)
        self.labels = np.arange(24) % 4
        self.data = folder / "bad_files.npz"
        np.savez(self.data, **self.arrays())
        self.grey = rng.integers(0, 256, (12, 28, 28), np.uint8)
        self.weights = {"1.weight": rng.normal(size=(4, 64)).astype(np.float32),
                        "1.bias": np.zeros(4, np.float32)}

    def arrays(self) -> dict[str, np.ndarray]:
        """Return a data set."""
        return {"train_images": self.images, "train_labels": self.labels,
                "test_images": self.images[:8], "test_labels": self.labels[:8]}

    def train(self, network: str, place: Path, data: Path, *more: str) -> list[str]:
        """Return the command that prunes a network with a data set."""
        return ["prune", f"{_MODULE}:{network}", "-o", f"{place.name}/new.pt2", "--rate", "0.5",
                "--rounds", "1", "--epochs", "1", "--data", str(data.relative_to(self.folder)),
                *more]


def _model(good: _Good, place: Path, rng: Rng) -> tuple[list[str], bool | None]:
    file = computing(rng) if rng.random() < _COMPUTING else model_file(good.model, rng)
    (place / "net.pt2").write_bytes(file.content)
    return ["compile", f"{place.name}/net.pt2", "--target", "icebreaker", "--json"], file.accept


def _onnx(good: _Good, place: Path, rng: Rng) -> tuple[list[str], bool | None]:
    file = onnx_file(good.onnx, rng)
    (place / "net.onnx").write_bytes(file.content)
    return ["compile", f"{place.name}/net.onnx", "--target", "icebreaker", "--json"], file.accept


# .npy and .npz

def _npy(array: np.ndarray, **options: bool) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def _header(descr: object, shape: object) -> bytes:
    text = repr({"descr": descr, "fortran_order": False, "shape": shape}).encode() + b"\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text


def _array(good: _Good, place: Path, rng: Rng) -> tuple[list[str], bool | None]:
    content = _npy(good.x)
    match rng.integers(4):
        case 0:
            raw, accept = content, True
        case 1:
            raw = damaged(content, rng)
            accept = True if raw == content else _sound_array(raw, good.x.shape)
        case 2:
            shapes = ((10**11, 10**7), (2**63, 2), (-1, 8), (1,) * 60, (3, 1, 8, 9), (3.0, 1, 8, 8),
                      (10**400,), "shape", [3, 1, 8, 8])
            raw = _header("<f4", shapes[rng.integers(len(shapes))]) + good.x.tobytes()
            accept = False
        case _:
            types = ("|O", "<U8", "<M8[s]", "<c8", "|V4", [("a", "<f4")], "<f3", "<f999999999", 3)
            raw = _header(types[rng.integers(len(types))], good.x.shape) + good.x.tobytes()
            if rng.random() < 0.3:
                raw = _npy(np.array([Payload()]), allow_pickle=True)
            accept = False
    (place / "x.npy").write_bytes(raw)
    return (["run", "bad_files.celo", "--input", f"{place.name}/x.npy", "--json"], accept)


def _sound_array(raw: bytes, shape: tuple[int, ...]) -> bool | None:
    """Return False where NumPy itself finds no such array of finite numbers; None otherwise."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            array = np.load(io.BytesIO(raw), allow_pickle=False)
            whole = len(raw) == len(_npy(array))
            good = array.shape[1:] == shape[1:] and len(array) and np.isfinite(array).all()
    except Exception:       # whatever it raises: the file is damaged
        return False
    return None if good and whole else False


def _archive(good: _Good, place: Path, rng: Rng) -> tuple[list[str], bool | None]:
    files = {f"{name}.npy": _npy(array) for name, array in good.arrays().items()}
    method = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)[rng.integers(2)]
    whole, accept = zipped(files, method), False
    match rng.integers(6):
        case 0:
            content = damaged(whole, rng)
            accept = True if content == whole else same_entries(content, files)
        case 1:
            name = list(files)[rng.integers(4)]
            content = zipped(files | {name: _header("|u1", (2**40, 2**20)) + bytes(64)}, method)
        case 2:
            content = zipped(files | {"train_labels.npy": _npy(
                np.array([Payload()] * 24), allow_pickle=True)}, method)
        case 3:
            content = directory_changed(whole, rng)
        case 4:
            wrong = (np.full(24, np.nan), np.full(24, -1), np.full(24, 1e300), np.full(24, 2**40),
                     good.labels[:7], good.labels[None], good.labels + 0.5)
            content = zipped(files | {"train_labels.npy": _npy(wrong[rng.integers(len(wrong))])})
        case _:
            del files[list(files)[rng.integers(4)]]
            content = zipped(files, method)
    (place / "data.npz").write_bytes(content)
    return good.train("small", place, place / "data.npz"), accept


# IDX, CIFAR-10, pictures, safetensors

def _idx_bytes(array: np.ndarray) -> bytes:
    return (bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
            + array.tobytes())


def _idx(good: _Good, place: Path, rng: Rng) -> tuple[list[str], bool | None]:
    labels = (np.arange(len(good.grey)) % 10).astype(np.uint8)
    packed = bool(rng.integers(2))
    for stem in ("train", "t10k"):
        for kind, array in (("images-idx3", good.grey), ("labels-idx1", labels)):
            (place / f"{stem}-{kind}-ubyte").write_bytes(_idx_bytes(array))
    content = _idx_bytes(good.grey)
    accept: bool | None = False
    match rng.integers(5):
        case 0:
            raw = damaged(_gzipped(content) if packed else content, rng)
            accept = _same_pictures(raw, content, packed)
        case 1:
            raw = bytes([0, 0, 8, 255]) + bytes(4 * 255)
        case 2:
            raw = bytes([0, 0, 8, 3]) + struct.pack(">3I", *rng.choice(
                np.array([2**32 - 1, 2**31, 60_000, 28]), 3)) + bytes(100)
        case 3:
            raw = content[:4] + struct.pack(">I", len(good.grey) + 1) + content[8:]
        case _:
            raw = bytes([0, 0, int(rng.integers(9, 15)), 3]) + content[4:]
    if packed and not raw.startswith(b"\x1f\x8b"):
        raw = _gzipped(raw)
    name = "train-images-idx3-ubyte"
    if packed:
        (place / name).unlink()
    (place / (name + ".gz" * packed)).write_bytes(raw)
    return good.train("grey", place, place), accept


def _gzipped(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)


def _same_pictures(raw: bytes, content: bytes, packed: bool) -> bool | None:
    """Return whether a file must be taken: True if it unpacks to what it was, None if pixels alone
    differ and nothing guards them."""
    try:
        found = gzip.decompress(raw) if packed else raw
    except Exception:       # whatever it raises: the stream is damaged
        return False
    if found == content:
        return True if raw == (_gzipped(content) if packed else content) else None
    return None if len(found) == len(content) and found[:16] == content[:16] else False


def _cifar(good: _Good, place: Path, rng: Rng) -> tuple[list[str], bool | None]:
    record = b"\3" + bytes(3072)
    for number in range(1, 6):
        (place / f"data_batch_{number}.bin").write_bytes(record * 4)
    (place / "test_batch.bin").write_bytes(record * 4)
    match rng.integers(4):
        case 0:
            (place / "data_batch_2.bin").write_bytes(record * 4 + b"\0")
        case 1:
            (place / "data_batch_2.bin").write_bytes(b"\12" + bytes(3072))
        case 2:
            (place / "data_batch_4.bin").unlink()
        case _:
            for file in place.iterdir():
                file.unlink()
            (place / "data_batch_1").write_bytes(pickle.dumps(Payload()))
    return good.train("colour", place, place), False


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(width: int, height: int, pixels: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", pixels)
            + _chunk(b"IEND", b""))


def _picture(good: _Good, place: Path, rng: Rng) -> tuple[list[str], bool | None]:
    for split in ("train", "test"):
        for index, image in enumerate(good.images[:8]):
            file = place / split / str(index % 4) / f"{index}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            rows = b"".join(b"\0" + row.tobytes() for row in image)
            file.write_bytes(_png(8, 8, zlib.compress(rows)))
    file = place / "train" / "0" / "0.png"
    accept: bool | None = False
    match rng.integers(5):
        case 0 | 1:
            content = file.read_bytes()
            file.write_bytes(damaged(content, rng))
            # All pixels lie in the one chunk before the last; what follows may be anything.
            pixels = content[:-len(_chunk(b"IEND", b""))]
            accept = True if file.read_bytes() == content else None if (
                file.read_bytes().startswith(pixels)) else False
        case 2:
            file.write_bytes(_png(16_384, 16_384, zlib.compress(bytes(1 << 20))))
        case 3:
            file.write_bytes(_png(9, 8, zlib.compress(bytes(80))))
        case _:
            file.write_bytes((b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", b"GIF89a", b"",
                              b"BM" + bytes(60), pickle.dumps(Payload()))[rng.integers(5)])
    return good.train("small", place, place), accept


def _weights(good: _Good, place: Path, rng: Rng) -> tuple[list[str], bool | None]:
    whole = safetensors.numpy.save(good.weights)
    length = int.from_bytes(whole[:8], "little")
    header, accept = json.loads(whole[8:8 + length]), False
    match rng.integers(4):
        case 0:
            content = damaged(whole, rng)
            try:
                found = safetensors.numpy.load(content)
                accept = None if {name: part.shape for name, part in found.items()} == {
                    name: part.shape for name, part in good.weights.items()} else False
            except Exception:       # whatever it raises: the file is damaged
                accept = False
        case 1:
            header["1.weight"]["shape"] = [HUGE[rng.integers(len(HUGE))], 64]
            text = json.dumps(header).encode()
            content = struct.pack("<Q", len(text)) + text + whole[8 + length:]
        case 2:
            content = struct.pack("<Q", HUGE[rng.integers(3)]) + whole[8:]
        case _:
            content = (pickled(), whole)[rng.integers(2)]
            accept = content is whole
    (place / "w.safetensors").write_bytes(content)
    return good.train("small", place, good.data, "--weights", f"{place.name}/w.safetensors"), accept
