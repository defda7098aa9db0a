"""Block floating point: the quantiser, emulation of a network, and the model of its noise."""
