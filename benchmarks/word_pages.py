"""Write what the docs say about the machine's words and memories.

All of it comes from the tables of `celosia_spec.isa`. A page holds it between two comments,
``words: NAME``, ``memories: all`` or ``frames: all`` and ``end of words``, which this replaces.
``--check`` writes nothing and has exit status 1 where a page is not up to date.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.written_pages import main, replaced, table

from celosia_spec.isa import controls, frames, image, words
from celosia_spec.isa.array import Array
from celosia_spec.isa.fields import Field, Word
from celosia_spec.isa.memories import MEMORIES
from celosia_spec.isa.registers import STATUS

__all__ = ["PAGES", "page", "up_to_date"]

PAGES = (Path("docs") / "machine.md", Path("docs") / "host-port.md")
_BLOCK = re.compile(r"(<!-- (words|memories|frames): ([\w -]+) -->\n).*?(<!-- end of words -->)",
                    re.DOTALL)
_ARRAY = Array(clamp=True, drain=1, fill=2, flash=4)
"""The iCEBreaker's."""
_WORDS = {"weight": words.WEIGHT, "dense": words.DENSE, "tap": words.tap_word(_ARRAY),
          "batch": controls.BATCH, "command": controls.COMMAND, "op": controls.OPCODE,
          "chunk": controls.CHUNK, "status": STATUS,
          "request": frames.REQUEST, "reply": frames.REPLY, "rejected": frames.REJECTED,
          "address": frames.ADDRESS, "start": frames.START, "section": image.HEADER}
_RECORDS = {"tile": words.tile_words(_ARRAY), "layer": controls.LAYER.words,
            "head": controls.HEAD.words, "excess": controls.EXCESS.words,
            "table": controls.TABLE.words, "band": controls.BAND.words,
            "fill": controls.FILL.words, "close": controls.CLOSE.words,
            "join": controls.JOIN.words, "copy": controls.COPY.words}
"""Words in the order in which they stand in the stream."""


def page(text: str) -> str:
    """Return a page with its generated blocks made anew."""
    def made(match: re.Match[str]) -> str:
        if match[2] == "memories":
            lines = list(_memories())
        elif match[2] == "frames":
            lines = list(_frames())
        elif match[3] in _RECORDS:
            lines = list(_record(_RECORDS[match[3]]))
        else:
            lines = list(_word(_WORDS[match[3]]))
        return f"{match[1]}\n{table(lines)}\n\n{match[4]}"
    return _BLOCK.sub(made, text)


def up_to_date(write: bool) -> list[Path]:
    """Return the pages that are not up to date; with ``write`` they are made so."""
    return replaced(PAGES, page, write)


def _word(word: Word) -> Iterator[Sequence[str]]:
    yield "bits", "field", "values", "what it holds"
    yield ("---",) * 4
    for field, low in word.places():
        if field.name != "_":
            yield _bits(field, low), f"`{field.name}`", _values(field), _about(field)


def _record(words: Sequence[Word]) -> Iterator[Sequence[str]]:
    yield "word", "bits", "field", "values", "what it holds"
    yield ("---",) * 5
    for index, word in enumerate(words):
        for field, low in word.places():
            if field.name != "_":
                yield (str(index), _bits(field, low), f"`{field.name}`", _values(field),
                       _about(field))


def _memories() -> Iterator[Sequence[str]]:
    yield "number", "memory", "what it is", "an address is", "bits", "addresses", "written"
    yield ("---",) * 7
    for memory in MEMORIES:
        yield (str(int(memory.space)), f"`{memory.space.name}`", memory.about, memory.address,
               str(memory.word.bits), f"{memory.depth(_ARRAY):,}",
               "yes" if memory.writable else "no")


def _frames() -> Iterator[Sequence[str]]:
    head, data, end = f"`{frames.SYNC:02X}` · header", f"{frames.DATA_BYTES} data", (
        f"{frames.CRC_BYTES} CRC")
    place = f"{frames.ADDRESS_BYTES} address"
    yield "", "bytes", "in all"
    yield ("---",) * 3
    for name, parts, size in (
            ("request, long (WRITE)", (head, data, place, end), frames.LONG_REQUEST_BYTES),
            ("request, short (all others)", (head, place, end), frames.SHORT_REQUEST_BYTES),
            ("reply, long (DATA)", (head, data, end), frames.LONG_REPLY_BYTES),
            ("reply, short (all others)", (head, end), frames.SHORT_REPLY_BYTES)):
        yield name, " · ".join(parts), str(size)


def _bits(field: Field, low: int) -> str:
    return str(low) if field.bits == 1 else f"{low}..{low + field.bits - 1}"


def _about(field: Field) -> str:
    stored = f"; stored {'less' if field.offset > 0 else 'plus'} {abs(field.offset)}"
    return field.about + (stored if field.offset else "")


def _values(field: Field) -> str:
    return f"{field.least:,} to {field.most:,}"


if __name__ == "__main__":
    main(up_to_date, __doc__)
