"""A program as users have it: it prints, a notebook shows it, and it writes its file."""

from abc import abstractmethod
from pathlib import Path

from celosia.show import html, text
from celosia_spec import program, record


class Program(program.Compiled):
    """What one array needs to run one network. Printed, it is three lines; in a notebook, tables.

    Its fields are those of `celosia_spec.program.Compiled`.
    """

    @property
    def image(self) -> bytes:
        """What the board's flash has to hold for it."""
        return b""

    def __repr__(self) -> str:
        return text(self)

    def _repr_html_(self) -> str:
        return html(self)

    @abstractmethod
    def save(self, path: str | Path) -> None:
        """Write the program file; it appears whole or not at all. CelosiaError where it cannot."""


class CoreProgram(Program, program.Program):
    """A program of the first machine."""

    def save(self, path: str | Path) -> None:
        record.save(self, path)
