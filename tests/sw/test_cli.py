"""The command line on small networks: what it prints, what it refuses, and its exit status."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from typer.testing import CliRunner

import celosia
from celosia.cli import COMMANDS, app
from celosia.compare import compare

SHAPE = (1, 7, 9)


class Small(torch.nn.Module):
    """Two layers on a 7 x 9 map, most weights zero."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.conv = torch.nn.Conv2d(1, 5, 3, padding=1)
        self.fc = torch.nn.Linear(5 * 7 * 9, 4)
        with torch.no_grad():
            self.fc.weight[torch.rand(self.fc.weight.shape) < 0.8] = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(torch.relu(self.conv(x)).flatten(1))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with model.pt2, x.npy (6 inputs) and net.celo."""
    path = tmp_path_factory.mktemp("cli")
    x = np.random.default_rng(3).normal(size=(6, *SHAPE)).astype(np.float32)
    np.save(path / "x.npy", x)
    model = Small().eval()
    torch.export.save(torch.export.export(model, (torch.from_numpy(x[:1]),)), path / "model.pt2")
    celosia.compile(model, x[:1]).save(path / "net.celo")
    return path


def invoke(*arguments: object, status: int = 0):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == status, result.output
    return result


def answer(*arguments: object) -> dict:
    """Return the one JSON object that a command prints, and prove that it is alone."""
    result = invoke(*arguments, "--json")
    assert result.stderr == ""
    return json.loads(result.stdout)


def refusal(*arguments: object) -> str:
    """Return the one line on stderr of a command that ends with status 1, stdout empty."""
    result = invoke(*arguments, status=1)
    assert result.stdout == ""
    assert result.stderr.startswith("celosia: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_help(command: str) -> None:
    shown = invoke(command, "--help").stdout
    assert "--json" in shown
    assert invoke(command, "-h").stdout == shown


def test_version() -> None:
    assert invoke("--version").stdout == f"celosia {celosia.__version__}\n"
    assert invoke("-h").stdout == invoke("--help").stdout


def test_every_command_is_listed() -> None:
    listing = invoke("--help").stdout
    assert all(f" {command} " in listing for command in COMMANDS)


def test_targets() -> None:
    targets = {entry["name"]: entry for entry in answer("targets")["targets"]}
    assert {"icebreaker", "ulx3s-85f", "hx8k", "ecp5-25f", "ecp5-85f"} <= set(targets)
    assert targets["icebreaker"]["lanes"] == 16
    assert targets["hx8k"]["board"] is None
    assert "icebreaker" in invoke("targets").stdout


def test_compile_reports_and_writes(folder: Path) -> None:
    result = answer("compile", folder / "model.pt2", "--target", "icebreaker", "-o",
                    folder / "again.celo")
    program = celosia.load(folder / "again.celo")
    assert [layer["name"] for layer in result["layers"]] == [x.name for x in program.layers]
    assert result["predicted_cycles"] == program.predicted_cycles
    assert result["nonzeros"] < sum(layer.weights for layer in program.layers) / 2
    assert 0 < result["sparse_macs"] < result["dense_macs"]
    assert result["weight_bytes"] > 2 * result["nonzeros"]
    assert result["compression"] == 4 * (5 * 9 + 4 * 315) / result["weight_bytes"]
    assert result["fits"] is True
    assert all(entry["used"] <= entry["available"] for entry in result["memory"].values())
    assert (folder / "again.celo").read_bytes() == (folder / "net.celo").read_bytes()


def test_compile_tells_what_large_biases_cost(tmp_path: Path,
                                               monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that were raised; and why accumulators are wide, or what narrow ones lose."""
    model = Small().eval()
    with torch.no_grad():
        model.conv.weight[3] *= 1e-5
        model.conv.bias[3] = 2.0
    x = torch.zeros(1, *SHAPE)
    torch.export.save(torch.export.export(model, (x,)), tmp_path / "faint.pt2")
    with torch.no_grad():
        model.fc.bias[2] = 3e4
    torch.export.save(torch.export.export(model, (x,)), tmp_path / "large.pt2")
    found = answer("compile", tmp_path / "faint.pt2")
    assert [layer["raised_rows"][0][0] for layer in found["layers"] if layer["raised_rows"]] == [3]
    assert found["accumulator_bits"] == 24 and found["remarks"] == []
    shown = invoke("compile", tmp_path / "faint.pt2").stdout
    assert "weights made coarser, so that the bias fits, in rows: conv 3\n" in shown
    wide = answer("compile", tmp_path / "large.pt2", "--target", "ecp5-25f")
    assert wide["accumulator_bits"] == 32
    reason = "the bias of row 2 of fc holds conv at exponents of"
    assert wide["remarks"][0].startswith(f"32-bit accumulators, because {reason}")
    narrow = answer("compile", tmp_path / "large.pt2")     # whose block RAMs hold no wider ones
    assert narrow["accumulator_bits"] == 24 and narrow["remarks"][0].startswith(reason)
    assert narrow["remarks"][0] in invoke("compile", tmp_path / "large.pt2").stdout


def test_compile_dense_keeps_the_zeros(folder: Path) -> None:
    result = answer("compile", folder / "model.pt2", "--dense")
    assert result["nonzeros"] == 5 * 9 + 4 * 5 * 7 * 9
    assert result["output"] is None


def test_compile_static_and_lanes(folder: Path) -> None:
    result = answer("compile", folder / "model.pt2", "--calibration", folder / "x.npy",
                    "--exponents", "static", "--lanes", "8")
    assert result["lanes"] == 8
    assert all(tensor["exponent"] is not None for tensor in result["tensors"])


def test_compile_table(folder: Path) -> None:
    text = invoke("compile", folder / "model.pt2").stdout
    for word in ("density", "cycles", "utilisation", "conv", "fc", "total", "weights"):
        assert word in text


ODD = """
import torch

print("imported")

class Odd(torch.nn.Module):
    def __init__(self):
        super().__init__()
        for name in ("[/b]x", "[red]y", ":key:", "{z}"):
            self.add_module(name, torch.nn.Linear(6, 6))

    def forward(self, x):
        print("traced")
        for layer in self.children():
            x = torch.relu(layer(x))
        return x

def make():
    print("made")
    return Odd()

def fail():
    return 1 / 0

def other():
    return {}
"""


@pytest.fixture
def odd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The current folder holds odd_net.py and x6.npy."""
    (tmp_path / "odd_net.py").write_text(ODD)
    np.save(tmp_path / "x6.npy", np.ones((2, 6), np.float32))
    monkeypatch.chdir(tmp_path)
    yield
    sys.modules.pop("odd_net", None)


def test_odd_names_stand_in_tables_as_they_are(odd: None) -> None:
    result = invoke("compile", "odd_net:make", "--calibration", "x6.npy", "-o", "odd.celo")
    for name in ("[/b]x", "[red]y", ":key:", "{z}"):
        assert f" {name} " in result.stdout
    assert "[/b]x" in invoke("compare", "odd.celo").stdout


def test_what_the_users_code_prints_is_no_part_of_the_json(odd: None) -> None:
    result = invoke("compile", "odd_net:make", "--calibration", "x6.npy", "--json")
    assert json.loads(result.stdout)["layers"][0]["name"] == "[/b]x"
    assert result.stderr.startswith("imported\nmade\n")


@pytest.mark.parametrize(("model", "message"), [
    ("odd_net:fail", "ZeroDivisionError: division by zero [odd_net.py:23]; run where odd_net can"),
    ("odd_net:other", "the function returns dict; let it return a torch.nn.Module"),
    ("odd_net:none", "module 'odd_net' has no attribute 'none'; run where"),
    ("odd_net:", "has no attribute ''"), (":make", "run where its module can be imported"),
    (".net:make", "run where .net can be imported"), ("broken:make", "SyntaxError"),
    ("ends:make", "SystemExit: 3 [ends.py:1]"),
])
def test_faults_of_the_users_code_are_the_users(odd: None, model: str, message: str) -> None:
    Path("broken.py").write_text("def make(:\n")
    Path("ends.py").write_text("raise SystemExit(3)\n")
    result = invoke("compile", model, status=1)
    assert message in result.stderr
    assert [line for line in result.stderr.splitlines() if line.startswith("celosia: ")] == [
        result.stderr.splitlines()[-1]]


def test_dump_after_goes_to_stderr(folder: Path) -> None:
    result = invoke("compile", folder / "model.pt2", "--json", "--dump-after", "fuse_epilogue")
    assert "# after fuse_epilogue" in result.stderr
    json.loads(result.stdout)
    assert "fuse_epilogue" in refusal("compile", folder / "model.pt2", "--dump-after", "nonsense")


def test_run_golden(folder: Path) -> None:
    result = answer("run", folder / "net.celo", "--input", folder / "x.npy", "-o",
                    folder / "y.npz")
    assert result["cycles"] is None
    assert result["images"] == 6
    assert result["seconds"] > 0
    expected = celosia.run(celosia.load(folder / "net.celo"), np.load(folder / "x.npy"))
    with np.load(folder / "y.npz") as archive:
        assert set(archive) == {"mantissa", "exponent", "values", "answer", "saturated"}
        assert np.array_equal(archive["mantissa"], expected.mantissa)
        assert archive["values"].shape == (6, 4)
        assert np.array_equal(archive["values"], archive["mantissa"] * 2.0 ** (
            archive["exponent"][:, None] - 14))


def test_run_agrees_with_float(folder: Path) -> None:
    x = np.load(folder / "x.npy")
    values = celosia.run(celosia.load(folder / "net.celo"), torch.from_numpy(x)).values
    wanted = Small().eval()(torch.from_numpy(x)).detach().numpy()
    assert np.abs(values - wanted).max() < 0.05 * np.abs(wanted).max()


def test_compare(folder: Path) -> None:
    result = answer("compare", folder / "net.celo")
    program = celosia.load(folder / "net.celo")
    dense = celosia.compile(Small().eval(), np.zeros((1, *SHAPE), np.float32), sparse=False)
    assert [layer["cycles_dense"] for layer in result["layers"]] == [
        layer.predicted_cycles for layer in dense.layers]
    assert result["cycles_sparse"] == program.predicted_cycles < result["cycles_dense"]
    assert result["cycles_bound"] <= result["cycles_sparse"]
    macs = sum(layer.macs for layer in program.layers)
    assert result["utilisation"] == macs / (program.lanes * program.predicted_cycles)
    assert "speed-up" in invoke("compare", folder / "net.celo").stdout


def test_compare_where_the_dense_network_does_not_fit() -> None:
    """The baseline gets a deeper main memory; its cycles are those of an array that has one."""
    model = torch.nn.Linear(200, 20)
    with torch.no_grad():
        model.weight[torch.rand(20, 200) < 0.95] = 0
    program = celosia.compile(model, np.zeros((1, 200), np.float32), target="hx8k")
    assert compare(program).total.cycles_dense > 2 * program.predicted_cycles


def test_flash_of_what_is_not_there(folder: Path) -> None:
    for options in ((), ("--dry-run",), ("--board", "hx8k")):
        assert "no bitstream" in refusal("flash", folder / "celosia.bin", *options)


def test_prune_a_function_of_a_module(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "small_net.py").write_text(
        "import torch\n\ndef make():\n    torch.manual_seed(1)\n"
        "    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(63, 10))\n")
    monkeypatch.chdir(folder)
    rng = np.random.default_rng(0)
    images = rng.normal(size=(40, *SHAPE)).astype(np.float32)
    labels = rng.integers(0, 10, 40)
    np.savez(folder / "data.npz", train_images=images, train_labels=labels, test_images=images,
             test_labels=labels)
    done = invoke("prune", "small_net:make", "--rate", "0.75", "--data", folder / "data.npz",
                  "--rounds", "2", "-o", folder / "pruned.pt2", "--json")
    assert done.stderr.startswith("celosia: the weights look untrained")
    result = json.loads(done.stdout)
    assert result["density"] == pytest.approx(0.25, abs=0.001)
    assert 150 <= result["parameters"] <= 630 * 0.25 + 10
    assert result["rounds"] == 2
    assert 0 <= result["accuracy"] <= 1
    again = answer("compile", folder / "pruned.pt2")
    assert again["predicted_cycles"] == result["predicted_cycles"]
    assert again["sparse_macs"] == result["macs"]
    sys.modules.pop("small_net")


@pytest.mark.parametrize(("arguments", "message"), [
    (("compile", "missing.pt2"), "missing.pt2: no such file"),
    (("compile", "net.celo"), "compiled already); run it with celosia run"),
    (("compile", "no_such_name"), "give a .pt2 or .onnx file, lenet5"),
    (("compile", "no_such_module:make"), "No module named 'no_such_module'"),
    (("compile", "model.pt2", "--target", "virtex"), "unknown target 'virtex'"),
    (("compile", "model.pt2", "--lanes", "5"), "lanes must be 8, 16, 32, 64 or 128, not 5"),
    (("compile", "model.pt2", "--exponents", "static"), "calibration"),
    (("compile", "model.pt2", "--calibration", "model.pt2"), "model.pt2: "),
    (("compile", "bad.pt2"), "bad.pt2: not a readable .pt2 file"),
    (("run", "net.celo", "--input", "wrong.npy"), "takes (N, 1, 7, 9)"),
    (("run", "net.celo", "--input", "nan.npy"), "element (2, 0, 0, 0) is nan"),
    (("run", "net.celo", "--input", "none.npy"), "no inputs"),
    (("run", "net.celo", "--input", "huge.npy"), "scale the input down"),
    (("run", "net.celo", "--input", "object.npy"), "object.npy: not a .npy file of numbers"),
    (("run", "net.celo", "--input", "x.npy", "--backend", "abacus"), "unknown backend 'abacus'"),
    (("run", "net.celo", "--input", "x.npy", "--backend", "board:/dev/no-such-port"),
     "there is no port '/dev/no-such-port'"),
    (("run", "net.celo", "--input", "x.npy", "--backend", "board:spy:///dev/null"), "is no port"),
    (("run", "net.celo", "--input", "x.npy", "--backend", "golden", "--port", "auto"),
     "--port goes with --backend board"),
    (("compare", "net.celo", "--backend", "verilator"), "counts nothing"),
    (("load", "net.celo", "--port", "net.celo"), "is no serial port"),
    (("run", "gone.celo", "--input", "x.npy"), "gone.celo"),
    (("run", "x.npy", "--input", "x.npy"), "x.npy: not a Celosia program file"),
    (("verify", "net.celo", "--input", "x.npy", "--backend", "golden"), "reference itself"),
    (("run", "net.celo", "--input", "x.npy", "-o", "no/such/folder.npz"), "no/such"),
    (("prune", "lenet5", "-o", "p.pt2", "--method", "guess"), "unknown method 'guess'"),
    (("prune", "lenet5", "-o", "p.pt2", "--data", "x.npy"), "train_images"),
])
def test_refusals(folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple,
                  message: str) -> None:
    monkeypatch.chdir(folder)
    (folder / "bad.pt2").write_bytes(b"not a model")
    bad = np.zeros((3, *SHAPE), np.float32)
    bad[2, 0, 0, 0] = np.nan
    arrays = {"wrong": np.zeros((2, 1, 9, 7), np.float32), "nan": bad,
              "none": np.zeros((0, *SHAPE), np.float32),
              "huge": np.full((1, *SHAPE), 1e6, np.float32),
              "object": np.array([{}])}
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array, allow_pickle=True)
    before = set(folder.iterdir())
    assert message in refusal(*arguments)
    assert set(folder.iterdir()) == before


@pytest.mark.parametrize("arguments", [
    ("compile",), ("run", "net.celo"), ("frobnicate",), ("compile", "m.pt2", "--weight-bits", "3"),
    ("targets", "--unknown"),
])
def test_wrong_usage_is_status_2(arguments: tuple) -> None:
    assert invoke(*arguments, status=2).stdout == ""


def test_calibration_without_inputs(folder: Path, tmp_path: Path) -> None:
    """Refused with dynamic exponents too, which would not look at it."""
    np.save(tmp_path / "none.npy", np.zeros((0, *SHAPE), np.float32))
    assert "calibration holds no inputs; give it at least one, or leave it out" in refusal(
        "compile", folder / "model.pt2", "--calibration", tmp_path / "none.npy")


SCRIPTS = {"instance": "import torch\nnet = torch.nn.Linear(6, 3)\n",
           "klass": "import torch\nclass Net(torch.nn.Sequential):\n"
                    "    def __init__(self):\n        super().__init__(torch.nn.Linear(6, 3))\n",
           "parses": "import argparse\nparser = argparse.ArgumentParser(prog='mine')\n"
                     "parser.add_argument('--epochs', required=True)\nparser.parse_args([])\n",
           "reads": "open('no such file')\n"}


@pytest.mark.parametrize("name", ["instance:net", "klass:Net"])
def test_a_module_or_a_class_of_one_is_a_model_too(tmp_path, monkeypatch, name) -> None:
    monkeypatch.chdir(tmp_path)
    module = name.partition(":")[0]
    Path(f"{module}.py").write_text(SCRIPTS[module])
    monkeypatch.delitem(sys.modules, module, raising=False)
    found = answer("compile", name, "--input-shape", "6")
    assert [layer["columns"] for layer in found["layers"]] == [6]


@pytest.mark.parametrize(("name", "words"), [
    ("parses:net", "SystemExit: 2 [parses.py:4]; parses runs when it is imported: put what it does "
                   "as a script under if __name__ ==@"),
    ("reads:net", "[reads.py:1]; reads runs when it is imported: put"),
    ("instance.py:net", "modules are named without .py, and with points for folders; give "
                        "instance:net"),
    ("instance.py", "instance.py: Python source; on the command line give instance:FUNCTION, a "
                    "function or class in it that makes the torch.nn.Module@"),
    ("folder/inner.py", "Python source; on the command line give folder.inner:FUNCTION, a"),
    ("folder/../instance.py", "Python source; on the command line give instance:FUNCTION, a"),
    ("../below/instance.py", "Python source; on the command line give instance:FUNCTION, a"),
    ("../outside.py", "Python source; on the command line, in its folder, give outside:FUNCTION"),
    ("../outside.py:net", "with points for folders; in its folder, give outside:net"),
    ("instance", "there is no such file; give instance:FUNCTION, a function in instance.py, or a"),
])
def test_scripts_that_are_no_modules_are_told_the_way_out(tmp_path, monkeypatch, name, words
                                                          ) -> None:
    (tmp_path / "outside.py").write_text("")
    (tmp_path / "below" / "folder").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "below")
    Path("folder/inner.py").write_text("")
    for module, text in SCRIPTS.items():
        Path(f"{module}.py").write_text(text)
        monkeypatch.delitem(sys.modules, module, raising=False)
    found = invoke("compile", name, "--input-shape", "6", status=1)     # argparse prints, too
    assert words.rstrip("@") in found.stderr.splitlines()[-1]


@pytest.mark.parametrize("command", ["compile", "check"])
@pytest.mark.parametrize("shape", ["", "1,,2", "0,3", "1,2,3,4", "-1", "a"])
def test_shapes_that_are_none_are_refused(command, shape) -> None:
    told = refusal(command, "lenet5", f"--input-shape={shape}")
    assert "give one to three whole numbers above 0 with commas between, such as " in told
    assert ("such as 2,3,4, without the batch axis" in told) == (shape == "1,2,3,4")


def test_a_shape_with_channels_last_is_told_the_other_way_round(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("last_net.py").write_text("""
import torch

def make():
    return torch.nn.Conv2d(3, 4, 3)
""")
    assert ("make its forward pass accept one float32 tensor of the shape (1, 8, 8, 3), or give "
            "example_input (--input-shape, --data) the shape that it takes, (1, 3, 8, 8) where "
            "channels come last\n") in refusal("compile", "last_net:make", "--input-shape", "8,8,3")
    found = invoke("compile", "last_net:make", "--input-shape", "3,8,8")
    assert found.stdout.endswith("nothing is written; --output PROGRAM.celo keeps the program\n")


@pytest.mark.parametrize("command", ["compile", "check"])
def test_an_unknown_shape_is_asked_for(tmp_path, monkeypatch, command) -> None:
    monkeypatch.chdir(tmp_path)
    Path("klass.py").write_text(SCRIPTS["klass"])
    monkeypatch.delitem(sys.modules, "klass", raising=False)
    told = refusal(command, "klass:Net")
    assert "does not tell its input shape; give --input-shape C,H,W" in told
    assert "3,8,8:10 of two tensors" in told and "an .npz file with each under its name" in told


@pytest.mark.parametrize("name", ["x.jpg", "net.celo", "y.npz.bak"])
def test_results_are_written_where_their_ending_says_so(folder, tmp_path, name) -> None:
    assert "results are written as .npz" in refusal(
        "run", folder / "net.celo", "--input", folder / "x.npy", "-o", tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_trained_weights_come_from_a_file(folder: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("cli_weights_net.py").write_text("""
import torch

def make():
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(6, 3))
""")
    weights = {"1.weight": np.eye(3, 6, dtype=np.float32), "1.bias": np.zeros(3, np.float32)}
    save_file(weights, "trained.safetensors")
    save_file({"1.weight": weights["1.weight"]}, "half.safetensors")
    given = ("cli_weights_net:make", "--input-shape", "1,2,3", "--weights")
    assert answer("compile", *given, "trained.safetensors", "-o", "net.celo")["nonzeros"] == 3
    x = np.float32([[[[1, 2, 3], [4, 5, 6]]]])
    assert celosia.run(celosia.load("net.celo"), x).values.tolist() == [[1, 2, 3]]
    assert answer("check", *given, "trained.safetensors", "--target", "icebreaker")["fits"]
    for command in ("compile", "check"):
        assert "half.safetensors: does not fit the model: 1.bias missing" in refusal(
            command, *given, "half.safetensors")
        assert "a .pt2 file has its weights; leave --weights out" in refusal(
            command, folder / "model.pt2", "--weights", "trained.safetensors")
    assert "trained.safetensors" in refusal("compile", *given, "trained.safetensors", "-o",
                                            "trained.safetensors")
    torch.save({name: torch.from_numpy(array) for name, array in weights.items()}, "net.pt")
    *said, load, save = invoke("compile", *given, "net.pt", status=1).stderr.splitlines()
    assert said == ["celosia: net.pt: as torch.save writes files, which can run code when opened; "
                    "make a .safetensors file of the weights in it:"]
    subprocess.run([sys.executable, "-c", "\n".join((load.strip(), save.strip()))], check=True)
    assert answer("compile", *given, "net.safetensors")["nonzeros"] == 3
