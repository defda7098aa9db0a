"""Where a node of an exported program comes from: the user's module, function and source line."""

import re
import traceback

from torch.fx import Node as FxNode

PASSIVE = frozenset({"view", "_unsafe_view", "permute", "clone", "alias", "detach", "expand",
                     "squeeze", "unsqueeze", "getitem", "_to_copy", "quantize_per_tensor",
                     "quantize_per_channel", "dequantize_per_tensor", "dequantize_per_channel"})
"""Operators that compute nothing. Many functions are made of one that computes and such."""

_FRAME = re.compile(r'File "([^"\n]*)", line (\d+), in [^\n]*(?:\n +(?!File ")([^\n]*))?')
_LIBRARY = ("/torch/nn/", "/torch/_", "/torch/fx/", "/torch/utils/", "/torch/export/",
            "<eval_with_key>", "/torch/functional.py", "/torch/tensor.py", "/torch/overrides.py",
            "/celosia/compress/fusion/graph.py", "/celosia/frontend/onnx/")


def operator(node: FxNode) -> str:
    """Return an operator's name in ATen."""
    schema = getattr(node.target, "_schema", None)
    if schema is not None:
        return str(schema.name).split("::")[-1]
    return str(getattr(node.target, "__name__", node.target))


def module(node: FxNode) -> tuple[str, str]:
    """Return path and class of the innermost module that a node was traced in."""
    stack = node.meta.get("nn_module_stack")
    if not stack:
        return "", ""
    path, kind = list(stack.values())[-1]
    return path, kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"


def torch_module(node: FxNode) -> str:
    """Return the class of the innermost module if it is one of torch's own layers, else ""."""
    _, kind = module(node)
    if not kind.startswith("torch.nn.") or "container" in kind:
        return ""
    return kind.rpartition(".")[2].removeprefix("Parametrized")


def layer(node: FxNode, word: str) -> str:
    """Return the module's path where a node is a module's own work, else one with ``word``."""
    path, _ = module(node)
    if not path:
        return word
    return path if torch_module(node) else f"{path}.{word}"


def call_of(node: FxNode) -> str:
    """Return what tells the user's calls of torch's functions apart: "silu_2"; "" if unknown."""
    return str((node.meta.get("torch_fn") or ("",))[0])


def function(node: FxNode) -> str:
    """Return the function of torch that the user called, or ``operator`` where it has no name.

    Python's own operators (``__rsub__``) are such.
    """
    name = str((node.meta.get("torch_fn") or ("", ""))[1]).rpartition(".")[2]
    return name.rstrip("_") if name.isidentifier() and not name.startswith("_") else ""


def source(node: FxNode) -> str | None:
    """Return the user's line that a node comes from, "net.py:12: x = self.act(x)", or None."""
    frames = _FRAME.findall(node.meta.get("stack_trace") or "")
    for path, line, code in reversed(frames):
        path = path.replace("\\", "/")
        if not any(part in path for part in _LIBRARY):
            return f"{path.rpartition('/')[2]}:{line}: {code.strip()}"
    return None


def source_of(error: BaseException) -> str | None:
    """Return the user's line that an error of the model's own code comes from, or None."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = frame.filename.replace("\\", "/")
        if not any(part in path for part in (*_LIBRARY, "/celosia/")) and "<" not in path:
            return f"{path.rpartition('/')[2]}:{frame.lineno}: {frame.line}"
    return None


def owner(parameter: str) -> str:
    """Return the path of the module that a parameter belongs to."""
    path, parametrised, _ = parameter.partition(".parametrizations.")
    return path if parametrised else parameter.rpartition(".")[0]
