"""From a program and its inputs to a job, and from the job's record to tensors."""

from dataclasses import dataclass, replace

import numpy as np

from celosia_boards.host.job import Job, Record
from celosia_spec.errors import SimulationError
from celosia_spec.isa import (
    EXPONENT_MAX,
    EXPONENT_MIN,
    ArrayConfig,
    Register,
    Space,
    memory_of,
)
from celosia_spec.program import Place, Program

__all__ = ["Session", "SimResult", "job_to_each_end"]

TIMEOUT_FACTOR, TIMEOUT_CYCLES = 4, 100_000
"""A run may take this many times the predicted cycles, plus this many."""


@dataclass(frozen=True, eq=False, kw_only=True)
class SimResult:
    """What N images gave.

    output       : int32 (N, C, H, W), output mantissas.   exponent : int32 (N,).
    saturated    : bool (N,), the machine's sticky flag.
    cycles       : int64 (N,), from the clock edge that accepts ``start`` to the one that raises
                   ``done``, counted outside the machine.
    counter_cycles : int64 (N,), the same by the machine's own counter.
    layer_cycles : int64 (N, descriptors); sums to ``cycles``. None where the machine tells none.
    tensors      : name -> (mantissa int32 (N, C, H, W), exponent int32 (N,)); empty unless asked
                   for. From a second, layer-by-layer run of every image.
    """

    output: np.ndarray
    exponent: np.ndarray
    saturated: np.ndarray
    cycles: np.ndarray
    counter_cycles: np.ndarray
    layer_cycles: np.ndarray | None
    tensors: dict[str, tuple[np.ndarray, np.ndarray]]


def _numbers(words: np.ndarray, space: Space, array: ArrayConfig) -> np.ndarray:
    """Return what uint32 words read from a memory say, int32."""
    [field] = memory_of(space).word(array).fields
    return field.decode(words.astype(np.int64)).astype(np.int32)


def _at(space: Space, addresses: np.ndarray) -> np.ndarray:
    """Return uint32 (n, 2): ``space`` beside every one of ``addresses``."""
    at = np.empty((addresses.size, 2), np.uint32)
    at[:, 0], at[:, 1] = space, addresses.reshape(-1)
    return at


class Session:
    """The job of one program and N inputs.

    program  : celosia_spec.program.Program.
    mantissa : int (N, C, H, W), input mantissas that fit the array's activation_bits.
    exponent : int (N,), -16 ... 15.
    tensors  : also run layer by layer and read every tensor that a descriptor writes.

    ValueError where shapes or ranges are wrong. ``job`` is what a simulator carries out.
    """

    def __init__(self, program: Program, mantissa: np.ndarray, exponent: np.ndarray, *,
                 tensors: bool) -> None:
        self.program = program
        mantissa, exponent = self._checked(np.asarray(mantissa), np.asarray(exponent))
        self._reads: list[np.ndarray] = []
        self._length = 0
        last = program.descriptors - 1
        runs, ends = [(0, last, 1)], []
        self._counter = self._read(Space.REGISTERS, np.array([Register.EVENTS]))
        self._output = self._read_tensor(program.graph.output)
        ends.append(self._length)
        self._tensors: dict[str, tuple[slice, slice]] = {}
        for index in range(program.descriptors if tensors else 0):
            runs.append((index, index, int(index == 0)))
            for name, place in program.places.items():
                if place.written == index:
                    self._tensors[name] = self._read_tensor(name)
            ends.append(self._length)
        source = program.places[program.graph.input]
        slot = np.array([program.slots[program.graph.input]])
        copies = len(source.addresses)
        words = np.tile(mantissa.reshape(len(mantissa), source.addresses[0].size), (1, copies))
        words = np.concatenate([words, exponent[:, None] & 0xFF], axis=1)
        self.job = Job(
            setup=self._setup(),
            input_at=np.concatenate([_at(source.space, source.addresses),
                                     _at(Space.EXPONENTS, slot)]),
            input_values=words.astype(np.int32).view(np.uint32),
            runs=np.array(runs, np.int64), read_at=np.concatenate(self._reads),
            read_ends=np.array(ends, np.int64),
            descriptors=np.array(program.descriptors, np.int64),
            max_cycles=np.array(TIMEOUT_FACTOR * program.predicted_cycles + TIMEOUT_CYCLES,
                                np.int64))

    def _checked(self, mantissa: np.ndarray, exponent: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        shape = self.program.places[self.program.graph.input].addresses.shape[1:]
        if mantissa.ndim != 4 or mantissa.shape[1:] != shape:
            raise ValueError(f"mantissa must be (N, {', '.join(map(str, shape))}), "
                             f"not {mantissa.shape}")
        if exponent.shape != mantissa.shape[:1]:
            raise ValueError(f"exponent must be ({len(mantissa)},), not {exponent.shape}")
        half = 1 << self.program.array.activation_bits - 1
        for name, values, low, high in (("mantissa", mantissa, -half, half - 1),
                                        ("exponent", exponent, EXPONENT_MIN, EXPONENT_MAX)):
            if not np.issubdtype(values.dtype, np.integer):
                raise ValueError(f"{name} must hold integers, not {values.dtype}")
            if values.size and not (low <= values.min() and values.max() <= high):
                raise ValueError(f"{name} must be {low} to {high}, "
                                 f"not {values.min()} to {values.max()}")
        return mantissa.astype(np.int64), exponent.astype(np.int64)

    def _setup(self) -> np.ndarray:
        """Return the writes that clear every bank, then load the program's images."""
        array = self.program.array
        images = {Space.BANKS: np.zeros(memory_of(Space.BANKS).depth(array), np.uint32),
                  **self.program.images}
        return np.concatenate([
            np.concatenate([_at(space, np.arange(len(words))),
                            np.asarray(words, np.uint32)[:, None]], axis=1)
            for space, words in images.items()])

    def _read(self, space: Space, addresses: np.ndarray) -> slice:
        self._reads.append(_at(space, addresses))
        start, self._length = self._length, self._length + addresses.size
        return slice(start, self._length)

    def _read_tensor(self, name: str) -> tuple[slice, slice]:
        place = self.program.places[name]
        return (self._read(place.space, place.addresses),
                self._read(Space.EXPONENTS, np.array([self.program.slots[name]])))

    def decode(self, record: Record) -> SimResult:
        """Return the tensors of ``record``; SimulationError where a tensor's copies differ."""
        output, exponent = self._tensor(record, self.program.graph.output, self._output)
        return SimResult(
            output=output, exponent=exponent, saturated=record.saturated[:, 0].astype(bool),
            cycles=record.cycles[:, 0], layer_cycles=record.layer_cycles,
            counter_cycles=record.reads[:, self._counter][:, 0].astype(np.int64),
            tensors={name: self._tensor(record, name, at) for name, at in self._tensors.items()})

    def _tensor(self, record: Record, name: str,
                at: tuple[slice, slice]) -> tuple[np.ndarray, np.ndarray]:
        place: Place = self.program.places[name]
        array = self.program.array
        mantissa = _numbers(record.reads[:, at[0]], place.space, array)
        copies = mantissa.reshape(len(mantissa), *place.addresses.shape)
        different = np.argwhere(copies != copies[:, :1])
        if len(different):
            image, copy, *element = (int(index) for index in different[0])
            values = copies[(image, copy, *element)], copies[(image, 0, *element)]
            raise SimulationError(
                f"tensor {name}: copy {copy} holds {values[0]} where copy 0 holds {values[1]}, at "
                f"element {tuple(element)} of image {image}; the machine and the program disagree")
        return copies[:, 0].copy(), _numbers(record.reads[:, at[1]][:, 0], Space.EXPONENTS, array)


def job_to_each_end(program: Program) -> Job:
    """Return the job that runs an input of zeros once to the end of each layer, the last one first.

    Its record's cycles, backwards, tell what the layers up to each one's end take together.
    """
    shape = program.places[program.graph.input].addresses.shape[1:]
    zeros = np.zeros((1, *shape), np.int64)
    job = Session(program, zeros, np.zeros(1, np.int64), tensors=False).job
    layers = program.descriptors
    return replace(job, runs=np.array([[0, k, 1] for k in reversed(range(layers))], np.int64),
                   read_at=job.read_at[:1], read_ends=np.ones(layers, np.int64))
