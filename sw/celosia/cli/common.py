"""What the commands share: output, progress, reading arrays, and finding a model by its name."""

import importlib
import json
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from celosia import exits, zoo
from celosia.cli.tables import show as show
from celosia.cli.tables import table as table
from celosia.cli.tables import width as width
from celosia.cli.tables import wrapped as wrapped
from celosia.extras import missing
from celosia_spec.errors import CelosiaError, quoted, refusals
from celosia_spec.isa.numbers import MANTISSA_BITS
from celosia_spec.isa.words import WEIGHT_BITS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TypeAlias

    import numpy as np

    from celosia.program import Program
    from celosia_spec.preprocessing import Preprocessing

    Shapes: TypeAlias = Sequence[Sequence[int]] | Mapping[str, Sequence[int]]
    Examples: TypeAlias = np.ndarray | tuple[np.ndarray, ...] | dict[str, np.ndarray]

Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout, nothing else.")]
Html = Annotated[Path | None, typer.Option(
    metavar="FILE", help="Write table and plot to this HTML page, too.")]
ProgramPath = Annotated[Path, typer.Argument(metavar="PROGRAM.celo", help="A compiled program.")]
ModelName = Annotated[str, typer.Argument(
    metavar="MODEL", help="A .pt2 or .onnx file, a name that `celosia models` lists, such as "
                          "lenet5, or package.module:function where the function returns a "
                          "torch.nn.Module.")]
InputShape = Annotated[str | None, typer.Option(
    "--input-shape", metavar="C,H,W", help="Shape of one input, F of a vector, where neither the "
                                           "model nor --calibration tells it; of several tensors "
                                           "with colons between.")]
Weights = Annotated[Path | None, typer.Option(
    help="Trained weights for MODEL, a .safetensors file.")]
Accuracy = Annotated[str | None, typer.Option(
    metavar="none|default|best",
    help="default, from 8 different inputs of --calibration on: passes that make outputs more like "
         "the float ones, where these show that they help; best: static exponents that clip, too.")]
WeightBits = Annotated[int, typer.Option(min=WEIGHT_BITS[0], max=WEIGHT_BITS[-1])]
ActivationBits = Annotated[int, typer.Option(min=MANTISSA_BITS[0], max=MANTISSA_BITS[-1])]
InputBits = Annotated[int | None, typer.Option(
    help="Of the input's mantissas, up to 15 with activations of 8; the layers that read it then "
         "compute twice.")]
OutputName = Annotated[str | None, typer.Option(
    "--of", metavar="NAME", help="Of a network with several outputs: only this one. --truth, and a "
                                 "map as a picture, need it.")]
Port = Annotated[str | None, typer.Option(
    metavar="PORT", help="A board's serial port, such as /dev/ttyUSB1, socket://HOST:PORT, or auto "
                         "for the only board. Where a board is meant without it: "
                         "CELOSIA_PORT, else auto.")]
Baud = Annotated[int | None, typer.Option(
    min=1200, help="Bits a second on the serial port; what the board is built for without it.")]
_LONGEST = 2000
_COUNTS = "num_batches_tracked"


def emit(result: dict[str, Any]) -> None:
    """Print one JSON object on stdout."""
    print(json.dumps(result, allow_nan=False))


def refuse(message: str, code: Sequence[str] = ()) -> NoReturn:
    """Say why on stderr, on one line, and end with exit status 1.

    message : lines of it, such as a tool's last words, are put into one.

    code : lines of Python that the message ends in; they follow on lines of their own.

    Not where the user has interrupted the command: then that is why.
    """
    if exits.interrupts:
        raise typer.Exit(exits.INTERRUPTED)
    words = message.splitlines() or [""]
    lines = [words[0] if code else "; ".join(words), *(f"    {line}" for line in code)]
    print("celosia:", "\n".join(quoted(line, _LONGEST) for line in lines), file=sys.stderr)
    raise typer.Exit(exits.REFUSED)


def notice(words: str) -> None:
    """Tell the user on stderr of something that went wrong and was mended."""
    print(f"celosia: {quoted(words, _LONGEST)}", file=sys.stderr)


def backend_of(backend: str | None, port: str | None, usual: str) -> str:
    """Return the backend that --backend and --port name; ``usual`` where neither is given."""
    from celosia import backends

    if backend is None:
        backend = usual if port is None else backends.BOARD
    backends.named(backend)
    if port is None:
        return backend
    if backend != backends.BOARD:
        raise CelosiaError(f"--port goes with --backend {backends.BOARD}, not with "
                           f"{backend}; leave one of them out")
    return f"{backends.BOARD}:{port}"


def check_target(name: str) -> None:
    """CelosiaError unless there is a target of this name; before torch, which takes seconds."""
    from celosia_boards.arrays import array_for

    with refusals():
        array_for(name)


def read_array(path: Path) -> "np.ndarray":
    """Return the array of a ``.npy`` file; CelosiaError where it holds none."""
    from celosia.reading import load_npy

    return load_npy(path)


def load_program(path: Path) -> "Program":
    """Return a compiled program; say on stderr where its weights are random."""
    from celosia import api

    program = api.load(path)
    if zoo.UNTRAINED in program.remarks:
        notice(zoo.UNTRAINED)
    return program


def read_calibration(path: Path, known: "Preprocessing | None" = None
                     ) -> "np.ndarray | dict[str, np.ndarray]":
    """Return the array of a ``.npy`` file, or those of an ``.npz`` file by their names, without
    classes (N,) called ``labels``: no input has that shape.

    known : what will be stored with the program: pixels, uint8 (N, H, W) or (N, C, H, W), become
            inputs where it says how.
    """
    from celosia.reading import MAX_BYTES, ZipReader
    from celosia_spec.files import open_file

    with open_file(path, MAX_BYTES) as stream:
        if not stream.read(4).startswith(b"PK"):
            array = read_array(path)
            pixels = array.dtype == "u1" and array.ndim in (3, 4)
            return known.inputs(array) if pixels and known and known.scale else array
        archive = ZipReader(stream, path, packed=True)
        found = {name.removesuffix(".npy"): archive.array(name) for name in archive.names}
    return {name: array for name, array in found.items() if name != "labels" or array.ndim != 1}


def find_weighted(name: str, weights: Path | None, shapes: "Shapes" = ()
                  ) -> "tuple[Any, Examples | None]":
    """Return a model as `find_model` does, with the weights of a .safetensors file if one is given.
    """
    model, example = find_model(name, shapes)
    if weights is not None:
        if not _is_network(model):
            raise CelosiaError(f"{name}: a .pt2 file has its weights; leave --weights out, or give "
                               "package.module:function, which makes the network")
        load_weights(model, weights)
    return model, example


def load_weights(module: Any, path: Path) -> None:
    """Give a module the parameters and buffers of a .safetensors file: all that it has, but for
    how many batches a normalisation has seen."""
    from celosia.modelfile import check_weights
    from celosia.reading import load_safetensors

    check_weights(path)
    tensors, own = load_safetensors(path), module.state_dict()

    def fits(name: str) -> bool:
        given, wanted = tensors.get(name), own.get(name)
        return (given is not None and wanted is not None and given.shape == wanted.shape
                and given.is_floating_point() == wanted.is_floating_point())

    wrong = [name for name in sorted(own.keys() | tensors.keys())
             if not fits(name) and (name in tensors or not name.endswith(_COUNTS))]
    if wrong:
        raise CelosiaError(f"{path}: does not fit the model: {', '.join(wrong[:5])} missing, not "
                           f"in the model, or of another shape or type; give the weights of this "
                           f"network")
    module.load_state_dict(own | tensors)
    zoo.now_trained(module)


def find_model(name: str, shapes: "Shapes" = ()) -> "tuple[Any, Examples | None]":
    """Return the model that ``name`` stands for, and an example input where it brings one.

    shapes : of one input, of each tensor or by their names, where they are known; for a file that
             leaves them open.

    A file is what its content says, whatever it is called. CelosiaError where the file, the
    module or the function is not there, or the file is no model.
    """
    if (entry := zoo.NETWORKS.get(name)) is not None:
        import numpy as np

        return entry.make(), np.zeros((1, *entry.shape), np.float32)
    if name.endswith((".pt2", ".onnx")) or Path(name).exists():
        return _of_file(name, shapes)
    module_name, colon, function_name = name.partition(":")
    if not colon:
        script = Path(f"{name}.py").is_file()
        raise CelosiaError(f"model {name!r}: there is no such file; give "
                           + (f"{name}:FUNCTION, a function in {name}.py, or " * script)
                           + f"a .pt2 or .onnx file, {zoo.near(name) or 'lenet5'} or another name "
                             "that `celosia models` lists, or package.module:function")
    if module_name.endswith(".py"):
        from celosia.modelfile import module_words

        way = module_words(Path(module_name)).removeprefix(", ").lstrip()
        raise CelosiaError(f"model {name!r}: modules are named without .py, and with points for "
                           f"folders; {way}:{function_name}")
    return _made(name, module_name, function_name), None


def _made(name: str, module_name: str, function_name: str) -> Any:
    """Return the torch.nn.Module that a user's module holds by this name, or its function makes.

    CelosiaError for whatever the user's own code raises, with the line that it came from.
    """
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    module = None
    try:
        with users_prints():
            module = importlib.import_module(module_name)
            made = getattr(module, function_name)
            if not _is_network(made):
                made = made()
    except (Exception, SystemExit) as problem:
        if isinstance(problem, ImportError) and (refusal := missing(problem)):
            raise refusal from None
        words = str(problem) if isinstance(problem, (ImportError, AttributeError)) else (
            f"{type(problem).__name__}: {problem}")
        remedy = (f"run where {module_name or 'its module'} can be imported, and name one of its "
                  f"functions, which takes no arguments")
        own = f"{module_name.rpartition('.')[2]}.py"
        if module is None and any(Path(frame.filename).name == own for frame in
                                  traceback.extract_tb(problem.__traceback__)):
            remedy = (f"{module_name} runs when it is imported: put what it does as a script under "
                      f'if __name__ == "__main__":')
        raise CelosiaError(f"model {name!r}: {quoted(words)}{_line_of(problem)}; "
                           f"{remedy}") from None
    finally:
        sys.path.remove(folder)
    if not _is_network(made):
        raise CelosiaError(f"model {name!r}: the function returns {type(made).__name__}; let it "
                           "return a torch.nn.Module")
    return made


def _is_network(made: Any) -> bool:
    """Tell whether something is a torch.nn.Module; what never imported torch is none."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(made, torch.nn.Module)


def _line_of(problem: BaseException) -> str:
    """Return where the user's code raised an error, " [net.py:3]"; "" where it did not.

    Of what lies below the current folder the last line, if any of it does.
    """
    frames = [frame for frame in traceback.extract_tb(problem.__traceback__)[1:]
              if not frame.filename.startswith("<")]
    frames = [frame for frame in frames
              if Path(frame.filename).is_relative_to(Path.cwd())] or frames
    return f" [{Path(frames[-1].filename).name}:{frames[-1].lineno}]" if frames else ""


@contextmanager
def users_prints() -> Iterator[None]:
    """Send what the user's own code prints to stderr: stdout is for the command's result."""
    with redirect_stdout(sys.stderr):
        yield


def _of_file(path: str, shapes: "Shapes") -> "tuple[Any, Examples | None]":
    from celosia.modelfile import model_format

    model_format(path)      # what is none is refused before torch is imported, which takes seconds
    from celosia.frontend.export import read_model

    model, examples = read_model(path, shapes)
    return model, None if examples is None else _alone(
        [one.detach().numpy() for one in examples.tensors])


def _alone(examples: "list[np.ndarray]") -> "Examples":
    return examples[0] if len(examples) == 1 else tuple(examples)


def input_shape(text: str | None) -> tuple[tuple[int, ...], ...]:
    """Return the shapes that --input-shape says, of each tensor that the network takes.
    CelosiaError where one is no shape."""
    return () if text is None else tuple(_shape(part, text) for part in text.split(":"))


def _shape(text: str, whole: str) -> tuple[int, ...]:
    parts = text.replace("x", ",").split(",")
    if not all(part.strip().isdecimal() and int(part) for part in parts) or len(parts) > 3:
        batch = len(parts) == 4 and parts[0].strip() == "1"
        such = f"{','.join(parts[1:])}, without the batch axis" if batch else "1,28,28"
        raise CelosiaError(f"--input-shape {whole!r}: give one to three whole numbers above 0 with "
                           f"commas between, such as {such}")
    return tuple(map(int, parts))


def known_shape(shapes: tuple[tuple[int, ...], ...],
                samples: "np.ndarray | dict[str, np.ndarray] | None") -> "Shapes":
    """Return the shapes of one input that --input-shape or else --calibration tells, or ()."""
    if shapes or samples is None:
        return shapes
    if isinstance(samples, dict):
        return {name: array.shape[1:] for name, array in samples.items()}
    return (samples.shape[1:],) if samples.ndim > 1 else ()


def example_input(name: str, example: "Examples | None",
                  samples: "np.ndarray | dict[str, np.ndarray] | None",
                  shapes: tuple[tuple[int, ...], ...] = ()) -> "Examples":
    """Return one float32 input (1, ...) that tells the network's shapes; of several tensors each,
    or by their names.

    shapes : what --input-shape says, which counts more than the others.
    """
    import numpy as np

    if shapes:
        return _alone([np.zeros((1, *shape), np.float32) for shape in shapes])
    if isinstance(samples, dict):
        return {name: array[:1].astype(np.float32) if array.ndim else array
                for name, array in samples.items()}
    if samples is not None and samples.ndim > 1 and len(samples):
        return samples[:1].astype(np.float32)
    if example is None:
        raise CelosiaError(f"model {name!r} does not tell its input shape; give --input-shape "
                           f"C,H,W such as 1,28,28 (F of vectors, 3,8,8:10 of two tensors), "
                           f"or --calibration inputs.npy, an array (N, C, H, W) or (N, F), of "
                           f"several tensors an .npz file with each under its name")
    return example
