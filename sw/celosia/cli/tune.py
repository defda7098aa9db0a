"""``celosia tune``."""

from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from celosia import api, zoo
from celosia.cli import common, network, options, preprocessing
from celosia.cli.compile import summary
from celosia.cli.progress import work
from celosia.compiler import Compiler
from celosia.compress.spans import POSITIVE
from celosia.show import speed
from celosia_spec.epilogue import STATIC
from celosia_spec.errors import refusals
from celosia_spec.files import check_output

if TYPE_CHECKING:
    from celosia_spec.preprocessing import Preprocessing

CALIBRATION = 32
"""Training inputs that static exponents are found with."""


def tune(
    model: common.ModelName,
    data: Annotated[str, typer.Option(
        help="fashion-mnist; a folder of IDX files, CIFAR-10's binary batches or pictures; or a "
             ".npz file.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Program file to write.")],
    weights: common.Weights = None,
    mean: options.Mean = None,
    deviation: options.Deviation = None,
    target: Annotated[str, typer.Option(help="Board or device; see `celosia targets`.")]
    = Compiler.target,
    exponents: Annotated[str, typer.Option(help="dynamic or static.")] = Compiler.exponents,
    weight_bits: common.WeightBits = Compiler.weight_bits,
    activation_bits: common.ActivationBits = Compiler.activation_bits,
    clip: Annotated[bool, typer.Option(
        "--clip", help="Let weights, and with static exponents maps, clip where that makes less "
                       "noise: for 4 or 5 bits.")] = False,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training images.")] = 1,
    learning_rate: Annotated[float, typer.Option(help="Its peak.")] = 3e-4,
    batch_size: Annotated[int, typer.Option(min=1, help="Images a step.")] = 64,
    teach: Annotated[bool, typer.Option(
        help="Learn from the float network's outputs, too.")] = True,
    seed: options.Seed = 0,
    json: common.Json = False,
) -> None:
    """Train a model in the numbers of a target, and compile it: for mantissas of few bits."""
    settings = Compiler(target=target, exponents=exponents, weight_bits=weight_bits,
                        activation_bits=activation_bits)
    settings.check(calibrated=True)
    POSITIVE.check("--learning-rate", learning_rate)
    rule = preprocessing.rule(mean, deviation)
    check_output(output, model, weights, data)

    from celosia import compress

    loaded = network.load_data(data, rule)
    assert loaded is not None
    module, example = network.find_module(model, weights, loaded)
    with refusals(TypeError), common.users_prints(), work() as shown:
        network.warn_untrained(module)
        zoo.now_trained(module)
        format: dict[str, Any] = {
            "target": target, "weight_bits": weight_bits, "exponents": exponents,
            "activation_bits": activation_bits, "preprocessing": _preprocessing(loaded.choices),
            "calibration": loaded.train_inputs[:CALIBRATION] if exponents == STATIC else None}
        api.compile(module, example, accuracy="none", **format)     # refuses now, not later
        net = compress.in_format(module, example, clip=clip, **format)
        shown.stage("measuring before")
        accuracies = {"float": network.test_accuracy(module, loaded),
                      "before": network.test_accuracy(net, loaded)}
        steps, step = epochs * -(-len(loaded.train_labels) // batch_size), count(1)
        shown.stage("training", 0, steps)
        compress.FineTune(
            inputs=loaded.train_inputs, labels=loaded.train_labels, epochs=epochs,
            learning_rate=learning_rate, batch_size=batch_size, seed=seed,
            teacher=module if teach else None,
            after_step=lambda *_: shown.stage("training", next(step), steps))(net, 0)
        shown.stage("measuring after")
        accuracies["after"] = network.test_accuracy(net, loaded)
        program = net.program()
    program.save(output)
    result = summary(program) | {
        "accuracy": accuracies, "weight_bits": weight_bits, "activation_bits": activation_bits,
        "choices": {**network.origin(model, weights, target, loaded), "clip": clip,
                    "epochs": epochs, "learning_rate": learning_rate, "batch_size": batch_size,
                    "teach": teach, "seed": seed}, "output": str(output)}
    if json:
        common.emit(result)
    else:
        _show(result, len(loaded.test_labels))


def _show(result: dict[str, Any], images: int) -> None:
    """Print the accuracies on so many test images, and what the program takes."""
    bits = f"{result['weight_bits']} / {result['activation_bits']} bits"
    table = common.table(f"{images:,} test images", "network", "accuracy", words=1)
    for name, share in (("float", "float"), (bits, "before"), ("the same, trained", "after")):
        table.add_row(name, f"{result['accuracy'][share]:.2%}")
    common.show(table)
    cycles = result["predicted_cycles"]
    print(f"{cycles:,} cycles: {speed(cycles, result['clock_mhz'])}")
    print(f"wrote {result['output']}")


def _preprocessing(choices: dict[str, Any]) -> "Preprocessing | None":
    """Return how pixels became inputs, as a program keeps it; None where they were inputs."""
    from celosia_spec.preprocessing import of_pixels

    if "pixel" not in choices["inputs"]:
        return None
    return of_pixels(choices.get("mean"), choices.get("deviation"))
