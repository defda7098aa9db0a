"""A board without hardware: the verilated machine behind a serial port, for unchanged drivers."""

from celosia_sim.virtual.board import Lights, VirtualBoard

__all__ = ["Lights", "VirtualBoard"]
