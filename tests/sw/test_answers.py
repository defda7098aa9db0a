"""What `celosia run` makes of files, and what it shows of the answers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import celosia
from celosia import Preprocessing
from celosia.answers import best, evaluate
from celosia.cli import app
from celosia.datasets import CLASSES, preprocess, shipped_test_images
from celosia.models import LENET5_PREPROCESSING, load_lenet5
from celosia.show import speed
from celosia_boards.targets import target

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

IMAGES, TRUTH = (part[:40] for part in shipped_test_images())
MAP = (1, 2, 6, 8)


def head(outputs: int, *end: nn.Module, channels: int = 3) -> nn.Module:
    torch.manual_seed(4)
    return nn.Sequential(nn.Conv2d(channels, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(4, outputs), *end)


class Segments(nn.Module):
    def __init__(self, end) -> None:
        super().__init__()
        torch.manual_seed(6)
        self.conv, self.end = nn.Conv2d(2, 3, 3, padding=1), end

    def forward(self, x):
        return self.end(self.conv(x))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("answers")

    def save(name: str, model: nn.Module, shape: tuple[int, ...], target: str = "icebreaker",
             known: Preprocessing | None = None) -> None:
        celosia.compile(model, np.zeros(shape, np.float32), target=target,
                        preprocessing=known).save(path / name)

    save("lenet.celo", load_lenet5(pruned=True), (1, 1, 28, 28), known=LENET5_PREPROCESSING)
    pixels = Preprocessing(scale=1 / 255)
    save("colour.celo", head(12, nn.Softmax(1)), (1, 3, 6, 8),
         known=Preprocessing(scale=1 / 255, mean=(0.1, 0.2, 0.3), deviation=(0.5, 0.6, 0.7)))
    save("plain.celo", head(4), (1, 3, 6, 8))
    save("yes.celo", head(1, nn.Sigmoid()), (1, 3, 6, 8),
         known=Preprocessing(scale=1 / 255, labels=("cat", "dog")))
    save("number.celo", head(1), (1, 3, 6, 8), known=pixels)
    save("vector.celo", nn.Linear(48, 3), (1, 48), known=pixels)
    for name, end in (("maps", nn.Identity()), ("soft", nn.Softmax(1)),
                      ("segments", lambda y: y.argmax(1))):
        save(f"{name}.celo", Segments(end), MAP, "ecp5-85f")
    (path / "pictures").mkdir()
    for at in range(4):
        Image.fromarray(IMAGES[at]).save(path / "pictures" / f"{at}.png")
    np.save(path / "pixels.npy", IMAGES)
    np.save(path / "inputs.npy", preprocess(IMAGES))
    np.savez(path / "both.npz", images=IMAGES, labels=TRUTH)
    np.savez(path / "set.npz", train_images=IMAGES[:1], train_labels=TRUTH[:1],
             test_images=IMAGES, test_labels=TRUTH)
    np.save(path / "maps.npy", np.random.default_rng(2).normal(size=(3, *MAP[1:])))
    rgb = np.random.default_rng(3).integers(0, 256, (12, 16, 3), np.uint8)
    Image.fromarray(rgb).save(path / "rgb.png")
    Image.fromarray(rgb).save(path / "small.jpg")
    return path


def invoke(*arguments: object, status: int = 0):
    result = CliRunner().invoke(app, ["run", *map(str, arguments)])
    assert result.exit_code == status, result.output
    return result


def answer(*arguments: object) -> dict:
    return json.loads(invoke(*arguments, "--json").stdout)


@pytest.fixture(scope="module")
def wanted(folder: Path):
    """The answers of the library to the inputs that LeNet-5 was trained with."""
    return celosia.run(celosia.load(folder / "lenet.celo"), preprocess(IMAGES))


@pytest.mark.parametrize(("source", "true"), [
    ("pixels.npy", False), ("inputs.npy", False), ("both.npz", True), ("set.npz", True)])
def test_every_form_of_the_same_images_has_the_same_answers(folder, wanted, source, true) -> None:
    found = answer(folder / "lenet.celo", "--input", folder / source)
    assert found["images"] == 40
    classes = wanted.values.argmax(axis=1)
    assert [entry["class"] for entry in found["answers"]] == classes.tolist()
    first = found["answers"][0]
    assert first["name"] == CLASSES[first["class"]] and len(first["best"]) == 5
    values = [entry["value"] for entry in first["best"]]
    assert values == sorted(wanted.values[0], reverse=True)[:5]
    if true:
        assert found["accuracy"] == np.mean(classes == TRUTH)
        wrong = {(int(t), int(c)) for t, c in zip(TRUTH, classes, strict=True) if t != c}
        assert {(pair["true"], pair["answer"]) for pair in found["confusions"]} == wrong
    else:
        assert found["accuracy"] is None and found["confusions"] is None


def test_pictures_and_folders_of_pictures(folder: Path, wanted) -> None:
    found = answer(folder / "lenet.celo", "--input", folder / "pictures")
    assert found["names"] == ["0.png", "1.png", "2.png", "3.png"]
    assert [entry["best"][0]["value"] for entry in found["answers"]
            ] == wanted.values.max(axis=1)[:4].tolist()
    two = answer(folder / "lenet.celo", "--input", folder / "pictures" / "3.png", "--input",
                 folder / "pictures" / "0.png")
    assert two["names"] == ["3.png", "0.png"]
    assert two["answers"] == [found["answers"][3], found["answers"][0]]
    three = answer(folder / "lenet.celo", "--input", folder / "pictures", "--limit", 3)
    assert three["images"] == 3


def test_fashion_mnist_by_its_name(folder: Path, wanted, monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    found = answer(folder / "lenet.celo", "--input", "fashion-mnist", "--limit", 40)
    assert found["accuracy"] == np.mean(wanted.values.argmax(axis=1) == TRUTH)


def test_pictures_are_scaled_to_the_network_and_take_its_colours(folder: Path) -> None:
    """Twice the network's size: bilinear is Pillow's, with its support widened."""
    program = celosia.load(folder / "colour.celo")
    picture = Image.open(folder / "rgb.png")
    pixels = np.moveaxis(np.asarray(picture.resize((8, 6), Image.Resampling.BILINEAR)), -1, 0)
    x = (pixels / 255 - np.array([0.1, 0.2, 0.3])[:, None, None]) / np.array(
        [0.5, 0.6, 0.7])[:, None, None]
    result = celosia.run(program, x[None].astype(np.float32))
    found = answer(folder / "colour.celo", "--input", folder / "rgb.png")["answers"][0]
    assert [entry["class"] for entry in found["best"]] == np.argsort(-result.answer[0])[:5].tolist()
    assert found["best"][0]["value"] == pytest.approx(result.answer[0].max(), rel=1e-9)
    grey = answer(folder / "lenet.celo", "--input", folder / "small.jpg")
    assert grey["images"] == 1


@pytest.mark.parametrize(("mode", "as_mode"), [("RGBA", "RGB"), ("LA", "L"), ("P", "RGB")])
def test_opaque_pictures_lose_their_transparency_and_others_are_refused(
        folder: Path, tmp_path: Path, mode: str, as_mode: str) -> None:
    plain = Image.open(folder / "rgb.png").convert("P").convert("RGB").convert(as_mode)
    plain.save(tmp_path / "plain.png")
    opaque = plain.convert(mode)
    opaque.save(tmp_path / "opaque.png")
    found = [answer(folder / "colour.celo", "--input", tmp_path / name)["answers"]
             for name in ("plain.png", "opaque.png")]
    assert found[0] == found[1]
    if mode == "P":
        opaque.save(tmp_path / "clear.png", transparency=opaque.getpixel((3, 2)))
    else:
        opaque.putpixel((3, 2), (9,) * (len(mode) - 1) + (254,))
        opaque.save(tmp_path / "clear.png")
    refused = invoke(folder / "colour.celo", "--input", tmp_path / "clear.png", status=1)
    assert "clear.png: some of its pixels are transparent; put it on a back" in refused.stderr


def test_a_picture_of_as_many_elements_goes_into_a_vector(folder: Path, tmp_path: Path) -> None:
    pixels = np.arange(48, dtype=np.uint8).reshape(6, 8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    found = answer(folder / "vector.celo", "--input", tmp_path / "a.png")["answers"][0]["best"]
    values = celosia.run(celosia.load(folder / "vector.celo"),
                         (pixels.reshape(1, 48) / 255).astype(np.float32)).values[0]
    assert {entry["class"]: entry["value"] for entry in found} == dict(enumerate(values))


def test_what_a_terminal_shows(folder: Path, wanted, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = invoke(folder / "lenet.celo", "--input", folder / "both.npz").stdout
    program = celosia.load(folder / "lenet.celo")
    cycles = program.predicted_cycles
    rate = speed(cycles, target("icebreaker").clock_mhz)
    assert f"predicted {cycles:,} cycles: {rate}\n" in shown
    assert "input 0, truly Ankle boot: Ankle boot " in shown
    right = int(np.sum(wanted.values.argmax(axis=1) == TRUTH))
    assert f"accuracy {right / 40:.2%}: {right} of 40 inputs" in shown
    rows = shown.split("answer by column:\n")[1].splitlines()
    assert [row.split()[0] for row in rows[1:]] == [str(k) for k in range(10)]
    counts = np.array([[int(cell) for cell in row.split()[-10:]] for row in rows[1:]])
    assert counts.sum() == 40 and np.trace(counts) == right
    assert all(len(line) <= 80 for line in shown.splitlines())
    one = invoke(folder / "lenet.celo", "--input", folder / "pictures" / "0.png").stdout
    assert one.splitlines()[2] == "0.png" and one.splitlines()[3].endswith("  Ankle boot")
    assert len(one.splitlines()) == 8


def test_inputs_with_a_clipped_number_are_counted(folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    known = np.random.default_rng(0).uniform(0.5, 0.9, (8, 1, 6, 8)).astype(np.float32)
    celosia.compile(nn.Conv2d(1, 2, 3), known[:1], exponents="static", calibration=known,
                    accuracy="none").save(tmp_path / "p.celo")
    np.save(tmp_path / "x.npy", np.concatenate([known, 8 * known[:3]]))
    shown = " ".join(invoke(tmp_path / "p.celo", "--input", tmp_path / "x.npy").stdout.split())
    assert "s, 3 of 11 with a number clipped (larger than its exponent holds)" in shown
    assert "s, nothing clipped " in invoke(tmp_path / "p.celo", "--input", tmp_path / "x.npy",
                                           "--limit", 8).stdout.replace("\n", " ")


def test_more_than_ten_classes_show_the_pairs(folder: Path, tmp_path: Path) -> None:
    names = [f"class of things number {k}" for k in range(12)]
    (tmp_path / "names.txt").write_text("\n".join(names))
    (tmp_path / "truth.txt").write_text(f"{names[3]}\n11\n")
    shown = invoke(folder / "colour.celo", "--input", folder / "rgb.png", "--input",
                   folder / "small.jpg", "--truth", tmp_path / "truth.txt", "--labels",
                   tmp_path / "names.txt").stdout
    found = answer(folder / "colour.celo", "--input", folder / "rgb.png", "--input",
                   folder / "small.jpg", "--truth", tmp_path / "truth.txt", "--labels",
                   tmp_path / "names.txt")
    assert "truly class of things number 11" in shown
    for pair in found["confusions"]:
        assert f"{names[pair['true']]} for {names[pair['answer']]}" in " ".join(shown.split())
    assert len(found["confusions"]) >= 1 and "most often taken for another class" in shown


def test_folders_that_name_classes_otherwise_than_the_program_are_refused(
        folder: Path, tmp_path: Path) -> None:
    """By a number alone each would be called what another is."""
    for split in ("train", "test"):
        for name in ("dog", "cat"):
            (tmp_path / "pets" / split / name).mkdir(parents=True)
            Image.new("RGB", (8, 6), 99).save(tmp_path / "pets" / split / name / "a.png")
    given = (folder / "yes.celo", "--input", tmp_path / "pets")
    right = answer(*given)
    assert right["accuracy"] == 0.5
    names = tmp_path / "names.txt"
    truth = "run --truth FILE, with the program's class of each input on a line"
    for text, order, kind in (
            ("dog\ncat\n", "dog, cat", f"in another order; give {truth}"),
            ("cat\ncow\n", "cat, cow", "which are others; give compile or run --labels FILE, with "
             f"the names as its folders are called, where training had these in this order, else "
             f"{truth}")):
        names.write_text(text)
        said = invoke(*given, "--labels", names, status=1).stderr
        assert said == (f"celosia: {tmp_path / 'pets'}: its classes are cat, dog, and the "
                        f"program's {order}, {kind}\n")
    names.write_text("dog\ncat\n")      # training's order, and the truth of folders cat, dog
    (tmp_path / "truth.txt").write_text("cat\ndog\n")
    assert answer(*given, "--labels", names, "--truth", tmp_path / "truth.txt")["accuracy"] == 0.5
    names.write_text("cat\ncow\n")
    (tmp_path / "truth.txt").write_text("cow\ncat\n")
    assert answer(*given, "--labels", names, "--truth", tmp_path / "truth.txt")["accuracy"] == 0.5
    names.write_text("cat\ndog\n")
    assert answer(*given, "--labels", names)["answers"] == right["answers"]


def test_names_of_files_are_not_obeyed_by_the_terminal(folder: Path, tmp_path: Path) -> None:
    odd = tmp_path / "a\x1b[2Jb.png"
    shutil.copy(folder / "rgb.png", odd)
    shown = invoke(folder / "colour.celo", "--input", odd).stdout
    assert "\x1b" not in shown and "a\\x1b[2Jb.png" in shown


def test_an_arg_max_over_all_of_a_map_tells_its_elements_apart(tmp_path: Path) -> None:
    program = celosia.compile(Segments(lambda y: y.argmax()), np.zeros(MAP, np.float32),
                              target="ecp5-85f")
    program.save(tmp_path / "p.celo")
    x = np.random.default_rng(7).normal(size=(2, *MAP[1:])).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    found = answer(tmp_path / "p.celo", "--input", tmp_path / "x.npy")["answers"]
    assert [entry["class"] for entry in found] == celosia.run(program, x).answer.tolist()
    assert program.scoring.classes == 3 * 6 * 8


def test_one_number_and_one_sigmoid(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "truth.txt").write_text("dog\n")
    found = answer(folder / "yes.celo", "--input", folder / "rgb.png", "--truth",
                   tmp_path / "truth.txt")
    value = found["answers"][0]["value"]
    assert found["answers"][0]["class"] == int(value > 0.5) and 0 < value < 1
    assert found["accuracy"] == float(value > 0.5)
    number = answer(folder / "number.celo", "--input", folder / "rgb.png")["answers"]
    assert number[0].keys() == {"value"}


def test_maps_show_statistics(folder: Path) -> None:
    result = celosia.run(celosia.load(folder / "maps.celo"), np.load(folder / "maps.npy"))
    found = answer(folder / "maps.celo", "--input", folder / "maps.npy")["map"]
    assert found["shape"] == [3, 6, 8] and found["max"] == result.values.max()
    assert [entry["mean"] for entry in found["channels"]] == [
        pytest.approx(result.values[:, channel].mean()) for channel in range(3)]
    assert "maps of 3 x 6 x 8" in invoke(folder / "maps.celo", "--input",
                                         folder / "maps.npy").stdout
    classes = answer(folder / "segments.celo", "--input", folder / "maps.npy")["map"]["classes"]
    assert sum(entry["share"] for entry in classes) == pytest.approx(1) and len(classes) == 3


@pytest.mark.parametrize(("name", "ends"), [("maps", None), ("soft", (0.0, 1.0)),
                                            ("segments", (0.0, 2.0))])
def test_maps_are_drawn(folder: Path, tmp_path: Path, name: str, ends) -> None:
    found = answer(folder / f"{name}.celo", "--input", folder / "maps.npy", "-o",
                   tmp_path / "m.png")
    maps = celosia.run(celosia.load(folder / f"{name}.celo"), np.load(folder / "maps.npy")).answer
    low, high = ends or (maps.min(), maps.max())
    assert found["drawn"] == [low, high]
    maps = maps.reshape(3, -1, 6, 8)
    sheet = np.asarray(Image.open(tmp_path / "m.png"))
    assert sheet.shape == (3 * 7 - 1, maps.shape[1] * 9 - 1)
    tile = sheet[7:13, -8:]
    assert np.array_equal(tile, np.rint((maps[1, -1] - low) / (high - low) * 255))


@pytest.mark.parametrize(("arguments", "words"), [
    (("plain.celo", "--input", "rgb.png"), "rgb.png: pixels, and the program does not say how"),
    (("plain.celo", "--input", "both.npz"), "both.npz: pixels, and the program does not say"),
    (("maps.celo", "--input", "rgb.png"), "a picture, and the network takes inputs of the shape "
     "(2, 6, 8)"),
    (("vector.celo", "--input", "rgb.png"), "a picture, and the network takes inputs of the shape "
     "(48,)"),
    (("lenet.celo", "--input", "lenet.celo"), "lenet.celo: neither a picture nor an array; give"),
    (("lenet.celo", "--input", "none.png"), "none.png"),
    (("lenet.celo", "--input", "broken.png"), "broken.png: not a readable picture"),
    (("lenet.celo", "--input", "pictures", "--input", "rgb.png"), "a folder among several inputs"),
    (("lenet.celo", "--input", "mixed"), "notes.txt: not a picture; keep only"),
    (("lenet.celo", "--input", "empty"), "not a known data set"),
    (("lenet.celo", "--input", "other.npz"), "has no array images"),
    (("lenet.celo", "--input", "one.npy"), "input: a single number; give real numbers"),
    (("lenet.celo", "--input", "one.npz"), "input: a single number; give real numbers"),
    (("lenet.celo", "--input", "short.npz"), "labels of the shape (3,) for images of the shape"),
    (("lenet.celo", "--input", "far.npz"), "a true class is 10, and the network tells 10 apart"),
    (("lenet.celo", "--input", "pixels.npy", "--truth", "two.txt"), "true classes of the shape "
     "(2,) for 40 inputs"),
    (("lenet.celo", "--input", "pixels.npy", "--truth", "cow.txt"), "line 1, 'cow', is no class "
     "number nor one of the 10 class names"),
    (("lenet.celo", "--input", "pixels.npy", "--labels", "two.txt"), "2 labels, and the network "
     "tells 10 classes apart"),
    (("lenet.celo", "--input", "pixels.npy", "-o", "x.png"), "the network's answer has the shape "
     "(10,) and is no map"),
    (("lenet.celo", "--input", "pictures/0.png", "-o", "pictures/0.png"), "for something else too"),
    (("maps.celo", "--input", "maps.npy", "--truth", "two.txt"), "answers with a map of the shape "
     "(3, 6, 8)"),
    (("number.celo", "--input", "rgb.png", "--truth", "two.txt"), "answers with one number, which "
     "a Sigmoid at its end would make a class")])
def test_refusals(folder: Path, tmp_path: Path, monkeypatch, arguments, words: str) -> None:
    shutil.copytree(folder, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    Path("broken.png").write_bytes(Path("rgb.png").read_bytes()[:200])
    Path("mixed").mkdir()
    Path("empty").mkdir()
    shutil.copy("rgb.png", "mixed")
    Path("mixed/notes.txt").write_text("")
    Path("two.txt").write_text("0\n1\n")
    Path("cow.txt").write_text("cow\n")
    np.save("one.npy", np.float32(1))
    np.savez("one.npz", images=np.uint8(1))
    np.savez("other.npz", mantissa=IMAGES)
    np.savez("short.npz", images=IMAGES, labels=TRUTH[:3])
    np.savez("far.npz", images=IMAGES[:1], labels=np.array([10]))
    result = invoke(*arguments, status=1)
    assert result.stdout == "" and result.stderr.count("\n") == 1
    assert words in result.stderr


def test_the_best_of_equal_scores_is_the_first() -> None:
    assert best(np.array([[1.0, 3.0, 3.0, -1.0]])).tolist() == [[1, 2, 0, 3]]


def test_confusions_come_most_frequent_first() -> None:
    found = evaluate(np.array([1, 1, 2, 0, 0]), np.array([0, 0, 1, 0, 2]))
    assert found.accuracy == 0.2
    assert found.confusions == [(0, 1, 2), (1, 2, 1), (2, 0, 1)]
