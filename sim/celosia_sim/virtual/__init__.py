"""A board without hardware: the verilated machine behind a serial port, for unchanged drivers."""

from celosia_sim.virtual.board import Lights, VirtualBoard
from celosia_sim.virtual.ends import Pty
from celosia_sim.virtual.faults import Damage, Faults
from celosia_sim.virtual.server import Server, Status, serving
from celosia_sim.virtual.sockets import Socket
from celosia_sim.virtual.wire import Wire

__all__ = ["Damage", "Faults", "Lights", "Pty", "Server", "Socket", "Status", "VirtualBoard",
           "Wire", "serving"]
