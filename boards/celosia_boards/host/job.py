"""What is to be done with the machine, as plain arrays, and how to read what it brings back.

A job knows bus writes, starts and bus reads, and nothing of networks: the driver of a board, the
compiled loop and the cocotb bench carry out the same job and return the same record. This file
imports NumPy and the formats only, since it is also imported inside the simulator.
"""

import enum
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Self

import numpy as np

__all__ = ["READ_LATENCY_MAX", "RESET_CYCLES", "WRITE_CYCLES", "Failure", "Job", "Record",
           "Stopped"]

RESET_CYCLES = 4
"""Cycles that reset is held before the first bus access."""

WRITE_CYCLES = 8
"""Cycles from the last bus write to what may depend on it; more than the machine needs."""

READ_LATENCY_MAX = 64
"""Cycles after which a read without an answer is given up."""


@dataclass(frozen=True, eq=False, kw_only=True)
class _Arrays:
    """A dataclass of arrays that is saved as one .npz file."""

    def save(self, path: Path) -> None:
        np.savez(path, **{field.name: getattr(self, field.name) for field in fields(self)})

    @classmethod
    def load(cls, path: Path) -> Self:
        with np.load(path, allow_pickle=False) as file:
            return cls(**{field.name: file[field.name] for field in fields(cls)})


@dataclass(frozen=True, eq=False, kw_only=True)
class Job(_Arrays):
    """Bus writes, then for each image: the input, a run, and reads.

    setup        : uint32 (writes, 3): space, address, value. Once, after reset.
    input_at     : uint32 (words, 2): space and address of every word of an image's input.
    input_values : uint32 (images, words).
    start        : int64 (): word of main memory where the list of chunks begins.
    read_at      : uint32 (reads, 2): space and address of what is read after each run.
    max_cycles   : int64 (): a run that takes longer is stopped.
    """

    setup: np.ndarray
    input_at: np.ndarray
    input_values: np.ndarray
    start: np.ndarray
    read_at: np.ndarray
    max_cycles: np.ndarray

    @property
    def images(self) -> int:
        return len(self.input_values)

    def first(self, images: int) -> Self:
        """Return the job of only the first so many images."""
        return replace(self, input_values=self.input_values[:images])


@dataclass(frozen=True, eq=False, kw_only=True)
class Record(_Arrays):
    """What came back.

    cycles       : int64 (images,), from the clock edge that accepts ``start`` to the one that
                   raises ``done``: counted at the ports by simulators, by the machine on a board.
    saturated    : bool (images,).
    reads        : uint32 (images, reads).
    """

    cycles: np.ndarray
    saturated: np.ndarray
    reads: np.ndarray

    @classmethod
    def empty(cls, job: Job) -> Self:
        """Return a record of the right shapes, all zeros."""
        images = job.images
        return cls(cycles=np.zeros(images, np.int64), saturated=np.zeros(images, np.bool_),
                   reads=np.zeros((images, len(job.read_at)), np.uint32))


class Failure(enum.IntEnum):
    """Why a job was stopped."""

    TIMEOUT = 1     # neither done nor an error code
    ERROR = 2       # an error code
    NO_ANSWER = 3   # no answer to a bus read


class Stopped(Exception):
    """A job could not be finished. All fields are integers.

    failure : Failure.   image : where.   code : the machine's error.
    """

    def __init__(self, failure: int, image: int, code: int) -> None:
        super().__init__(failure, image, code)
        self.failure = Failure(failure)
        self.image, self.code = image, code

    def save(self, path: Path) -> None:
        np.save(path, np.array(self.args, np.int64))

    @classmethod
    def load(cls, path: Path) -> Self:
        return cls(*np.load(path, allow_pickle=False).tolist())
