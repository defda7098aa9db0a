# amaranth: UnusedElaboratable=no
"""Many images in the compiled loop: bits and cycles."""

import numpy as np

from celosia.bands.program import stream_program
from celosia.bands.simulate import simulate
from celosia_sim import golden
from celosia_spec.stream.array import Array
from stream.networks import residual_network


def test_many_images():
    program = stream_program(residual_network(), Array(main_words=1024))
    rng = np.random.default_rng(1)
    images = rng.random((40, *program.graph.tensors["x"].user_shape)).astype(np.float32)
    images *= rng.choice([0.01, 1.0, 40.0], (40, 1, 1, 1))
    done = []
    found = simulate(program, images, progress=lambda *at: done.append(at))
    wanted, name = golden.run(program.graph, images), program.graph.output
    assert np.array_equal(found.output, wanted.mantissas[name])
    assert np.array_equal(found.exponent, wanted.exponents[name])
    assert np.array_equal(found.saturated, wanted.saturated)
    assert len(set(found.cycles)) == 1
    assert done == [(count, 40) for count in range(1, 41)]
