"""Layers with a row of its own for each element that they make: how large they may be."""

MOST_ROWS = 4096
"""Most elements that a layer makes one by one."""

MOST_WEIGHTS = 1 << 24
"""Most places that such rows have weights for: rows times elements of what they read."""


def few(rows: int, columns: int) -> bool:
    """Whether a layer can make so many elements one by one, of so many that it reads."""
    return rows <= MOST_ROWS and rows * columns <= MOST_WEIGHTS
