"""Simulators of the machine's Verilog, and what they are built with."""
