"""Celosia's gateware (Amaranth). Import the modules; this package is empty on purpose."""
