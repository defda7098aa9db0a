"""The words that arguments and options of the methods may be."""

__all__ = ["CONSTANTS", "COUPLED", "OPTIMIZERS", "PLACES", "RULES", "SCHEMES", "SCOPES",
           "SELECTIONS", "STEPS"]

SCOPES = ("layer", "global")
"""Where weights or filters compete."""

SELECTIONS = ("topk_abs", "sun2016")
"""How the weights of a layer are picked by their scores."""

COUPLED = ("keep", "prune")
"""What becomes of convolutions whose outputs are added."""

CONSTANTS = ("fold", "drop")
"""What becomes of a removed filter's map where it is a number further on."""

PLACES = ("mask", "gamma")
"""What carries a filter's mask: a factor of its own, or the batch normalisation's."""

STEPS = ("subgradient", "proximal")
"""How masks are drawn towards 0."""

OPTIMIZERS = ("adamw", "sgd")
"""What trains."""

RULES = ("energy", "speedup", "evbmf", "curve")
"""What gives ranks."""

SCHEMES = ("channel", "spatial")
"""How a convolution's weights are a matrix."""
