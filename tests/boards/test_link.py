"""The bytes between host and board, over real pseudo-terminals and sockets."""

import errno
import os
import random
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
import tty
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from celosia_boards.host import holders, link, refusals
from celosia_boards.host.link import Line, LinkError, open_link
from celosia_boards.host.ports import Port, PortError

BAUD = 1_000_000


@pytest.fixture
def pty():
    """The master's file and the slave's name; the slave is opened by nobody."""
    master, slave = os.openpty()
    tty.setraw(slave)
    held = SimpleNamespace(master=master, name=os.ttyname(slave), open=True)
    os.close(slave)

    def end():
        if held.open:
            held.open = False
            os.close(master)

    held.end = end
    yield held
    end()


@contextmanager
def served():
    """A socket's URL, and what accepts a connection on it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"socket://127.0.0.1:{server.getsockname()[1]}", lambda: server.accept()[0]


def until(read, size):
    """Return ``size`` bytes of a link."""
    data = b""
    while len(data) < size:
        got = read(5.0)
        assert got, f"{len(data)} of {size} bytes came"
        data += got
    return data


def test_bytes_pass_both_ways(pty):
    """All values, at an odd speed: the terminal is raw."""
    every = bytes(range(256))
    with open_link(pty.name, 1_234_567) as board:
        line: Line = board
        assert (line.name, board.baud, board.low_latency) == (pty.name, 1_234_567, False)
        board.write(every, 1.0)
        assert os.read(pty.master, 4096) == every
        os.write(pty.master, every)
        assert until(board.read, 256) == every
        start = line.now()
        assert board.read(0.05) == b"" and 0.05 <= line.now() - start < 2
        assert board.read(0.0) == b""
        settings = termios.tcgetattr(pty.master)
        assert not settings[3] & (termios.ECHO | termios.ICANON | termios.ISIG)
        assert settings[2] & termios.CSIZE == termios.CS8
        assert not settings[2] & (termios.PARENB | termios.CSTOPB | termios.CRTSCTS)


def test_a_socket_carries_bytes():
    with served() as (url, accept), open_link(url, BAUD) as board, accept() as other:
        board.write(b"frames", 1.0)
        assert other.recv(100) == b"frames"
        other.sendall(b"answers")
        assert until(board.read, 7) == b"answers"
        other.close()
        with pytest.raises(LinkError, match=r"is gone \(the other end has closed the connection"):
            board.read(5.0)


def test_nothing_listens(tmp_path):
    with served() as (url, _):
        pass
    with pytest.raises(PortError, match=r"nothing answers at socket://.*Connection refused.*"
                                        r"serve-sim P.celo --listen 127.0.0.1:\d+"):
        open_link(url, BAUD)


def test_nothing_is_lost_while_the_host_computes(pty):
    """Far more arrives than the kernel holds, and nobody reads meanwhile."""
    sent = random.Random(1).randbytes(500_000)
    with open_link(pty.name, BAUD) as board:
        left = memoryview(sent)
        while left:
            left = left[os.write(pty.master, left):]
        assert until(board.read, len(sent)) == sent


def test_a_megabyte_each_way_is_cheap(pty):
    """Ten times the line's speed at least, in pieces of some KiB."""
    sent = random.Random(2).randbytes(1_000_000)
    got = bytearray()

    def echo():
        while len(got) < len(sent):
            data = os.read(pty.master, 65536)
            got.extend(data)
            left = memoryview(data)
            while left:
                left = left[os.write(pty.master, left):]

    with open_link(pty.name, BAUD) as board:
        thread = threading.Thread(target=echo)
        thread.start()
        answer, start = bytearray(), time.monotonic()
        for place in range(0, len(sent), 4000):
            board.write(sent[place:place + 4000], 5.0)
            answer += board.read(0.0)
        answer += until(board.read, len(sent) - len(answer))
        seconds = time.monotonic() - start
        thread.join()
    assert got == answer == sent
    assert seconds < 10


def test_a_board_that_babbles(pty):
    """What nobody reads is kept up to a bound; `clear` starts again."""
    with open_link(pty.name, BAUD) as board:
        for _ in range(2 * link.UNREAD // 65536):
            left = memoryview(bytes(65536))
            while left:
                left = left[os.write(pty.master, left):]
        deadline = time.monotonic() + 20
        while board._lost < link.UNREAD and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(board._unread) == link.UNREAD
        for _ in range(2):
            with pytest.raises(LinkError, match=r"sent 2,097,152 bytes that nobody read, more "
                                                r"than the 1,048,576 that are kept"):
                board.read(1.0)
        board.clear()
        os.write(pty.master, b"sane")
        assert until(board.read, 4) == b"sane"


def test_a_board_that_does_not_read(pty):
    """A write ends in time, and closing does not wait for what it left."""
    with open_link(pty.name, BAUD) as board:
        start = time.monotonic()
        with pytest.raises(LinkError, match=r"takes no bytes: \d+ of 1000000 left in 0.3 s"):
            board.write(bytes(1_000_000), 0.3)
        assert 0.3 <= time.monotonic() - start < 2
    assert time.monotonic() - start < 3


def test_a_board_that_goes(pty):
    """What came before is read first; then both ways say so, again and again."""
    with open_link(pty.name, BAUD) as board:
        os.write(pty.master, b"last words")
        assert until(board.read, 1)[:1] == b"l"
        pty.end()
        for call in (lambda: board.read(5.0), lambda: board.read(5.0),
                     lambda: board.write(b"x", 1.0)):
            with pytest.raises(LinkError, match=r"the board at /dev/pts/\d+ is gone \(what served"):
                call()
        board._reader.join(5)
        assert not board._reader.is_alive()


def test_a_board_that_goes_while_the_host_waits(pty):
    with open_link(pty.name, BAUD) as board:
        threading.Timer(0.1, pty.end).start()
        start = time.monotonic()
        with pytest.raises(LinkError, match="is gone"):
            board.read(30.0)
        assert time.monotonic() - start < 5


def test_a_board_that_goes_while_the_host_writes(pty):
    with open_link(pty.name, BAUD) as board:
        threading.Timer(0.1, pty.end).start()
        with pytest.raises(LinkError, match="is gone"):
            board.write(bytes(1_000_000), 30.0)


def test_what_is_unplugged_reads_as_nothing(pty, monkeypatch):
    """As Linux does with a USB device that has gone: always ready, and nothing there."""
    from celosia_boards.host import wires

    wire = wires.open_wire(Port(name=pty.name), BAUD)
    monkeypatch.setattr(wires.os, "read", lambda number, size: b"")
    os.write(pty.master, b"x")
    with pytest.raises(wires.Gone):
        wire.receive()
    monkeypatch.undo()
    wire.close()


def test_closing(pty):
    before = set(threading.enumerate())         # some may be ending
    board = open_link(pty.name, BAUD)
    [reader] = set(threading.enumerate()) - before
    board.close()
    board.close()
    assert not reader.is_alive()
    for call in (lambda: board.read(0.0), lambda: board.write(b"x", 0.0)):
        with pytest.raises(LinkError, match="is closed"):
            call()
    open_link(pty.name, BAUD).close()       # the lock is given back


def test_the_port_is_held_by_one(pty):
    """A second opening is refused, and told who holds it: this process, or another by name."""
    with open_link(pty.name, BAUD):
        with pytest.raises(PortError, match=rf"is in use by this process \({os.getpid()}\)"):
            open_link(pty.name, BAUD)
    with child("board = open_link(sys.argv[1], 115200)", pty.name) as other:
        with pytest.raises(PortError) as caught:
            open_link(pty.name, BAUD)
        assert f"(process {other.pid}); end that" in str(caught.value)
        assert "python" in str(caught.value)
        assert f"(process {other.pid})" in " ".join(holders.holders(pty.name))


def test_a_holder_that_may_not_be_seen(pty, monkeypatch, tmp_path):
    """Without /proc/locks the one that has it open is named; without /proc, nobody."""
    with child("board = open_link(sys.argv[1], 115200)", pty.name) as other:
        monkeypatch.setattr(holders, "_locker", lambda device: None)
        with pytest.raises(PortError, match=rf"\(process {other.pid}\)"):
            open_link(pty.name, BAUD)
        monkeypatch.setattr(holders, "_PROC", tmp_path / "none")
        with pytest.raises(PortError, match="is in use by another process; end"):
            open_link(pty.name, BAUD)


@contextmanager
def child(code, *arguments):
    """Run Python that then says "ready" and waits on ``board.read(60)``, if it has a board."""
    code = (f"import sys, threading\nfrom celosia_boards.host.link import open_link\n{code}\n"
            f"print('ready', flush=True)\nboard.read(60.0)\n")
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "ready\n", process.stderr.read()
        yield process
    finally:
        process.kill()
        process.communicate()


def test_ctrl_c_ends_a_read_at_once(pty):
    with child("board = open_link(sys.argv[1], 115200)", pty.name) as process:
        time.sleep(0.2)
        start = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=10)
        assert time.monotonic() - start < 2
        assert process.returncode == -signal.SIGINT and errors.endswith("KeyboardInterrupt\n")
        assert "thread" not in errors.lower().replace("threading.py", "")


def test_an_open_link_keeps_no_process_alive(pty):
    """Even one that is never closed and babbled at."""
    code = "board = open_link(sys.argv[1], 115200); board.read = lambda seconds: None"
    with child(code, pty.name) as process:
        assert process.wait(timeout=10) == 0
        assert process.stderr.read() == ""


def test_what_is_no_serial_port():
    with pytest.raises(PortError, match="/dev/null is no serial port"):
        open_link(Port(name="/dev/null"), BAUD)
    with pytest.raises(PortError, match="/dev/full is no serial port"):
        open_link("/dev/full", BAUD)


def test_a_speed_that_cannot_be(pty):
    with pytest.raises(PortError, match=r"cannot be opened at -1 baud \(.*\); name another"):
        open_link(pty.name, -1)


def test_a_port_that_has_gone_meanwhile():
    with pytest.raises(PortError, match=r"nothing is at /dev/ttyNONE any more; .*serial port|is"):
        open_link(Port(name="/dev/ttyNONE"), BAUD)


@pytest.fixture
def forbidden(monkeypatch):
    """A function that makes a device one that this user may not open, and whoever they are."""
    def forbid(group, mode, members=()):
        grp, pwd = pytest.importorskip("grp"), pytest.importorskip("pwd")
        monkeypatch.setattr(refusals.os, "access", lambda *_: False)
        monkeypatch.setattr(refusals.Path, "stat", lambda self: SimpleNamespace(
            st_gid=0 if group == "root" else 20, st_mode=mode))
        monkeypatch.setattr(grp, "getgrgid", lambda number: SimpleNamespace(gr_name=group))
        monkeypatch.setattr(grp, "getgrnam", lambda name: SimpleNamespace(gr_mem=members))
        monkeypatch.setattr(pwd, "getpwuid", lambda number: SimpleNamespace(pw_name="ada"))
        return str(refusals.refusal("/dev/ttyUSB1", BAUD, PermissionError(errno.EACCES, "no")))

    return forbid


def test_a_port_that_may_not_be_opened(forbidden):
    rule = "install the udev rule that celosia doctor --udev prints"
    assert forbidden("dialout", 0o660) == (
        "you may not open /dev/ttyUSB1: it is open to group dialout, run: sudo usermod -aG "
        f"dialout $USER and log in again, or {rule}")
    assert "belong to its group dialout since you last logged in: log out and in again" in (
        forbidden("dialout", 0o660, ["ada"]))
    for group, mode in (("root", 0o660), ("dialout", 0o640)):
        assert forbidden(group, mode) == f"you may not open /dev/ttyUSB1: {rule}"


def test_a_port_that_this_user_may_not_open(pty):
    """Really: root becomes nobody first, in a process of its own."""
    Path(pty.name).chmod(0)
    code = ("import grp, os, pwd, serial.tools.list_ports\n"
            "if os.geteuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
            "try: open_link(sys.argv[1], 115200)\n"
            "except Exception as problem: board = None; print(problem, file=sys.stderr)")
    with child(code, pty.name) as process:
        errors = process.communicate(timeout=10)[1]
    assert errors.startswith(f"you may not open {pty.name}: install the udev rule that celosia ")
