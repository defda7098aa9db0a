"""Exact fusion: batch normalisation and average pooling go into the convolution before them.

Both are linear algebra (P0, section 4, before any retraining), so the network computes what it
computed, up to rounding, and that is checked. Layers that follow one another are found in the
traced graph (`torch.fx`), not by their names.
"""

from __future__ import annotations

import copy
from typing import Any

from torch import fx, nn

from celosia.compress.entry import entry
from celosia.compress.fusion.batchnorm import fold_batchnorm
from celosia.compress.fusion.graph import module_of, reads_besides, remove, used_once
from celosia.compress.fusion.modes import trace_both_modes
from celosia.compress.fusion.pools import pool_of, symmetric_padding, with_pool
from celosia.compress.fusion.unseen import refuse_unseen
from celosia.compress.layers import obstacle, weight_sharers
from celosia.compress.masks.weights import Mask
from celosia.compress.promise import Promise

__all__ = ["fold_average_pool", "fold_batchnorm", "folded_copy"]


@entry
def fold_average_pool(model: nn.Module, example_input: Any | None = None) -> fx.GraphModule:
    """Return a copy in which each average pool is part of the convolution in front of it.

    A pool p x p of stride q directly after a convolution k x k of stride s gives one convolution
    of size k + s (p - 1) and stride s q, its kernel the mean of shifted copies. That holds only
    without a ReLU between and without borders of the pool's own, so a pool with padding, with
    ``ceil_mode`` or with a divisor is left alone, as is every pool that follows anything else, or
    whose size comes from the map. The merged layer has the convolution's name; a mask stays one.

    Every fold is tried on random inputs before it is done. With an example, (N, ...), the outputs
    of the network are compared too; without one, what tracing does not look into is refused.

    Raises ArgumentError if the model cannot be traced, or does in train mode what the copy could
    not follow (`trace_both_modes`), or, without an example, as `refuse_unseen`, and CelosiaError if
    the copy computes something else.
    """
    promise = None if example_input is None else Promise(model, example_input)
    traced, folded = folded_copy(copy.deepcopy(model), promise)
    if promise is None:
        refuse_unseen(traced, model, inside=bool(folded))
    return traced


def folded_copy(model: nn.Module, promise: Promise | None) -> tuple[fx.GraphModule,
                                                                   tuple[str, ...]]:
    """Return the graph of a model that may be changed, its pools folded, and their names.

    promise : what the graph must compute before and after. Errors as `fold_average_pool`.
    """
    traced = trace_both_modes(model)
    if promise is not None:
        promise.check(traced, f"tracing {type(model).__name__}.forward by torch.fx")
    folded = _fold_pools(traced)
    if promise is not None and folded:
        promise.check(traced, f"folding {', '.join(map(repr, folded))}")
    traced.meta.clear()
    return traced, folded


def _fold_pools(traced: fx.GraphModule) -> tuple[str, ...]:
    """Do the work of `fold_average_pool` on a traced model, in place; return the pools' names."""
    folded = []
    for node in list(traced.graph.nodes):
        pool = pool_of(traced, node)
        if pool is None or pool.kind != "average" or not pool.plain:
            continue
        before = node.all_input_nodes[0]
        conv = module_of(traced, before)
        if (isinstance(conv, nn.Conv2d) and list(before.users) == [node]
                and used_once(traced, before) and symmetric_padding(conv) is not None
                and obstacle(conv, allowed=[Mask]) is None and not weight_sharers(traced, conv)
                and reads_besides(traced, conv) is None):
            merged = with_pool(conv, pool)
            if merged is None:
                continue
            traced.set_submodule(before.target, merged)
            folded.append(str(node.target) if node.op == "call_module" else node.name)
            remove(node)
    traced.delete_all_unused_submodules()
    traced.recompile()
    return tuple(folded)
