"""Block memories of a main memory with two ports: words with even numbers, and with odd ones."""

from collections.abc import Callable
from dataclasses import dataclass

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import memory

from celosia_spec.isa.array import CONTROL_BITS, ENTRY_BITS

_NAMES = ("even", "odd")


@dataclass(frozen=True)
class Port:
    """An access that is made of a half's words, with its number there. enable : elements that are
    written; 0 reads.   data : 64 bits."""

    address: Value
    enable: Value
    data: Value


def halves(m: Module, words: int, port: Callable[[int, str], Port],
           asked: Value) -> tuple[list[Value], Value]:
    """Add the blocks of so many words; return what each half read, and the words ``asked`` and
    ``asked`` + 1 side by side, a cycle later.

    port : returns the access of half 0 or 1, which has a name, in the current cycle.
    """
    turned = Signal(reset_less=True)
    m.d.sync += turned.eq(asked[0])
    found, filled = [], []
    for half, name in enumerate(_NAMES):
        m.submodules[name] = block = memory.Memory(
            shape=ENTRY_BITS, depth=words // 2, init=[], attrs={"ram_style": "block"})
        write, read, other = (block.write_port(granularity=CONTROL_BITS), block.read_port(),
                              block.read_port())
        own = port(half, name)
        m.d.comb += [write.addr.eq(own.address), write.en.eq(own.enable), write.data.eq(own.data),
                     read.addr.eq(own.address), other.addr.eq((asked + 1 - half)[1:])]
        found.append(read.data)
        filled.append(other.data)
    even, odd = filled
    return found, Mux(turned, Cat(odd, even), Cat(even, odd))
