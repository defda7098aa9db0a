"""Words of the machine as Amaranth takes them apart."""

from amaranth.hdl import Shape
from amaranth.lib import data

from celosia_spec.isa.controls import LAYER, OPCODE
from celosia_spec.isa.fields import Word


def layout(*words: Word) -> data.StructLayout:
    """Return the layout of a word cut into fields: bits as stored, without a field's offset; or of
    several words side by side.

    Fields called "_" are bits that nobody reads; one without bits keeps its name.
    """
    names: dict[str, Shape] = {}
    for field in (field for word in words for field in word.fields):
        name = f"_{len(names)}" if field.name == "_" else field.name
        names[name] = Shape(field.bits, field.signed)
    return data.StructLayout(names)


LAYER_LAYOUT = layout(*LAYER.words)
"""What stays the same until `close`."""


def opcode(command: data.View) -> data.View:
    """Return what the bits of a command's ``op`` say."""
    return data.View(layout(OPCODE), command.op)
