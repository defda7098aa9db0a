"""Write what the docs say about the machine's words and memories.

All of it comes from the tables of `celosia_spec.isa`. A page holds it between two comments,
``words: NAME`` or ``memories: all`` and ``end of words``, which this replaces. ``--check`` writes
nothing and has exit status 1 where a page is not up to date.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.written_pages import main, replaced, table

from celosia_spec.isa import (
    BATCH,
    DESCRIPTOR,
    DESCRIPTOR_WORDS,
    MEMORIES,
    PREFETCH_WORDS,
    ROW,
    STATUS,
    ArrayConfig,
    frames,
    tap_word,
    weight_word,
    write_word,
)
from celosia_spec.isa.descriptor import WORD_BITS
from celosia_spec.isa.fields import Field, Word

__all__ = ["PAGES", "page", "up_to_date"]

PAGES = (Path("docs") / "machine.md", Path("docs") / "host-port.md")
_BLOCK = re.compile(r"(<!-- (words|memories): ([\w -]+) -->\n).*?(<!-- end of words -->)",
                    re.DOTALL)
_ARRAY = ArrayConfig(
    lanes=8, quad=2, beat=2, weight_rows=512, bank_rows=512, table_rows=256, taps=256, writes=256,
    program_words=256, store_beats=512, index_bits=12, count_bits=12)
"""A small one."""
_WORDS = {"row": ROW, "batch": BATCH, "status": STATUS, "weight": weight_word(_ARRAY),
          "tap": tap_word(_ARRAY), "write": write_word(_ARRAY), "request": frames.REQUEST,
          "reply": frames.REPLY, "rejected": frames.REJECTED, "address": frames.ADDRESS,
          "start": frames.DESCRIPTORS}


def page(text: str) -> str:
    """Return a page with its generated blocks made anew."""
    def made(match: re.Match[str]) -> str:
        head = ""
        if match[2] == "memories":
            lines = list(_memories())
        elif match[3] == "descriptor":
            lines = list(_descriptor())
            head = (f"\nA descriptor is {DESCRIPTOR_WORDS} words of {WORD_BITS} bits. The next "
                    f"layer's first {PREFETCH_WORDS} are loaded while this one's results\nare "
                    f"normalised.\n")
        else:
            lines = list(_word(_WORDS[match[3]]))
        return f"{match[1]}{head}\n{table(lines)}\n\n{match[4]}"
    return _BLOCK.sub(made, text)


def up_to_date(write: bool) -> list[Path]:
    """Return the pages that are not up to date; with ``write`` they are made so."""
    return replaced(PAGES, page, write)


def _word(word: Word) -> Iterator[Sequence[str]]:
    yield "bits", "field", "values", "what it holds"
    yield ("---",) * 4
    for field, low in word.places():
        if field.name != "_":
            stored = f"; stored less {field.offset}" if field.offset else ""
            yield _bits(field, low), f"`{field.name}`", _values(field), field.about + stored


def _descriptor() -> Iterator[Sequence[str]]:
    yield "word", "bits", "field", "what it holds", "read by"
    yield ("---",) * 5
    for field in DESCRIPTOR.fields:
        index, low = DESCRIPTOR.places[field.name]
        sign = ", signed" if field.signed else ""
        yield (str(index), _bits(field, low), f"`{field.name}`", field.about + sign,
               ", ".join(field.readers))


def _memories() -> Iterator[Sequence[str]]:
    yield ("number", "memory", "what it is", "an address is", "bits", "addresses", "written",
           "read back")
    yield ("---",) * 8
    for memory in MEMORIES:
        yield (str(int(memory.space)), f"`{memory.space.name}`", memory.about, memory.address,
               str(memory.bits(_ARRAY)), f"{memory.depth(_ARRAY):,}",
               *("yes" if may else "no" for may in (memory.writable, memory.readable)))


def _bits(field: Field, low: int) -> str:
    return str(low) if field.bits == 1 else f"{low}..{low + field.bits - 1}"


def _values(field: Field) -> str:
    return f"{field.least:,} to {field.most:,}"


if __name__ == "__main__":
    main(up_to_date, __doc__)
