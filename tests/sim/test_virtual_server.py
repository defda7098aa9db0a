"""A virtual board behind a pseudo-terminal and a socket: clients come, go, and misbehave."""

import contextlib
import os
import random
import socket
import time

import pytest
import serial

from celosia_sim.virtual import Faults, Lights, Pty, Socket, VirtualBoard, Wire, serving
from celosia_sim.virtual.server import PENDING_MAX
from celosia_spec.errors import SimulationError
from celosia_spec.isa import frames as protocol
from celosia_spec.isa.frames import Decoder, Kind, Reply
from celosia_spec.isa.memories import Space
from host_frames import encode_read, encode_start, encode_status, encode_write

READ = encode_read(Space.MAIN, 0, element_bytes=2, tag=5)


@contextlib.contextmanager
def served(end=None, faults=None, *, byte_level=True):
    with VirtualBoard("upduino", byte_level=byte_level) as board:
        with serving(Wire(board, faults), end) as server:
            yield server


def client(port):
    return serial.serial_for_url(port, baudrate=1_000_000, timeout=5)


def ask(port, request):
    """Send a request after whatever there was; return its reply."""
    port.write(protocol.RESYNC + request)
    return hear(port, request[1] >> 4)


def hear(port, tag):
    """The next reply with this tag that is not about something damaged."""
    decoder = Decoder()
    while True:
        byte = port.read(1)
        assert byte, "no reply"
        for reply in decoder.feed(byte):
            if reply.kind is not Kind.REJECTED and reply.tag == tag:
                return reply


def until(condition):
    """Wait for what must come true, and not longer than 20 s."""
    ends = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.01)


def status(tag):
    return encode_status(tag=tag)


@pytest.mark.parametrize("byte_level", [False, True])
@pytest.mark.parametrize("make", [Pty, lambda: Socket("127.0.0.1:0")])
def test_clients_come_and_go(make, byte_level):
    with served(make(), byte_level=byte_level) as server:
        for tag in range(4):
            with client(server.port) as port:
                assert ask(port, status(tag)) == Reply(tag=tag, kind=Kind.IDLE)
                port.write(encode_write(Space.MAIN, 0, [tag] * 4, element_bytes=2,
                                        tag=7))
                assert hear(port, 7).kind is Kind.IDLE
                assert ask(port, READ).elements(2) == [tag] * 4
                port.write(READ * 3)    # and away, without the answers


def test_what_a_client_left_behind_is_not_the_next_one_s():
    """Replies that nobody read are gone; the board heard all that was sent."""
    with served(Pty()) as server:
        with client(server.port) as port:
            port.write(READ + status(1) * 200)
            until(lambda: server.status().bytes_in == 7 * 201 and port.in_waiting)
        until(lambda: not server.status().client)
        with client(server.port) as port:
            time.sleep(0.1)
            assert port.in_waiting == 0
            port.write(status(9))
            assert hear(port, 9).kind is Kind.IDLE
        assert server.status().bytes_in == 7 * 202


def test_all_bytes_pass_as_they_are():
    """Nothing is echoed, nor taken for a control character: each byte alone is noise to a board."""
    with served(Pty()) as server:
        with client(server.port) as port:
            port.write(bytes(byte for byte in range(256) if byte != protocol.SYNC) * 4)
            assert ask(port, status(3)).tag == 3
            assert server.status().bytes_in == 255 * 4 + 27 + 7


def test_garbage_and_then_a_session():
    rng = random.Random(4)
    with served(Pty()) as server:
        with client(server.port) as port:
            port.write(bytes(rng.randrange(256) for _ in range(20_000)))
            until(lambda: server.status().bytes_in == 20_000)
            port.reset_input_buffer()
            assert ask(port, status(2)).tag == 2


def test_a_client_that_sends_too_fast_has_to_wait():
    """Bit by bit, 40 kB take their time; little of them waits in the server."""
    with served(Pty(), byte_level=False) as server:
        file = os.open(server.port, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        try:
            sent, ends = 0, time.monotonic() + 20
            while sent < 40_000:
                with contextlib.suppress(BlockingIOError):
                    sent += os.write(file, b"\xff" * 1000)
                assert server._wire.pending <= PENDING_MAX
                assert time.monotonic() < ends
        finally:
            os.close(file)


def test_a_second_client_of_a_socket_is_told_no():
    with served(Socket("127.0.0.1:0")) as server:
        with client(server.port) as first:
            assert ask(first, status(1)).tag == 1
            address = server.port.removeprefix("socket://").split(":")
            with socket.create_connection((address[0], int(address[1])), timeout=5) as second:
                assert b"another client is connected" in second.makefile("rb").read()
            assert ask(first, status(2)).tag == 2
        with client(server.port) as third:
            assert ask(third, status(3)).tag == 3


def test_a_quiet_board_takes_no_time():
    with served(Pty(), byte_level=False) as server:
        with client(server.port) as port:
            assert ask(port, status(1)).tag == 1
            time.sleep(0.1)
            seconds, cpu = server.status().seconds, time.process_time()
            time.sleep(0.5)
            assert server.status().seconds == seconds and time.process_time() - cpu < 0.1


def slowly(port, tag):
    """Send a request with 1 ms between its bytes; return whether it was answered."""
    port.timeout = 0.5
    for byte in status(tag):
        port.write(bytes([byte]))
        time.sleep(0.001)
    answered = port.read(4) == Reply(tag=tag, kind=Kind.IDLE).encode()
    port.timeout = 5
    return answered


def test_a_slow_client_meets_the_time_out_of_the_port_and_no_other():
    """1 ms between bytes is nothing; 40 ms in a request is too long, as on a board."""
    with served(Pty(), byte_level=False) as server:
        with client(server.port) as port:
            assert any(slowly(port, tag) for tag in range(8, 16))   # a busy machine may be slower
            port.write(status(5)[:5])
            time.sleep(0.25)
            port.write(status(5)[5:] + b"\xff" * 10 + status(6))
            assert hear(port, 6).kind is Kind.IDLE


def test_resets_and_lights():
    with served(Pty(), Faults(reset_after=60)) as server:
        with client(server.port) as port:
            assert ask(port, status(1)).tag == 1
            port.write(b"\xff" * 100)
            until(lambda: server.status().resets == 2)
            server.reset()
            assert ask(port, status(2)).tag == 2
            now = server.status()
            assert now.resets == 3 and now.client and now.seen == Lights()
            assert ask(port, encode_start(0, tag=8)).kind is Kind.RUNNING
            assert server.status().seen.busy and server.status().starts == 1


def test_a_link_leads_to_the_port_and_goes_with_it(tmp_path):
    link = tmp_path / "board"
    link.symlink_to("/dev/pts/4711")
    with served(Pty(link)) as server:
        assert server.port == str(link)
        with client(server.port) as port:
            assert ask(port, status(1)).tag == 1
    assert not link.is_symlink()
    link.write_text("mine")
    with pytest.raises(SimulationError, match=r"--link .*board: file exists; give another path"):
        Pty(link)


@pytest.mark.parametrize("address, words", [
    ("0.0.0.0:2000", "others could load and run programs there; give 127.0.0.1:2000, and reach"),
    ("192.168.1.5:0", "others could load"), ("[::]:80", "others could load"),
    ("2000", "give an address and a port, such as 127.0.0.1:2000"),
    ("127.0.0.1:99999", "give an address and a port"), ("localhost:x", "give an address and")])
def test_refused_addresses(address, words):
    with pytest.raises(SimulationError, match=words):
        Socket(address)


def test_an_address_in_use_is_refused():
    with contextlib.closing(Socket("127.0.0.1:0")) as end:
        with pytest.raises(SimulationError, match="Address already in use; give another port"):
            Socket(end.name.removeprefix("socket://"))
