"""Reading a ``.pt2`` file without running anything in it.

``torch.export.load`` trusts its file: it unpickles weights, constants and sample inputs, loads
shared libraries, looks up any function of torch by name, evaluates shapes as Python, and builds
Python source out of the names in the graph. So Celosia reads the archive itself and takes over,
piece by piece, only what is known to be plain data; torch gets a new archive made of that.

    archive  : the entries of the file, and the new archive
    program  : the graph, its signature and its inputs
    graph    : operators and their arguments
    operators: those that a file may name
    shapes   : expressions of open shapes
    tensors  : weights and constants, against the bytes that are there
    checks   : names, numbers and fields
"""

from celosia.frontend.pt2.archive import Program, read

__all__ = ["Program", "read"]
