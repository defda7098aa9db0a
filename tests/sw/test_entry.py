"""How the ``celosia`` process starts and ends: what it imports, interruptions, faults, pipes."""

import ast
import errno
import importlib
import os
import signal
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest

import celosia
from celosia import entry
from celosia.cli import COMMANDS, find
from celosia.extras import EXTRAS, MissingPackageError, missing, names_extra
from celosia_spec.errors import CelosiaError

ROOT = Path(__file__).parents[2]


def celosia_process(*arguments: object, code: str = "", folder: Path | None = None,
                    **options) -> subprocess.CompletedProcess:
    """Run ``celosia`` with the arguments in a process of its own, after some code."""
    program = f"{code}\nimport sys\nsys.argv = {['celosia', *map(str, arguments)]!r}\n"
    program += "from celosia.entry import main\nmain()\n"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True,
                          cwd=folder, check=False, **options)


def loaded(code: str) -> set[str]:
    """Return the modules that are imported after ``code``, in a new process."""
    done = subprocess.run([sys.executable, "-c", f"{code}\nimport sys\nprint(set(sys.modules))"],
                          capture_output=True, text=True, check=True)
    return ast.literal_eval(done.stdout.splitlines()[-1])


def test_the_script_imports_nothing_before_it_listens_to_interruptions() -> None:
    ours = loaded("import celosia.entry") - loaded("")
    assert ours == {"celosia", "celosia.entry", "celosia.exits"}
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"celosia": "celosia.entry:main"}


LIBRARIES = {"torch", "scipy", "numpy", "amaranth", "celosia_sim"}


@pytest.mark.parametrize("arguments", [
    ["--help"], ["targets"], ["targets", "--json"], ["prune", "--help"], ["factorise", "--help"]])
def test_what_needs_no_network_waits_for_no_library(arguments: Sequence[str]) -> None:
    code = (f"import sys\nsys.argv = ['celosia', *{arguments!r}]\nfrom celosia.entry import main\n"
            "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n")
    modules = loaded(code)
    assert not LIBRARIES & modules


@pytest.mark.parametrize(("arguments", "words"), [
    (["prune", "--method", "svd"], "celosia: unknown method 'svd'; known methods: magnitude, "),
    (["factorise", "--method", "l1"], "celosia: unknown method 'l1'; known methods: svd, tucker"),
    (["prune", "--method", "correlation", "--option", "span=own"],
     "celosia: method 'correlation' has no option 'span'; its options: activation, "),
    (["prune", "--method", "correlation", "--option", "activation=mid"],
     "celosia: activation must be one of "),
    (["prune", "--method", "ae-lip", "--option", "intervals=1"],
     "celosia: intervals must be at least 2 "),
    (["prune", "--method", "mask"], "celosia: --method mask needs --data, to train the masks on"),
    (["factorise", "--method", "tucker", "--scheme", "spatial"],
     "celosia: --scheme does not go with --method tucker; it goes with svd"),
    (["factorise", "--rule", "curve", "--accuracy-budget", "0.01"],
     "celosia: --rule curve needs --data, to measure accuracy on"),
    (["factorise", "--rule", "wat"], "celosia: rule must be one of energy, speedup, "),
    (["factorise", "--scheme", "wat"], "celosia: scheme must be one of channel, spatial"),
    (["prune", "--order", "wat"], "celosia: order must be one of together, forward, "),
    (["prune", "--option", "schedule=wat"], "celosia: schedule must be one of cubic, linear"),
    (["prune", "--method", "l1", "--rate", "0.5", "--scope", "wat"],
     "celosia: scope must be one of layer, global, not 'wat'"),
    (["prune", "--rate", "1.5"], "celosia: --rate must be at least 0 and below 1, not 1.5"),
    (["prune", "--rate", "nan"], "celosia: --rate must be at least 0 and below 1, not nan"),
    (["prune", "--method", "l1", "--rate", "-0.1"], "celosia: --rate must be at least 0 and "),
    (["prune", "--method", "l1", "--macs-removed", "1"], "celosia: --macs-removed must be at "),
    (["prune", "--rates", "fc1=0.5,fc2=2"],
     "celosia: --rates: the rate of layer 'fc2' must be at least 0 and below 1, not 2.0"),
    (["prune", "--option", "strong=2"], "celosia: strong must be 0 to 1, not 2.0"),
    (["prune", "--optimizer", "wat", "--data", "d"], "celosia: --optimizer must be one of adamw"),
    (["prune", "--learning-rate", "0", "--data", "d"],
     "celosia: --learning-rate must be above 0, not 0.0"),
    (["prune", "--method", "mask", "--data", "d", "--rate", "0.5", "--strength", "inf"],
     "celosia: strength must be above 0, not inf"),
    (["factorise", "--parameters-removed", "0"],
     "celosia: --parameters-removed must be above 0 and below 1, not 0.0"),
    (["factorise", "--rule", "energy", "--value", "1.5"],
     "celosia: value, a share of energy, must be at most 1, not 1.5"),
    (["factorise", "--rule", "speedup", "--value", "-2"], "celosia: value must be above 0, not -2"),
    (["factorise", "--ranks", "conv1=3,fc1=0"],
     "celosia: --ranks: a rank of layer 'fc1' must be at least 1, not 0"),
    (["factorise", "--ranks", "conv2=10x-1"], "celosia: --ranks: a rank of layer 'conv2' must be "),
    (["factorise", "--ranks", "conv2=1x2x3"], "celosia: --ranks 'conv2=1x2x3': give LAYER=RANK "),
    (["factorise", "--mean", "a", "--data", "d"], "celosia: --mean 'a': give a number such as"),
    (["prune", "--deviation", "1"], "celosia: --mean and --deviation say how --data becomes "),
    (["prune", "--seed", "-1"], "Usage: "),
    (["factorise", "--seed", "4294967296"], "Usage: "),
    (["factorise", "--weakening", "nan"], "Usage: "),
    (["prune", "--ranks", "fc1=2"], "Usage: "),
])
def test_a_refusal_of_methods_waits_for_no_library(arguments: Sequence[str], words: str) -> None:
    """Nor is the model looked for, which is not there."""
    done = celosia_process(*arguments, "missing:make", "-o", "p.pt2",
                           code=f"import sys\nsys.modules.update(dict.fromkeys({LIBRARIES}))")
    assert done.returncode == (2 if words == "Usage: " else 1)
    assert done.stderr.startswith(words)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_of_commands_says_what_the_commands_say(name: str) -> None:
    module = importlib.import_module(f"celosia.cli.{COMMANDS[name][0]}")
    first = getattr(module, name.replace("-", "_")).__doc__.split("\n\n")[0]
    assert " ".join(first.split()) == COMMANDS[name][1]
    assert find(name).name == name


def interrupting(folder: Path, body: str) -> str:
    (folder / "stopped.py").write_text(
        "import os, signal, time\n\ndef stop():\n    os.kill(os.getpid(), signal.SIGINT)\n"
        f"    time.sleep(10)\n\ndef make():\n{body}")
    return "stopped:make"


@pytest.mark.parametrize("body", [
    "    stop()\n",
    "    exec('stop()')\n",                             # Python would kill itself by the signal
    "    try:\n        stop()\n    except BaseException:\n        raise RuntimeError('lost')\n",
])
def test_an_interrupted_command_says_so_and_leaves_nothing(tmp_path: Path, body: str) -> None:
    model = interrupting(tmp_path, body)
    done = celosia_process("compile", model, "-o", "net.celo", folder=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "celosia: interrupted\n")
    assert not list(tmp_path.glob("*.celo*")) and not list(tmp_path.glob(".*"))


def test_an_interruption_while_importing_is_one_line() -> None:
    code = ("import builtins, os, signal\nreal = builtins.__import__\n"
            "def slow(name, *rest):\n    if name == 'typer':\n"
            "        os.kill(os.getpid(), signal.SIGINT)\n    return real(name, *rest)\n"
            "builtins.__import__ = slow\n")
    done = celosia_process("targets", code=code)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "celosia: interrupted\n")


def test_interruptions_that_the_caller_has_ignored_stay_ignored() -> None:
    code = ("import os, signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
            "import celosia.cli.targets\nos.kill(os.getpid(), signal.SIGINT)\n")
    assert celosia_process("targets", code=code).returncode == 0


def test_a_pipe_that_nobody_reads_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as closed:
        done = subprocess.run([sys.executable, "-m", "celosia", "targets"], stdout=closed,
                              stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_said() -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run([sys.executable, "-m", "celosia", "targets"], stdout=full,
                              stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == f"celosia: {os.strerror(errno.ENOSPC).lower()}\n"


def test_closed_outputs_are_no_error() -> None:
    code = "import sys\nsys.stdout = sys.stderr = None\n"
    assert celosia_process("targets", code=code).returncode == 0


def test_names_that_the_terminal_cannot_show_are_no_error() -> None:
    done = celosia_process("targets", env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0 and "icebreaker" in done.stdout


def ending(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, error: BaseException,
           ) -> tuple[object, str]:
    """Return exit status and words of a command that ends with an error."""
    def fail() -> None:
        raise error

    monkeypatch.setattr("celosia.cli.app", fail)
    before = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(SystemExit) as end:
            entry.main()
    finally:
        signal.signal(signal.SIGINT, before)
    captured = capsys.readouterr()
    assert captured.out == ""
    return end.value.code, captured.err


def test_faults_have_a_status_and_a_line_of_their_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.delenv("CELOSIA_DEBUG", raising=False)
    status, words = ending(monkeypatch, capsys, KeyError("gone\nwith a line"))
    assert status == 70
    assert words.startswith("celosia: internal error, please report it with the command and its "
                            "files: KeyError: 'gone\\nwith a line' in test_entry.py:")
    assert words.count("\n") == 1
    monkeypatch.setenv("CELOSIA_DEBUG", "1")
    status, words = ending(monkeypatch, capsys, KeyError("gone"))
    assert status == 70 and "Traceback" in words


@pytest.mark.parametrize(("error", "status", "words"), [
    (MemoryError(), 1, "celosia: not enough memory for this; "),
    (OSError(5, "Input/output error"), 1, "celosia: input/output error\n"),
    (FileNotFoundError(2, "No such file", "x.npy"), 1, "celosia: x.npy: no such file\n"),
    (OSError("words"), 1, "celosia: words\n"),
    (ModuleNotFoundError("no", name="tensorly"), 1, "celosia: this needs tensorly, which is not "),
    (ModuleNotFoundError("no", name="elsewhere"), 70, "celosia: internal error, please report it"),
    (KeyboardInterrupt(), 130, "celosia: interrupted\n"),
    (SystemExit(2), 2, ""),
    (SystemExit(None), 0, ""),
    (SystemExit("words"), 1, ""),
    (RecursionError("deep"), 70, "celosia: internal error, please report it"),
])
def test_endings(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture,
                 error: BaseException, status: int, words: str) -> None:
    found, said = ending(monkeypatch, capsys, error)
    assert found == status
    assert said.startswith(words) and (words or not said)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a network as net_of.py, m.pt2 and net.celo."""
    torch = pytest.importorskip("torch")
    import warnings

    import numpy as np

    folder = tmp_path_factory.mktemp("network")
    (folder / "net_of.py").write_text("import torch\n\ndef make():\n    return torch.nn.ReLU()\n")
    model = torch.nn.Linear(4, 2).eval()
    celosia.compile(model, np.zeros((1, 4), np.float32)).save(folder / "net.celo")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(torch.export.export(model, (torch.zeros(1, 4),)), folder / "m.pt2")
    return folder


@pytest.mark.parametrize(("arguments", "lacking", "extra"), [
    (("compile", "m.pt2"), "torch", "torch"),
    (("compile", "lenet5"), "torch", "torch"),
    (("compile", "net_of:make"), "torch", "torch"),
    (("prune", "lenet5", "-o", "p.pt2"), "torch", "torch"),
    (("factorise", "lenet5", "-o", "p.pt2"), "torch", "torch"),
    (("build", "net.celo", "-o", "b"), "amaranth_boards", "fpga"),
])
def test_a_missing_package_names_its_extra(
    network: Path, arguments: Sequence[str], lacking: str, extra: str
) -> None:
    done = celosia_process(*arguments, code=f"import sys\nsys.modules[{lacking!r}] = None",
                           folder=network)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (f"celosia: this needs {lacking}, which is not installed; run: "
                           f'pip install "celosia[{extra}]"\n')


@pytest.mark.parametrize("arguments", [
    ("compile", "missing.pt2", "--target", "virtex"),
    ("prune", "missing:make", "-o", "p.pt2", "--target", "virtex"),
    ("factorise", "missing:make", "-o", "p.pt2", "--target", "virtex"),
])
def test_a_target_is_looked_up_before_torch_and_the_model(arguments: Sequence[str]) -> None:
    done = celosia_process(*arguments, code="import sys\nsys.modules['torch'] = None")
    assert done.returncode == 1
    assert done.stderr.startswith("celosia: unknown target 'virtex'; targets are icebreaker, ")


def test_the_library_names_the_extra_too() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import sys, celosia\nsys.modules['torch'] = None\n"
         "for use in (lambda: celosia.compile('m.pt2', None), lambda: celosia.compress.prune):\n"
         "    try:\n        use()\n    except celosia.CelosiaError as refusal:\n"
         "        print(refusal, isinstance(refusal, ImportError))\n"],
        capture_output=True, text=True, check=True)
    line = ('this needs torch, which is not installed; run: pip install "celosia[torch]" True\n')
    assert done.stdout == line * 2


def test_a_package_that_does_not_load_is_another_case() -> None:
    @names_extra
    def use() -> None:
        raise ImportError("libgomp.so.1: no such file", name="torch._C")

    with pytest.raises(MissingPackageError, match=r"needs torch, which is installed, but does not "
                                                  r"load \(libgomp\.so\.1: no such file\); run"):
        use()
    assert missing(ImportError("other", name="json")) is None
    assert issubclass(MissingPackageError, CelosiaError)


def test_every_extra_is_one_that_is_offered() -> None:
    offered = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"]
    distributions = {"PIL": "pillow", "cocotb_tools": "cocotb"}
    for package, extra in EXTRAS.items():
        name = distributions.get(package, package.replace("_", "-"))
        assert any(line.startswith(name) for line in offered[extra]), package
