"""Weights from which no path leads to an output."""
