"""Tables in a terminal: no line is longer than it, no name and no figure is cut."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import numpy as np
import pytest

from celosia.cli.tables import Table, table, width
from celosia_boards.targets import target

CLOCK = target("icebreaker").clock_mhz
LONG = "backbone.stages.2.blocks.1.depthwise_convolution"
NETWORK = f"""
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        at = self
        *path, last = {LONG!r}.split(".")
        for name in path:
            at.add_module(name, torch.nn.Module())
            at = getattr(at, name)
        at.add_module(last, torch.nn.Linear(300, 90))
        self.fc = torch.nn.Linear(90, 10)

    def forward(self, x):
        return self.fc(torch.relu(self.get_submodule({LONG!r})(x)))

def make():
    torch.manual_seed(1)
    return Net()
"""
CHILD = """
import fcntl, os, struct, sys, termios
from celosia.cli import app

for width in map(int, sys.argv[1].split(",")):
    fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    for command in sys.argv[2:]:
        print(f"== {width} {command}", flush=True)
        try:
            app(command.split(), standalone_mode=False)
        except SystemExit as end:
            print(f"status {end.code}")
        sys.stdout.flush()
"""
WIDTHS = (80, 120)
COMMANDS = {        # command: what must stand in its tables
    "targets": ("icebreaker", "ulx3s-85f", "iCEBreaker", "multipliers"),
    "compile long_net:make --calibration x.npy -o long.celo": (LONG, "memories", "exponents"),
    "compare long.celo": (LONG,),
    "factorise long_net:make --data d.npz -o thin.pt2": (LONG, "ranks", "27,000"),
    "check long_net:make --calibration x.npy": ("icebreaker", "ulx3s-85f", "it fits if you"),
}


def in_terminal(folder: Path, *commands: str) -> dict[tuple[int, str], list[str]]:
    """Return the lines that commands print in a terminal, by its width and the command."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, WIDTHS[0], 0, 0))
    environment = {name: value for name, value in os.environ.items()
                   if name not in ("COLUMNS", "LINES")} | {"TERM": "xterm", "LC_ALL": "C.UTF-8"}
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, ",".join(map(str, WIDTHS)), *commands], cwd=folder,
        stdin=slave, stdout=slave, stderr=subprocess.PIPE, env=environment)
    os.close(slave)
    parts = []
    while True:
        try:
            part = os.read(master, 65536)
        except OSError:         # the terminal's other end is closed
            break
        if not part:
            break
        parts.append(part)
    os.close(master)
    _, errors = child.communicate()
    assert child.returncode == 0, errors.decode()
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", b"".join(parts).decode()).replace("\r", "")
    found = {}
    for block in text.split("== ")[1:]:
        head, *lines = block.splitlines()
        at, command = head.split(" ", 1)
        found[int(at), command] = lines
    return found


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, str], list[str]]:
    folder = tmp_path_factory.mktemp("tables")
    (folder / "long_net.py").write_text(NETWORK)
    x = np.ones((1, 300), np.float32)
    np.save(folder / "x.npy", x)
    np.savez(folder / "d.npz", train_images=x, train_labels=[1], test_images=x, test_labels=[1])
    return in_terminal(folder, *COMMANDS)


def unwrapped(lines: list[str]) -> str:
    """Return the columns of tables one after another, what is wrapped joined again."""
    rows = [line.strip("│┃ ").split("│") for line in lines if line.startswith("│")]
    most = max(len(row) for row in rows)
    return "\n".join("".join(row[at].strip() for row in rows if at < len(row))
                     for at in range(most))


@pytest.mark.parametrize("columns", WIDTHS)
@pytest.mark.parametrize("command", COMMANDS)
def test_nothing_is_cut_in_a_terminal(shown: dict, columns: int, command: str) -> None:
    lines = shown[columns, command]
    assert lines and max(map(len, lines)) <= columns
    quoted = re.sub(r"\[[^\]]*\]", "", "".join(lines))     # source lines are shortened
    assert "…" not in quoted
    text = unwrapped(lines) + "\n".join(lines)
    for word in COMMANDS[command]:
        assert word in text


def test_cycles_are_told_as_time_too(shown: dict) -> None:
    for command in list(COMMANDS)[1:3]:
        text = "\n".join(shown[80, command])
        assert re.search(rf"[\d.]+ ms, [\d,.]+ inferences a second at {CLOCK:g} MHz", text)


def full(rows: int = 3) -> Table:
    made = table("title", "layer", "kind", "sparse cycles", "ms", "bytes", words=2,
                 optional=("kind", "bytes"))
    for row in range(rows):
        made.add_row(f"{LONG}{row}", "linear", "1,234,567", "12.345", "98,765")
    return made


@pytest.mark.parametrize("columns", [24, 40, 60, 80, 120, 200])
def test_a_table_fits_its_lines(columns: int) -> None:
    text = full().text(columns)
    lines = [line for line in text.splitlines() if not line.startswith("(no room")]
    assert max(map(len, lines)) <= columns
    names, *figures = unwrapped(lines).split("\n")
    assert names == "".join(f"{LONG}{row}" for row in range(3))
    assert "1,234,5671,234,5671,234,567" in figures


def test_columns_go_before_figures_are_wrapped() -> None:
    assert all(word in full().text(100) for word in ("linear", "98,765", "sparse cycles"))
    narrow = full().text(48)
    assert "linear" not in narrow and "98,765" not in narrow
    assert "(no room for: kind, bytes; --json has all)" in narrow
    assert "1,234,567 │ 12.345" in narrow


def test_names_stay_on_one_line_where_they_can() -> None:
    text = full().text(120)
    assert f"│ {LONG}0 │ linear │" in text and "no room" not in text


def test_an_empty_column_is_not_printed() -> None:
    made = table("title", "layer", "left alone because", "weights", words=2)
    made.add_row("conv1", "", "12")
    assert "left alone" not in made.text(80) and "no room" not in made.text(80)
    made.add_row("conv2", "too small", "12")
    assert "left alone because" in made.text(80)


def test_what_stands_in_a_table_is_printed_as_it_is() -> None:
    made = table("[b]title[/b]", "layer", "n")
    made.add_row("[/b]x :key: 層", "1")
    assert "[/b]x :key: 層 │ 1 │" in made.text(80) and "[b]title[/b]" in made.text(80)
    with pytest.raises(ValueError, match="1 cells in a row of 2 columns"):
        made.add_row("short")


def test_off_a_terminal_it_is_columns_or_80_wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "97")
    assert width() == 97
    run = [sys.executable, "-c", "from celosia.cli.tables import width; print(width())"]
    monkeypatch.delenv("COLUMNS")
    assert subprocess.run(run, capture_output=True, stdin=subprocess.DEVNULL, check=True,
                          text=True).stdout == "80\n"
