"""`celosia explain`: what words say, not what was planned.

`sharing.check_words` compares the two on random networks."""

import json
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

import celosia
from celosia.bands.disassembly import layer_words
from celosia.bands.lives import Life
from celosia.bands.occupancy import Kind, Piece, letters, picture
from celosia.bands.program import stream_program
from celosia.bands.report import copied, main_memory
from celosia.bands.schedule import StreamSchedule
from celosia.cli import app, streams
from celosia.explain import explain, pieces_told
from celosia.program import program_of
from celosia_spec.isa.array import Array
from celosia_spec.isa.controls import COMMAND, LAYER, RECORDS, Op
from stream.networks import residual_network, shrinking_network
from stream.sharing import check_words


@pytest.fixture(scope="module")
def path(program, tmp_path_factory):
    made = tmp_path_factory.mktemp("explain") / "net.celo"
    program.save(made)
    return str(made)


def shown(*arguments):
    result = CliRunner().invoke(app, ["explain", *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_words_say_what_is_reported(program):
    found, _ = explain(program)
    for layer, wanted in zip(found, program.layers, strict=True):
        assert (layer.name, layer.groups, layer.padding) == (
            wanted.name, wanted.groups, wanted.padding)
        assert layer.weights == wanted.nonzeros and layer.lanes * layer.groups == program.lanes
        assert layer.entries * 8 == wanted.weight_bytes
        assert sum(layer.spent.values()) == wanted.predicted_cycles
    assert sum(layer.fetched for layer in found) == program.program.chunks[:, 1].sum() - 1    # halt


def test_steps_of_the_words_are_those_of_the_clock(program):
    for layer, own in zip(explain(program)[0], layer_words(program.program), strict=True):
        steps, tiles = 0, 0
        for line in layer.lines:
            tiles = line.fields.get("last_tile", tiles - 1) + 1
            steps += line.fields.get("steps", 0) * tiles * own.windows
        assert steps == layer.spent["steps"]


def test_a_word_that_is_changed_is_told(program):
    """The third control word of conv1 that is no table is its layer's first one."""
    stream = program.program
    first, _ = explain(program)
    line = next(line for line in first[0].lines if line.op == "layer")
    entries = stream.entries.copy()
    words = entries[line.entry:line.entry + 2].view("<u2")
    at = int(np.flatnonzero(words == COMMAND.pack(command=1, op=Op.LAYER, argument=len(
        LAYER.words)))[0]) + 1
    relu = LAYER.words[0].pack(relu=1)
    assert words[at] & relu
    words[at] ^= relu
    changed = replace(program, program=replace(stream, entries=entries))
    line = next(line for line in explain(changed)[0][0].lines if line.op == "layer")
    assert "negative sums become 0" not in line.says


def test_what_is_added_is_told():
    program = stream_program(residual_network(), Array(main_words=1024))
    check_words(program)
    [layer] = (layer for layer in explain(program_of(
        StreamSchedule(array=program.array, stream=program), target="small",
        exponents="dynamic"))[0]
        if layer.name == "b")
    assert layer.windows == 2
    assert any("a tensor is added" in line.says for line in layer.lines)
    fills = [line.says for line in layer.lines if line.op == "fill"]
    assert any(says.startswith("a, 6 channels") for says in fills)
    assert any(says.startswith("what is added, a, 6 channels") for says in fills)


@pytest.mark.parametrize(("scale", "small"), [(1, False), (2.0**-14, True)])
def test_a_tensor_that_is_read_and_added_has_no_room_of_its_own(scale, small):
    """But where the weights are so small that it needs more than its exponent."""
    torch = pytest.importorskip("torch")

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.a, self.b = (torch.nn.Conv2d(2, 4, 3, padding=1) for _ in range(2))
            self.both = torch.nn.Conv2d(8, 4, 3, padding=1)

        def forward(self, x):
            a, b = self.a(x), self.b(x)
            return scale * self.both(torch.cat([a, b], 1)) + b

    program = celosia.compile(Net().eval(), (1, 2, 6, 6), target="icebreaker")
    node = program.graph.nodes[-1]
    assert node.inputs == ("a", "b") and node.epilogue.add == "b"
    assert node.room < 0 if small else node.room is None
    joins = [line.says for line in explain(program)[0][-1].lines if line.op == "join"]
    whys = ["maps are read together", "the residual operand has room in the sums"]
    assert [says.split(": ")[1] for says in joins] == whys[:1 + small]


def test_what_flash_brings_is_told(capsys):
    program = stream_program(shrinking_network(), Array(main_words=512, flash=4))
    assert program.copied
    check_words(program)
    words = layer_words(program)
    copies = sum(len(own.commands(Op.COPY)) for own in words)
    sections = [piece for piece in pieces_told(program, words) if piece.kind == Kind.SECTION]
    assert copies == len(program.flash.commands) and len(sections) == len(program.flash.words)
    assert copied(program) == {
        program.graph.nodes[at].name: 8 * sum(len(section.words) for section in own)
        for at, own in program.copied_layers.items()}
    made = program_of(StreamSchedule(array=program.array, stream=program), target="small",
                      exponents="dynamic")
    layers, found = explain(made)
    assert [layer.name for layer in layers if layer.copied] == list(copied(program))
    [line, *_] = (line for layer in layers for line in layer.lines if line.op == "copy")
    assert sections[0].name in line.says and f"{sections[0].first:,} to" in line.says
    streams.explained(layers, found, lone=False)
    text = capsys.readouterr().out
    assert f"entries of {sections[0].name}, from flash" in text and "+ from flash" in text
    size = sum(copied(program).values()) / 1024
    assert f"copied from flash in each inference: {size:.1f} KiB, of {sections[0].name}" in text


def test_the_picture_shows_what_has_most_of_a_range():
    found = [Piece(kind=Kind.STREAM, name="stream", first=0, words=30, life=Life(-1, 2)),
             Piece(kind=Kind.MAP, name="x", first=30, words=30, life=Life(-1, 0)),
             Piece(kind=Kind.MAP, name="a", first=64, words=36, life=Life(0, 1)),
             Piece(kind=Kind.SECTION, name="b", first=32, words=16, life=Life(1, 1))]
    assert letters(found)[found[3]] == "a"
    assert picture(found, 2, 100, 10) == ["===AAABBBB", "===aa·BBBB"]


def test_command(path, program):
    text = shown(path)
    assert max(map(len, text.splitlines())) <= 80
    for piece in main_memory(program.program).pieces:
        assert f"words {piece.first:,} to {piece.end - 1:,}" in text
    assert f"fullest at {program.fullest_moment}" in text
    told = json.loads(shown(path, "--json"))
    assert set(told) == {"target", "layers", "memory", "main_memory"}
    assert len(told["layers"]) == 5 and "lines" not in told["layers"][0]


def test_one_layer_in_words(path, program):
    text = shown(path, "--layer", "conv2")
    assert max(map(len, text.splitlines())) <= 80
    assert "negative sums become 0" in text and "the exponent of conv2" in text
    [layer] = json.loads(shown(path, "--layer", "conv2", "--json"))["layers"]
    ops = [line["op"] for line in layer["lines"]]
    assert ops.count("band") == layer["bands"] and ops.count("fill") == layer["fills"]
    for line in layer["lines"]:
        record = RECORDS.get(Op[line["op"].upper()]) if line["op"] != "batch" else None
        if record is not None:
            assert record.unpack(record.pack(**line["fields"])) == line["fields"]
    refused = CliRunner().invoke(app, ["explain", path, "--layer", "conv9"])
    assert refused.exit_code == 1 and "no layer conv9; --layer takes one of conv1" in refused.output


def test_many_layers_have_a_picture_of_some(path, monkeypatch):
    monkeypatch.setattr("celosia.bands.occupancy._ROWS", 3)
    text = shown(path)
    assert "a line for 2 layers" in text
    begun = text.splitlines().index(next(line for line in text.splitlines()
                                         if line.startswith("main memory, ")))
    assert [line.split()[0] for line in text.splitlines()[begun + 1:begun + 4]] == [
        "conv1", "fc1", "fc3"]
