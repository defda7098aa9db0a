"""The golden model: what every bit of a quantised graph is, in NumPy.

``docs/numerics.md`` defines the arithmetic. Nothing here knows of lanes, tiles or schedules.
"""

from celosia_sim.golden.model import GoldenResult, input_saturated, quantise_input, run

__all__ = ["GoldenResult", "input_saturated", "quantise_input", "run"]
