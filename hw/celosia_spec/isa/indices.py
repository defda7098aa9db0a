"""Positions in descriptors as numbers, for those that do not name fields yet."""

import enum


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
    CLAMP = 1 << 13           # where the output has the exponent EXPONENT, a bound holds


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
    GROUPS = 21          # bits 0..3 log2 row groups; 4..7 log2 of the consumer's row groups;
                         # bits 8..15 the bound of a clamp
    WRITE_CARRY = 22     # bank rows from one position group to the next in the output map
    PLANE_ROWS = 23      # bank rows from the even to the odd plane of a deinterleaved map
    RESIDUAL_WRITE = 24
