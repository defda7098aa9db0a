"""Loading: the right command for each board, and clear refusals."""

import pytest

from celosia_boards.flash import FlashError, flash
from celosia_boards.targets import target


@pytest.fixture
def tools(tmp_path, monkeypatch):
    """A function that puts a fake tool on an otherwise empty PATH; it notes its arguments."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def install(name, status=0):
        tool = folder / name
        tool.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/{name}.called\nexit {status}\n')
        tool.chmod(0o755)
        return tmp_path / f"{name}.called"

    return install


@pytest.fixture
def bitstream(tmp_path):
    path = tmp_path / "celosia.bin"
    path.write_bytes(b"\x7e\xaa\x99\x7e")
    return path


def test_dry_run_needs_neither_tool_nor_file(tools):
    assert flash("x.bin", target("icebreaker"), dry_run=True) == [
        "openFPGALoader", "-b", "ice40_generic", "x.bin"]
    assert flash("x.bit", target("ulx3s-85f"), True) == ["openFPGALoader", "-b", "ulx3s", "x.bit"]
    assert flash("x.bit", target("ulx3s-85f"), True, persistent=True) == [
        "openFPGALoader", "-b", "ulx3s", "--write-flash", "x.bit"]


def test_iceprog_serves_where_it_is_the_only_one(tools, bitstream):
    called = tools("iceprog")
    assert flash(bitstream, target("icebreaker"), True) == ["iceprog", str(bitstream)]
    assert not called.exists()
    assert flash(bitstream, target("icebreaker")) == ["iceprog", str(bitstream)]
    assert called.read_text() == f"{bitstream}\n"


def test_openfpgaloader_comes_first(tools, bitstream):
    other, called = tools("iceprog"), tools("openFPGALoader")
    flash(bitstream, target("icebreaker"))
    assert called.read_text() == f"-b ice40_generic {bitstream}\n"
    assert not other.exists()


def test_missing_tool(tools, bitstream):
    with pytest.raises(FlashError) as caught:
        flash(bitstream, target("ulx3s-85f"))
    assert str(caught.value) == (
        "loading ulx3s-85f needs openFPGALoader, and none is on PATH; install one (apt install "
        f"openfpgaloader) or run the command elsewhere: openFPGALoader -b ulx3s {bitstream}")


def test_failing_tool(tools, bitstream):
    tools("openFPGALoader", status=4)
    with pytest.raises(FlashError, match="failed with status 4; is the board connected"):
        flash(bitstream, target("ulx3s-85f"))


def test_missing_bitstream(tools, tmp_path):
    with pytest.raises(FlashError, match=r"^no bitstream .*; build one first: celosia build$"):
        flash(tmp_path / "none.bin", target("icebreaker"))


def test_bare_device():
    with pytest.raises(FlashError, match=r"^target 'hx8k' is a bare device; choose a board$"):
        flash("x.bin", target("hx8k"), dry_run=True)
