"""One direction: who stands further down may import who stands further up, never the other way.

Every import in the source counts: lazy ones, and those for type checkers only. Modules of one line
do not import each other. A room (a folder with modules) stands as one, with an order of its own,
or module by module where its parts stand apart. ``__init__`` is the package's own file.
"""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

PACKAGES = {"celosia_spec": "hw", "celosia_hw": "hw", "celosia_boards": "boards",
            "celosia_sim": "sim", "celosia": "sw"}
"""Package to its folder, in their order."""

ORDER = {
    "celosia_spec": """
        __init__, errors, host_layers, isa
        files, floats, host_side, inputs, outputs, preprocessing
        block, container, network_inputs
        epilogue
        qgraph
        faint_rows, steps
        graph_rules, program
        record
    """,
    "celosia_spec.isa": """
        __init__, fabric, fields, numbers, timing
        array, frames, registers
        controls, entries, image, words
        heads, memories, passes
        fills
    """,
    "celosia_hw": """
        __init__, blocks, layouts
        signatures
        parts
        memory
        fill, flash, host, lanes, output
        stream
        cluster
        machine
        hosted_machine
        serial_machine
    """,
    "celosia_hw.parts": """
        __init__, carry_cell, compare, count, delay, lookup, mac16, rotator, table_memory, uart
        multiplier
    """,
    "celosia_hw.fill": """
        __init__, columns, finisher
        column_pair, wide_columns
        engine
        narrow_engine, wide_engine
        engines
    """,
    "celosia_hw.flash": """
        __init__, lines
        reader
    """,
    "celosia_hw.host": """
        __init__, bit_line, bit_port
        serial_port
    """,
    "celosia_hw.lanes": """
        __init__, bank_rows, block_sums, masks, pass_sums, taps, tiles, turn
        reading
    """,
    "celosia_hw.memory": """
        __init__, halves
        main_memory
        shared_memory
    """,
    "celosia_hw.output": """
        __init__, beats, clamp, control, normalise, operand, pool, position
        heads, lane_writer, queue, writer
        sums_path
        lane_path
        path
    """,
    "celosia_hw.stream": """
        __init__, exponents, rings
        executor, fetcher
        sequencer
        control_path
    """,
    "celosia_boards": """
        __init__, cache, families, platforms, processes
        bitstream, devices, kept, legality, toolchain
        description, synthesis, workplace
        clock, flash_pins, loaders, report, targets
        arrays, stages, udev, usb
        board_top, build, flash, host
        survey
    """,
    "celosia_boards.families": """
        family
        ecp5, ice40
        __init__
    """,
    "celosia_boards.platforms": """
        __init__, colorlight_i5, orangecrab, ulx3s, upduino
    """,
    "celosia_boards.host": """
        __init__, holders, job, ports, requests
        refusals
        wires
        link
        exchange, work
        machine
        driver
    """,
    "celosia_sim": """
        __init__, clock, flash, golden
        benches
        simulators, stream_memories
        stream_machine
        virtual
    """,
    "celosia_sim.benches": """
        __init__, program
    """,
    "celosia_sim.clock": """
        __init__, events
        control, drains, fills, flash, queue
        passes
        cluster
        machine_clock
        one_cluster, several_clusters
        cycles
    """,
    "celosia_sim.flash": """
        parts
        chip
        beside, wired
        __init__
    """,
    "celosia_sim.golden": """
        linear, requantise
        epilogue
        clipped
        model
        __init__, steps
    """,
    "celosia_sim.simulators": """
        __init__, cocotb_call, tools, unreset
        rtl, runtime
        cosim, verilated
    """,
    "celosia_sim.virtual": """
        byte_port, ends, faults, simulation
        design
        board, sockets
        leds, line, wire
        server
        __init__
    """,
    "celosia": """
        calibration, densify, doctor_check, errors, evaluate, exits, extras, grids, pieces, reading
        show, uncollected
        graph
        float_values, graph_rules, graph_text, range_exponents, spread, weight_matrix
        beside_float, closest_exponents, expected, input_scales, operand_room, shortfalls
        datasets, doctor_boards, modelfile, passes, static_exponents
        bands, frontend, labels, models, original
        products, program, zoo
        answer_picture, board_programs, explain, quantise, results, serialise
        answers, compiler, samples, stepwise
        accuracy, board
        backends, beside_quantised, compare, compress, faint_outputs, faint_tensors, noise
        ways_out
        api, fit_search, live, verify, widths
        demo, fit
        __init__
        doctor
        cli
        entry
        __main__
    """,
    "celosia.bands": """
        __init__, grid, lives, rows, steps, tiles
        layouts, slots
        rectangles, spreads
        filling, packing, shares
        banding, dealing, entries, regions
        counting, laid
        pages, turns
        works
        ways
        plan
        batches, occupancy
        parts
        copies
        flash, layer_commands
        layer_stream
        stream
        program
        cuts, disassembly, host, report
        schedule, simulate
        session, stepping
    """,
    "celosia.datasets": """
        dataset
        kinds
        archive, cifar10, fashion_mnist, pictures
        loading
        __init__
    """,
    "celosia.passes": """
        average_to_linear, copy_read, correct_bias, equalise, fold_padding, one_by_one, part_pools,
          rewriting, vector_input, views
        fold_batchnorm, fold_flatten, fold_forward, fuse_epilogue, leaky_to_linear,
          leave_quantisers, lift_moves, pad_pools, phases, read_views, rows_to_maps, wide_input
        curve_to_linear, product_to_linear, stored_maps
        moved_outputs
        fold_moves, join_outputs, select_nodes
        __init__
    """,
    "celosia.frontend": """
        call, decomposed, examples, kernels, origin, quantised, tracing
        arithmetic, constants, layouts, moves, patterns, periodic, refusals, sizes, tail
        activations, reductions, unflattened
        by_place, host_axes, pooling
        adaptive, resizing
        ends, onnx, operators, pt2, starts
        export, joined
        importer
        __init__, survey
    """,
    "celosia.frontend.onnx": """
        node, tensors
        moves, quantisers, shapes, windows
        bounds, file, folding
        operators
        network
        __init__
    """,
    "celosia.frontend.pt2": """
        checks, operators
        shapes, tensors
        graph
        program
        archive
        __init__
    """,
    "celosia.models": """
        alexnet, autoencoder, ecg, lenet5, mlperf_tiny, mobilenet_v2, perceptron, resnet,
          restoration, squeezenet, unet, vgg, yolo
        __init__
    """,
    "celosia.compress": """
        entry, layers, operators, outputs, readings, spans, trial, words
        amounts, options
        promise, untrained
        masks
        cost, training
        criteria, fusion, lowrank, method, unread
        precision, weights
        filters
        combined
        catalogue
        __init__
    """,
    "celosia.compress.masks": """
        __init__, weights
        filters
    """,
    "celosia.compress.training": """
        __init__, finetune, journal
        rounds
    """,
    "celosia.compress.criteria": """
        follow, registry
        filters, magnitude, scoring, statistics
        entropy, pearson
        ae_lip, correlation
        __init__
    """,
    "celosia.compress.fusion": """
        __init__, graph
        modes, pools, ranks, unseen
        batchnorm
        fold
        fuse
    """,
    "celosia.compress.lowrank": """
        __init__, evbmf, svd
        sites, tucker
        decomposition
        rank_search
        rounds
        factorise
    """,
    "celosia.compress.unread": """
        __init__, path
        rules
        paths
        drop
    """,
    "celosia.compress.precision": """
        __init__, float_products, in_format, partition
        emulate
        nsr
    """,
    "celosia.compress.weights": """
        __init__, prediction, schedule, sun2016
        cycle_masks, selection
        search
        prune
        cycles
    """,
    "celosia.compress.filters": """
        __init__, couples
        record
        owners
        tracks
        moves, readers
        follow
        structure
        removal, selection
        prune
        mask_layer
    """,
    "celosia.live": """
        __init__, shots
        camera, folder, runner, stream
        web
    """,
    "celosia.cli": """
        preprocessing, progress, tables
        common, difference, page
        noise
        answers, build, compare, doctor, energy, figures, live, load, models, network,
          serve_sim, streams, targets, widths
        check, compile, explain
        demo, options, run
        change, tune
        factorise, prune
        __init__
    """,
}


@cache
def modules() -> dict[str, Path]:
    """Every module of the packages by its dotted name, a package by its own file's."""
    found = {}
    for package, folder in PACKAGES.items():
        for path in sorted((ROOT / folder / package).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def imports(name: str) -> frozenset[str]:
    """The modules of the packages that a module imports, at any depth of its source."""
    found = set()
    for node in ast.walk(ast.parse(modules()[name].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name}: relative import"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in modules() else str(node.module))
        elif isinstance(node, ast.Constant) and "." in str(node.value):     # to be imported later
            found.add(str(node.value))
        elif isinstance(node, ast.JoinedStr) and isinstance(node.values[0], ast.Constant):
            begin = str(node.values[0].value)
            found |= {other for other in modules() if begin.endswith(".")
                      and other.startswith(begin)}
    return frozenset(found & modules().keys() - {name})


@cache
def lines(room: str) -> list[list[str]]:
    """The lines of a room's order; what is indented goes on with the line before."""
    text = ORDER[room].replace(",\n          ", ", ")
    return [line.strip().split(", ") for line in text.strip().splitlines()]


def place(room: str, name: str) -> tuple[int, str]:
    """Line and entry of a module in a room's order."""
    inner = name.removeprefix(room).lstrip(".") or "__init__"
    found = max(((len(entry), at, entry) for at, line in enumerate(lines(room)) for entry in line
                 if inner == entry or inner.startswith(entry + ".")), default=None)
    assert found, f"{name} stands in no line of the order of {room}"
    return found[1:]


def breaches(room: str) -> list[str]:
    """Every import within a room that does not point up."""
    wrong = []
    inside = [name for name in modules() if name == room or name.startswith(room + ".")]
    for name in inside:
        at, entry = place(room, name)
        for other in imports(name) & set(inside):
            there, target = place(room, other)
            if target != entry and there >= at:
                wrong.append(f"{name} imports {other}")
    return wrong


@pytest.mark.parametrize("room", ORDER)
def test_imports_point_up(room: str) -> None:
    assert not breaches(room)


def test_packages_import_those_before_them() -> None:
    order = list(PACKAGES)
    wrong = [f"{name} imports {other}" for name in modules() for other in imports(name)
             if order.index(other.split(".")[0]) > order.index(name.split(".")[0])]
    assert not wrong


def test_every_room_has_an_order_and_every_entry_is_there() -> None:
    for room in ORDER:
        for entry in (entry for line in lines(room) for entry in line if entry != "__init__"):
            name = f"{room}.{entry}"
            assert name in modules(), f"{room}: {entry} is not there"
            split = any(other.startswith(entry + ".") for line in lines(room) for other in line)
            holds = any(other.startswith(name + ".") for other in modules())
            assert split or not holds or name in ORDER, f"{name} has no order of its own"


def loaded_by(code: str) -> set[str]:
    done = subprocess.run([sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"],
                          capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_celosia_loads_neither_torch_nor_amaranth_nor_a_simulator() -> None:
    assert not loaded_by("import celosia") & {
        "torch", "amaranth", "cocotb", "numpy", "scipy", "celosia_sim", "celosia_boards"}


def test_the_spec_loads_neither_torch_nor_amaranth() -> None:
    loaded = loaded_by("import " + ", ".join(
        name for name in modules() if name.startswith("celosia_spec")))
    assert not loaded & {"torch", "amaranth", "celosia", "celosia_hw", "celosia_sim"}


def test_the_gateware_reads_of_the_spec_only_the_instruction_set() -> None:
    """The simulators hash these rooms' sources: what was made of others would stay in the cache."""
    read = "celosia_spec.isa"
    wrong = [f"{name} imports {other}" for name in modules()
             if name.startswith(("celosia_hw", read)) for other in imports(name)
             if other.startswith("celosia_spec") and not other.startswith(read)]
    assert not wrong
