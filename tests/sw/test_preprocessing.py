"""How pixels become inputs, and class names: checked, stored with a program, read from files."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import celosia
from celosia import Preprocessing
from celosia.cli import app
from celosia.datasets import CLASSES, DatasetError, as_inputs, preprocess
from celosia.labels import read_labels, read_truth
from celosia.samples import read_samples
from celosia.verify import verify
from celosia_spec.errors import ArgumentError, CelosiaError

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PIXELS = np.random.default_rng(0).integers(0, 256, (5, 3, 6, 7), np.uint8)


def net(classes: int = 4, channels: int = 3) -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(channels, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(4, classes))


@functools.cache
def compiled(preprocessing: Preprocessing | None, classes: int = 4):
    return celosia.compile(net(classes), np.zeros((1, 3, 6, 7), np.float32),
                           preprocessing=preprocessing)


def test_inputs_follow_the_formula() -> None:
    found = Preprocessing(scale=1 / 255, mean=MEAN, deviation=DEVIATION).inputs(PIXELS)
    wanted = np.empty(PIXELS.shape)
    for channel in range(3):
        wanted[:, channel] = (PIXELS[:, channel] * (1 / 255) - MEAN[channel]) / DEVIATION[channel]
    assert found.dtype == np.float32 and np.array_equal(found, wanted.astype(np.float32))
    assert np.allclose(found, as_inputs(PIXELS, MEAN, DEVIATION), atol=1e-6)


def test_inputs_of_grey_levels_are_those_that_the_package_trains_with() -> None:
    grey = PIXELS[:, 0]
    found = Preprocessing(scale=1 / 256).inputs(grey)
    assert np.array_equal(found, as_inputs(grey)) and found.shape == (5, 1, 6, 7)
    shoes = np.tile(grey, (1, 5, 4))[:, :28]
    assert np.array_equal(Preprocessing(scale=1 / 256).inputs(shoes), preprocess(shoes))


def test_means_of_pixels_that_are_not_scaled_are_told() -> None:
    words = ("mean 127 and deviation 58: scaled pixels are 1 at most; what was found of pixels up "
             "to 255 has to be divided by 255, as they are, or scale is 1")
    given = {"mean": (127, 120, 100), "deviation": 58}
    assert words in celosia.compile(net(), (1, 3, 6, 7), preprocessing=Preprocessing(
        scale=1 / 255, **given)).remarks
    for right in (Preprocessing(scale=1, **given), Preprocessing(), Preprocessing(scale=1 / 255),
                  Preprocessing(scale=1 / 255, mean=MEAN, deviation=DEVIATION),
                  Preprocessing(scale=1 / 255, deviation=2.5)):
        assert right.remarks == ()
    for far in (300, -300):
        assert Preprocessing(scale=1 / 255, mean=far).remarks == (
            f"mean {far}: scaled pixels are 1 at most; give what was found of such",)


def test_numbers_may_be_given_plain_or_as_any_sequence() -> None:
    assert Preprocessing(scale=1, mean=2, deviation=[3.0], labels=["a", "b"]) == Preprocessing(
        scale=1.0, mean=(2.0,), deviation=np.array([3.0]), labels=("a", "b"))
    assert str(Preprocessing(scale=0.25, mean=(1, 2, 3))) == "x = (pixel / 4 - [1 2 3]) / 1"


@pytest.mark.parametrize(("arguments", "words"), [
    ({"scale": 0}, "scale must be one number above 0, such as 1/255, not 0"),
    ({"scale": -1.0}, "scale must be one number above 0"),
    ({"scale": (1, 2)}, "scale must be one number above 0"),
    ({"scale": float("nan")}, "scale must be one finite number"),
    ({"scale": True}, "scale must be one finite number"),
    ({"scale": "1/255"}, "scale must be one finite number"),
    ({"scale": 1, "mean": ()}, "mean must be one finite number"),
    ({"scale": 1, "mean": (1.0, float("inf"))}, "mean must be one finite number"),
    ({"scale": 1, "mean": [[1.0]]}, "mean must be one finite number"),
    ({"scale": 1, "deviation": 0.0}, "deviation must be above 0, not 0"),
    ({"scale": 1, "mean": (1, 2), "deviation": (1, 2, 3)}, "mean has 2 numbers and deviation 3"),
    ({"mean": 0.5}, "mean and deviation without a scale; give scale=1/255"),
    ({"scale": 1e300}, "lead to inputs of 65536 and more"),
    ({"scale": 1, "deviation": 1e-300}, "lead to inputs of 65536 and more"),
    ({"labels": "abc"}, "labels must be a sequence of names, not one string"),
    ({"labels": ["a", ""]}, "label '' must be 1 to 200 printable"),
    ({"labels": ["a\x1b[2J"]}, "must be 1 to 200 printable"),
    ({"labels": [" a"]}, "without spaces around them"),
    ({"labels": ["a" * 201]}, "must be 1 to 200 printable"),
    ({"labels": [3]}, "label '3' must be"),
    ({"labels": ["a"] * 10_001}, "10001 labels, at most 10000 are stored")])
def test_what_cannot_be_is_refused(arguments: dict, words: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        Preprocessing(**arguments)
    assert words in str(caught.value)


def test_pixels_of_another_type_shape_or_number_of_channels_are_refused() -> None:
    known = Preprocessing(scale=1, mean=(1, 2, 3))
    for pixels, words in ((PIXELS.astype(np.float32), "must be uint8"),
                          (PIXELS[0, 0], "must be uint8"), (PIXELS[:, :2], "of 3 channels, and "
                                                            "there are 2")):
        with pytest.raises(ArgumentError, match=words):
            known.inputs(pixels)
    with pytest.raises(ArgumentError, match="nothing says how pixels become inputs"):
        Preprocessing(labels=("a",)).inputs(PIXELS)


@pytest.mark.parametrize(("preprocessing", "signed"), [
    (None, True), (Preprocessing(labels=("T-shirt/top", "Größe", "靴", "d")), True),
    (Preprocessing(scale=1 / 255, mean=MEAN, deviation=DEVIATION), True),
    (Preprocessing(scale=2, deviation=0.1, labels=("a", "a", "b", "c")), False)])
def test_it_travels_in_the_program_file_and_changes_no_bit(preprocessing, signed,
                                                           tmp_path: Path) -> None:
    """But that inputs that are never below 0 have no sign."""
    program = compiled(preprocessing)
    program.save(tmp_path / "p.celo")
    loaded = celosia.load(tmp_path / "p.celo")
    assert loaded.preprocessing == program.preprocessing == preprocessing
    assert program.graph.tensors[program.graph.input].signed == signed
    if signed:
        assert np.array_equal(program.program.entries, compiled(None).program.entries)
        assert program.image == compiled(None).image


def test_it_must_suit_the_network() -> None:
    with pytest.raises(ArgumentError, match="3 labels, and the network tells 4 classes apart"):
        compiled(Preprocessing(labels=("a", "b", "c")))
    with pytest.raises(ArgumentError, match="of 2 channels, and there are 3"):
        compiled(Preprocessing(scale=1, mean=(1, 2)))


def test_labels_of_a_network_that_ends_otherwise() -> None:
    """Those of an arg-max over the scores, and two of one sigmoid."""
    x = np.zeros((1, 3, 6, 7), np.float32)
    named = Preprocessing(labels=("no", "yes"))
    for model in (nn.Sequential(net(2), nn.Softmax(1)), nn.Sequential(net(1), nn.Sigmoid())):
        assert celosia.compile(model, x, preprocessing=named).scoring.classes == 2
    with pytest.raises(ArgumentError, match="2 labels, and the network tells 1 classes apart"):
        celosia.compile(net(1), x, preprocessing=named)


def report(*arguments: object, status: int = 0):
    result = CliRunner().invoke(app, [str(argument) for argument in ("compile", *arguments)])
    assert result.exit_code == status, result.output
    return json.loads(result.stdout) if not status else result.stderr


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The path of a model; names.txt beside it has four classes."""
    path = tmp_path_factory.mktemp("model") / "m.pt2"
    torch.export.save(torch.export.export(net().eval(), (torch.zeros(1, 3, 6, 7),)), path)
    path.with_name("names.txt").write_text("cat\ndog\nhot air balloon\nÄpfel\n", encoding="utf-8")
    return path


def test_compile_stores_what_its_options_say(model: Path, tmp_path: Path) -> None:
    names = model.with_name("names.txt")
    found = report(model, "--labels", names, "--mean", "0.485,0.456,0.406",
                   "--deviation", "1/4", "-o", tmp_path / "p.celo", "--json")
    wanted = Preprocessing(scale=1 / 255, mean=MEAN, deviation=0.25,
                           labels=("cat", "dog", "hot air balloon", "Äpfel"))
    assert celosia.load(tmp_path / "p.celo").preprocessing == wanted
    assert found["preprocessing"]["labels"] == list(wanted.labels)
    assert report(model, "--json")["preprocessing"] is None
    only = report(model, "--labels", names, "--json")["preprocessing"]
    assert only["scale"] is None
    assert report(model, "--scale", "1/256", "--json")["preprocessing"]["scale"] == 1 / 256
    text = CliRunner().invoke(app, ["compile", str(model), "--scale", "0.5"]).stdout
    assert "pictures: x = pixel / 2; no class names" in text


def test_check_knows_as_compile_does_that_inputs_have_no_sign(model: Path) -> None:
    def checked(*options: str) -> int:
        found = CliRunner().invoke(app, ["check", str(model), "--target", "icebreaker", "--json",
                                         *options])
        assert found.exit_code == 0, found.output
        return json.loads(found.stdout)["targets"][0]["cycles"]

    for options in ((), ("--scale", "1/255"), ("--mean", "0.5")):
        assert checked(*options) == report(model, *options, "--json")["predicted_cycles"]
    words = "inputs are never below 0 and have no sign, which changes cycles by a few"
    for options, told in ((("--scale", "1/255"), True), (("--mean", "0.5"), False)):
        text = CliRunner().invoke(app, ["compile", str(model), *options]).stdout
        assert (words in " ".join(text.split())) == told


@pytest.mark.parametrize(("options", "words"), [
    (("--scale", "a"), "--scale 'a': give a number such as 0.25 or 1/255"),
    (("--scale", "1/0"), "--scale '1/0'"), (("--scale", ""), "--scale ''"),
    (("--mean", "٣"), "--mean '٣'"), (("--scale", "1e4"), "lead to inputs of 65536 and more"),
    (("--scale", "1e999999999"), "must be one finite"),
    (("--scale", "0"), "scale must be one number above 0"),
    (("--mean", "1,b,2"), "--mean '1,b,2': give a number such as 0.25 or 1/255, or one for each"),
    (("--mean", "1,2"), "of 2 channels, and there are 3"),
    (("--deviation", "0"), "deviation must be above 0"),
    (("--labels", "none.txt"), "none.txt"), (("--labels", "empty.txt"), "no class names in it"),
    (("--labels", "gap.txt"), "line 2 is empty"), (("--labels", "bytes.txt"), "not a text in UTF"),
    (("--labels", "two.txt"), "2 labels, and the network tells 4 classes apart")])
def test_compile_refuses_in_one_line(model: Path, tmp_path: Path, monkeypatch, options,
                                     words: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty.txt").write_text("\n\n")
    Path("gap.txt").write_text("a\n\nb\n")
    Path("two.txt").write_text("a\r\nb\r\n")
    Path("bytes.txt").write_bytes(b"\xff\xfe\x00")
    refusal = report(model, *options, status=1)
    assert words in refusal and refusal.count("\n") == 1


@pytest.mark.parametrize("name", ["lenet5", "lenet5-pruned"])
def test_the_packages_networks_bring_their_classes_and_their_pixels(name: str) -> None:
    found = report(name, "--json")["preprocessing"]
    assert found == {"scale": 1 / 256, "mean": [0.0], "deviation": [1.0], "labels": list(CLASSES)}


def test_class_files(tmp_path: Path) -> None:
    names, truth = tmp_path / "names.txt", tmp_path / "truth.txt"
    names.write_bytes("\ufeffcat\r\n  dog \r\n7\r\n".encode())
    assert read_labels(names) == ("cat", "dog", "7")
    truth.write_text("dog\n0\n7\n1\n")
    assert read_truth(truth, read_labels(names)).tolist() == [1, 0, 2, 1]
    np.save(tmp_path / "truth.npy", np.array([1.0, 3.0]))
    assert read_truth(tmp_path / "truth.npy", ()).tolist() == [1, 3]
    for text, words in (("cow\n", "line 1, 'cow', is no class number nor one of the 3 class names"),
                        ("-1\n", "line 1, '-1', is no class number"), ("٣\n", "is no class number"),
                        ("99999999\n", "is no class number")):
        truth.write_text(text, encoding="utf-8")
        with pytest.raises(CelosiaError, match=words):
            read_truth(truth, read_labels(names))
    truth.write_text("2000000\n")
    with pytest.raises(DatasetError, match="must be whole numbers"):
        read_truth(truth, ())


SCALED = "input: uint8 pixels, and the program says how they become inputs; give program.prep"
UNKNOWN = ("uint8 pixels, and the program does not say how they become inputs; compile it with "
           "--scale 1/255, --mean and --deviation as it was trained (preprocessing= in Python), or "
           "give inputs of float32")


def test_pixels_are_not_taken_for_inputs(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval()
    known, shape = celosia.Preprocessing(scale=1 / 255), (1, 1, 4, 4)
    pixels = np.full((2, *shape[1:]), 200, np.uint8)
    scaled = celosia.compile(net, shape, preprocessing=known)
    plain = celosia.compile(net, shape)
    for program, words in ((scaled, SCALED), (plain, f"input: {UNKNOWN}")):
        for given in (pixels, torch.from_numpy(pixels), pixels[:, 0]):
            for call in (celosia.run, verify):
                with pytest.raises(ArgumentError) as caught:
                    call(program, given)
                assert str(caught.value).startswith(words)
    for own, words in ((known, "calibration: uint8 pixels, and the program says how they become "
                               "inputs; give preprocessing.inputs(pixels), or numbers of another "
                               "type"), (None, f"calibration: {UNKNOWN}")):
        for call in (celosia.compile, celosia.check):
            with pytest.raises(ArgumentError) as caught:
                call(net, shape, calibration=pixels, preprocessing=own)
            assert str(caught.value) == words
    plain.save(tmp_path / "p.celo")
    np.save(tmp_path / "x.npy", pixels)
    given = CliRunner().invoke(app, ["run", str(tmp_path / "p.celo"), "--input",
                                     str(tmp_path / "x.npy")])
    assert given.exit_code == 1 and UNKNOWN.removeprefix("uint8 ") in given.stderr
    assert celosia.run(scaled, known.inputs(pixels)).answer.shape == (2, 3)


def test_pixels_of_several_inputs_and_those_that_calibrate(model: Path, tmp_path: Path) -> None:
    class Two(nn.Module):
        def forward(self, a, b):
            return a + b

    x = np.zeros((2, 4), np.float32)
    program = celosia.compile(Two(), (x[:1], x[:1]))
    numbers = np.arange(8, dtype=np.uint8).reshape(2, 4)
    assert celosia.run(program, (x, numbers)).answer.tolist() == numbers.tolist()
    x = np.zeros((2, 1, 4, 4), np.float32)
    program = celosia.compile(Two(), (x[:1], x[:1]))
    with pytest.raises(ArgumentError, match="input b: uint8 numbers, and nothing says how they "
                                            "become one of several inputs; give it as it was"):
        celosia.run(program, (x, x.astype(np.uint8)))
    np.save(tmp_path / "pixels.npy", PIXELS)
    np.save(tmp_path / "inputs.npy", Preprocessing(scale=1 / 255).inputs(PIXELS))
    given = [report(model, "--exponents", "static", "--calibration", tmp_path / name, "--scale",
                    "1/255", "--json") for name in ("pixels.npy", "inputs.npy")]
    assert given[0] == given[1]
    assert UNKNOWN in report(model, "--calibration", tmp_path / "pixels.npy", status=1)


@pytest.mark.parametrize(("shape", "known"), [
    ((8,), None), ((8,), Preprocessing(scale=1 / 255)), ((4, 6), None), ((2, 3, 4), None),
    ((4, 6), Preprocessing(scale=1 / 255)), ((3, 1, 6), None)])
def test_uint8_are_numbers_where_the_network_takes_no_pictures(tmp_path: Path, shape, known
                                                               ) -> None:
    """As numbers of other types are, which no way out needs to change."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(shape)), 3)).eval()
    x = np.random.default_rng(0).integers(0, 10, (3, *shape))
    program = celosia.compile(net, (1, *shape), preprocessing=known,
                              calibration=x.astype(np.uint8))
    right = celosia.run(program, x.astype(np.int16)).answer
    np.testing.assert_array_equal(celosia.run(program, x.astype(np.uint8)).answer, right)
    np.save(tmp_path / "x.npy", x.astype(np.uint8))
    np.testing.assert_array_equal(read_samples([tmp_path / "x.npy"], program).inputs, x)


def test_numbers_that_seem_to_be_pixels_as_they_are() -> None:
    """Told once of a run, and of calibration inputs; not where the network takes such."""
    grey = PIXELS[:, :1, :4, :4]
    given = grey.astype(np.float32)
    torch.manual_seed(0)
    net, told = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval(), []
    known = Preprocessing(scale=1 / 255, mean=0.5, deviation=0.25)
    program = celosia.compile(net, (1, 1, 4, 4), preprocessing=known)
    words = (f"input: numbers from {grey.min()} to {grey.max()}, and the program's inputs are up "
             f"to 2")
    celosia.run(program, given, notice=told.append)
    with pytest.warns(UserWarning, match=words) as warned:
        celosia.run(program, given)
    assert [warning.filename for warning in warned] == [__file__]
    right = known.inputs(grey)
    celosia.run(program, right, notice=told.append)
    celosia.run(program, np.abs(right) * 16, notice=told.append)
    assert told == [f"{words}; if they are pixels, make inputs of them as in training"]
    static = celosia.compile(net, (1, 1, 4, 4), calibration=right, exponents="static")
    celosia.run(static, given, notice=told.append)
    assert told[1:] == told[:1]
    remarks = celosia.compile(net, (1, 1, 4, 4), calibration=given, preprocessing=known).remarks
    assert "and pixels become inputs up to 2; if these are pixels, make inputs of them: pre" in (
        remarks[0])
    whole = celosia.compile(net, (1, 1, 4, 4), preprocessing=Preprocessing(scale=1))
    celosia.run(whole, given, notice=told.append)
    assert len(told) == 2
