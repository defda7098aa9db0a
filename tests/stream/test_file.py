"""Files of the second machine's programs: read back, and refused with any byte changed."""

from dataclasses import asdict, replace

import numpy as np
import pytest

from celosia.bands.file import load, stream_file
from celosia.bands.schedule import stream_schedule
from celosia_spec import container
from celosia_spec.errors import CelosiaError
from celosia_spec.stream.array import Array
from stream.networks import residual_network

ARRAY = Array(main_words=1024)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("file") / "net.celo"
    stream_file(stream_schedule(residual_network(), ARRAY), target="icebreaker",
                exponents="dynamic").save(path)
    return path


@pytest.mark.parametrize("array", [ARRAY, replace(ARRAY, flash=4)], ids=["resident", "flash"])
def test_a_file_is_read_back(array, tmp_path):
    path, again = tmp_path / "a.celo", tmp_path / "b.celo"
    made = stream_file(stream_schedule(residual_network(), array), target="icebreaker",
                       exponents="dynamic")
    made.save(path)
    found = load(path)
    assert np.array_equal(found.program.entries, made.program.entries)
    assert found.program.places == made.program.places
    assert (found.program.list_at, found.program.slots) == (made.program.list_at,
                                                            made.program.slots)
    found.save(again)
    assert path.read_bytes() == again.read_bytes()


def test_any_damaged_byte_is_refused(saved, tmp_path):
    data, path = saved.read_bytes(), tmp_path / "bad.celo"
    rng = np.random.default_rng(1)
    for at in [*range(0, 64, 7), *rng.integers(64, len(data), 40).tolist()]:
        bad = bytearray(data)
        bad[at] ^= 1 << rng.integers(0, 8)
        path.write_bytes(bad)
        with pytest.raises(CelosiaError, match=str(path)):
            load(path)


def _changed(manifest, arrays, what):
    """Change one thing of a file whose sums are right."""
    if what == "stream":
        arrays["stream"] = arrays["stream"] ^ (np.arange(arrays["stream"].size).reshape(-1, 2) == 9)
        arrays["stream"] = arrays["stream"].astype(np.uint32)
    elif what == "section":
        arrays["more"] = arrays["stream"]
    elif what == "list":
        manifest["list"] += 1
    elif what == "places":
        manifest["places"]["a"][0] += 1
    elif what == "hash":
        manifest["array_hash"] ^= 1
    elif what == "array":
        manifest["machine"]["main_words"] = 1000
    elif what == "type":
        manifest["machine"]["lanes"] = "16"
    elif what == "small":
        small = replace(ARRAY, main_words=64)
        manifest["machine"], manifest["array_hash"] = asdict(small), small.hash
    elif what == "limits":
        manifest["array"]["taps"] //= 2
    else:
        del manifest["machine"]


@pytest.mark.parametrize(("what", "message"), [
    ("stream", "section 'stream' is not what"), ("section", "sections are not those"),
    ("list", "entry 'list' is not what"), ("places", "entry 'places' is not what"),
    ("hash", "another array"), ("array", "power of two"), ("type", "lanes"),
    ("small", "main memory"), ("limits", "limits"), ("missing", "'machine' is missing")])
def test_a_file_of_something_else_is_refused(saved, tmp_path, what, message):
    manifest, arrays = container.read(saved, container.STREAM_VERSION)
    _changed(manifest, arrays, what)
    path = tmp_path / "other.celo"
    container.write(path, manifest, arrays, version=container.STREAM_VERSION)
    with pytest.raises(CelosiaError, match=message) as refusal:
        load(path)
    assert "\n" not in str(refusal.value)
    assert "compile the model again" in str(refusal.value)
