"""What Celosia raises when it refuses something, in words meant for the user."""


class CelosiaError(Exception):
    """A refusal that the user can act on. The command line prints it and exits with status 1."""


class ArgumentError(CelosiaError, ValueError):
    """An argument is outside its range; says the rule and the value."""


class CompileError(CelosiaError):
    """A model cannot be compiled: which layer, which operator, why, and the way out.

    node     : name of the layer (module path where the model has one) or tensor.
    operator : the operator, in the words of PyTorch.
    problem  : what is wrong, with numbers.
    remedy   : what the user can do.
    """

    def __init__(self, node: str, operator: str, problem: str, remedy: str) -> None:
        super().__init__(f"{node} ({operator}): {problem}; {remedy}")
        self.node = node
        self.operator = operator
        self.problem = problem
        self.remedy = remedy

    def __reduce__(self) -> tuple:
        return type(self), (self.node, self.operator, self.problem, self.remedy)
