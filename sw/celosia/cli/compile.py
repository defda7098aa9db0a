"""``celosia compile``."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from celosia import api
from celosia.cli import common, preprocessing, streams
from celosia.cli.progress import stages
from celosia.cli.tables import decibels, finite
from celosia.compiler import Compiler
from celosia.passes import check_pass
from celosia.program import Program
from celosia.show import clock_of, rate, speed
from celosia_spec.files import check_output


def compile(
    model: common.ModelName,
    calibration: Annotated[Path | None, typer.Option(
        help="Inputs, float32 (N, ...) in a .npy file, of several tensors in a .npz file by their "
             "names; static exponents need them, but of a quantised network.")] = None,
    input_shape: common.InputShape = None,
    weights: common.Weights = None,
    target: Annotated[str, typer.Option(help="Board or device; see `celosia targets`.")]
    = Compiler.target,
    output: Annotated[Path | None, typer.Option(
        "--output", "-o", help="Program file to write; without it only the report.")] = None,
    exponents: Annotated[str, typer.Option(help="dynamic or static.")] = Compiler.exponents,
    weight_bits: common.WeightBits = Compiler.weight_bits,
    activation_bits: common.ActivationBits = Compiler.activation_bits,
    input_bits: common.InputBits = None,
    lanes: Annotated[int | None, typer.Option(help="Instead of the target's default.")] = None,
    stream: Annotated[str | None, typer.Option(
        metavar="time", help="A program that takes a step of time at a run, and keeps what it "
                             "computed of earlier lines.")] = None,
    hop: Annotated[int | None, typer.Option(
        help="New lines of a step of time; the fewest that are possible.")] = None,
    accuracy: common.Accuracy = None,
    dense: Annotated[bool, typer.Option(help="Keep the zeros: the dense baseline.")] = False,
    labels: preprocessing.Labels = None,
    scale: preprocessing.Scale = None,
    mean: preprocessing.Mean = None,
    deviation: preprocessing.Deviation = None,
    dump_after: Annotated[str | None, typer.Option(
        metavar="PASS", help="Print the graph after this pass on stderr.")] = None,
    json: common.Json = False,
) -> None:
    """Compile a model for a target, check that it fits, and show the cycles of each layer."""
    settings = Compiler(target=target, exponents=exponents, weight_bits=weight_bits,
                        activation_bits=activation_bits, input_bits=input_bits, lanes=lanes,
                        sparse=not dense, stream=stream, hop=hop, accuracy=accuracy)
    settings.check(calibrated=calibration is not None)
    check_pass(dump_after)
    if output is not None:
        check_output(output, model, calibration, labels, weights)
    told = preprocessing.told(model, labels, scale, mean, deviation)
    shape = common.input_shape(input_shape)
    samples = None if calibration is None else common.read_calibration(calibration, told)
    module, example = common.find_weighted(model, weights, common.known_shape(shape, samples))
    with common.users_prints(), stages() as stage:
        program = api.compile(module, common.example_input(model, example, samples, shape),
                              calibration=samples, preprocessing=told, dump_after=dump_after,
                              progress=None if json else stage, **settings.arguments)
    if output is not None:
        program.save(output)
    result = summary(program) | {"output": None if output is None else str(output)}
    if json:
        common.emit(result)
    else:
        _print(program, result)


def summary(program: Program) -> dict[str, Any]:
    """Return the report of a program, ready for JSON."""
    layers = program.layers
    weight_bytes = sum(layer.weight_bytes for layer in layers)
    return {
        "target": program.target, "lanes": program.lanes, "exponents": program.exponents,
        "accumulator_bits": program.accumulator_bits,
        "layers": [asdict(layer) for layer in layers],
        "predicted_cycles": program.predicted_cycles, "clock_mhz": clock_of(program),
        **rate(program.predicted_cycles, clock_of(program))._asdict(),
        "nonzeros": sum(layer.nonzeros for layer in layers),
        "dense_macs": sum(layer.dense_macs for layer in layers),
        "sparse_macs": sum(layer.macs for layer in layers),
        "weight_bytes": weight_bytes,
        "compression": 4 * sum(layer.weights for layer in layers) / weight_bytes,
        "fits": program.fits, "memory": {
            use.name: {"used": use.used, "available": use.available}
            for use in program.memory_use},
        "main_memory": program.main_memory, "steps": streams.steps(program),
        "noise": {name: dict(zip(("before", "after"), map(finite, both), strict=True))
                  for name, both in program.noise.items()},
        "quantised": program.quantised and {
            name: finite(value) for name, value in asdict(program.quantised).items()},
        "tensors": program.tensors, "remarks": list(program.remarks),
        "wide_input": wide_input(program),
        "host": [asdict(layer) for layer in program.host],
        "inputs": [{"name": one.name, "shape": list(one.shape)} for one in program.inputs],
        "outputs": [{"name": output.name, "shape": list(output.answer_shape),
                     "host": [asdict(layer) for layer in output.host]}
                    for output in program.outputs],
        "preprocessing": program.preprocessing and asdict(program.preprocessing),
    }


def wide_input(program: Program) -> dict[str, Any] | None:
    """Return the bits of a wide input, the layers of its low parts, and their cycles."""
    layers = [layer for layer in program.layers if layer.name in program.low_sums]
    return {"bits": program.graph.tensors[program.graph.input].whole.bits,
            "layers": [layer.name for layer in layers],
            "cycles": sum(layer.predicted_cycles for layer in layers)} if layers else None


def _print(program: Program, result: dict[str, Any]) -> None:
    _print_layers(program, result)
    _print_memories(program, result)
    _print_network(program, result)
    print(f"wrote {result['output']}" if result["output"] else
          "nothing is written; --output PROGRAM.celo keeps the program")


def _print_layers(program: Program, result: dict[str, Any]) -> None:
    """Print what each layer takes, and where its cycles go."""
    from celosia.bands.report import spent

    clock = clock_of(program)
    table = common.table(
        f"{program.target}, {program.lanes} lanes, {program.exponents} exponents, "
        f"{program.accumulator_bits}-bit accumulators, weights {result['compression']:.1f} times "
        f"smaller than dense float32",
        "layer", "kind", "rows", "columns", "density", "useful MACs", "cycles", "ms",
        "utilisation", "bytes", "dB before", "dB", words=2,
        optional=("columns", "rows", "useful MACs", "bytes", "utilisation", "kind"))
    for layer in program.layers:
        table.add_row(
            layer.name, layer.kind, str(layer.rows), str(layer.columns),
            f"{layer.nonzeros / layer.weights:.1%}", f"{layer.macs:,}",
            f"{layer.predicted_cycles:,}",
            f"{rate(layer.predicted_cycles, clock).milliseconds:,.3f}",
            f"{layer.macs / (program.lanes * layer.predicted_cycles):.1%}",
            f"{layer.weight_bytes:,}", *map(decibels, program.noise.get(layer.name, (None, None))))
    table.add_section()
    weights = sum(layer.weights for layer in program.layers)
    table.add_row(
        "total", "", "", "", f"{result['nonzeros'] / weights:.1%}", f"{result['sparse_macs']:,}",
        f"{program.predicted_cycles:,}",
        f"{rate(program.predicted_cycles, clock).milliseconds:,.3f}",
        f"{result['sparse_macs'] / (program.lanes * program.predicted_cycles):.1%}",
        f"{result['weight_bytes']:,}", "", "")
    common.show(table)
    streams.spent([(layer.name, spent(layer, program.lanes)) for layer in program.layers])


def _print_memories(program: Program, result: dict[str, Any]) -> None:
    """Print how full memories are, and what comes from flash."""
    from celosia.bands.report import main_memory

    memories = common.table("memories, in words or numbers", "memory", "used", "available", "share")
    for name, entry in result["memory"].items():
        memories.add_row(name, f"{entry['used']:,}", f"{entry['available']:,}",
                         f"{entry['used'] / entry['available']:.0%}" if entry["available"] else "")
    common.show(memories)
    memory = main_memory(program.program)
    print(common.wrapped(f"main memory is fullest at {memory.fullest}"))
    if memory.copied:
        print(common.wrapped(f"{memory.streams}; on a board celosia flash BUILD --program "
                             "PROGRAM.celo writes them there"))


def _print_network(program: Program, result: dict[str, Any]) -> None:
    """Print what the network takes, and what was done to it and around it."""
    clock = clock_of(program)
    if wide := result["wide_input"]:
        print(common.wrapped(f"input of {wide['bits']} bits: its low parts take "
                             f"{wide['cycles']:,} cycles, in {', '.join(wide['layers'])}"))
    if result["steps"] is None:
        print(f"{program.predicted_cycles:,} cycles: {speed(program.predicted_cycles, clock)}")
    else:
        print(common.wrapped(streams.steps_told(result["steps"], clock)))
    raised = [f"{layer.name} {_few([row for row, _ in layer.raised_rows])}"
              for layer in program.layers if layer.raised_rows]
    if raised:
        print(f"weights made coarser, so that the bias fits, in rows: {_few(raised, '; ')}")
    if program.takes:
        inputs = (f"{one.name} {one.shape}" for one in program.takes)
        print(common.wrapped(f"takes {', '.join(inputs)}"))
    if program.returns:
        outputs = (f"{output.name} {output.answer_shape}" for output in program.outputs)
        print(common.wrapped(f"returns {', '.join(outputs)}"))
    for remark in program.remarks:
        print(remark)
    if loss := program.quantised:
        print(common.wrapped(
            f"on {loss.inputs} calibration inputs: {decibels(loss.ratio)} dB against the quantised "
            f"network, {decibels(loss.float_ratio)} dB against it without rounding on the way, "
            f"from which it is {decibels(loss.original)} dB itself"))
    if program.preprocessing:
        names = len(program.preprocessing.labels)
        signed = program.graph.tensors[program.graph.input].signed
        print(common.wrapped(f"pictures: {program.preprocessing}; {names or 'no'} class names"
                             + "; inputs are never below 0 and have no sign, which changes cycles "
                               "by a few" * (not signed)))


def _few(items: Sequence[object], comma: str = ", ", most: int = 8) -> str:
    """Return the first of many things, and how many more there are."""
    shown = comma.join(str(item) for item in items[:most])
    return shown if len(items) <= most else f"{shown}{comma}and {len(items) - most} more"
