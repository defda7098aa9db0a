"""Writing files: whole or not at all, by any number at once, and never over what is not a file."""

import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from celosia.cli import app
from celosia_spec.errors import CelosiaError
from celosia_spec.files import check_folder, check_output, read_file, replacing


def write(path: Path, content: bytes) -> None:
    with replacing(path) as file:
        file.write(content)


@contextmanager
def umask(value: int) -> Iterator[None]:
    before = os.umask(value)
    try:
        yield
    finally:
        os.umask(before)


def make(kind: str, path: Path) -> None:
    """Put something that is no file at ``path``."""
    if kind == "a folder":
        path.mkdir()
    elif kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a socket":
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(str(path))
    else:
        path.symlink_to("/dev/null")


KINDS = ("a folder", "a pipe", "a socket", "a device")


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_file_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.chdir(tmp_path)             # a socket's path must be short
    path = Path("thing")
    make(kind, path)
    before = path.stat()
    for attempt in (check_output, lambda path: write(path, b"x")):
        with pytest.raises(CelosiaError, match=f"^thing: is {kind} and stays as it is; name a fil"):
            attempt(path)
    assert os.path.samestat(before, path.stat()) and path.stat().st_mode == before.st_mode
    assert list(Path().iterdir()) == [path]


def test_a_device_by_its_own_name() -> None:
    with pytest.raises(CelosiaError, match="^/dev/null: is a device"):
        check_output("/dev/null")


def test_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    file, link, second = (tmp_path / name for name in ("there/file", "link", "second"))
    link.symlink_to("there/file")
    second.symlink_to(link)
    for content in (b"new", b"replaced"):   # at first the link hangs in the air
        write(second, content)
        assert file.read_bytes() == content
        assert link.is_symlink() and second.is_symlink()
    assert check_output(second) == file
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["file"]


def test_links_that_lead_nowhere(tmp_path: Path) -> None:
    loop, lost = tmp_path / "loop", tmp_path / "lost"
    loop.symlink_to(loop)
    lost.symlink_to(tmp_path / "no" / "file")
    with pytest.raises(CelosiaError, match="loop: Too many levels of symbolic links; name another"):
        write(loop, b"x")
    with pytest.raises(CelosiaError, match="lost: there is no folder .*/no; make it first"):
        write(lost, b"x")
    assert loop.is_symlink() and lost.is_symlink()


@pytest.mark.parametrize(("name", "problem"), [
    ("", "is empty"), ("n" * 256, "File name too long"), ("a\0b", "embedded null"),
    ("file/inside", "Not a directory")])
def test_names_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str,
                              problem: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    with pytest.raises(CelosiaError, match=problem):
        check_output(name)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere; run as another user")
def test_what_may_not_be_written(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.touch(0o400)
    with pytest.raises(CelosiaError, match="kept: may not be written; name another file"):
        check_output(kept)
    tmp_path.chmod(0o500)
    with pytest.raises(CelosiaError, match="may not be written in"):
        check_output(tmp_path / "new")
    with pytest.raises(CelosiaError, match="may not be written in"):
        check_folder(tmp_path / "new" / "inner")
    tmp_path.chmod(0o700)


def test_not_over_its_own_input(tmp_path: Path) -> None:
    data, link = tmp_path / "data.npy", tmp_path / "link"
    data.touch()
    link.symlink_to(data)
    for output, other in ((data, link), (link, data), (tmp_path / "new", tmp_path / "." / "new")):
        with pytest.raises(CelosiaError, match="needs that file for something else too"):
            check_output(output, None, other)
    assert check_output(data, tmp_path / "other") == data


def test_permissions(tmp_path: Path) -> None:
    new, old = tmp_path / "new", tmp_path / "old"
    old.touch()
    old.chmod(0o600)
    with umask(0o027):
        write(new, b"x")
        write(old, b"x")
    assert [stat.S_IMODE(path.stat().st_mode) for path in (new, old)] == [0o640, 0o600]


def test_nothing_is_left_of_a_failure(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write(path, b"old")

    def interrupted() -> None:
        with replacing(path) as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_many_threads_to_one_path(tmp_path: Path) -> None:
    path, problems, contents = tmp_path / "file", [], [bytes([k]) * 50_000 for k in range(4)]

    def work(content: bytes) -> None:
        try:
            for _ in range(25):
                write(path, content)
                assert path.read_bytes() in contents
        except Exception as problem:
            problems.append(problem)

    threads = [threading.Thread(target=work, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


HALF = """
import os, sys
from celosia_spec.files import replacing
with replacing(sys.argv[1]) as file:
    file.write(b"half")
    file.flush()
    print("written", flush=True)
    if sys.argv[2] == "wait":
        sys.stdin.read()
    else:
        os._exit(1)
"""


def half_written(path: Path, then: str) -> subprocess.Popen:
    process = subprocess.Popen([sys.executable, "-c", HALF, path, then], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE,
                               env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)})
    assert process.stdout.readline() == b"written\n"
    return process


def test_what_dead_writers_left_is_cleared(tmp_path: Path) -> None:
    with half_written(tmp_path / "file", "die"):
        pass
    assert len(list(tmp_path.iterdir())) == 1
    with half_written(tmp_path / "file", "wait") as living:
        [part] = tmp_path.iterdir()                     # the living one's own
        write(tmp_path / "other", b"x")
        assert set(tmp_path.iterdir()) == {part, tmp_path / "other"}
        living.stdin.close()
    assert living.returncode == 0
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "other"]
    assert (tmp_path / "file").read_bytes() == b"half"


def test_folders(tmp_path: Path) -> None:
    file, link = tmp_path / "file", tmp_path / "net.bin"
    file.touch()
    link.symlink_to(file)
    assert check_folder(tmp_path) == tmp_path
    assert check_folder(tmp_path / "new" / "inner", "net.*") == tmp_path / "new" / "inner"
    assert not (tmp_path / "new").exists()
    with pytest.raises(CelosiaError, match="/dev/null: is a device, not a folder"):
        check_folder("/dev/null")
    for path in (file, file / "inner"):
        with pytest.raises(CelosiaError, match="file: is a file, not a folder|inner: Not a direct"):
            check_folder(path)
    with pytest.raises(CelosiaError, match="net.bin: is a link and stays as it is"):
        check_folder(tmp_path, "net.*")


def test_reading(tmp_path: Path) -> None:
    file, pipe = tmp_path / "file", tmp_path / "pipe"
    file.write_bytes(b"12345")
    os.mkfifo(pipe)
    assert read_file(file, 5) == b"12345"
    with pytest.raises(CelosiaError, match="file: larger than"):
        read_file(file, 4)
    for path, kind in ((pipe, "a pipe"), (tmp_path, "a folder"), ("/dev/zero", "a device")):
        with pytest.raises(CelosiaError, match=f"is {kind}; name a file"):
            read_file(path, 4)
    with pytest.raises(FileNotFoundError):
        read_file(tmp_path / "none", 4)


@pytest.mark.parametrize("command", [
    ("compile", "none.pt2", "-o"), ("run", "none.celo", "--input", "none.npy", "-o"),
    ("prune", "none:none", "-o"), ("factorise", "none:none", "-o"),
    ("prune", "none:none", "-o", "new.pt2", "--report")])
def test_commands_look_before_they_work(command: tuple[str, ...]) -> None:
    """No model or program is there: what the result would replace is refused before."""
    done = CliRunner().invoke(app, [*command, "/dev/null"])
    assert (done.exit_code, done.stderr) == (
        1, "celosia: /dev/null: is a device and stays as it is; name a file\n")


@pytest.mark.parametrize(("command", "name"), [
    (("compile", "net.pt2"), "net.pt2"), (("compile", "none", "--calibration", "x"), "x"),
    (("run", "net.celo", "--input", "x.npy"), "net.celo"),
    (("run", "net.celo", "--input", "x.npy"), "x.npy"),
    (("prune", "m:f", "--weights", "w"), "w"), (("factorise", "m:f", "--report", "r"), "r")])
def test_commands_do_not_replace_what_they_read(command: tuple[str, ...], name: str) -> None:
    done = CliRunner().invoke(app, [*command, "-o", name])
    assert done.exit_code == 1
    assert done.stderr == (f"celosia: {name}: this command needs that file for something else "
                           f"too; name another file to write\n")


def test_checkpoints_need_a_folder() -> None:
    done = CliRunner().invoke(app, ["prune", "m:f", "-o", "new.pt2", "--checkpoint", "/dev/null"])
    assert (done.exit_code, done.stderr) == (
        1, "celosia: /dev/null: is a device, not a folder; name a folder\n")
