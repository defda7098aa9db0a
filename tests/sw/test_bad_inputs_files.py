"""The benchmark's damaged archives and data sets: the same for a seed, and judged on their own."""

from collections import Counter
from pathlib import Path

import pytest

from celosia.cli.common import find_model, read_array
from celosia.frontend import import_model
from celosia.reading import load_safetensors
from celosia_spec.errors import CelosiaError


@pytest.fixture(scope="module")
def files():
    """The benchmark's module that writes them."""
    import bad_inputs_files

    return bad_inputs_files


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes()
            for path in folder.rglob("*") if path.is_file()}


def test_a_seed_makes_the_same_files(files, tmp_path: Path) -> None:
    made = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        made.append((list(files.cases(folder, 60, 3)), content(folder)))
    assert made[0] == made[1]
    cases = made[0][0]
    assert {case.accept for case in cases} == {True, False, None}
    assert len(Counter(case.kind for case in cases)) == 8


def imported(path: Path) -> None:
    """Read a model as `compile` does: what its own values come to is computed then."""
    model, example = find_model(str(path))
    import_model(model, example)


def test_readers_agree_with_the_judge(files, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    readers = {"net.pt2": imported, "net.onnx": imported, "w.safetensors": load_safetensors}
    tried: Counter = Counter()
    for case in files.cases(tmp_path, 140, 5):
        place = Path(case.arguments[1 if case.arguments[0] == "compile" else -1])
        read = readers.get(place.name)
        if case.arguments[0] == "run":
            read, place = read_array, Path(case.arguments[3])
        if read is None or case.accept is None:
            continue
        if case.accept is False and read is read_array and place.stat().st_size > 800:
            continue        # its shape or a NaN may be what is wrong, which comes later
        place = place if place.name in readers or read is read_array else Path(case.arguments[1])
        try:
            read(place)
            taken = True
        except CelosiaError:
            taken = False
        tried[place.suffix] += 1
        assert taken or not case.accept, case
        if read is not read_array:
            assert taken == case.accept, case
    assert min(tried[suffix] for suffix in (".pt2", ".onnx", ".npy", ".safetensors")) > 3
    assert not Path(files.RAN).exists()
