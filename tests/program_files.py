"""A small program, and whether two of them are the same."""

from dataclasses import fields, is_dataclass

import numpy as np
from scipy.sparse import csr_array

from celosia.bands.schedule import stream_schedule
from celosia.program import Program, program_of
from celosia_boards.targets import target
from celosia_spec.epilogue import Dynamic, Epilogue, Pool, Relu, Static
from celosia_spec.qgraph import Geometry, NodeKind, QGraph, QNode, QTensor

ARRAY = target("hx8k").array


def make_program(exponents: str = "dynamic") -> Program:
    """Return a small program: a pooled convolution with padding, and a linear layer."""
    def rule(least: int) -> Dynamic | Static:
        return Dynamic(least=least) if exponents == "dynamic" else Static(value=3, least=least)

    tensors = [
        QTensor(name="x", shape=(1, 4, 4), user_shape=(1, 4, 4), bits=8, exponent=rule(-9)),
        QTensor(name="conv1", shape=(2, 1, 2), user_shape=(2, 1, 2), bits=8, exponent=rule(-16)),
        QTensor(name="y", shape=(3, 1, 1), user_shape=(3,), bits=16, exponent=rule(-16))]
    first = csr_array((np.array([5, -7, 127], np.int16), np.array([0, 3, 1]),
                       np.array([0, 2, 3])), shape=(2, 4))
    second = csr_array(np.array([[1, 0, 0, -2], [0, 0, 0, 0], [9, 8, 7, 6]], np.int16))
    zeros = np.zeros(3, np.int64)
    nodes = (
        QNode(name="conv1", kind=NodeKind.CONV, inputs=("x",), output="conv1", matrix=first,
              weights=8,
              geometry=Geometry(kernel=(2, 2), padding=(0, 1, 0, 0)), sw=np.array([-7, -6]),
              bias=np.array([100, 0]), sb=np.array([-14, -6]),
              epilogue=Epilogue(activation=Relu(), pool=Pool(window=(2, 2), stride=(2, 2))),
              raised=((1, 3),)),
        QNode(name="fc1", kind=NodeKind.LINEAR, inputs=("conv1",), output="y", matrix=second,
              weights=12, geometry=Geometry(kernel=(1, 2)), sw=zeros - 6, bias=zeros, sb=zeros - 6))
    graph = QGraph(tensors={tensor.name: tensor for tensor in tensors}, nodes=nodes, input="x",
                   output="y", weight_bits=8, activation_bits=8, acc_bits=24,
                   remarks=("the bias of row 0 of conv1 holds x",))
    return program_of(stream_schedule(graph, ARRAY), target="hx8k", exponents=exponents)


def same(left: object, right: object) -> bool:
    """Equal values, arrays element by element and type by type."""
    if isinstance(left, np.ndarray):
        return left.dtype == right.dtype and np.array_equal(left, right)
    if isinstance(left, csr_array):
        return left.shape == right.shape and all(
            np.array_equal(getattr(left, part), getattr(right, part))
            for part in ("data", "indices", "indptr"))
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, tuple | list):
        return (type(left) is type(right) and len(left) == len(right)
                and all(map(same, left, right)))
    if is_dataclass(left):
        return type(left) is type(right) and all(
            same(getattr(left, field.name), getattr(right, field.name)) for field in fields(left))
    return left == right and type(left) is type(right)
