"""Boards and bare devices: the table of targets, clocks, builds, and loading of bitstreams."""
