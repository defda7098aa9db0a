"""What ``celosia doctor`` says of boards: a fake bus, and pseudo-terminals for its ports."""

import json
import os
import shutil
from functools import partial
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from celosia import doctor_check
from celosia.cli import app
from celosia.doctor_boards import examine_boards
from celosia_boards import survey, usb
from celosia_boards.host import ports
from celosia_boards.host.link import open_link


@pytest.fixture
def bus(tmp_path, monkeypatch):
    """A bus to plug devices and their serial ports into, which the doctor looks at.

    device(...) returns the device's node, port(...) a pseudo-terminal's name.
    """
    devices, nodes, timers = (tmp_path / name for name in ("devices", "nodes", "timers"))
    devices.mkdir()
    (devices / "1-0:1.0").mkdir()           # an interface
    listed, masters = [], []

    def device(number, vendor, product, name=None, serial=None):
        folder = devices / f"1-{number}"
        folder.mkdir()
        for file, text in (("idVendor", vendor), ("idProduct", product), ("busnum", "1"),
                           ("devnum", str(number)), ("product", name), ("serial", serial)):
            if text is not None:
                (folder / file).write_text(f"{text}\n")
        node = nodes / "001" / f"{number:03d}"
        node.parent.mkdir(parents=True, exist_ok=True)
        node.touch(0o600)
        return node

    def port(number, interface, vendor, product, name, latency=None):
        master, slave = os.openpty()
        path = os.ttyname(slave)
        os.close(slave)
        masters.append(master)
        listed.append(SimpleNamespace(
            device=path, vid=vendor, pid=product, product=name, serial_number="ibA",
            location=f"1-{number}:1.{interface}", description="a port"))
        if latency is not None:
            timer = timers / path.rpartition("/")[2] / "latency_timer"
            timer.parent.mkdir(parents=True)
            timer.write_text(f"{latency}\n")
        return path

    monkeypatch.setattr("serial.tools.list_ports.comports", lambda: listed)
    monkeypatch.setattr(usb, "attached", partial(usb.attached, devices, nodes))
    monkeypatch.setattr(ports, "_SERIAL_BUS", timers)
    yield SimpleNamespace(device=device, port=port, devices=devices, nodes=nodes, listed=listed)
    for master in masters:
        os.close(master)


def checks():
    return {check.name: check for check in examine_boards()[1]}


def icebreaker(bus, latency=None):
    """Plug one in; its node, its loader's port and its serial port."""
    node = bus.device(3, "0403", "6010", "iCEBreaker V1.0e", "ibA")
    return node, *(bus.port(3, interface, 0x0403, 0x6010, "iCEBreaker V1.0e", latency)
                   for interface in (0, 1))


def test_boards_are_told_by_their_product_string(bus):
    bus.device(4, "0403", "6015", "ULX3S FPGA 85K v3.0.8")
    node = bus.device(3, "0403", "6010", "iCEBreaker V1.0e", "ibA")
    bus.device(5, "0403", "6015", "ULX3S FPGA 99K v3.0.3", "\x1b[2J")
    bus.device(6, "0403", "6010")
    bus.device(7, "1d6b", "0002", "hub")
    bus.device(8, "0403", "6010", "Dual\x1b[2J RS232")
    bus.device(9, "none", "6010", "iCEBreaker")
    found = usb.attached()
    assert [(one.name, one.boards, one.serial_number) for one in found] == [
        ("iCEBreaker V1.0e", ("icebreaker",), "ibA"),
        ("ULX3S FPGA 85K v3.0.8", ("ulx3s-85f",), ""), ("ULX3S FPGA 99K v3.0.3", (), "[2J"),
        ("", (), ""), ("Dual[2J RS232", (), "")]
    assert (found[0].node, found[0].openable, found[0].place) == (node, True, "1-3")


def test_nothing_plugged_in(bus):
    assert (checks()["USB boards"].state, checks()["USB boards"].way_out) == (
        doctor_check.MISSING, "plug one in")
    shutil.rmtree(bus.devices)
    assert checks()["USB boards"].way_out == "this system does not show USB devices"
    assert examine_boards()[0] == []


def test_a_board_and_its_serial_port(bus):
    node, loading, serial = icebreaker(bus)
    found = checks()
    assert list(found) == ["icebreaker", "icebreaker, port"]
    board, port = found.values()
    assert (board.state, board.found) == (
        doctor_check.OK, "iCEBreaker V1.0e (0403:6010), serial number ibA")
    assert (port.state, port.found, port.way_out) == (doctor_check.OK, f"{serial}, interface 1", "")
    seen, = examine_boards()[0]
    assert [(one.port.name, bool(one.port.boards)) for one in seen.ports] == [
        (serial, True), (loading, False)]
    assert seen.node == node


def test_what_users_see_and_programs_get(bus):
    _, loading, serial = icebreaker(bus, latency=16)
    shown = CliRunner().invoke(app, ["doctor"]).stdout
    assert "\nicebreaker, port: short answers wait for its latency timer; Celosia asks" in shown
    answer = json.loads(CliRunner().invoke(app, ["doctor", "--json"]).stdout)
    board, = answer["boards"]
    assert board["boards"] == ["icebreaker"] and board["serial_number"] == "ibA"
    assert {one["port"]["name"]: (one["port"]["boards"], one["port"]["interface"],
                                  one["port"]["latency_ms"], one["holders"])
            for one in board["ports"]} == {loading: ([], 0, 16, []),
                                           serial: (["icebreaker"], 1, 16, [])}
    assert answer["ready"] is True
    assert [check["name"] for check in answer["checks"][len(answer["tools"]):]] == [
        "icebreaker", "icebreaker, port"]


def test_a_latency_timer_is_told(bus):
    """It is no fault: the driver asks for less itself."""
    serial = icebreaker(bus, latency=16)[2]
    check = checks()["icebreaker, port"]
    assert (check.state, check.found) == (
        doctor_check.NOTE, f"{serial}, interface 1, latency timer 16 ms")
    assert check.way_out.endswith(f"run: echo 1 | sudo tee {ports.latency_timer(serial)}")
    ports.latency_timer(serial).write_text("1\n")
    assert checks()["icebreaker, port"].state == doctor_check.OK


def test_boards_that_may_not_be_opened(bus, monkeypatch):
    node, _, serial = icebreaker(bus)
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: (
        str(path) not in (str(node), serial) and real(path, mode)))
    board, port = checks().values()
    rule = "install the udev rule that celosia doctor --udev prints"
    assert (board.state, port.state) == (doctor_check.WRONG, doctor_check.WRONG)
    assert board.way_out == f"you may not open {node}; {rule}, and plug the board in again"
    assert port.way_out.startswith(f"you may not open {serial}: ") and rule in port.way_out


def test_a_port_that_is_in_use(bus, monkeypatch):
    serial = icebreaker(bus)[2]
    monkeypatch.setattr(survey, "holders", lambda name: ["'screen' (process 7)"] * (name == serial))
    check = checks()["icebreaker, port"]
    assert (check.state, check.way_out) == (
        doctor_check.WRONG, f"{serial} is in use by 'screen' (process 7); end that")
    monkeypatch.undo()


def test_looking_takes_nothing_from_who_has_the_port(bus):
    serial = icebreaker(bus)[2]
    with open_link(serial, 115_200) as board:
        assert checks()["icebreaker, port"].state == doctor_check.OK     # this process has it
        board.write(b"x", 1.0)


def test_a_board_without_its_port(bus):
    """As after iceprog, which takes the driver off."""
    icebreaker(bus)
    bus.listed.pop()
    check = checks()["icebreaker, port"]
    assert check.state == doctor_check.MISSING
    assert "plug the board in again, as some loaders (iceprog) take its driver off" in check.way_out


def test_a_loader_that_is_no_serial_port(bus):
    """As OrangeCrab's: its only interface is of the class of DFU."""
    bus.device(3, "1209", "5af0", "OrangeCrab r0.2 DFU Bootloader")
    interface = bus.devices / "1-3" / "1-3:1.0"
    interface.mkdir()
    (interface / "bInterfaceClass").write_text("fe\n")
    check = list(checks().values())[1]
    assert check.state == doctor_check.NOTE and "name the adapter's port (--port)" in check.way_out
    (interface / "bInterfaceClass").write_text("ff\n")
    assert list(checks().values())[1].state == doctor_check.MISSING


def test_a_bridge_without_a_name(bus):
    """Any of its ports may be a board's; nothing is missing."""
    bus.device(4, "0403", "6010", "Dual RS232-HS")
    names = [bus.port(4, interface, 0x0403, 0x6010, "Dual RS232-HS") for interface in (0, 1)]
    found = examine_boards()[1]
    assert [check.name for check in found] == ["USB device"] + ["USB device, port"] * 2
    assert all(check.state == doctor_check.OK and check.needed_for.endswith(", if it is a board")
               for check in found)
    assert [check.found for check in found[1:]] == [
        f"{name}, interface {n}" for n, name in enumerate(names)]


def test_a_system_that_shows_ports_alone(bus):
    """As macOS does: nothing is said of the loader's device, and the board is found."""
    shutil.rmtree(bus.devices)
    bus.port(3, 1, 0x0403, 0x6010, "iCEBreaker V1.0e")
    assert list(checks()) == ["icebreaker, port"]
    assert json.loads(CliRunner().invoke(app, ["doctor", "--json"]).stdout)[
        "boards"][0]["node"] is None


def test_a_look_that_fails_is_told(monkeypatch):
    def broken():
        raise RuntimeError("two\nlines")

    monkeypatch.setattr(usb, "attached", broken)
    assert checks()["USB boards"].way_out == "RuntimeError: two lines"


def test_other_things_than_boards_are_left_out(bus):
    bus.device(4, "1a86", "7523", "USB Serial")
    bus.port(4, 0, 0x1a86, 0x7523, "USB Serial")
    assert list(checks()) == ["USB boards"]
