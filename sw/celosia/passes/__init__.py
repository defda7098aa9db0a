"""Float graph to float graph, until nothing but linear nodes is left.

Every pass is a pure function in a file of its own; PASSES is the order they run in. Where the input
is wide, `apart` runs behind. Two more, `equalise` and `correct_bias`, take calibration inputs, and
`celosia.accuracy` runs them last.
"""

import sys
from collections.abc import Callable
from functools import partial

from celosia.graph import Graph
from celosia.graph_rules import verify
from celosia.graph_text import dump
from celosia.passes.average_to_linear import average_to_linear
from celosia.passes.copy_read import copy_read
from celosia.passes.correct_bias import correct_bias
from celosia.passes.curve_to_linear import curve_to_linear
from celosia.passes.equalise import equalise
from celosia.passes.fold_batchnorm import fold_batchnorm
from celosia.passes.fold_flatten import fold_flatten
from celosia.passes.fold_forward import fold_forward
from celosia.passes.fold_moves import fold_moves
from celosia.passes.fold_padding import fold_padding
from celosia.passes.fuse_epilogue import fuse_epilogue
from celosia.passes.join_outputs import Sizes, as_in, estimated, join_outputs, measured
from celosia.passes.leaky_to_linear import leaky_to_linear
from celosia.passes.leave_quantisers import leave_quantisers
from celosia.passes.lift_moves import lift_moves
from celosia.passes.pad_pools import pad_pools
from celosia.passes.part_pools import part_pools
from celosia.passes.product_to_linear import NONE, Scales, product_to_linear
from celosia.passes.rows_to_maps import rows_to_maps
from celosia.passes.select_nodes import select_nodes
from celosia.passes.vector_input import vector_input
from celosia.passes.wide_input import apart
from celosia_spec.errors import ArgumentError, located

PASSES: tuple[Callable[[Graph], Graph], ...] = (
    leave_quantisers, product_to_linear, lift_moves, fold_forward, fold_flatten, fold_padding,
    curve_to_linear, leaky_to_linear, fold_batchnorm, average_to_linear, pad_pools, fold_moves,
    vector_input, part_pools, fuse_epilogue, rows_to_maps, select_nodes, copy_read, join_outputs)


def check_pass(dump_after: str | None) -> None:
    """ArgumentError unless there is such a pass."""
    names = [step.__name__ for step in (*PASSES, equalise, correct_bias)]
    if dump_after not in (None, "all", *names):
        raise ArgumentError(f"dump_after must be 'all' or one of {', '.join(names)}, "
                            f"not {dump_after!r}")


def optimise(graph: Graph, dump_after: str | None = None,
             sizes: Sizes = estimated, scales: Scales = NONE) -> Graph:
    """Return the graph with every pass applied; afterwards all its nodes are Conv.

    dump_after : name of a pass, or "all": print the graph to stderr after it.
    sizes      : as `join_outputs` has it.   scales : as `product_to_linear` has them.

    CompileError where a pass cannot do its work, with the user's source line where it is known.
    """
    check_pass(dump_after)
    verify(graph)
    given = {"product_to_linear": partial(product_to_linear, scales=scales),
             "join_outputs": partial(join_outputs, sizes=sizes)}
    for step in PASSES:
        with located(graph.sources):
            graph = verify(given.get(step.__name__, step)(graph))
        if dump_after in ("all", step.__name__):
            print(f"# after {step.__name__}\n{dump(graph)}", end="", file=sys.stderr)
    return graph


__all__ = ["PASSES", "Scales", "Sizes", "apart", "as_in", "check_pass", "correct_bias", "equalise",
           "estimated", "measured", "optimise"]
