"""Every method and criterion as it is declared: its help, its options, its JSON, and one round."""

from __future__ import annotations

import ast
import importlib
import json
import pkgutil
import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from celosia import cli, compress
from celosia.cli import app, find
from celosia.cli.options import Request
from celosia.compiler import Compiler
from celosia.compress.amounts import Amount, Chosen
from celosia.compress.catalogue import factorising, pruning
from celosia.compress.criteria import registry
from celosia.compress.criteria.registry import criteria
from celosia.compress.method import Method, Network, Training
from celosia.compress.options import declared, option, resolve
from celosia.compress.words import RULES
from celosia_spec.errors import ArgumentError

COMMANDS = {"prune": pruning(), "factorise": factorising()}
CASES = [pytest.param(command, method, id=f"{command}-{method.name}")
         for command, methods in COMMANDS.items() for method in methods.values()]
CRITERIA = [pytest.param(found, id=found.name)
            for found in (*criteria("weights"), *criteria("filters"))]
KEYS = {"accuracy", "density", "parameters", "macs", "predicted_cycles", "rounds", "records",
        "layers", "choices", "method", "target", "refused", "output", "network"}
"""What docs/cli.md and the stable interfaces promise of both commands."""

MODEL = """
import torch

def make():
    torch.manual_seed(1)
    norm = torch.nn.BatchNorm2d(8)
    norm.running_mean[0] = 0.001
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 8, 3), norm, torch.nn.ReLU(), torch.nn.Conv2d(8, 8, 3),
        torch.nn.Flatten(), torch.nn.Linear(8 * 16, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))
"""
AMOUNTS: Mapping[str, object] = {"rate": 0.5, "macs": 0.3}
"""Values of amounts; a method has one of these, or none at all."""
REQUIRED: Mapping[str, object] = {"strength": 0.01, "conv_macs": 0.3}
"""Values of the options that have no default."""


def words(text: str) -> str:
    return " ".join(text.replace("│", " ").split())


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_has_every_method_and_fits_a_terminal(command: str) -> None:
    shown = CliRunner().invoke(app, [command, "--help"], terminal_width=80,
                               env={"COLUMNS": "80", "TERMINAL_WIDTH": "80"}).stdout
    assert max(map(len, shown.splitlines())) <= 80
    for name, method in COMMANDS[command].items():
        assert f"{name}: {method.about}" in words(shown)


@pytest.mark.parametrize(("command", "method"), CASES)
def test_a_method_is_declared_whole(command: str, method: Method) -> None:
    """Its flags are options of the command, the help says what they and its settings are."""
    shown = {flag: parameter for parameter in find(command).params for flag in parameter.opts}
    own = declared(*method.options)
    assert method.about.endswith(".")
    for part in (*method.amounts, *own.values()):
        assert part.about
        if part.flag:
            assert part.about[1:] in shown[part.flag].help
        else:
            assert f" {part.name} (" in shown["--option"].help
    for amount in method.amounts:
        assert {*amount.needs, *amount.without} <= own.keys()
    assert method.usual is None or method.usual.name in {part.name for part in method.amounts}
    assert {name for name, part in own.items() if part.default is MISSING} <= REQUIRED.keys()


def settings(method: Method) -> dict[str, object]:
    return {name: REQUIRED[name] for name, part in declared(*method.options).items()
            if part.default is MISSING}


def amount_of(method: Method) -> Chosen | None:
    name = next((part.name for part in method.amounts if part.name in AMOUNTS), None)
    assert name or not method.amounts
    return None if name is None else Chosen(name, AMOUNTS[name])


@pytest.mark.parametrize(("command", "method"), CASES)
def test_one_round_of_a_method(command: str, method: Method) -> None:
    """On a network of two layers and a last one: what is reported is what is there."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 12),
                           nn.ReLU(), nn.Linear(12, 3)).eval()
    inputs, labels = torch.randn(24, 4, 6, 6), torch.arange(24) % 3
    network = Network(module=module, example=np.zeros((1, 4, 6, 6), np.float32), target="ulx3s-85f")
    given, seen = settings(method) | {"rounds": 1}, []
    parts = [resolve(method.name, kind, {name: given[name] for name in declared(kind)
                                         if name in given}) for kind in method.options]
    amount = amount_of(method)
    if amount is not None and command == "factorise":
        amount = Chosen("ranks", {"0": 2})
    found = method.run(network, amount, Training(
        inputs=inputs, train=partial(compress.FineTune, inputs=inputs, labels=labels, epochs=1),
        measure=lambda model: {"accuracy": 0.5}, progress=seen.append), *parts)
    assert 0 < found.density < 1 and found.accuracy == 0.5
    content = found.as_json() | dict(found.more)
    assert json.loads(json.dumps(content, allow_nan=False)) == content
    assert content["rounds"] == len(content["records"]) == len(seen)
    assert seen[-1].density == pytest.approx(found.density)
    left = sum(int(layer.weight.count_nonzero()) for layer in module.modules()
               if isinstance(layer, nn.Conv2d | nn.Linear))
    assert left == round(found.density * sum(network.layers.values()))
    assert module(inputs).shape == (24, 3)


@pytest.mark.parametrize(("command", "method"), CASES)
def test_the_json_of_a_method_and_the_options_that_it_records(
    network_folder, command: str, method: Method
) -> None:
    network_folder("declared_net", MODEL)
    flags: list[object] = []
    given = settings(method) | {"rounds": 1}
    for name, part in declared(*method.options).items():
        value = given.get(name, part.default)
        if part.flag and value not in (None, ()):
            flags += [part.flag, value]
        elif not part.flag and isinstance(value, str | int | float):
            shown = str(value).lower() if isinstance(value, bool) else value
            flags += ["--option", f"{name}={shown}"]
    amount = amount_of(method)
    if amount is not None:
        flags += [next(part.flag for part in method.amounts if part.name == amount.name),
                  amount.value]
    if command == "factorise":
        flags += ["--minimum", 1]
    done = CliRunner().invoke(app, [
        command, "declared_net:make", "-o", "small.pt2", "--method", method.name, "--json",
        "--target", "ulx3s-85f", "--data", "data.npz", *map(str, flags)])
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert result.keys() >= KEYS
    assert result["method"] == method.name
    assert Path("small.pt2").exists()
    recorded = json.dumps(result["choices"])
    for name in declared(*method.options):
        assert f'"{name}"' in recorded or name in ("accuracy_budget", "skip"), name


@pytest.mark.parametrize(("command", "method"), CASES)
def test_what_a_method_does_not_take_is_refused_with_those_that_do(
    network_folder, command: str, method: Method
) -> None:
    network_folder("declared_net", MODEL)
    own = {part.flag for part in (*method.amounts, *declared(*method.options).values())}
    for name, other in COMMANDS[command].items():
        for part in (*other.amounts, *declared(*other.options).values()):
            if not part.flag or part.flag in own:
                continue
            value = "1" if not isinstance(part, Amount) or part.kind is not float else "0.5"
            done = CliRunner().invoke(app, [
                command, "declared_net:make", "-o", "small.pt2", "--method", method.name,
                "--data", "data.npz", part.flag, value])
            assert done.exit_code == 1
            message = f"{part.flag} does not go with --method {method.name}; it goes with "
            assert message in done.stderr
            assert name in done.stderr.split(message)[1].strip().split(", ")
    known = [name for name, part in declared(*method.options).items() if not part.flag]
    if not known:
        return
    done = CliRunner().invoke(app, [command, "declared_net:make", "-o", "small.pt2", "--method",
                                    method.name, "--data", "data.npz", "--option", "nothing=1"])
    assert (f"method {method.name!r} has no option 'nothing'; its options: "
            f"{', '.join(known)}") in done.stderr


@pytest.mark.parametrize(("command", "method"), CASES)
def test_every_word_is_declared_and_others_are_refused(command: str, method: Method) -> None:
    for kind in method.options:
        for name, part in declared(kind).items():
            assert bool(part.choices) is (part.kind in (str, str | None)), name
            if part.choices:
                assert part.default in (None, *part.choices)
                with pytest.raises(ArgumentError, match=f"^{name} must be one of .*, not 'wat'$"):
                    resolve(method.name, kind, {name: "wat"})


@pytest.mark.parametrize("found", CRITERIA)
def test_a_criterion_is_declared_whole_and_scores_two_layers(found: registry.Criterion) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 4)).eval()
    assert found.about.endswith(".")
    assert all(part.about for part in declared(found.options).values())
    assert found.name in pruning()
    if found.of == "filters":
        if found.name == "mask":
            compress.add_masks(model, torch.zeros(1, 1, 6, 6))
        scored = compress.filter_scores(model, found.name, torch.randn(8, 1, 6, 6))
        assert {name: values.shape for name, values in scored.items()} == {"0": (3,)}
    else:
        scored = compress.scores(model, found.name, torch.randn(8, 1, 6, 6))
        assert {name: values.shape for name, values in scored.items()} == {
            "0": (3, 1, 3, 3), "3": (4, 48)}
    assert all(values.dtype == np.float64 for values in scored.values())
    call = compress.filter_scores if found.of == "filters" else compress.scores
    with pytest.raises(TypeError, match=f"'{found.name}' has no option nothing; its options: "):
        call(model, found.name, None, nothing=1)


def test_a_criterion_that_joins_is_a_method_with_its_options(monkeypatch) -> None:
    monkeypatch.setattr(registry, "_CRITERIA", dict(registry._CRITERIA))

    @dataclass(frozen=True, kw_only=True)
    class Power:
        power: int = option(2, about="of the mean")

    @compress.criterion("by-index", of="filters", options=Power)
    def by_index(scoring, options):
        """Score a filter by its index."""
        assert scoring.inputs is not None
        return {name: np.arange(len(layer.weight), dtype=float) ** options.power
                for name, layer in scoring.layers.items()}

    method = pruning()["by-index"]
    assert method.about == "Score a filter by its index."
    assert [part.name for part in fields(method.options[0])] == ["power"]
    module = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(96, 3)).eval()
    network = Network(module=module, example=np.zeros((1, 1, 6, 6), np.float32), target="hx8k")
    found = method.run(network, Chosen("rate", 0.5), Training(inputs=torch.randn(4, 1, 6, 6)),
                       Power(power=3), method.options[1]())
    assert found.more["filters"]["0"]["kept"] == [3, 4, 5]
    assert found.choices["options"] == {"power": 3}


def test_no_module_takes_the_place_of_a_public_name() -> None:
    for module in pkgutil.iter_modules(compress.__path__):
        importlib.import_module(f"celosia.compress.{module.name}")
    assert not [name for name in compress.__all__
                if isinstance(getattr(compress, name), ModuleType)]


def test_every_public_name_has_one_home() -> None:
    """What is imported for mypy, what is imported for users and what is offered are the same."""
    tree = ast.parse(Path(compress.__file__).read_text())
    checked = {alias.name: node.module for node in ast.walk(tree)
               if isinstance(node, ast.ImportFrom) for alias in node.names
               if (node.module or "").startswith("celosia") and alias.name != "names_extra"}
    assert checked == compress._HOMES
    assert sorted(checked) == compress.__all__
    assert {*compress.__all__} <= {*dir(compress)}
    with pytest.raises(AttributeError, match="module 'celosia.compress' has no attribute 'shrink'"):
        compress.shrink     # noqa: B018


def test_options_of_one_name_are_refused() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Twice:
        rounds: int = option(1, about="again")

    with pytest.raises(ValueError, match="'rounds' is declared twice, the second time in Twice"):
        declared(*pruning()["magnitude"].options, Twice)


def test_the_command_line_names_no_method() -> None:
    """Where compression is called, not even in a text, nor a rule of one; elsewhere some are words
    like others, or commands."""
    names = {name for methods in COMMANDS.values() for name in methods}
    both = names | set(RULES)
    wanted = re.compile(rf"\b(?:{'|'.join(map(re.escape, both))})\b")
    folder = Path(__file__).parents[2] / "sw" / "celosia" / "cli"
    sources = {path.name: path.read_text() for path in folder.glob("*.py")}
    calling = {name for name, text in sources.items() if "compress" in text}
    assert calling >= {"change.py", "figures.py", "network.py", "options.py", "prune.py"}
    for name, text in sources.items():
        found = wanted.findall(text) if name in calling else [
            node.value for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.Constant) and node.value in names - cli.COMMANDS.keys()]
        assert not found, name


def test_methods_predict_for_the_target_that_is_compiled_for() -> None:
    """Said twice, since help of methods does not wait for the compiler to be imported."""
    assert Request.target == Compiler.target
