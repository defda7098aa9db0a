"""The simulators' one exception."""

from celosia.errors import CelosiaError


class SimulationError(CelosiaError):
    """A simulation could not be run, or the simulated machine did not do its work.

    The message is one line and names the tool, layer or tensor, and the way out.
    """
