"""Modules beside the graphs that are made of them."""

import warnings

import numpy as np
import torch
from torch import nn

from celosia.graph import Graph
from celosia.passes import optimise
from celosia.quantise import quantise
from celosia_sim import golden

SHAPE = (1, 4, 8, 8)


def quiet(function, *args, **kwargs):
    """Call into torch.export with the warnings of its own code left out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*args, **kwargs)


def example(shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.zeros(shape, dtype=np.float32)


def snr(model: nn.Module, graph: Graph, shape: tuple[int, ...], count: int = 4) -> float:
    """Return the signal-to-noise ratio of the golden model against PyTorch, dB; 9-bit mantissas."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(count, *shape[1:])).astype(np.float32)
    training = model.training
    with torch.no_grad():
        wanted = np.concatenate([model.eval()(torch.tensor(image[None])).numpy() for image in x])
    model.train(training)
    quantised = quantise(optimise(graph), weight_bits=9, activation_bits=9)
    assert quantised.tensors[quantised.output].user_shape == wanted.shape[1:]
    result = golden.run(quantised, x)
    exponents = result.exponents[quantised.output].reshape(-1, *[1] * (wanted.ndim - 1))
    got = np.ldexp(result.mantissas[quantised.output].reshape(wanted.shape).astype(float),
                   exponents - 14)
    noise = np.sum((got - wanted) ** 2)
    return np.inf if noise == 0 else 10 * np.log10(np.sum(wanted.astype(float) ** 2) / noise)
