"""Boards that amaranth-boards lacks, or describes without what Celosia needs.

The first line of each module says why it is there. A resource ``led`` is on at 1 whatever its
polarity; a resource that a target holds (`Target.held`) is at a high level at 1.
"""
