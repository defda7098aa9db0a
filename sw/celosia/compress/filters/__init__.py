"""Removing whole filters: what depends on them, how many go, and masks that training sets."""
