"""One thing that `celosia doctor` looked for."""

from dataclasses import dataclass

__all__ = ["FLASH", "MISSING", "NOTE", "OK", "WRONG", "Check"]

OK, MISSING, WRONG, NOTE = "ok", "missing", "wrong", "note"

FLASH = "flash"
"""What loading a board is called, among what a thing is needed for."""

_REQUIRED = ("python", "amaranth", "numpy", "scipy", "safetensors", "pydantic", "torch")
"""What compiling a network and running it on the golden model takes."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was looked for.

    state      : "ok", "missing", "wrong" (too old, not whole, not to be used), or "note" (it works,
                 and there is something to know).
    found      : its version, or where it is; "" where it is missing.
    needed_for : commands, or what else.
    way_out    : how to get it, or what there is to know, in words; "" where all is well.
    """

    name: str
    state: str
    found: str
    needed_for: str
    way_out: str = ""

    @property
    def required(self) -> bool:
        """Whether compiling and the golden model need it."""
        return self.name in _REQUIRED
