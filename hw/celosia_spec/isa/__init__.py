"""What the compiler, the gateware and the simulators agree on: array parameters, memory spaces,
descriptor fields, table words, error codes. Plain Python: imports neither Amaranth nor NumPy.

Every width and every field position of the machine stands here and nowhere else.
"""

import enum
import hashlib
import json
from dataclasses import asdict, dataclass

FORMAT_VERSION = 1
"""Version of descriptors and table words. Part of the array hash: another version is refused."""

BLOCK_BITS = 4
BLOCK = 1 << BLOCK_BITS
"""Channels a tap-table entry covers. A column index is ``tap_block * BLOCK + channel % BLOCK``."""

DELTA_BITS = 8
"""Width of the column-index step in a weight word (unsigned, 0 ... 255)."""

OUTPUT_BITS = 16
"""Mantissa width of tensors that leave the network, and of bias mantissas."""

ACCUMULATORS = (24, 32)
"""Accumulator widths W that an array can have, narrowest first."""

EXPONENT_MIN, EXPONENT_MAX = -16, 15
"""Range of a block exponent."""

EXPONENT_SLOTS = 32
"""Block exponents that the machine holds, one for each tensor of a program."""


PHASE_BITS = 5
"""Width of the pool-window counter: at most 32 window positions."""


class Space(enum.IntEnum):
    """Memory spaces of the host bus (``mem_space``). Unit of ``mem_address`` in the comment."""

    REGISTERS = 0  # Register
    PROGRAM = 1    # 16-bit words: descriptors and batch lengths
    WEIGHTS = 2    # weight words; address = port row * groups_max + slot
    ROWS = 3       # 32-bit row-table words
    TAPS = 4       # tap-table words (written to every group's copy)
    WRITES = 5     # write-table words
    BANKS = 6      # activation mantissas; address = bank row * lanes + bank
    STORE = 7      # accumulators, sign-extended to 32 bits; address = beat number * beat + element
    EXPONENTS = 8  # 8-bit signed block exponents; address = tensor slot
    RESIDUAL = 9   # residual mantissas; address = beat * beat_elements + element


COUNTER_BITS = 24
"""Width of the counter behind ``Register.EVENTS``; it goes on from 0 behind its end."""


class Register(enum.IntEnum):
    """Registers of ``Space.REGISTERS``. Reading changes nothing."""

    ARRAY_HASH = 0     # low 32 bits of ArrayConfig.hash
    STATUS = 1         # bit 0 busy, bit 1 saturated; bits 8..15 error; bits 16..23 the descriptor
                       # that runs, ran last, or raised the error
    EVENTS = 2         # cycles since start with the event that the host selected (Event)


class Event(enum.IntEnum):
    """What ``Register.EVENTS`` counts: written to ``Space.REGISTERS``, whatever the address."""

    CYCLE = 0          # every cycle from the edge that accepts start to the one that raises done
    STEP = 1           # a weight word was issued
    BUBBLE = 2         # a pass waited for the drain of the one before
    NORMALISE = 3      # normalising passes


class Error(enum.IntEnum):
    """Error codes. The machine stops at the descriptor that raised one; ``start`` clears it."""

    NONE = 0
    OPCODE = 1      # unknown opcode
    GROUPS = 2      # more row groups than the array has, or output groups likewise
    COUNT = 3       # a line of no positions
    PASS = 4        # a pass ended before the sums of the one before had drained
    RANGE = 5       # first descriptor after last, or a table address past its end


class Opcode(enum.IntEnum):
    LINEAR = 1


class Flag(enum.IntFlag):
    """Flag bits of descriptor word ``flags`` (bits 4 and up; bits 0..3 hold the opcode)."""

    RELU = 1 << 4
    STATIC = 1 << 5           # the output exponent is the descriptor's, not the tensor's maximum
    KEEP = 1 << 6             # the output exponent is the input's (select nodes)
    RESIDUAL_READ = 1 << 7
    RESIDUAL_WRITE = 1 << 8
    WIDE = 1 << 9             # 16-bit results into the store; no bank is written
    DEINTERLEAVE = 1 << 10    # a beat's elements are written in the order 0, 2, 1, 3; those of
                              # its second half go PLANE_ROWS further
    DIRECT = 1 << 11          # results go to the banks as they drain; no normalising pass
    JUMP = 1 << 12            # lines are one position group apart: add IN_CHANNELS at a line end


class Word(enum.IntEnum):
    """Descriptor layout: index of each 16-bit word. Unsigned unless said otherwise.

    The order matters: the first ``PREFETCH_WORDS`` are not used any more while a layer is being
    normalised, so the next layer's replace them meanwhile; from ``FLAGS`` on they are used until a
    walk's last result is written, while the words before them are being loaded.
    """

    INPUT_SLOT = 0       # exponent slots: bits 0..7 input, 8..15 output
    RESIDUAL_SLOT = 1
    LAST_PHASE = 2       # max-pool window positions - 1; 0 without pooling
    LINE = 3             # output line width, positions
    TAP_BASE = 4         # first tap-table entry of phase 0
    TAP_STEP = 5         # entries from one phase to the next
    WEIGHT_BASE = 6      # first port row of the layer's weight words
    LENGTH_BASE = 7      # first batch word in program memory
    IN_BASE = 8          # first bank row of the input map
    IN_CHANNELS = 9      # bank rows from one position group to the next
    EXPONENT = 10        # bits 0..7 signed: static exponent; 8..15 signed: smallest exponent
    CLEAR_BASE = 11      # first bank row to clear before the layer starts
    CLEAR_ROWS = 12      # rows to clear
    RESIDUAL_READ = 13   # first beat in the residual store
    LAST_BATCH = 14      # row batches - 1; a batch is one row a group
    LAST_TILE = 15       # tiles - 1; a tile is lanes / groups output positions
    LAST_POSITION = 16   # output positions of one row - 1
    ROW_BASE = 17        # first row-table word
    WRITE_BASE = 18      # first write-table entry
    WRITE_STEP = 19      # bank rows added to every write from one batch to the next
    FLAGS = 20           # opcode and Flag bits
    GROUPS = 21          # bits 0..3 log2 row groups; 4..7 log2 of the consumer's row groups
    WRITE_CARRY = 22     # bank rows from one position group to the next in the output map
    PLANE_ROWS = 23      # bank rows from the even to the odd plane of a deinterleaved map
    RESIDUAL_WRITE = 24


PREFETCH_WORDS = Word.LAST_BATCH
DESCRIPTOR_WORDS = len(Word)

# Row-table word (32 bits): bias mantissa, weight exponent s_w, bias exponent s_b - s_w.
ROW_BIAS = (0, 16)        # signed 16-bit bias mantissa: (lowest bit, width)
ROW_SW = (16, 6)          # signed exponent of the weight mantissas' least significant bit
ROW_SB = (22, 8)          # signed: s_b - s_w


BATCH_WAIT_BITS = 4
"""Batch word (16 bits): steps of a pass minus one, and above them the cycles that a pass waits
before its first step."""
BATCH_STEP_BITS = 16 - BATCH_WAIT_BITS
BATCH_STEPS_MAX, BATCH_WAIT_MAX = 1 << BATCH_STEP_BITS, (1 << BATCH_WAIT_BITS) - 1


def pack_batch(steps: int, wait: int) -> int:
    """Return the batch word; 1 <= steps <= BATCH_STEPS_MAX, 0 <= wait <= BATCH_WAIT_MAX."""
    assert 1 <= steps <= BATCH_STEPS_MAX and 0 <= wait <= BATCH_WAIT_MAX
    return steps - 1 | wait << BATCH_STEP_BITS


def pack_row(bias: int, sw: int, sb_minus_sw: int) -> int:
    """Return the row-table word of one row; ValueError where a field does not fit."""
    word = 0
    fields = ((ROW_BIAS, bias), (ROW_SW, sw), (ROW_SB, sb_minus_sw))
    for (low, width), value in fields:
        if not -(1 << width - 1) <= value < 1 << width - 1:
            raise ValueError(f"row field at bit {low} must fit {width} signed bits, not {value}")
        word |= (value & (1 << width) - 1) << low
    return word


@dataclass(frozen=True, kw_only=True)
class ArrayConfig:
    """Parameters of one array: everything that a program must match.

    lanes          : multipliers, accumulators and activation banks; a power of two, 4 to 64.
    quad           : lanes of the smallest row group; a power of two. ``lanes / quad`` groups have
                     a weight word of their own each cycle.
    beat           : elements the output stage handles a cycle; a power of two, at most ``quad``.
    weight_rows    : depth of the weight memory, port rows of ``groups_max`` weight words.
    bank_rows      : depth of an activation bank, mantissas.
    table_rows     : depth of the row table, rows.
    taps           : depth of the tap table, entries.
    writes         : depth of the write table, entries.
    program_words  : depth of the program memory, 16-bit words.
    store_beats    : depth of the accumulator store, beats.
    residual_beats : depth of the residual store, beats; 0 leaves residual operands out.
    acc_bits       : accumulator width W, 24 or 32.
    weight_bits, activation_bits : mantissa widths of the multipliers' operands, 4 to 9.
    index_bits     : width of a column index.
    count_bits     : width of the machine's counters: batches, tiles, positions, line width and
                     batch lengths stay below ``2**count_bits``.
    wide_elements  : elements of a beat that can be rounded to 16 bits, 1 or ``beat``; with 1 the
                     network's output must be a vector.
    replicate      : a weight word for several quads stands in the slots of all of them: more
                     weight memory, no multiplexers behind it.
    clearing       : the machine can clear bank rows between layers; without it, maps with zero
                     padding cannot share their place with others.
    deep           : pipeline registers for devices with slow memories and fast logic.
    """

    lanes: int
    quad: int = 4
    beat: int = 4
    weight_rows: int = 4096
    bank_rows: int = 512
    table_rows: int = 256
    taps: int = 256
    writes: int = 256
    program_words: int = 256
    store_beats: int = 256
    residual_beats: int = 0
    acc_bits: int = 24
    weight_bits: int = 8
    activation_bits: int = 8
    index_bits: int = 13
    count_bits: int = 16
    wide_elements: int = 1
    replicate: bool = False
    clearing: bool = True
    deep: bool = False

    def __post_init__(self) -> None:
        for name, low, high in (("lanes", 4, 64), ("quad", 2, 16), ("beat", 2, 8)):
            value = getattr(self, name)
            if not low <= value <= high or value & value - 1:
                raise ValueError(f"{name} must be a power of two, {low} to {high}, not {value!r}")
        if not self.beat <= self.quad <= self.lanes:
            raise ValueError(f"beat ({self.beat}) must be at most quad ({self.quad}), and quad at "
                             f"most lanes ({self.lanes})")
        if self.acc_bits not in ACCUMULATORS:
            raise ValueError(f"acc_bits must be 24 or 32, not {self.acc_bits!r}")
        for name in ("weight_bits", "activation_bits"):
            value = getattr(self, name)
            if not 4 <= value <= 9:
                raise ValueError(f"{name} must be 4 to 9, not {value!r}")
        for name in ("weight_rows", "bank_rows", "table_rows", "taps", "writes", "program_words",
                     "store_beats"):
            value = getattr(self, name)
            if not 4 <= value <= 65536:
                raise ValueError(f"{name} must be 4 to 65536, not {value!r}")
        if not 8 <= self.count_bits <= 16:
            raise ValueError(f"count_bits must be 8 to 16, not {self.count_bits!r}")
        if self.wide_elements not in (1, self.beat):
            raise ValueError(f"wide_elements must be 1 or beat ({self.beat}), "
                             f"not {self.wide_elements!r}")
        if not 0 <= self.residual_beats <= 65536:
            raise ValueError(f"residual_beats must be 0 to 65536, not {self.residual_beats!r}")

    @property
    def groups_max(self) -> int:
        """Row groups the array can be split into; also weight words a port row holds."""
        return self.lanes // self.quad

    @property
    def pass_beats(self) -> int:
        """Beats of one pass: cycles in which its sums drain."""
        return self.lanes // self.beat

    @property
    def weight_word_bits(self) -> int:
        """Weight word: mantissa in the low bits, column-index step above it."""
        return self.weight_bits + DELTA_BITS

    @property
    def lane_bits(self) -> int:
        return self.lanes.bit_length() - 1

    @property
    def beat_bits(self) -> int:
        return self.beat.bit_length() - 1

    @property
    def bank_row_bits(self) -> int:
        return (self.bank_rows - 1).bit_length()

    # Tap-table word: rotation in the low bits, bank-row offset above it.
    @property
    def tap_word_bits(self) -> int:
        return self.lane_bits + self.bank_row_bits

    def pack_tap(self, row: int, rotation: int) -> int:
        """Return the tap-table word: ``row`` bank rows (modulo bank_rows), ``rotation`` banks."""
        assert 0 <= rotation < self.lanes
        return rotation | (row % (1 << self.bank_row_bits)) << self.lane_bits

    # Write-table word, from the lowest bit: last (1), count - 1, first bank, bank row.
    @property
    def write_word_bits(self) -> int:
        return 1 + self.beat_bits + self.lane_bits + self.bank_row_bits

    def pack_write(self, *, last: bool, count: int, bank: int, row: int) -> int:
        """Return the write-table word: the next ``count`` elements of the beat go to consecutive
        positions starting at ``bank`` (modulo the consumer's group) and bank row ``row``."""
        assert 1 <= count <= self.beat and 0 <= bank < self.lanes
        return (int(last) | (count - 1) << 1 | bank << 1 + self.beat_bits
                | (row % (1 << self.bank_row_bits)) << 1 + self.beat_bits + self.lane_bits)

    @property
    def hash(self) -> int:
        """32-bit hash over all parameters and the format version; the gateware carries it."""
        return array_hash(self)


def array_hash(array: ArrayConfig, version: int = FORMAT_VERSION) -> int:
    """Return the hash that gateware of a format version carries for an array."""
    text = json.dumps([version, asdict(array)], sort_keys=True)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")
