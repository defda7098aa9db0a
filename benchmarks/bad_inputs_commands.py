"""Command lines that are wrong, odd or hostile, and what becomes of them."""

import hashlib
import io
import json
import os
import shutil
import socket
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from bad_inputs_archives import RAN
from bad_inputs_networks import Base

from celosia.exits import FAULT

__all__ = ["ACCEPTED", "REFUSED", "SOUND", "Command", "commands", "fill", "outcome"]

REFUSED, ACCEPTED, SOUND = "refused", "accepted", "sound"
"""Outcomes of a command: refused in words with nothing changed; accepted as it must be; accepted as
it may be, with a sound result. Anything else is a failure, in words."""

NUMBERS = ("-1", "nan", "inf", "1e999", "99999999999999999999", "-0.5", "٣.", "", " ", "1,5",
           "0x1g", "two")
"""None of them is right for any option that takes a number."""
WORDS = ("", " ", "nonsense", "ICEBREAKER ", "[/b]x", "\x1b[31m", "\u202eevil", "é" * 400, "'; --",
         "%s{0}", "../../etc/passwd")
READ = ("none", "folder", "pipe", "/dev/zero", "/dev/null", "empty", "text", "loop", "lost", "",
        "n" * 300, "text/inner", "gzip.gz", "picture.png", "pickle.npy", "evil.pt2")
WRITE = ("/dev/null", "/dev/full", "pipe", "socket", "folder", "loop", "lost", "none/new", "",
         "n" * 300, "text/inner", "/proc/self/new")
ARRAYS = ("net.celo", "objects.npy", "nan.npy", "huge.npy", "short.npy", "scalar.npy", "none.npy",
          "empty.npy", "flat.npy", "wide.npy", "complex.npy", "text.npy", "big.npy", "archive.npz",
          "records.npy")
MODELS = ("", "x.npy", "net.celo", "empty.pt2", "cut.pt2", "zip.pt2", "none.pt2", "folder.pt2",
          "model.pth", "model.onnx", "model.h5", "model.tflite", "w.safetensors", "folder",
          "nothing:net", "networks:none", "networks:number", "networks:fails", "networks:Broken",
          "networks:", ":net", "networks", "networks:net:net", "json:loads", "é:é", "[/b]:x")

_NETWORKS = '''
import torch

def net():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(1, 3, 3), torch.nn.ReLU(), torch.nn.Flatten(),
                               torch.nn.Linear(108, 4))

def number():
    return 3

def fails():
    raise ValueError("this network cannot be made")

class Broken:
    def __init__(self):
        raise RuntimeError("neither can this")
'''


@dataclass(frozen=True)
class Command:
    """A command line without the program's name.

    kind  : row of the table that counts it.
    valid : True must be accepted, False must be refused, None may be either.
    place : folder of the files that it alone reads and writes; without one it gets a copy of all.
    """

    kind: str
    arguments: tuple[str, ...]
    valid: bool | None = False
    place: str | None = None


def fill(folder: Path, base: Base) -> None:
    """Fill ``folder`` with the files that the command lines name, good ones and bad ones."""
    base.program.save(folder / "net.celo")
    np.save(folder / "x.npy", base.x)
    arrays = {"nan": base.x * np.nan, "scalar": np.float32(3), "empty": base.x[:0],
              "flat": base.x.reshape(len(base.x), -1), "wide": base.x[..., :-1],
              "complex": base.x.astype(complex), "text": np.array(["one", "two"]),
              "big": base.x * 1e30, "records": np.zeros(2, "f4,i4")}
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    np.save(folder / "objects.npy", np.array([{}, None]), allow_pickle=True)
    np.savez(folder / "archive.npz", x=base.x)
    rng = np.random.default_rng(0)
    np.savez(folder / "data.npz", **{
        f"{split}_{what}": rng.integers(0, high, shape, dtype=np.uint8)
        for split in ("train", "test") for what, high, shape in (
            ("images", 256, (40, 8, 8)), ("labels", 4, (40,)))})
    whole = (folder / "x.npy").read_bytes()
    (folder / "short.npy").write_bytes(whole[:-7])
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999, 9999999), }\n"
    (folder / "huge.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little")
                                      + header)
    (folder / "networks.py").write_text(_NETWORKS)
    (folder / "text").write_text("some words\n")
    for name in ("empty", "empty.pt2", "model.onnx", "model.h5", "model.tflite"):
        (folder / name).touch()
    (folder / "w.safetensors").write_bytes(b"\xff" * 8 + b"{}")
    torch.save({"weight": torch.zeros(3)}, folder / "model.pth")
    for name in ("pickle.npy", "evil.pt2"):
        (folder / name).write_bytes(b"\x80\x05cos\nsystem\n(X\x05\x00\x00\x00touchtR.")
    (folder / "gzip.gz").write_bytes(b"\x1f\x8b\x08" + bytes(100))
    (folder / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 3, 3), torch.nn.ReLU(), torch.nn.Flatten(),
                                torch.nn.Linear(108, 4)).eval()
    file = io.BytesIO()
    torch.export.save(torch.export.export(model, (torch.zeros(1, 1, 8, 8),)), file)
    (folder / "model.pt2").write_bytes(file.getvalue())
    (folder / "cut.pt2").write_bytes(file.getvalue()[:-100])
    shutil.make_archive(str(folder / "zip"), "zip", folder, "networks.py")
    (folder / "zip.zip").rename(folder / "zip.pt2")
    for name in ("folder", "folder.pt2"):
        (folder / name).mkdir()


def commands() -> list[Command]:
    """Return the command lines."""
    return [*_valid(), *_usage(), *_values(), *_files()]


def _valid() -> Iterator[Command]:
    for line in ("targets", "compile model.pt2 -o new.celo", "compile model.pt2 --json",
                 "compile lenet5-pruned", "run net.celo --input x.npy -o new.npz",
                 "run net.celo --input x.npy --limit 1 --json", "compare net.celo",
                 "run net.celo --input x.npy -o other_link", "--version",
                 "prune networks:net -o new.pt2 --data data.npz --rate 0.5 --rounds 1 --epochs 1",
                 "factorise networks:net -o new.pt2 --data data.npz --epochs 0"):
        yield Command("right ones", tuple(line.split()), valid=True)


def _usage() -> Iterator[Command]:
    kind = "unknown commands and options"
    for line in ("compil", "--jsn", "compile", "run net.celo", "run --input x.npy", "verify",
                 "compile model.pt2 more", "compile model.pt2 --weight", "compile -o", "build -x",
                 "targets targets", "targets --json=yes", "prune networks:net", "flash",
                 "run net.celo --input", "factorise -o new.pt2", "compare", "compare net.celo -o x",
                 "run net.celo net.celo --input x.npy", "compile model.pt2 --dense=3",
                 "compile --target icebreaker", "prune networks:net -o a.pt2 --method",
                 "run net.celo --input x.npy --input"):
        yield Command(kind, tuple(line.split()))
    for word in WORDS:
        yield Command(kind, (word,))
        yield Command(kind, ("compile", "model.pt2", word or " "))


def _values() -> Iterator[Command]:
    numbers, words = "numbers that are none, or out of range", "words that name nothing"
    compiled, run = ("compile", "model.pt2"), ("run", "net.celo", "--input", "x.npy")
    prune = ("prune", "networks:net", "-o", "new.pt2")
    factorise = ("factorise", "networks:net", "-o", "new.pt2")
    for value in NUMBERS:
        for option in ("--lanes", "--weight-bits", "--activation-bits"):
            yield Command(numbers, (*compiled, option, value))
        if value != "99999999999999999999":         # more than there are: all of them
            yield Command(numbers, (*run, "--limit", value))
        yield Command(numbers, (*prune, "--rate", value))
        for option in ("--value", "--macs-removed"):
            yield Command(numbers, (*factorise, option, value))
        yield Command(numbers, (*compiled, "--scale", value))
    for option, value in (("--lanes", "5"), ("--lanes", "1024"), ("--weight-bits", "3"),
                          ("--weight-bits", "10"), ("--lanes", "0"), ("--lanes", "2")):
        yield Command(numbers, (*compiled, option, value))
    for option, value in (
            ("--rates", "conv1"), ("--rates", "none=0.5"), ("--rates", "0=2"),
            ("--rates", "0=0.5,"), ("--rounds", "0"), ("--epochs", "-1"), ("--budget-cycles", "0"),
            ("--rate", "1.5"),
            ("--macs-removed", "0.5"), ("--strength", "0.1"), ("--accuracy-budget", "0.1"),
            ("--learning-rate", "-1"), ("--option", "x"), ("--option", "x=1"), ("--mean", "0.5"),
            ("--fuse-retrained", "nothing"), ("--method", "mask")):
        yield Command(numbers, (*prune, option, value))
    for word in WORDS:
        for option in ("--target", "--exponents", "--dump-after"):
            yield Command(words, (*compiled, option, word))
        yield Command(words, (*run, "--backend", word))
        for option in ("--method", "--order", "--scope", "--select", "--data"):
            yield Command(words, (*prune, option, word))
        for option in ("--method", "--rule", "--ranks"):
            yield Command(words, (*factorise, option, word))
        yield Command(words, ("build", "net.celo", "--board", word or " ", "--seed", "0"))
        yield Command(words, ("flash", "text", "--dry-run", "--board", word))
    for backend in ("board:", "board:/dev/null", "board:auto", "golden,verilator"):
        yield Command(words, (*run, "--backend", backend))
    yield Command(words, (*compiled, "--exponents", "static"))


def _files() -> Iterator[Command]:
    read, written = "files to read", "files to write"
    for name in READ:
        yield Command(read, ("run", name, "--input", "x.npy"))
        yield Command(read, ("compare", name))
        yield Command(read, ("verify", name, "--input", "x.npy"))
        yield Command(read, ("build", name, "-o", "new"))
        yield Command(read, ("prune", "networks:net", "-o", "new.pt2", "--weights", name))
        yield Command(read, ("prune", "networks:net", "-o", "new.pt2", "--data", name or " "))
        for option in ("--labels", "--truth"):
            yield Command(read, ("run", "net.celo", "--input", "x.npy", option, name))
        yield Command(read, ("compile", "model.pt2", "--labels", name))
    for name in (*READ, *ARRAYS):
        yield Command(read, ("run", "net.celo", "--input", name))
        if name not in ("flat.npy", "wide.npy", "big.npy"):     # right for some networks
            yield Command(read, ("compile", "model.pt2", "--calibration", name))
    for name in MODELS:
        yield Command(read, ("compile", name, "-o", "new.celo"))
        yield Command(read, ("prune", name, "-o", "new.pt2"))
        yield Command(read, ("factorise", name, "-o", "new.pt2"))
    for name in WRITE:
        yield Command(written, ("compile", "model.pt2", "-o", name))
        yield Command(written, ("run", "net.celo", "--input", "x.npy", "-o", name))
        yield Command(written, ("prune", "networks:net", "-o", name))
        yield Command(written, ("prune", "networks:net", "-o", "new.pt2", "--report", name))
        yield Command(written, ("factorise", "networks:net", "-o", name))
    for name in ("/dev/null", "pipe", "socket", "loop", "text", "n" * 300, "text/inner"):
        yield Command(written, ("build", "net.celo", "-o", name))
        yield Command(written, ("prune", "networks:net", "-o", "new.pt2", "--checkpoint", name))
    for line in ("compile model.pt2 -o model.pt2", "run net.celo --input x.npy -o x.npy",
                 "run net.celo --input x.npy -o net.celo", "run link --input x.npy -o net.celo",
                 "prune networks:net -o new.pt2 --report new.pt2",
                 "prune networks:net -o data.npz --data data.npz"):
        yield Command(written, tuple(line.split()))


def outcome(command: Command, files: Path) -> str:
    """Carry out a command with ``files``, in this process, which is of no use afterwards.

    Return REFUSED, ACCEPTED, SOUND, or what is wrong in words.
    """
    with tempfile.TemporaryDirectory(prefix="celosia-bad-") as name:
        folder = files
        if command.place is None:
            folder = Path(name) / "work"
            shutil.copytree(files, folder)
        os.chdir(folder)
        if command.place is None:
            _odd_files()
        mine = folder / (command.place or "")
        before = _state(mine)
        status, output, errors = _run(command.arguments, Path(name))
        after = _state(mine)
        sound = status or _sound(command, output)
        os.chdir("/")
    if (files / RAN).exists():
        return "code in a file has run"
    if "Traceback (most recent call last)" in errors or status == FAULT:
        return f"traceback: {errors.strip().splitlines()[-1]}"
    if status == 0:
        if command.valid is False:
            return "accepted in silence"
        if not sound:
            return "accepted, but its output is not sound"
        return ACCEPTED if command.valid else SOUND
    if command.valid:
        return f"refused, but it is right: {errors.strip()[:200]}"
    lines = errors.strip().splitlines()
    if status == 1 and not (len(lines) <= 3 and errors.startswith("celosia: ")
                            and len(errors) < 1200):
        return f"refused in odd words: {errors[:300]!r}"
    if status not in (1, 2) or not errors.strip():
        return f"exit status {status} and {errors[:300]!r}"
    if output.strip():
        return f"refused, but it printed {output[:200]!r}"
    changed = sorted(path for path in before.keys() | after.keys()
                     if before.get(path) != after.get(path))
    if changed:
        return f"refused, but {', '.join(changed[:3])} changed"
    return REFUSED


def _odd_files() -> None:
    """Make what cannot be copied, in the current folder."""
    os.mkfifo("pipe")
    with socket.socket(socket.AF_UNIX) as one:
        one.bind("socket")
    Path("loop").symlink_to("loop")
    Path("lost").symlink_to("nowhere/none")
    Path("link").symlink_to("net.celo")
    Path("other_link").symlink_to("folder/new")


def _state(folder: Path) -> dict[str, str]:
    """What everything in a folder is and holds."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if "__pycache__" in path.parts:
            continue
        status = path.lstat()
        text = (str(path.readlink()) if path.is_symlink() else
                hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "")
        found[path.relative_to(folder).as_posix()] = f"{status.st_mode:o} {text}"
    return found


def _run(arguments: Sequence[str], folder: Path) -> tuple[int, str, str]:
    """Return exit status, stdout and stderr of ``celosia`` with these arguments."""
    from celosia import entry, exits

    streams = [(folder / name).open("w+b") for name in ("out", "err")]
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    for number, stream in enumerate(streams, 1):
        os.dup2(stream.fileno(), number)
    sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w")
    sys.argv = ["celosia", *arguments]
    os.environ["CELOSIA_DEBUG"] = "1"
    try:
        entry.main()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        status = exits.FAULT
    sys.stdout.flush()
    sys.stderr.flush()
    texts = []
    for stream in streams:
        stream.seek(0)
        texts.append(stream.read().decode(errors="replace"))
    return status, *texts


def _sound(command: Command, output: str) -> bool:
    """Whether what an accepted command has written can be used."""
    import celosia

    if "--json" in command.arguments:
        return isinstance(json.loads(output), dict)
    if "-o" not in command.arguments:
        return bool(output.strip())
    path = Path(command.arguments[command.arguments.index("-o") + 1])
    if path.suffix == ".celo":
        return celosia.load(path).predicted_cycles > 0
    return path.stat().st_size > 0
