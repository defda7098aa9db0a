"""Descriptors, and what runs when."""
