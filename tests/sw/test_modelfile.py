"""Files that are no ``.pt2``: the message says what they are, and its two lines of Python work."""

from __future__ import annotations

import io
import json
import pickle
import struct
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from celosia.cli.common import find_model
from celosia.frontend.export import load_exported
from celosia.modelfile import ONNX, PT2, model_format
from celosia_spec.errors import CelosiaError


class Net(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Linear(4, 3), nn.ReLU())


def refusal(path: Path) -> str:
    with pytest.raises(CelosiaError) as caught:
        model_format(path)
    with pytest.raises(CelosiaError) as again:
        find_model(str(path))
    assert str(caught.value) == str(again.value)
    assert str(caught.value).splitlines()[1:] == [f"    {line}" for line in caught.value.code]
    return str(caught.value)


def legacy(path: Path) -> None:
    torch.save(Net().state_dict(), path, _use_new_zipfile_serialization=False)


def script(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")     # torch.jit is on its way out
        torch.jit.save(torch.jit.script(Net()), path)


WRITERS = {
    "net.pt": lambda path: torch.save(Net().state_dict(), path),
    "net.pth": legacy,
    "net.ckpt": lambda path: torch.save(Net().state_dict(), path),
    "net.safetensors": lambda path: safetensors.torch.save_file(Net().state_dict(), path),
    "net.jit": script,
    "it's.pt": lambda path: torch.save(Net().state_dict(), path),
    "wrong.pt2": lambda path: torch.save(Net().state_dict(), path),
    "whole.pt": lambda path: torch.save(nn.Sequential(*Net()), path),
    "whole.pt2": lambda path: torch.save(nn.Sequential(*Net()), path),
    "plain": lambda path: torch.save(Net().state_dict(), path),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", WRITERS)
def test_the_two_lines_make_a_pt2_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
                                       ) -> None:
    monkeypatch.chdir(tmp_path)
    WRITERS[name](Path(name))
    what, *lines = refusal(Path(name)).splitlines()
    assert what.startswith(f"{name}: ") and len(lines) == 2 and max(map(len, lines)) < 110
    scope = {"torch": torch, "model": Net(), "example": torch.zeros(1, 4)}
    exec("\n".join(line.strip() for line in lines), scope)
    made = f"{Path(name).stem}{'-exported' * name.endswith('.pt2')}.pt2"
    program = load_exported(made)       # and what the lines read is still there
    refusal(Path(name))
    assert torch.equal(program.state_dict["0.weight"], scope["model"][0].weight)


def test_a_whole_model_is_told_from_weights(tmp_path: Path) -> None:
    torch.save(nn.Sequential(*Net()), tmp_path / "whole.pt")
    torch.save({"epoch": 3, "model": Net().state_dict()}, tmp_path / "weights.pt")
    assert "a whole model as torch.save writes it" in refusal(tmp_path / "whole.pt")
    assert "weights as torch.save writes them" in refusal(tmp_path / "weights.pt")


def npz() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, a=np.zeros(2))
    return buffer.getvalue()


def zipped(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, b"")
    return buffer.getvalue()


HEADER = json.dumps({"w": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}).encode()


@pytest.mark.parametrize(("name", "content", "message"), [
    ("net.onnx", b"\x89HDF\r\n\x1a\n", "a Keras model"),
    ("net.h5", b"\x89HDF\r\n\x1a\n", "a Keras model"),
    ("net.pt2", b"\x89HDF\r\n\x1a\n", "a Keras model"),
    ("net.keras", zipped("metadata.json", "config.json", "model.weights.h5"), "a Keras model"),
    ("net.tflite", b"\x1c\0\0\0TFL3", "a TensorFlow Lite model"),
    ("net.bin", b"\x1c\0\0\0TFL3", "a TensorFlow Lite model"),
    ("net.pb", b"\x0a", "a TensorFlow model"),
    ("net.gguf", b"GGUF\3\0\0\0", "a GGUF model"),
    ("net.pkl", pickle.dumps({}), "which can run code when opened"),
    ("net.pt2", pickle.dumps({}), "which can run code when opened"),
    ("net.pt2", struct.pack("<Q", len(HEADER)) + HEADER, "safetensors weights, without the net"),
    ("net.pt2", zipped("net/data.pkl", "net/code/net.py"), "TorchScript, which runs code"),
    ("net.pt2", zipped("version", "serialized_exported_program.json"), "of an older torch, with"),
    ("net.pt2", npz(), "NumPy arrays, as in a .npz file"),
    ("net.pt2", zipped("a.txt"), "a zip archive of something else"),
    ("net.pt2", b"\x1f\x8b\x08", "a gzip file"),
    ("net.npy", b"\x93NUMPY\1\0", "a NumPy array"),
    ("net.celo", b"\x89CELO\r\n\x1a", "compiled already); run it with celosia run"),
    ("net.pt2", b"", "not a zip archive"),
    ("net.pt2", b"import os", "not a zip archive"),
])
def test_other_files_are_refused_by_what_they_are(tmp_path: Path, name: str, content: bytes,
                                                  message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert message in refusal(path)


def test_the_command_line_shows_the_lines_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "a\nb.tflite").write_bytes(b"\x1c\0\0\0TFL3")
    done = subprocess.run([sys.executable, "-m", "celosia", "compile", "a\nb.tflite"],
                          capture_output=True, text=True, cwd=tmp_path)
    first, *code = done.stderr.splitlines()
    assert done.returncode == 1 and done.stdout == "" and len(code) == 2
    assert first.startswith("celosia: a") and code[1] == (
        "    torch.export.save(torch.export.export(model.eval(), (example,)), 'a\\nb.pt2')")


def test_folders_are_refused(tmp_path: Path) -> None:
    assert "a folder, not a .pt2 file; give the file that torch.export.save wrote" in refusal(
        tmp_path)
    (tmp_path / "net.pt2").touch()
    assert f"a folder, not a .pt2 file; give {tmp_path / 'net.pt2'}" in refusal(tmp_path)
    (tmp_path / "saved_model.pb").touch()
    assert "a TensorFlow model" in refusal(tmp_path)


def test_a_model_is_what_its_content_says(tmp_path: Path) -> None:
    path = tmp_path / "net.backup"
    torch.export.save(torch.export.export(Net().eval(), (torch.zeros(1, 4),)), tmp_path / "a.pt2")
    (tmp_path / "a.pt2").rename(path)
    program, example = find_model(str(path))
    assert example.shape == (1, 4) and "0.weight" in program.state_dict


@pytest.mark.parametrize(("name", "content", "found"), [
    ("net.onnx", b"\x08\x08\x12\x07pytorch", ONNX), ("net.onnx", b"", ONNX),
    ("net.pt2", b"\x08\x08\x12\x07pytorch", ONNX), ("net", b"\x08\x0a\x3a\x9d\x01\x0a", ONNX),
    ("net.onnx", zipped("net/archive_format"), PT2)])
def test_what_is_read_is_told_by_content(tmp_path: Path, name: str, content: bytes, found: str
                                         ) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert model_format(path) == found


def test_refusing_other_models_needs_no_torch(tmp_path: Path) -> None:
    path = tmp_path / "net.tflite"
    path.write_bytes(b"\x1c\0\0\0TFL3")
    code = ("import sys; from celosia.modelfile import model_format\n"
            f"try: model_format({str(path)!r})\n"
            "except Exception as problem: print(type(problem).__name__, 'torch' in sys.modules)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["CelosiaError", "False"]
