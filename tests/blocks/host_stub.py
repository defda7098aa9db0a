"""Stand-in for the machine behind the host bus: memories, and a program that only takes time.

Plain Python, one call a clock cycle: the tests in Amaranth's simulator and in Verilator share it.
"""

from dataclasses import dataclass, field
from typing import ClassVar

BUS_INPUTS = ("mem_space", "mem_address", "mem_write", "mem_wdata", "mem_read", "start",
              "start_list", "abort")
"""Signals the machine reads, in the order of ``HostStub.step``'s argument."""

BUS_OUTPUTS = ("mem_rdata", "mem_rvalid", "busy", "error", "saturated")
"""Signals the machine drives, the keys of what ``HostStub.step`` returns."""


@dataclass(kw_only=True)
class HostStub:
    """Behaves as the host bus says, and records what was asked of it.

    latency    : cycles from ``mem_read`` to ``mem_rvalid``, at least 1; 0 never answers.
    run_cycles : cycles ``busy`` lasts after ``start``.
    word_bits  : width of a memory word; more bits of ``mem_wdata`` are ignored.
    error, saturated : what the machine shows on these signals.
    memory     : words by (space, address). Others read as ``0xA5000000 | address``.
    effects    : everything that happened, in order: ("write", space, address, word),
                 ("start", word), ("abort",).
    """

    latency: int = 2
    run_cycles: int = 100
    word_bits: int = 32
    error: int = 0
    saturated: int = 0
    memory: dict[tuple[int, int], int] = field(default_factory=dict)
    effects: list[tuple[object, ...]] = field(default_factory=list)
    _busy: int = 0
    _reads: list[tuple[int, int]] = field(default_factory=list)

    inputs: ClassVar[tuple[str, ...]] = BUS_INPUTS
    """Names of what `step` takes."""

    def step(self, inputs: tuple[int, ...]) -> dict[str, int]:
        """Take the signals before a clock edge; return the machine's outputs after it."""
        bus = dict(zip(BUS_INPUTS, inputs, strict=True))
        place = bus["mem_space"], bus["mem_address"]
        self._busy = max(self._busy - 1, 0)
        if bus["mem_write"] or bus["mem_read"] or bus["start"]:
            assert not self._busy, "access while busy"
        if bus["mem_write"]:
            self.memory[place] = bus["mem_wdata"] & (1 << self.word_bits) - 1
            self.effects.append(("write", *place, self.memory[place]))
        if bus["start"]:
            self._busy = self.run_cycles
            self.effects.append(("start", bus["start_list"]))
        if bus["abort"]:
            self._busy = 0
            self.effects.append(("abort",))
        word, valid = self._answer(bus["mem_read"], place)
        return {"mem_rdata": word, "mem_rvalid": valid, "busy": int(self._busy > 0),
                "error": self.error, "saturated": self.saturated}

    def _answer(self, read: int, place: tuple[int, int]) -> tuple[int, int]:
        """Return (mem_rdata, mem_rvalid) after an edge at which ``read`` may ask for a word."""
        self._reads = [(left - 1, word) for left, word in self._reads]
        if read and self.latency:
            assert not self._reads, "a second read outstanding"
            word = self.memory.get(place, 0xA5000000 | place[1])
            self._reads.append((self.latency - 1, word))
        if self._reads and self._reads[0][0] == 0:
            return self._reads.pop()[1], 1
        return 0xDEADBEEF, 0


@dataclass(kw_only=True)
class KeepingStub(HostStub):
    """As the machine's bus says: it keeps four elements, of 16 bits each."""

    word_bits: int = 16
    inputs: ClassVar[tuple[str, ...]] = (*BUS_INPUTS, "mem_keep", "mem_kept")
    _kept: list[int] = field(default_factory=lambda: [0] * 4)

    def step(self, inputs: tuple[int, ...]) -> dict[str, int]:
        *others, keep, kept = inputs
        bus = dict(zip(BUS_INPUTS, others, strict=True))
        assert not (keep and self._busy > 1), "elements are kept while busy"
        outputs = super().step(tuple(others))
        if kept:
            outputs["mem_rdata"] = self._kept[0]
        outputs["mem_rdata"] &= 0xFFFF
        if keep:
            self._kept = [*self._kept[1:], bus["mem_wdata"]]
        return outputs
