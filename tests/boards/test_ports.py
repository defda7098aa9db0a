"""Which port a board is at: what users may name, and what is found."""

import os
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest

from celosia_boards.host import ports
from celosia_boards.host.ports import Port, PortError, find, find_ports
from celosia_boards.targets import target


def listed(device, vid=None, pid=None, product=None, location=None, serial=None):
    """Return a port as pyserial lists it."""
    return SimpleNamespace(device=device, vid=vid, pid=pid, product=product, location=location,
                           serial_number=serial, description=product or "n/a")


ICEBREAKER = (listed("/dev/ttyUSB0", 0x0403, 0x6010, "iCEBreaker V1.0e", "1-2:1.0", "ibA"),
              listed("/dev/ttyUSB1", 0x0403, 0x6010, "iCEBreaker V1.0e", "1-2:1.1", "ibA"))
ULX3S = listed("/dev/ttyUSB2", 0x0403, 0x6015, "ULX3S FPGA 85K v3.0.8", "1-3", "K00123")
BUILT_IN = listed("/dev/ttyS0")


@pytest.fixture
def plug(monkeypatch):
    """A function that says what pyserial lists."""
    monkeypatch.delenv("CELOSIA_PORT", raising=False)

    def plugged(*infos):
        monkeypatch.setattr("serial.tools.list_ports.comports", lambda: list(infos))

    return plugged


def refusal(*arguments, **options):
    with pytest.raises(PortError) as caught:
        find(*arguments, **options)
    message = str(caught.value)
    assert message.isprintable()            # one line, and nothing that a terminal obeys
    return message


def test_the_serial_interface_of_a_two_port_bridge(plug):
    """It is the interface that says which, not the number in the name."""
    swapped = (listed("/dev/ttyUSB0", 0x0403, 0x6010, "iCEBreaker V1.0e", "1-2:1.1", "ibA"),
               listed("/dev/ttyUSB1", 0x0403, 0x6010, "iCEBreaker V1.0e", "1-2:1.0", "ibA"))
    for infos, name in ((ICEBREAKER, "/dev/ttyUSB1"), (swapped, "/dev/ttyUSB0")):
        plug(BUILT_IN, *infos)
        found = find("auto")
        assert found == find(board="icebreaker") == find()
        assert (found.name, found.boards, found.interface) == (name, ("icebreaker",), 1)
        assert (found.vendor, found.product, found.serial_number) == (0x0403, 0x6010, "ibA")
        assert found.baud == target("icebreaker").baud and found.reason == ""
    other = next(port for port in find_ports() if port.interface == 0)
    assert other.boards == () and other.baud is None
    assert other.reason == "another port of the icebreaker, whose serial port is interface 1"


def test_boards_come_first():
    found = find_ports(lambda: [BUILT_IN, listed("/dev/ttyUSB10"), *ICEBREAKER, ULX3S])
    assert [port.name for port in found] == ["/dev/ttyUSB1", "/dev/ttyUSB2", "/dev/ttyS0",
                                             "/dev/ttyUSB0", "/dev/ttyUSB10"]


def test_several_boards_are_listed_and_none_is_guessed(plug):
    plug(*ICEBREAKER, ULX3S)
    message = refusal("auto")
    assert message.startswith("2 ports are a board's: ")
    assert "/dev/ttyUSB1 (icebreaker, serial number ibA)" in message
    assert "/dev/ttyUSB2 (ulx3s-85f, serial number K00123)" in message
    assert message.endswith("name one: --port /dev/ttyUSB1")
    assert find("auto", board="ulx3s-85f").name == "/dev/ttyUSB2"


def test_no_board(plug):
    plug()
    assert refusal("auto") == (
        "no port is known as a board's: this system shows no serial port; plug the board in, or "
        "name the port: --port /dev/ttyUSB1")
    plug(BUILT_IN, listed("/dev/ttyUSB0", 0x0403, 0x6010, "Dual RS232-HS", "1-2:1.0"),
         listed("/dev/ttyUSB1", 0x0403, 0x6010, "Dual RS232-HS", "1-2:1.1"),
         listed("/dev/ttyACM0", 0x2341, 0x0043, "Arduino", "1-4:1.0"))
    message = refusal("auto")
    assert "/dev/ttyS0 (serial port) is no USB device" in message
    assert re.search(r"/dev/ttyUSB0 \(Dual RS232-HS, 0403:6010, interface 0\) is not the serial "
                     r"port of a .*icebreaker", message)
    assert re.search(r"/dev/ttyUSB1 .* is perhaps the serial port of a .*icebreaker", message)
    assert "ttyACM0 (Arduino, 2341:0043, interface 0) is no board's bridge" in message
    assert message.endswith("or name the port: --port /dev/ttyUSB1")
    plug(BUILT_IN)
    assert refusal("auto").endswith("--port /dev/ttyUSB1")      # not one that can be none
    plug(*ICEBREAKER)
    assert refusal(board="ulx3s-85f").startswith("no port is known as a ulx3s-85f's: ")
    assert refusal(board="hx8k").startswith("hx8k is no board that USB tells of")


def test_many_ports_make_no_long_message(plug):
    plug(*(listed(f"/dev/ttyS{n}") for n in range(100)))
    assert "; 92 more; plug" in refusal("auto")


def test_a_system_that_tells_no_interface(plug, monkeypatch):
    """As macOS does: both channels may be the board's, and the user says which."""
    monkeypatch.setattr("sys.platform", "darwin")
    plug(*(listed(f"/dev/cu.usbserial-ib{n}", 0x0403, 0x6010, "iCEBreaker V1.0e", "20-2")
           for n in range(2)))
    message = refusal("auto")
    assert message.startswith("2 ports are a board's: ")
    assert message.endswith("name one: --port /dev/cu.usbserial-ib1")


def test_a_device_that_goes_while_ports_are_listed():
    """pyserial then makes a number of what is not there."""
    looks = iter([TypeError, ValueError, None])

    def comports():
        problem = next(looks)
        if problem:
            raise problem
        return [BUILT_IN]

    assert [port.name for port in find_ports(comports)] == ["/dev/ttyS0"]
    looks = iter([OSError] * 3)
    with pytest.raises(PortError, match="change while they are being listed"):
        find_ports(comports)


def test_nothing_of_pyserial_is_imported_before_it_is_needed():
    code = ("import sys, celosia_boards.host.link; from celosia_boards.host.ports import find; "
            "find('socket://127.0.0.1:7000'); "
            "print([name for name in ('serial', 'amaranth', 'torch') if name in sys.modules])")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_what_a_device_says_of_itself_is_not_obeyed(plug):
    plug(listed("/dev/ttyUSB0", 0x0403, 0x6010, "\x1b[2J" + "x" * 999, "\n:1.1", "\r\n\x9b"))
    port, = find_ports()
    assert str(port).isprintable() and len(str(port)) < 120
    refusal("auto")
    plug(listed("/dev/ttyUSB0", 0x0403, 0x6010, None, None, None))
    assert find_ports()[0].interface == 0


def test_the_environment_names_the_port(plug, monkeypatch):
    plug(*ICEBREAKER)
    monkeypatch.setenv("CELOSIA_PORT", "socket://localhost:7000")
    assert find().name == "socket://localhost:7000"
    assert find("auto").name == "/dev/ttyUSB1"
    monkeypatch.setenv("CELOSIA_PORT", "")
    assert find().name == "/dev/ttyUSB1"


@pytest.mark.parametrize("url, address", [
    ("socket://127.0.0.1:7000", ("127.0.0.1", 7000)), ("socket://[::1]:1", ("::1", 1)),
    ("socket://my-pi.local:65535/", ("my-pi.local", 65535))])
def test_sockets(url, address):
    assert find(url).address == address


@pytest.mark.parametrize("url", [
    "socket://", "socket://host", "socket://host:0", "socket://host:65536", "socket://:7000",
    "socket://host:1/?logging=debug", "socket://host:1/x", "socket://user@host:1",
    "socket://host:²", "socket://ho st:1", "socket://host:1\n", "SOCKET://host:1",
    "spy:///dev/ttyUSB0", "hwgrep://0403", "loop://", "rfc2217://host:1", "alt:///dev/ttyUSB0",
    "cp2110://x", "://", "socket://\x1b[2J:1"])
def test_other_urls_are_refused(url):
    assert "it takes socket://HOST:PORT with a port number from 1 to 65535" in refusal(url)


@pytest.mark.parametrize("name", ["/dev/null/x", "/dev/ttyNONE", "\0", "no\x1b[2Jthing",
                                  "x" * 5000])
def test_names_of_nothing(name, plug):
    plug(BUILT_IN)
    message = refusal(name)
    assert message.startswith("there is no port ")
    assert "/dev/ttyS0 (serial port) is no USB device" in message
    assert len(message) < 400


def test_a_file_is_no_port(tmp_path, plug):
    plug()
    file = tmp_path / "file"
    file.touch()
    for name in (file, tmp_path, ""):
        assert "is no serial port" in refusal(str(name))
    assert "did you mean /dev/null?" in refusal("null")


def test_a_port_by_its_name(tmp_path, plug, monkeypatch):
    """What the system lists is told of it, by a link too; a pseudo-terminal has only its name."""
    master, slave = os.openpty()
    try:
        name = os.ttyname(slave)
        link = tmp_path / "board"
        link.symlink_to(name)
        plug()
        assert find(name) == Port(name=name, description="a pseudo-terminal",
                                  reason="told by its name alone")
        assert find(str(link)).virtual and find(str(link)).name == str(link)
        plug(listed(name, 0x0403, 0x6015, "ULX3S FPGA 85K v3.0.8"))
        assert find(str(link)).boards == ("ulx3s-85f",)
    finally:
        os.close(master)
        os.close(slave)


def test_windows_is_told_what_works(monkeypatch):
    monkeypatch.setattr("sys.platform", "win32")
    assert "attach the board to WSL" in refusal("COM3")
    assert find("socket://pi:7000").address == ("pi", 7000)


def test_the_latency_timer(tmp_path, monkeypatch):
    monkeypatch.setattr(ports, "_SERIAL_BUS", tmp_path)
    (tmp_path / "ttyUSB1").mkdir()
    timer = tmp_path / "ttyUSB1" / "latency_timer"
    timer.write_text("16\n")
    told = {port.name: port.latency_ms for port in find_ports(lambda: list(ICEBREAKER))}
    assert told == {"/dev/ttyUSB0": None, "/dev/ttyUSB1": 16}
    timer.write_text("soon\n")
    assert find_ports(lambda: list(ICEBREAKER))[0].latency_ms is None


def test_what_the_system_really_lists():
    """Whatever it is, it can be told."""
    assert all(str(port).isprintable() for port in find_ports())
