"""Memories that weights come from."""
