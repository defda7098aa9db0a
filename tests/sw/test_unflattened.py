"""Modules made of exported programs: the same function, with layers that can be changed."""

from pathlib import Path

import numpy as np
import pytest

from celosia_spec.errors import CelosiaError

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from celosia.cli import app, network  # noqa: E402
from celosia.frontend.export import load_exported  # noqa: E402
from celosia.frontend.unflattened import as_module, left_alone  # noqa: E402
from celosia.models import ResNet, load_lenet5  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


class Odd(nn.Module):
    """A layer called twice, one in a list, a normalisation of vectors, a shape with the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding="same", bias=False)
        self.blocks = nn.ModuleList([nn.Conv2d(4, 4, 3, stride=2, groups=2, dilation=2)])
        self.twice, self.norm = nn.Linear(16, 16), nn.BatchNorm1d(16)
        self.drop, self.unused = nn.Dropout(), nn.Linear(3, 3)

    def forward(self, x):
        x = torch.relu(self.blocks[0](self.first(x)))
        x = self.twice(torch.relu(self.twice(x.view(x.size(0), -1))))
        return self.drop(self.norm(x)).reshape(len(x), 4, 4)


class Bare(nn.Module):
    """Weights of no layer beside one."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.weight = nn.Linear(6, 6), nn.Parameter(torch.randn(4, 6))

    def forward(self, x):
        return nn.functional.linear(self.layer(x), self.weight)


def saved(path: Path, model: nn.Module, shape: tuple[int, ...], **export) -> Path:
    with torch.no_grad():
        program = torch.export.export(model.eval(), (torch.zeros(shape),), **export)
    torch.export.save(program, path)
    return path


def again(path: Path) -> nn.Module:
    program = load_exported(path)
    return as_module(program, program.example_inputs[0][0], "net.pt2")


BATCH = {"dynamic_shapes": ({0: torch.export.Dim("batch", max=64)},)}
MODELS = {
    "odd": (Odd, (1, 1, 7, 7), {}), "ResNet": (lambda: ResNet(8), (1, 3, 16, 16), {}),
    "any batch": (lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(),
                                        nn.Linear(100, 3)), (2, 1, 7, 7), BATCH),
    "LeNet-5": (load_lenet5, (1, 1, 28, 28), {}),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_module_has_the_layers_and_computes_the_same(name: str, tmp_path: Path) -> None:
    make, shape, options = MODELS[name]
    torch.manual_seed(2)
    model = make()
    for layer in model.modules():
        if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2)
    module = again(saved(tmp_path / "net.pt2", model, shape, **options))
    kinds = (nn.Conv2d, nn.Linear, nn.BatchNorm1d, nn.BatchNorm2d)
    wanted, found = ({path: repr(layer) for path, layer in part.named_modules()
                      if isinstance(layer, kinds) and path != "unused"}
                     for part in (model, module))
    assert found == wanted
    assert left_alone(module) == []
    x = torch.randn(5, *shape[1:])
    with torch.no_grad():
        torch.testing.assert_close(module(x), model(x), rtol=1e-4, atol=1e-5)
    module.train()
    module(x).square().sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())


def test_weights_of_no_layer_are_named(tmp_path: Path,
                                       capsys: pytest.CaptureFixture[str]) -> None:
    path = saved(tmp_path / "net.pt2", Bare(), (1, 6))
    module, example = network.find_module(str(path), None)
    assert [name for name, part in module.named_modules() if isinstance(part, nn.Linear)] == [
        "layer"]
    assert example.shape == (1, 6)
    assert capsys.readouterr().err == (
        f"celosia: {path}: the weights of model (linear) stay as they are: no layers of torch's "
        "own\n")


def test_core_operators_have_no_layers(tmp_path: Path) -> None:
    program = torch.export.export(nn.Sequential(nn.Linear(6, 6)), (torch.zeros(1, 6),))
    torch.export.save(program.run_decompositions(), tmp_path / "net.pt2")
    with pytest.raises(CelosiaError, match="without run_decompositions, or name the function"):
        again(tmp_path / "net.pt2")


def test_a_shape_that_holds_the_batch_size_is_refused(tmp_path: Path) -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 6)

        def forward(self, x):
            return self.layer(x).expand(1, 6) + torch.zeros(1, 1)

    with pytest.raises(CelosiaError, match=r"^net.pt2: it does not run on a batch \(.*; export"):
        again(saved(tmp_path / "net.pt2", Fixed(), (1, 6)))


def test_nothing_in_a_module_s_path_is_run(tmp_path: Path) -> None:
    """torch writes paths into source code; one that is no name never gets there."""
    trap = tmp_path / "trap"
    path = f'a", open({str(trap)!r}, "w"), "'
    model = nn.Sequential(nn.Linear(6, 6))
    program = torch.export.export(model, (torch.zeros(1, 6),))
    for node in program.graph.nodes:
        if node.op == "call_function":
            node.meta["nn_module_stack"] = {"": ("", "Net"), path: (path, "Layer")}
    with pytest.raises(CelosiaError, match="which is no name in Python; name the function"):
        as_module(program, torch.zeros(1, 6), "net.pt2")
    assert not trap.exists()


@pytest.mark.parametrize("command", [
    ("prune", "--rate", "0.5"), ("prune", "--method", "std", "--rate", "0.3"),
    ("factorise", "--rule", "energy", "--value", "0.8", "--target", "ecp5-85f")])
def test_commands_do_the_same_to_a_file_as_to_its_module(
        command: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved(tmp_path / "net.pt2", load_lenet5(), (1, 1, 28, 28))
    results = []
    for model in ("lenet5", str(tmp_path / "net.pt2")):
        output = tmp_path / "out.pt2"
        app([command[0], model, "-o", str(output), *command[1:]], standalone_mode=False)
        tensors = load_exported(output).state_dict
        results.append((capsys.readouterr().out, {name: np.asarray(tensor.detach())
                                                  for name, tensor in tensors.items()}))
    (one, wanted), (other, found) = results
    assert one == other
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        np.testing.assert_array_equal(found[name], tensor, err_msg=name)
