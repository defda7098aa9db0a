"""What the commands that change a network share: its data, its weights, measuring, and results."""

import copy
import json
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from celosia import api, backends
from celosia.cli import common
from celosia.cli.preprocessing import Rule
from celosia_spec.errors import CelosiaError, quoted, refusals, said
from celosia_spec.files import check_folder, check_output, replacing

if TYPE_CHECKING:
    from celosia.compress import FineTune

CALIBRATION = 1000
"""Most training inputs that a method may look at to score weights."""
SEARCH_IMAGES = 5000
"""Most training images that a search for rates looks at; a tenth of them if that is less."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Data:
    """Network inputs float32 (N, ...) and labels int64 (N,), as tensors; training and test.

    choices : name of the set and how its images became inputs, for the record of a run.
    """

    train_inputs: Any
    train_labels: Any
    test_inputs: Any
    test_labels: Any
    choices: dict[str, Any]

    @property
    def calibration(self) -> Any:
        """Training inputs that a method may look at to score weights."""
        return self.train_inputs[:CALIBRATION]

    @property
    def example(self) -> np.ndarray:
        """One input, float32 (1, ...)."""
        return np.asarray(self.test_inputs[:1].numpy())


def load_data(source: str | None, rule: Rule) -> Data | None:
    """Return a data set (`celosia.datasets.load_dataset`) as network inputs; None without one."""
    import torch

    from celosia import datasets

    if source is None:
        return None
    with refusals(TypeError):
        loaded = datasets.load_dataset(source)
        inputs = [torch.from_numpy(datasets.as_inputs(images, *rule))
                  for images in (loaded.train_images, loaded.test_images)]
        choices = {"data": loaded.name, **datasets.input_rule(loaded.train_images, *rule),
                   "train_images": len(inputs[0]), "test_images": len(inputs[1])}
    return Data(train_inputs=inputs[0], train_labels=torch.from_numpy(loaded.train_labels),
                test_inputs=inputs[1], test_labels=torch.from_numpy(loaded.test_labels),
                choices=choices)


def trainer(
    data: Data | None, epochs: int | None, learning_rate: float | None, optimizer: str | None,
    seed: int,
) -> "partial[FineTune] | None":
    """Return what makes a `FineTune` on the training images; None without data or epochs.

    Settings that are None are those of `FineTune`.
    """
    from celosia.compress import FineTune

    if data is None or epochs == 0:
        return None
    settings: dict[str, Any] = {"epochs": epochs, "learning_rate": learning_rate,
                                "optimizer": optimizer}
    train = partial(FineTune, inputs=data.train_inputs, labels=data.train_labels, seed=seed,
                    **{name: value for name, value in settings.items() if value is not None})
    train()         # refuses now what it would refuse later
    return train


def search_measure(data: Data) -> Callable[[Any], float]:
    """Return the accuracy that the curves of the layers are measured by: on training images."""
    count = min(SEARCH_IMAGES, -(-len(data.train_inputs) // 10))
    data.choices["search_images"] = count
    inputs, labels = data.train_inputs[-count:], data.train_labels[-count:]

    def evaluate(module: Any) -> float:
        return accuracy(module, inputs, labels)

    return evaluate


def to_fastest(module: Any) -> None:
    """Move a module to a GPU where torch finds one."""
    import torch

    module.to("cuda" if torch.cuda.is_available() else "cpu")


def origin(model: str, weights: Path | None, target: str, data: Data | None) -> dict[str, Any]:
    """Return where a run's network and data came from, for its choices."""
    import torch

    return {"model": model, "weights": None if weights is None else str(weights),
            "torch": torch.__version__, "target": target, **({} if data is None else data.choices)}


def find_module(name: str, weights: Path | None = None, data: Data | None = None,
                input_shape: str | None = None) -> tuple[Any, np.ndarray]:
    """Return a module that can be changed, with the weights of a file, and one float32 input
    (1, ...) that tells the network's shapes.

    input_shape : what --input-shape says, which counts more than the data.
    """
    import torch

    from celosia.compress.entry import refuse_unusable

    shapes, samples = common.input_shape(input_shape), None if data is None else data.example
    module, example = common.find_model(name, common.known_shape(shapes, samples))
    if isinstance(module, torch.nn.Module):
        refuse_unusable(module)
    if isinstance(example, (tuple, dict)):
        raise CelosiaError(f"{name}: it takes {len(example)} tensors, and prune and factorise "
                           "change networks of one; give one that takes them joined along axis 1, "
                           "and splits them itself")
    if not isinstance(module, torch.nn.Module):
        module = _unflattened(name, module, example)
    if weights is not None:
        common.load_weights(module, weights)
    if example is None and samples is None and not shapes:
        raise CelosiaError(f"model {name!r} does not tell its input shape; give --data, or "
                           "--input-shape C,H,W such as 1,28,28")
    found = np.asarray(common.example_input(name, example, samples, shapes))
    if data is not None:
        _check_batch(name, module, data)
    return module, found


def _check_batch(name: str, module: Any, data: Data) -> None:
    """CelosiaError where a module does not take the inputs of the data, or several at once."""
    import torch

    from celosia.compress.layers import evaluating

    for count in (1, 2):
        inputs = data.train_inputs[:1].repeat_interleave(count, 0)
        try:
            with evaluating(module), torch.no_grad(), torch.random.fork_rng(devices=[]):
                module(inputs)
        except Exception as problem:    # the user's code raises whatever it does
            words = quoted(said(problem).rstrip("."))
            if count == 1:
                raise CelosiaError(f"--data: inputs of the shape {tuple(inputs.shape[1:])}, which "
                                   f"{name} does not take ({words}); give data of the shape that "
                                   f"it does") from None
            raise CelosiaError(f"{name}: it takes one input at a time, and --data is run in "
                               f"batches ({words}); write its forward pass with x.shape[0] where "
                               f"it has a batch of 1") from None


def _unflattened(name: str, program: Any, example: np.ndarray | None) -> Any:
    """Return the module that a .pt2 file's program was; say which weights stay as they are."""
    import torch

    from celosia.frontend.unflattened import as_module, left_alone

    if example is None:
        raise CelosiaError(f"{name}: it does not take one float32 tensor; export a model that "
                           "does")
    module = as_module(program, torch.from_numpy(example), name)
    if left := left_alone(module):
        print(f"celosia: {name}: the weights of {', '.join(left)} stay as they are: no layers of "
              "torch's own", file=sys.stderr)
    return module


def warn_untrained(module: Any) -> bool:
    """Say on stderr where a network's weights look untrained, and return whether they do."""
    from celosia.compress.untrained import looks_untrained

    untrained = looks_untrained(module)
    if untrained:
        print("celosia: the weights look untrained, every layer's are as torch draws them; give a "
              "trained model, or its weights with --weights", file=sys.stderr)
    return untrained


def accuracy(module: Any, inputs: Any, labels: Any) -> float:
    """Return the share of inputs whose largest output is that of the label, in eval mode."""
    import torch

    from celosia.compress.layers import evaluating
    from celosia.evaluate import accuracy as share

    device = next(module.parameters()).device
    with evaluating(module), torch.no_grad():
        outputs = [module(part.to(device, copy=True)) for part in inputs.split(backends.CHUNK)]
    if not all(isinstance(output, torch.Tensor) for output in outputs):
        raise CelosiaError("the network returns several tensors, and accuracy is of one; give a "
                           "module that returns the one with the classes")
    with refusals():
        return float(share(torch.cat(outputs).cpu(), labels))


def test_accuracy(module: Any, data: Data | None) -> float | None:
    """Return a module's accuracy on the test images; None without any."""
    return None if data is None else accuracy(module, data.test_inputs, data.test_labels)


def measurer(data: Data | None, example: np.ndarray, target: str
             ) -> Callable[[Any], dict[str, float | int | None]]:
    """Return a function that measures a module: accuracy on the test images, predicted cycles.

    Cycles are those of the compiler, also where the weights need more memory than the target has;
    None where the compiler refuses the network.
    """
    from celosia.compress.weights.prediction import Predictor

    predict = Predictor(example, target=target)

    def measure(module: Any) -> dict[str, float | int | None]:
        try:
            cycles = predict(copy.deepcopy(module).cpu()).cycles
        except CelosiaError:
            cycles = None
        return {"predicted_cycles": cycles, "accuracy": test_accuracy(module, data)}

    return measure


def cost(module: Any, example: np.ndarray, target: str) -> dict[str, Any]:
    """Return useful multiply-accumulates and predicted cycles, or why there is no program."""
    try:
        program = api.compile(module, example, target=target)
    except CelosiaError as problem:
        return {"macs": None, "predicted_cycles": None, "target": target, "refused": str(problem)}
    return {"macs": sum(layer.macs for layer in program.layers), "target": target,
            "predicted_cycles": program.predicted_cycles, "refused": None}


def check_outputs(output: Path, report: Path | None, checkpoint: Path | None,
                  *others: str | Path | None) -> None:
    """CelosiaError where a result cannot be written at the end, or would replace one of ``others``.
    """
    check_output(output, report, *others)
    if report is not None:
        check_output(report, *others)
    if checkpoint is not None:
        check_folder(checkpoint)


def save(module: Any, example: np.ndarray, output: Path) -> None:
    """Write a module as a .pt2 file, whole or not at all."""
    import torch

    exported = check_saves(module, example)
    with replacing(output) as file:
        torch.export.save(exported, file)


def check_saves(module: Any, example: np.ndarray) -> Any:
    """Return what `save` writes; CompileError where it could not, before hours of training."""
    import torch

    from celosia.frontend.export import as_program

    with common.users_prints():
        return as_program(module, (torch.from_numpy(example),))


def write_report(result: dict[str, Any], path: Path) -> None:
    """Write a result as a JSON file, whole or not at all."""
    with replacing(path) as file:
        file.write(json.dumps(result, indent=1, allow_nan=False).encode() + b"\n")


@contextmanager
def rounds_shown(what: str) -> Iterator[Callable[[Any], None]]:
    """Yield a function of a method's `Shown` that shows it in a bar, off a terminal on a line.

    That a run goes on after rounds that it found is said on stderr in any case.
    """
    with _messages(), common.users_prints():
        if not sys.stderr.isatty():
            yield lambda shown: print(
                f"{what}, round {shown.round + 1} of {shown.rounds}: {describe_round(shown)}",
                file=sys.stderr, flush=True)
            return
        columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(),
                   TextColumn("{task.fields[state]}"), TimeRemainingColumn())
        with Progress(*columns, console=Console(file=sys.stderr), transient=True) as bar:
            task = bar.add_task(what, total=None, state="")
            yield lambda shown: bar.update(task, completed=shown.round + 1, total=shown.rounds,
                                           state=describe_round(shown))


def describe_round(shown: Any) -> str:
    """Return density, accuracy and predicted cycles after a round, as far as they are known."""
    parts = [f"density {shown.density:.1%}"]
    if shown.measured.get("accuracy") is not None:
        parts.append(f"accuracy {shown.measured['accuracy']:.2%}")
    if shown.measured.get("predicted_cycles") is not None:
        parts.append(f"{shown.measured['predicted_cycles']:,} cycles")
    return ", ".join(parts)


@contextmanager
def _messages() -> Iterator[None]:
    """Print what the library logs about a run on stderr."""
    logger = logging.getLogger("celosia.compress")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("celosia: %(message)s"))
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
